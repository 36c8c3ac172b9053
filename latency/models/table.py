"""The table model: a network costs the sum of its layers as measured, plus what belongs to no layer.

Gong et al., section 5.2.1: latency by layer setting, scheme and rate. Theirs is measured on ten equal layers in a row,
so that caches are as in a network; ours inside runs of the network itself.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

from ...pruning import canonical_choice, canonical_mapping
from ...pruning.mapping import Choice, Mapping
from ...pruning.network import Network
from ..measure import STABLE
from ..probes import narrows
from ..rows import Survey, standard_error
from .base import COVERAGE, MODELS, Prediction
from .curves import Cost
from .layer import LayerCosts, by, context_spread
from .widths import NO_EFFECT, Effect, ExpectedWidths, Widths

_DEVIATIONS = NormalDist().inv_cdf((1 + COVERAGE) / 2)


@MODELS.register("table")
class TableModel:
    """Sums measured layers.

    A layer costs what its scheme costs at the share of weights that its choice and the widths that neighbours leave it
    (``ExpectedWidths``) keep; where nothing is pruned, or the choice narrows a whole channel group, what the dense
    layer costs at the widths that are left. The rest is constant.

    The band holds, as independent errors of the layers, the noise of each median and how far measurements of a layer
    lie from what the others say (``context_spread``); and, common to all, the 1 % to which a measurement is stable.
    """

    def __init__(self, network: Network, survey: Survey) -> None:
        self._network = network
        self._names = tuple(layer.name for layer in network.layers)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._expected = ExpectedWidths(network)
        self._full = self._expected.widths(Mapping(), {})
        rows = by(lambda row: row.layer, survey.rows)
        self._layers = [LayerCosts(layer, rows[layer.name]) for layer in network.layers]
        self._context = context_spread(self._layers)
        self._constant = Cost(survey.constant.ms, standard_error(survey.constant))
        self._cost = lru_cache(maxsize=1 << 16)(self._compute_cost)
        self._effect = lru_cache(maxsize=1 << 16)(self._compute_effect)
        self._widths = lru_cache(maxsize=1 << 12)(self._compute_widths)

    def predict(self, mapping: Mapping) -> Prediction:
        """Latency of the whole network under ``mapping``, with its 90 % band.

        Raises:
            PrunemapError: For a layer that the network has not, a choice that does not fit its layer, or a scheme that
                was not measured.
        """
        total, variance = self._constant.ms, self._constant.error**2
        for point in self._points(mapping):
            total += point.ms
            variance += point.error * point.error
        half = _DEVIATIONS * math.sqrt(variance + (STABLE * total) ** 2)
        return Prediction(total, max(0.0, total - half), total + half)

    def layers_ms(self, mapping: Mapping) -> tuple[float, ...]:
        """Milliseconds of every layer under ``mapping``, in the network's order.

        Raises:
            PrunemapError: As ``predict``.
        """
        return tuple(point.ms for point in self._points(mapping))

    def layer_ms(self, layer: str, choice: Choice) -> float:
        """Milliseconds of one layer under one choice while all other layers are dense.

        Raises:
            PrunemapError: As ``predict``.
        """
        index = self._index[self._network.layer(layer).name]
        return self._points(Mapping({layer: choice}))[index].ms

    def _points(self, mapping: Mapping) -> list[Cost]:
        """The cost of every layer."""
        changing = []
        for name, choice in mapping.items():
            if name not in self._index:
                self._network.layer(name)
            effect = self._effect(self._index[name], choice)
            if effect is not NO_EFFECT:
                changing.append((name, choice))
        widths, narrowing = self._widths(tuple(changing)) if changing else (self._full, frozenset())
        return [
            self._cost(index, mapping[name], widths[index], name in narrowing) for index, name in enumerate(self._names)
        ]

    def _compute_effect(self, index: int, choice: Choice) -> Effect:
        effect = self._layers[index].effect(canonical_choice(self._network.layers[index], choice))
        return effect if effect != NO_EFFECT else NO_EFFECT

    def _compute_widths(self, changing: tuple[tuple[str, Choice], ...]) -> tuple[tuple[Widths, ...], frozenset[str]]:
        """Widths of every layer, own removal included for those layers, also returned, that narrow a group."""
        mapping = canonical_mapping(self._network, Mapping(dict(changing)))
        effects = {self._index[name]: self._effect(self._index[name], choice) for name, choice in changing}
        widths = list(self._expected.widths(mapping, effects))
        narrowing = frozenset(name for name, _ in changing if narrows(self._network, name, mapping))
        for index in map(self._index.__getitem__, narrowing):
            live_in, live_out = widths[index]
            widths[index] = (live_in * effects[index].read, live_out * effects[index].written)
        return tuple(widths), narrowing

    def _compute_cost(self, index: int, choice: Choice, widths: Widths, narrowing: bool) -> Cost:
        layer = self._layers[index]
        canonical = canonical_choice(self._network.layers[index], choice)
        cost = layer.cost_narrowed(widths) if narrowing else layer.cost(canonical, widths)
        return Cost(cost.ms, math.hypot(cost.error, self._context * cost.ms))
