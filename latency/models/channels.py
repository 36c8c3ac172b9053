"""The channels model: a layer's time over its numbers of input and output channels (CompactNet, section 3.1).

CompactNet measures every number; here a coarse grid is measured inside runs of the network and interpolated. It prices
mappings that remove filters and channels, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from ...pruning import live_counts, parse_scheme
from ...pruning.errors import PrunemapError
from ...pruning.mapping import Choice, Mapping
from ...pruning.network import Network
from ..measure import STABLE
from ..probes import Probe, width_probes
from ..rows import Row, Survey, standard_error
from .base import COVERAGE, MODELS, Prediction, Weigh
from .curves import WidthSurface
from .layer import by, computed_together, steady_mean, stored_outputs

RATES = (8 / 7, 4 / 3, 2.0, 8 / 3, 4.0, 8.0)
"""Widths at which layers are measured: 7, 6, 4, 3, 2 and 1 eighths of their channels."""
_DEVIATIONS = NormalDist().inv_cdf((1 + COVERAGE) / 2)


@MODELS.register("channels")
class ChannelsModel:
    """Sums layers, each read off its grid of live input and output channels; what belongs to no layer is constant.

    The band holds the noise of the medians as independent errors, what removing each grid line would have cost in
    precision, and the 1 % to which a measurement is stable.
    """

    def __init__(self, network: Network, survey: Survey, weigh: Weigh | None = None) -> None:
        self._network = network
        rows = by(lambda row: row.layer, (row for row in survey.rows if not row.mixed))
        self._surfaces: dict[str, WidthSurface] = {}
        self._errors: dict[str, float] = {}
        for layer in network.layers:
            points = by(lambda row: (row.live_in, row.stored), rows[layer.name])
            costs = {live: steady_mean(same) for live, same in points.items()}
            full = (layer.in_channels, layer.out_channels)
            staging = {live: sum(r.staging_ms for r in same) / len(same) for live, same in points.items()}
            measured = {live: cost.ms + staging[live] for live, cost in costs.items()}
            together = computed_together(rows[layer.name], stored_outputs)
            self._surfaces[layer.name] = WidthSurface(measured, full, together=together)
            self._errors[layer.name] = math.hypot(costs[full].error, _bend(measured, full))
        self._constant = survey.constant

    @classmethod
    def probes(cls, network: Network, choices: Sequence[Choice], seed: int) -> list[Probe]:
        """The dense network, then all pairs of widths of neighbouring channel groups, the narrowest first."""
        return [Probe(Mapping(), False), *(Probe(m, False) for m in reversed(width_probes(network, RATES, len(RATES))))]

    @classmethod
    def refine(cls, network: Network, choices: Sequence[Choice], rows: Sequence[Row]) -> list[Probe]:
        """Nothing: the grid is given."""
        return []

    def predict(self, mapping: Mapping) -> Prediction:
        """Latency of the whole network under ``mapping``, with its 90 % band.

        Raises:
            PrunemapError: For a layer that the network has not, or a choice that does not remove filters or channels.
        """
        layers = self.layers_ms(mapping)
        total = self._constant.ms + sum(layers)
        variance = standard_error(self._constant) ** 2 + sum(error**2 for error in self._errors.values())
        half = _DEVIATIONS * math.sqrt(variance + (STABLE * total) ** 2)
        return Prediction(total, max(0.0, total - half), total + half)

    def layers_ms(self, mapping: Mapping) -> tuple[float, ...]:
        """Milliseconds of every layer under ``mapping``, in the network's order; errors as ``predict``."""
        for name, choice in mapping.items():
            if parse_scheme(choice.scheme).removes == "weights":
                raise PrunemapError(
                    f"layer {name!r}: the model channels prices removed filters and channels only, not {choice}; "
                    "use the model table"
                )
        counts = live_counts(self._network, mapping)
        return tuple(
            self._surfaces[layer.name].at(
                counts[layer.name].live_in / layer.in_channels, counts[layer.name].live_out / layer.out_channels
            )
            for layer in self._network.layers
        )

    def layer_ms(self, layer: str, choice: Choice) -> float:
        """Milliseconds of one layer under one choice while all other layers are dense; errors as ``predict``."""
        index = [own.name for own in self._network.layers].index(self._network.layer(layer).name)
        return self.layers_ms(Mapping({layer: choice}))[index]


def _bend(points: dict[tuple[int, int], float], full: tuple[int, int]) -> float:
    """Root mean square of what each inner point would be missed by without its own measurement, in ms.

    Time over widths is a staircase of whole vectors, not a smooth curve: a grid twice as fine errs no less between
    its points (`prunemap bench grid` tells).
    """
    missed = []
    for left_out, ms in points.items():
        others = {live: other for live, other in points.items() if live != left_out}
        if left_out != full and left_out != min(points):
            surface = WidthSurface(others, full)
            missed.append(surface.at(left_out[0] / full[0], left_out[1] / full[1]) - ms)
    return math.sqrt(sum(miss**2 for miss in missed) / len(missed)) if missed else 0.0
