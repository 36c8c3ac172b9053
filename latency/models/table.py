"""The table model: a network costs the sum of its layers as measured, plus what belongs to no layer.

Gong et al., section 5.2.1: latency by layer setting, scheme and rate. Theirs is measured on ten equal layers in a row,
so that caches are as in a network; ours inside runs of the network itself.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import NormalDist

from ...pruning import canonical_choice
from ...pruning.choices import lone_reader
from ...pruning.mapping import Choice, Mapping
from ...pruning.network import Network
from .._pricing import Option, Predictor
from ..alike import Key, layer_keys
from ..measure import STABLE
from ..probes import EVERY, Probe, probes
from ..rows import Row, Survey, standard_error
from .base import COVERAGE, MODELS, Prediction, Weigh
from .curves import Cost, DensityCurve
from .layer import LayerCosts, by, context_spread, staging_curve
from .refine import Refiner
from .widths import ExpectedWidths

DOUBT = 0.01
"""Standard deviation of a network's time, as a share of it, by which weights are kept: beyond it, it is looked up."""
_DEVIATIONS = NormalDist().inv_cdf((1 + COVERAGE) / 2)


@MODELS.register("table")
class TableModel:
    """Sums measured layers.

    A layer costs what its scheme costs at the weights that its choice and its neighbours leave it (``ExpectedWidths``);
    where nothing is pruned, or the choice narrows a whole channel group, what the dense layer costs at the widths that
    are left. The rest is constant.

    The band holds, as independent errors of the layers, the noise of each median, how far measurements of a layer lie
    from what the others say (``context_spread``) and what depends on the weights by chance, unless looked up; and,
    common to all, the 1 % to which a measurement is stable.
    """

    layer_costs = LayerCosts
    """How one layer is priced."""

    def __init__(self, network: Network, survey: Survey, weigh: Weigh | None = None) -> None:
        self._network = network
        self._weigh = weigh
        self._index = {layer.name: index for index, layer in enumerate(network.layers)}
        keys = layer_keys(network)
        rows = by(lambda row: keys[row.layer], survey.rows)
        least = min(row.ms - row.staging_ms for row in survey.rows)
        self._touched: defaultdict[int, float] = defaultdict(float)
        for row in survey.rows:
            self._touched[row.probe] += row.ms - row.staging_ms
        priced: dict[Key, LayerCosts] = {}
        for layer in network.layers:
            features = layer.in_channels // network.groups[network.reads[layer.name]].channels
            key = keys[layer.name]
            priced[key] = priced.get(key) or self.layer_costs(layer, rows[key], features, least)
        self._layers = {name: priced[keys[name]] for name in self._index}
        self._context = context_spread(priced.values())
        self._constant = Cost(survey.constant.ms, standard_error(survey.constant))
        self._lone_readers = {lone_reader(network, group) for group in network.groups}
        self._predictor = self._make_predictor()

    @classmethod
    def probes(cls, network: Network, choices: Sequence[Choice], seed: int) -> list[Probe]:
        """Every other rate of each scheme once, and its ends, mostly in mixed company; and a coarse grid of widths."""
        return probes(network, choices, seed, EVERY)

    @classmethod
    def refine(cls, network: Network, choices: Sequence[Choice], rows: Sequence[Row]) -> list[Probe]:
        """Where what is measured is least sure; see ``Refiner``."""
        return Refiner(network, choices)(rows)

    def predict(self, mapping: Mapping) -> Prediction:
        """Latency of the whole network under ``mapping``, with its 90 % band.

        Raises:
            PrunemapError: For a layer that the network has not, a choice that does not fit its layer, or a scheme that
                was not measured.
        """
        ms, error, spread, doubt = self._predictor.total(mapping.items(), self._prepare)
        if self._weigh and doubt > DOUBT * ms:
            ms, error, spread, _ = self._predictor.total(mapping.items(), self._prepare, self._weigh(mapping))
        total = self._constant.ms + ms
        half = _DEVIATIONS * math.hypot(error, self._constant.error, self._context * spread, STABLE * total)
        return Prediction(total, max(0.0, total - half), total + half)

    def layers_ms(self, mapping: Mapping) -> tuple[float, ...]:
        """Milliseconds of every layer under ``mapping``, in the network's order.

        Raises:
            PrunemapError: As ``predict``.
        """
        ms, _, _, doubt = self._predictor.total(mapping.items(), self._prepare)
        left = self._weigh(mapping) if self._weigh and doubt > DOUBT * ms else ()
        return tuple(self._predictor.layers_ms(mapping.items(), self._prepare, left))

    def layer_ms(self, layer: str, choice: Choice) -> float:
        """Milliseconds of one layer under one choice while all other layers are dense.

        Raises:
            PrunemapError: As ``predict``.
        """
        return self.layers_ms(Mapping({layer: choice}))[self._index[self._network.layer(layer).name]]

    def _prepare(self, name: str, choice: Choice) -> Option:
        """A choice that no mapping had before."""
        canonical = canonical_choice(self._network.layer(name), choice)
        return self._layers[name].option(canonical, name in self._lone_readers)

    def _make_predictor(self) -> Predictor:
        expected = ExpectedWidths(self._network)
        removable = [
            (number, self._index[group.producers[0]], [self._index[name] for name in group.producers[1:]])
            for number, group in enumerate(self._network.groups)
            if not group.fixed and group.producers
        ]
        return Predictor(
            names=list(self._layers),
            layers=[layer.pricing for layer in self._layers.values()],
            graph=expected,
            writes=[self._network.writes[name] for name in self._layers],
            removable=removable,
            sharers=self._find_sharers(expected.sources),
        )

    def _find_sharers(self, sources: Sequence[int]) -> list[list[tuple[int, DensityCurve]]]:
        """Layers that read one value with equal strides, and what rearranging it costs each that is the first to."""
        groups: dict[tuple[int, tuple[int, int]], list[str]] = {}
        for layer, source in zip(self._network.layers, sources, strict=True):
            groups.setdefault((source, layer.stride), []).append(layer.name)
        found = []
        for (source, _), members in groups.items():
            curve = self._image_staging if source == len(self._network.layers) else _plane_staging
            curves = {name: curve(self._layers[name].paid) for name in members if self._layers[name].paid}
            if curves:
                first = next(iter(curves.values()))
                found.append([(self._index[name], curves.get(name, first)) for name in members])
        return found

    def _image_staging(self, paid: list[Row]) -> DensityCurve:
        """Of the network's input, which is always whole: over the time of all layers, which drive it out of caches."""
        uniform = [row for row in paid if not row.mixed] or paid  # in mixed probes not every layer has a row
        return staging_curve(uniform, lambda row: self._touched[row.probe])


def _plane_staging(paid: list[Row]) -> DensityCurve:
    return staging_curve(paid, lambda row: float(row.planes))
