"""The table model: a network costs the sum of its layers as measured, plus what belongs to no layer.

Gong et al., section 5.2.1: latency by layer setting, scheme and rate. Theirs is measured on ten equal layers in a row,
so that caches are as in a network; ours inside runs of the network itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from ...pruning import canonical_choice
from ...pruning.choices import lone_reader
from ...pruning.mapping import DENSE, Choice, Mapping
from ...pruning.network import Network
from ..alike import Key, layer_keys
from ..measure import STABLE
from ..probes import CONTEXTS, Probe, probes
from ..refine import Refiner
from ..rows import Row, Survey, standard_error
from .base import COVERAGE, MODELS, Prediction
from .curves import Cost, DensityCurve, Priced
from .layer import LayerCosts, Option, by, context_spread
from .widths import ExpectedWidths

_DEVIATIONS = NormalDist().inv_cdf((1 + COVERAGE) / 2)


_LEAST_SHARE = 1e-3


@MODELS.register("table")
class TableModel:
    """Sums measured layers.

    A layer costs what its scheme costs at the weights that its choice and its neighbours leave it (``ExpectedWidths``);
    where nothing is pruned, or the choice narrows a whole channel group, what the dense layer costs at the widths that
    are left. The rest is constant.

    The band holds, as independent errors of the layers, the noise of each median and how far measurements of a layer
    lie from what the others say (``context_spread``); and, common to all, the 1 % to which a measurement is stable.
    """

    layer_costs = LayerCosts
    """How one layer is priced."""

    def __init__(self, network: Network, survey: Survey) -> None:
        self._network = network
        self._names = tuple(layer.name for layer in network.layers)
        self._index = {name: index for index, name in enumerate(self._names)}
        keys = layer_keys(network)
        rows = by(lambda row: keys[row.layer], survey.rows)
        least = min(row.ms - row.staging_ms for row in survey.rows)
        priced: dict[Key, LayerCosts] = {}
        for layer in network.layers:
            features = layer.in_channels // network.groups[network.reads[layer.name]].channels
            key = keys[layer.name]
            priced[key] = priced.get(key) or self.layer_costs(layer, rows[key], features, least)
        self._layers = [priced[keys[name]] for name in self._names]
        self._context = context_spread(priced.values())
        self._constant = Cost(survey.constant.ms, standard_error(survey.constant))
        self._dense = [layer.option(DENSE) for layer in self._layers]
        self._options: dict[tuple[str, str, float], tuple[int, Option]] = {}
        self._expected = ExpectedWidths(network)
        self._siblings = self._find_siblings()
        self._all_held = self._expected.shares(self._dense, set()).held
        lone = {lone_reader(network, group) for group in network.groups}
        self._reads_alone = [name in lone for name in self._names]
        self._writes = [network.writes[name] for name in self._names]
        self._removable = [
            (number, self._index[group.producers[0]], [self._index[name] for name in group.producers[1:]])
            for number, group in enumerate(network.groups)
            if not group.fixed and group.producers
        ]

    @classmethod
    def probes(cls, network: Network, choices: Sequence[Choice], seed: int) -> list[Probe]:
        """Every choice of layers that cost alike once, in mixed company, and a coarse grid of widths."""
        return probes(network, choices, CONTEXTS, seed)

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
        ms, errors, _ = zip(*self._costs(mapping), strict=True)
        total = self._constant.ms + sum(ms)
        apart = self._constant.error, self._context * math.hypot(*ms), STABLE * total
        half = _DEVIATIONS * math.hypot(*errors, *apart)
        return Prediction(total, max(0.0, total - half), total + half)

    def layers_ms(self, mapping: Mapping) -> tuple[float, ...]:
        """Milliseconds of every layer under ``mapping``, in the network's order.

        Raises:
            PrunemapError: As ``predict``.
        """
        return tuple(cost[0] for cost in self._costs(mapping))

    def layer_ms(self, layer: str, choice: Choice) -> float:
        """Milliseconds of one layer under one choice while all other layers are dense.

        Raises:
            PrunemapError: As ``predict``.
        """
        return self.layers_ms(Mapping({layer: choice}))[self._index[self._network.layer(layer).name]]

    def _costs(self, mapping: Mapping) -> list[Priced]:
        """Per layer: ms, their error, and how often its input is staged."""
        chosen = self._dense.copy()
        effects = False
        for name, choice in mapping.items():
            try:
                index, option = self._options[name, choice.scheme, choice.rate]
            except KeyError:
                index, option = self._prepare(name, choice)
            chosen[index] = option
            effects = effects or option.written < 1.0 or option.unread > 0.0
        if not effects:
            return self._with_staging([option.alone for option in chosen], self._all_held)
        return self._beside_one_another(chosen)

    def _beside_one_another(self, chosen: list[Option]) -> list[Priced]:
        """The same where choices take channels from other layers."""
        alike = self._alike(chosen)
        zero, unneeded, held = self._expected.shares(chosen, alike)
        found = []
        # The layers' own values come first among all values.
        for option, layer, group, source, skipped, place in zip(
            chosen, self._layers, self._writes, self._expected.sources, unneeded, held, strict=False
        ):
            kept = (1.0 - zero[source]) * (1.0 - skipped)
            if kept == place == 1.0:
                found.append(option.alone)
                continue
            stored = place if place > _LEAST_SHARE else _LEAST_SHARE
            if option.whole or (option.written < 1.0 and group in alike):
                found.append(layer.narrowed(kept * option.density, stored))
            else:
                found.append(layer.sparse(option, kept, stored))
        return self._with_staging(found, held)

    def _prepare(self, name: str, choice: Choice) -> tuple[int, Option]:
        layer = self._network.layer(name)
        index = self._index[name]
        option = self._layers[index].option(canonical_choice(layer, choice), self._reads_alone[index])
        self._options[name, choice.scheme, choice.rate] = index, option
        return index, option

    def _alike(self, chosen: list[Option]) -> set[int]:
        """Channel groups whose producers all remove the same filters: the neighbours lose these channels too."""
        return {
            group
            for group, first, others in self._removable
            if chosen[first].written < 1.0 and (not others or self._agree(chosen, first, others))
        }

    def _agree(self, chosen: list[Option], first: int, others: Sequence[int]) -> bool:
        choice = chosen[first].choice
        return all(chosen[other].choice == choice for other in others)

    def _with_staging(self, costs: list[Priced], held: Sequence[float]) -> list[Priced]:
        """The costs with that of rearranging inputs: the first layer that needs it pays for all that share it."""
        sources = self._expected.sources
        for siblings in self._siblings:
            left = 1.0
            for index, staging in siblings:
                ms, error, staged = costs[index]
                if staged:
                    paid = staging.at(held[sources[index]])[0]
                    costs[index] = ms + left * staged * paid, error, staged
                    left *= 1.0 - staged
        return costs

    def _find_siblings(self) -> list[list[tuple[int, DensityCurve]]]:
        """Layers that read one value with equal strides, and what rearranging it costs each that is the first to."""
        groups: dict[tuple[int, tuple[int, int]], list[int]] = {}
        for index, source in enumerate(self._expected.sources):
            groups.setdefault((source, self._network.layers[index].stride), []).append(index)
        found = []
        for members in groups.values():
            paid = [curve for index in members if (curve := self._layers[index].staging)]
            if paid:
                found.append([(index, self._layers[index].staging or paid[0]) for index in members])
        return found
