"""Which probes to measure next: those that tell most where prediction by what is measured so far is least sure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ...pruning.mapping import DENSE, Choice, Mapping
from ...pruning.network import LayerSpec, Network
from ..alike import Key, layer_keys
from ..probes import Probe, own_choices, with_smallest
from ..rows import Row, kept_share
from .curves import AS_DENSE
from .layer import ENOUGH, LayerCosts, Point

GOOD_ENOUGH = 0.005
"""Expected error of a random mapping, as a share of the dense network, at which measuring ends."""
BATCH = 8
"""Probes that are measured together."""
_LINE, _BEND = 0.15, 0.3
"""Expected error halfway between two measured points, as a share of the difference of their costs: of a straight line,
and where the layer begins to be computed as if it were dense, at a place that is a guess."""
_SAME = 0.05
"""Difference of two shares of kept weights, as a share of one, that chance may make."""


class Refiner:
    """Proposes probes whose every layer takes the choice that is least sure for layers like it.

    A choice between two measured ones is expected to be missed by a share of their difference; a measured one by how
    far it lies from the line through its neighbours, less the more often it was measured. Layers that cost alike add
    up.
    """

    def __init__(self, network: Network, choices: Sequence[Choice]) -> None:
        self._network = network
        keys = layer_keys(network)
        self._members: dict[Key, list[LayerSpec]] = {}
        for layer in network.layers:
            self._members.setdefault(keys[layer.name], []).append(layer)
        catalogue = with_smallest(choices)
        self._choices = {
            key: [c for c in own_choices(network, members[0], catalogue) if c != DENSE]
            for key, members in self._members.items()
        }

    def __call__(self, rows: Iterable[Row]) -> list[Probe]:
        """The next probes; none when what is measured is good enough."""
        by_layer: dict[str, list[Row]] = {}
        for row in rows:
            by_layer.setdefault(row.layer, []).append(row)
        least = min(row.ms - row.staging_ms for row in rows)
        doubts = {key: self._doubts(key, by_layer, least) for key in self._members}
        dense_ms = sum(row.ms for own in by_layer.values() for row in own[:1])
        if self._expected_error(doubts) <= GOOD_ENOUGH * dense_ms:
            return []
        return [Probe(self._least_sure(doubts), True) for _ in range(BATCH)]

    def _expected_error(self, doubts: dict[Key, dict[Choice, float]]) -> float:
        """Of a mapping that takes any choice for every layer: layers alike err alike, others independently."""
        squares = (
            (len(self._members[key]) ** 2) * sum(doubt**2 for doubt in own.values()) / len(own)
            for key, own in doubts.items()
            if own
        )
        return math.sqrt(sum(squares))

    def _least_sure(self, doubts: dict[Key, dict[Choice, float]]) -> Mapping:
        """One mapping; what it takes counts as half as doubtful from now on."""
        chosen = {}
        for key, own in doubts.items():
            for layer in self._members[key] if own else ():
                choice = max(own, key=lambda c: own[c])
                own[choice] /= 2
                chosen[layer.name] = choice
        return Mapping(chosen)

    def _doubts(self, key: Key, by_layer: dict[str, list[Row]], least: float) -> dict[Choice, float]:
        layer = self._members[key][0]
        rows = [row for member in self._members[key] for row in by_layer.get(member.name, [])]
        costs = LayerCosts(layer, rows, 1, least)
        shares = {choice: kept_share(layer, choice) for choice in self._choices[key]}
        found: dict[Choice, float] = {}
        for scheme in sorted({choice.scheme for choice in shares}):
            told = costs.points.get(scheme, [])
            points = [point for point in told if point.extent >= ENOUGH] or told
            for choice in (choice for choice in shares if choice.scheme == scheme):
                times = sum(row.choice == choice for row in rows)
                found[choice] = _doubt(shares[choice], [*points, costs.dense], times)
        return found


def _doubt(share: float, points: Sequence[Point], times: int) -> float:
    """Expected error in ms of a curve through ``points``, the last the dense layer, of a choice measured so often."""
    nearest = min(points, key=lambda point: abs(point.share - share))
    here = nearest if abs(nearest.share - share) < _SAME * share else None
    below = [point for point in points if point is not here and point.share < share]
    above = [point for point in points if point is not here and point.share > share]
    if not below or not above:
        return 0.0 if here else points[0].cost.ms
    low, high = below[-1].cost.ms, above[0].cost.ms
    bends = low < AS_DENSE * points[-1].cost.ms <= high
    guess = (_BEND if bends else _LINE) * abs(high - low)
    if not here:
        return guess
    part = (share - below[-1].share) / (above[0].share - below[-1].share)
    return min(abs(here.cost.ms - low - part * (high - low)), guess) / (2 * max(times, 1))
