"""Which probes to measure next: those that tell most where prediction by what is measured so far is least sure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..pruning.mapping import DENSE, Choice, Mapping
from ..pruning.network import LayerSpec, Network
from .alike import Key, layer_keys
from .probes import Probe, own_choices, with_ends
from .rows import Row, kept_share

GOOD_ENOUGH = 0.005
"""Expected error of a random mapping, as a share of the dense network, at which measuring ends."""
BATCH = 8
"""Probes that are measured together."""
_BEND = 0.15
"""Expected error halfway between two measured points, as a share of the difference of their costs."""


@dataclass
class _Point:
    """Measurements of one choice in layers that cost alike.

    Attributes:
        share: Share of weights that the choice keeps.
        ms: The times, each scaled to all outputs.
    """

    share: float
    ms: list[float]

    @property
    def mean(self) -> float:
        return sum(self.ms) / len(self.ms)


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
        catalogue = with_ends(choices)
        self._choices = {
            key: [c for c in own_choices(network, members[0], catalogue) if c != DENSE]
            for key, members in self._members.items()
        }

    def __call__(self, rows: Iterable[Row]) -> list[Probe]:
        """The next probes; none when what is measured is good enough."""
        by_layer: dict[str, list[Row]] = {}
        for row in rows:
            by_layer.setdefault(row.layer, []).append(row)
        doubts = {key: self._doubts(key, by_layer) for key in self._members}
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

    def _doubts(self, key: Key, by_layer: dict[str, list[Row]]) -> dict[Choice, float]:
        layer = self._members[key][0]
        rows = [row for member in self._members[key] for row in by_layer.get(member.name, [])]
        found: dict[Choice, float] = {}
        dense = [row.ms - row.staging_ms for row in rows if row.choice == DENSE and row.kept == 1.0]
        for scheme in {choice.scheme for choice in self._choices[key]}:
            own = [choice for choice in self._choices[key] if choice.scheme == scheme]
            shares = {choice: kept_share(layer, choice) for choice in own}
            points = [_Point(1.0, dense)] if dense else []
            for choice in own:
                times = [
                    (row.ms - row.staging_ms) * layer.out_channels / row.stored
                    for row in rows
                    if row.choice == choice and 2 * row.stored > layer.out_channels
                ]
                if times:
                    points.append(_Point(shares[choice], times))
            points.sort(key=lambda point: point.share)
            found |= {choice: _doubt(shares[choice], points) for choice in own}
        return found


def _doubt(share: float, points: Sequence[_Point]) -> float:
    """Expected error in ms of a curve through ``points`` at ``share``."""
    below = [point for point in points if point.share < share]
    above = [point for point in points if point.share > share]
    here = [point for point in points if point.share == share]
    if not below or not above:
        return 0.0 if here else math.inf if not points else points[0].mean
    low, high = below[-1], above[0]
    if not here:
        return _BEND * abs(high.mean - low.mean)
    part = (share - low.share) / (high.share - low.share)
    missed = abs(here[0].mean - low.mean - part * (high.mean - low.mean))
    return min(missed, _BEND * abs(high.mean - low.mean)) / (2 * len(here[0].ms))
