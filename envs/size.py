"""How large a mapping leaves a network, counted without weights."""

from __future__ import annotations

from dataclasses import dataclass

from ..pruning import live_counts, stored_bytes
from ..pruning.mapping import Mapping
from ..pruning.network import Network


@dataclass(frozen=True)
class Size:
    """Size of a network under a mapping.

    Attributes:
        macs: Multiply-accumulates by kept weights, for one input.
        kept_weights: Weights that stay, biases not counted.
        rate: All weights / kept weights.
        stored_bytes: Kept weights and what says where they are; see ``pruning.stored_bytes``.
    """

    macs: int
    kept_weights: int
    rate: float
    stored_bytes: int


def size_under(network: Network, mapping: Mapping) -> Size:
    """Count what ``mapping`` leaves of ``network``.

    Raises:
        PrunemapError: For a layer that the network has not, or a choice that does not fit its layer.
    """
    counts = live_counts(network, mapping)
    kept = sum(count.kept_weights for count in counts.values())
    return Size(
        macs=sum(count.macs for count in counts.values()),
        kept_weights=kept,
        rate=network.weights / kept,
        stored_bytes=sum(stored_bytes(layer, counts[layer.name], mapping[layer.name]) for layer in network.layers),
    )
