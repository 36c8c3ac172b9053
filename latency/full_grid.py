"""The channels model against every width: what interpolating between a coarse grid's points costs in precision.

CompactNet (section 3.1) measures a layer at every number of input and output channels. The model ``channels`` measures
a few and interpolates; here one layer is measured at all of them, inside runs of its network as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..pruning import Choice, Mapping, misfit
from ..pruning.errors import PrunemapError
from ..pruning.network import Network
from .probes import Probe
from .profile import Profile
from .survey import Progress, survey


@dataclass(frozen=True)
class Width:
    """One width of a layer.

    Attributes:
        live_in: Input channels that are left.
        live_out: Filters that are left.
        predicted_ms: Read off the coarse grid.
        measured_ms: As measured.
    """

    live_in: int
    live_out: int
    predicted_ms: float
    measured_ms: float


@dataclass(frozen=True)
class GridError:
    """Errors of a coarse grid over all widths.

    Attributes:
        layer: The layer.
        widths: How many were measured.
        mean: Mean absolute relative error.
        of_dense: Mean absolute error, as a share of the layer's time at full width.
        largest: Largest absolute relative error.
    """

    layer: str
    widths: int
    mean: float
    of_dense: float
    largest: float

    @classmethod
    def of(cls, layer: str, widths: list[Width]) -> GridError:
        """Summarise the widths of a layer; the last one is full."""
        predicted, measured = np.array([(width.predicted_ms, width.measured_ms) for width in widths]).T
        missed = np.abs(predicted - measured)
        relative = missed / measured
        return cls(
            layer, len(widths), float(relative.mean()), float(missed.mean() / measured[-1]), float(relative.max())
        )


def full_grid(network: Network, layer: str) -> list[Mapping]:
    """Mappings under which ``layer`` has every number of input channels with every number of filters, from 1 to all.

    Only the two channel groups beside the layer are narrowed. The narrowest comes first, the dense network last.

    Raises:
        PrunemapError: For an unknown layer, or one whose inputs and filters cannot be removed apart from one another.
    """
    network.layer(layer)
    read, written = network.reads[layer], network.writes[layer]
    if read == written:
        raise PrunemapError(f"layer {layer!r}: its inputs and filters are removed together; take another layer")
    return [
        Mapping({**inputs, **filters}) for inputs in _widths(network, read) for filters in _widths(network, written)
    ]


def _widths(network: Network, index: int) -> Iterator[dict[str, Choice]]:
    """For every number of channels of a group, the choices that leave so many; only all of them where it is fixed."""
    group = network.groups[index]
    fixed = group.fixed or any(misfit(network.layer(name), Choice("filter", 2.0)) for name in group.producers)
    for left in range(1, 1 if fixed else group.channels):
        yield dict.fromkeys(group.producers, Choice("filter", group.channels / left))
    yield {}


def check_grid(profile: Profile, layer: str, progress: Progress | None = None) -> list[Width]:
    """Measure one layer at every width, on this machine, beside what the model ``channels`` reads off its profile.

    Args:
        profile: Measured on this machine, for the model ``channels``.
        layer: The layer.
        progress: As ``Profile.build``.

    Returns:
        All widths, in the order of ``full_grid``: full width last.

    Raises:
        PrunemapError: As ``full_grid``, or for a profile of another machine or model.
    """
    if profile.planned_for != "channels":
        raise PrunemapError(f"profile planned for the model {profile.planned_for}: it holds no grid of widths")
    profile.check_machine()
    network, model = profile.network, profile.model()
    mappings = full_grid(network, layer)
    ordered = [mappings[-1], *mappings[:-1]]
    found = survey(
        network,
        [Probe(mapping, False) for mapping in ordered],
        threads=profile.threads,
        isa=profile.machine.isa,
        seed=profile.seed,
        progress=progress,
    )
    index = [own.name for own in network.layers].index(layer)
    widths = [
        Width(row.live_in, row.stored, model.layers_ms(ordered[row.probe])[index], row.ms)
        for row in found.rows
        if row.layer == layer
    ]
    return [*widths[1:], widths[0]]
