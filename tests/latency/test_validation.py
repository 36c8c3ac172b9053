from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.latency import validation
from prunemap.latency.validation import AGAIN, Drawn, Trial, validate
from prunemap.pruning import Mapping

Paces = Callable[[int, int], float]
"""Of a mapping, by its place, the time it is measured."""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Paces, int], tuple[list[Trial], list[list[int]], list[Any]]]:
    """Validate some mappings on a machine whose pace is told; what was found, measured together, and reported."""

    def run(pace: Paces, count: int) -> tuple[list[Trial], list[list[int]], list[Any]]:
        drawn = [Drawn("independent", Mapping(), SimpleNamespace(ms=float(i))) for i in range(count)]
        places = {id(one): i for i, one in enumerate(drawn)}
        groups: list[list[int]] = []

        def measure(profile: Any, dense: Any, group: Sequence[tuple[Drawn, Any]]) -> Iterator[Trial]:
            groups.append([places[id(one)] for one, _ in group])
            for one, _ in group:
                place = places[id(one)]
                now = pace(place, sum(place in earlier for earlier in groups) - 1)
                yield Trial(one, SimpleNamespace(pace=now, disturbed=now > 1.03), 1.0, (), ())

        memory = SimpleNamespace(weights=1, indices=1, activations=1)
        monkeypatch.setattr(validation, "_measure", measure)
        monkeypatch.setattr(validation, "apply_mapping", lambda *_: None)
        monkeypatch.setattr(validation, "compile_network", lambda *_: SimpleNamespace(memory=memory))
        profile: Any = SimpleNamespace(threads=1, network=None, machine=SimpleNamespace(isa="portable"))
        told: list[Any] = []
        trials = validate(profile, nn.Identity(), torch.zeros(1), drawn, lambda *state: told.append(state))
        assert [trial.drawn for trial in trials] == drawn
        return trials, groups, told

    return run


class Steps:
    """A network of three equal steps; whole runs take a microsecond more."""

    threads, isa = 1, "auto"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def time_steps(self, repeats: int, chosen: Sequence[int] | None = None) -> np.ndarray:
        return np.full((repeats, 3 if chosen is None else len(chosen)), self.seconds)

    def time(self, repeats: int) -> np.ndarray:
        return np.full(repeats, 3 * self.seconds + 1e-6)


@pytest.mark.parametrize(("seconds", "whole_ms"), [(1e-3, [3.0, 1.5]), (1e-5, [0.031, 0.016])])
def test_long_networks_are_the_sum_of_their_steps(seconds: float, whole_ms: list[float]) -> None:
    networks: Any = [Steps(seconds), Steps(seconds / 2)]
    measured, steps = validation._measured(networks)
    assert [one.ms for one in measured] == pytest.approx(whole_ms)
    assert not any(one.unstable or one.disturbed for one in measured)
    assert steps[1].tolist() == pytest.approx([500 * seconds] * 3)


def test_quiet_measurements_are_made_once(measured: Any) -> None:
    _, groups, told = measured(lambda place, time: 1.0, 40)
    assert groups == [list(range(25)), list(range(25, 40))]
    assert told[-1][:2] == (40, 40)


def test_disturbed_ones_are_made_again_when_the_others_are_done(measured: Any) -> None:
    trials, groups, _ = measured(lambda place, time: 1.5 if place in (1, 30) and time == 0 else 1.0, 40)
    assert groups[2:] == [[1, 30]]
    assert all(trial.measured.pace == 1.0 for trial in trials)


def test_a_machine_that_stays_disturbed_is_not_waited_for(measured: Any) -> None:
    trials, groups, told = measured(lambda place, time: (1.3, 1.1, 1.2)[time], 3)
    assert groups == [[0, 1, 2]] * (1 + AGAIN)
    assert all(trial.measured.pace == 1.1 for trial in trials)
    assert told[-1][:2] == (3, 3)
