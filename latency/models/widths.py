"""How many channels of every layer are expected to be live under a mapping, by its place in the graph.

``pruning.live_counts`` counts by channel groups and never less than there is. Kernels see more: the value of a layer
before a residual addition has that layer's zeros, though its group is whole; and what all readers of a value leave
unread is not computed. Here both are followed through the graph as shares of channels, which layers choose
independently of one another unless they choose as a group.
"""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass

from ...pruning.choices import shared_filters
from ...pruning.mapping import Mapping
from ...pruning.network import Network

Widths = tuple[float, float]
"""Live input and output channels of a layer."""


@dataclass(frozen=True)
class Effect:
    """What a choice does to channels.

    Attributes:
        written: Share of the layer's filters that stay.
        read: Share of its input channels that it reads.
    """

    written: float = 1.0
    read: float = 1.0


NO_EFFECT = Effect()


@dataclass(frozen=True)
class _Operation:
    """A layer, an addition (``layer`` is None) or a function with f(0) != 0 (``opaque``), between values."""

    sources: tuple[int, ...]
    layer: int | None
    follows: bool = False
    opaque: bool = False
    group: int = -1


class ExpectedWidths:
    """Shares of live channels through a network. Values are numbered: 0 is the input, i + 1 what operation i makes."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._full = [(layer.in_channels, layer.out_channels) for layer in network.layers]
        index = {layer.name: i for i, layer in enumerate(network.layers)}
        writers = {name: group for group, members in enumerate(network.groups) for name in members.producers}
        value_of: dict[str, int] = {network.nodes[0].name: 0}
        made_by: list[str] = [""]
        self._operations: list[_Operation] = []
        for node in network.nodes[1:]:
            sources = tuple(value_of[name] for name in node.inputs)
            layer = index.get(node.target or "")
            if layer is None and node.op != "add" and node.keeps_zero:
                value_of[node.name] = sources[0]
                continue
            follows = layer is not None and network.layers[layer].follows
            made_by.append(node.target if layer is not None and node.target else made_by[sources[0]])
            group = writers.get(made_by[-1], -1)
            self._operations.append(_Operation(sources, layer, follows, not node.keeps_zero, group))
            value_of[node.name] = len(self._operations)
        self._output = value_of[network.nodes[-1].name]

    def widths(self, mapping: Mapping, effects: AbstractMapping[int, Effect]) -> tuple[Widths, ...]:
        """Live channels that neighbours leave to every layer, without the effect of its own choice.

        Args:
            mapping: Canonical choices.
            effects: Layer number -> effect, for the layers whose choice has one.
        """
        zero = self._zero_shares(mapping, effects)
        unneeded = self._unneeded_shares(effects)
        found: list[Widths] = list(self._full)
        for number, operation in enumerate(self._operations, start=1):
            if operation.layer is not None:
                live_in, live_out = self._full[operation.layer]
                produced, needed = 1.0 - zero[operation.sources[0]], 1.0 - unneeded[number]
                if operation.follows:
                    produced = needed = produced * needed
                found[operation.layer] = (live_in * produced, live_out * needed)
        return tuple(found)

    def _zero_shares(self, mapping: Mapping, effects: AbstractMapping[int, Effect]) -> list[float]:
        """Share of channels of each value that are zero."""
        zero = [0.0]
        for operation in self._operations:
            given = [zero[source] for source in operation.sources]
            if operation.opaque:
                zero.append(0.0)
            elif operation.layer is not None:
                own = 1.0 - effects.get(operation.layer, NO_EFFECT).written
                zero.append(given[0] if operation.follows else own)
            elif all(given) and self._alike(operation.group, mapping):
                zero.append(min(given))
            else:
                zero.append(_product(given))
        return zero

    def _unneeded_shares(self, effects: AbstractMapping[int, Effect]) -> list[float]:
        """Share of channels of each value that nobody reads."""
        unneeded = [1.0] * (len(self._operations) + 1)
        unneeded[self._output] = 0.0
        for number in range(len(self._operations), 0, -1):
            operation = self._operations[number - 1]
            skipped = unneeded[number]
            if operation.opaque:
                skipped = 0.0
            elif operation.layer is not None:
                read = effects.get(operation.layer, NO_EFFECT).read
                skipped = 1.0 - read * (1.0 - skipped) if operation.follows else 1.0 - read
            for source in operation.sources:
                unneeded[source] *= skipped
        return unneeded

    def _alike(self, group: int, mapping: Mapping) -> bool:
        return group >= 0 and shared_filters(self._network.groups[group], mapping) is not None


def _product(shares: list[float]) -> float:
    result = 1.0
    for share in shares:
        result *= share
    return result
