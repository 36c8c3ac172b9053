"""What counts of the rounds in which probes are timed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prunemap.kernels import isas
from prunemap.kernels.pace import Pace
from prunemap.latency import survey
from prunemap.latency.batches import FEWEST
from prunemap.latency.probes import Probe
from prunemap.pruning import Choice, Mapping, Network


@pytest.mark.parametrize(("quiet_rounds", "ms"), [(0, 3.0), (FEWEST - 1, 2.0), (FEWEST, 2.0), (9, 2.0)])
def test_a_layer_is_told_by_quiet_rounds_or_the_quietest(quiet_rounds: int, ms: float) -> None:
    steps = [
        SimpleNamespace(op=op, layer=layer) for op, layer in (("stage", "a"), ("convolution", "a"), ("pool", None))
    ]
    compiled: Any = SimpleNamespace(steps=steps)
    weights: Any = {"a": None}
    subject = survey._Subject(0, Probe(Mapping(), False), compiled, weights, lambda runs: np.ones((runs, 3)), 1, False)
    taken = np.tile([0.5, 2.5, 1.0], (9, 1))
    pace = np.ones((9, 3))
    pace[quiet_rounds:, 0] = 1.2 + 0.01 * np.arange(9 - quiet_rounds)  # that of the worst of a layer's steps counts
    taken[:quiet_rounds, 1] = 1.5
    subject.take_steps(taken, pace)
    assert np.median(subject.parts["a"]) == pytest.approx(ms)
    assert len(subject.parts["a"]) == max(quiet_rounds, FEWEST)
    assert len(subject.parts[""]) == 9
    assert subject.staging["a"] == pytest.approx(0.5)
    assert subject.whole.ms == pytest.approx(ms + 1.0)


def test_a_quiet_evaluation_counts_before_a_steady_one() -> None:
    steps = [SimpleNamespace(op="convolution", layer="a")]
    compiled: Any = SimpleNamespace(steps=steps)
    weights: Any = {"a": None}
    rounds, quiet = np.linspace(1.9, 2.1, 9)[:, None], np.ones((9, 1))
    for order in (1, -1):
        subject = survey._Subject(
            0, Probe(Mapping(), False), compiled, weights, lambda runs: np.ones((runs, 1)), 1, True
        )
        for ms, beside in [(rounds, quiet), (np.full((9, 1), 3.0), 1.2 * quiet)][::order]:
            subject.take_steps(ms, beside)
            subject.take_whole(ms[:, 0], beside[:, 0])
        assert np.median(subject.parts["a"]) == pytest.approx(2.0)
        assert subject.whole.ms == pytest.approx(2.0)


@pytest.mark.parametrize("isa", isas())
def test_long_networks_are_surveyed_in_parts(network: Network, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunemap.latency.batches.LONG_SECONDS", 0.0)
    monkeypatch.setattr("prunemap.latency.batches.PART_SECONDS", 0.0)
    looks: list[float] = []

    def look(pace: Pace) -> float:
        looks.append(1.0)
        return 1.0

    monkeypatch.setattr(Pace, "__call__", look)
    probes = [Probe(Mapping(), False), Probe(Mapping({"conv1": Choice("simd:8", 4.0)}), True)]
    found = survey.survey(network, probes, threads=1, isa=isa, seed=0)
    rows = {row.layer: row.ms for row in found.rows if row.probe == 0}
    assert set(rows) == {layer.name for layer in network.layers}
    assert found.dense.ms == pytest.approx(sum(rows.values()) + found.constant.ms)
    assert len(looks) > 2 * survey.ROUNDS * len(network.layers)
