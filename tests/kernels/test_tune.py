"""Which candidates are timed, and which wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.kernels import isas, tune
from prunemap.kernels.candidate import Candidate
from prunemap.kernels.candidates import enumerate_candidates, other_orders
from prunemap.kernels.rates import nominal_rates
from prunemap.kernels.task import Task

TasksOf = Callable[[nn.Module, torch.Tensor], list[Task]]


class Clock:
    """Stands for ``Alone``: candidates take what a function says, and it is noted which were timed."""

    def __init__(self, seconds: Callable[[Candidate], float]) -> None:
        self._seconds = seconds
        self.timed: list[Candidate] = []

    def __call__(self, task: Task, candidates: Sequence[Candidate], isa: str, threads: int) -> Clock:
        self._candidates = [*candidates]
        return self

    def add(self, candidates: Sequence[Candidate]) -> None:
        self._candidates += candidates

    def time(self, which: Sequence[int]) -> Any:
        self.timed += [self._candidates[index] for index in which]
        return np.array([self._seconds(self._candidates[index]) for index in which])


def quiet() -> float:
    return 1.0


def ranked(task: Task) -> list[Candidate]:
    return tune.promising(task, isas()[0], nominal_rates(isas()[0]))


def test_only_what_came_close_is_timed_in_the_other_order(tasks_of: TasksOf, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1)), torch.zeros(1, 16, 14, 14)
    with torch.no_grad():
        model[0].weight *= torch.rand(model[0].weight.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    (task,) = tasks_of(model, images)
    first, second, *far = ranked(task)
    assert far
    times = {first: 1.05e-3, second: 1.0e-3, replace(first, runs_outer=False): 0.95e-3}
    clock = Clock(lambda candidate: times.get(candidate, 3e-3))
    monkeypatch.setattr(tune, "Alone", clock)
    assert tune._fastest(task, ranked(task), isas()[0], 1, pace=quiet) == replace(first, runs_outer=False)
    assert {c for c in clock.timed if not c.runs_outer} == {replace(c, runs_outer=False) for c in (first, second)}
    assert all(clock.timed.count(candidate) == 1 for candidate in far)
    assert all(clock.timed.count(candidate) > 2 for candidate in (first, second))


def test_what_was_disturbed_is_timed_again(tasks_of: TasksOf, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = tasks_of(nn.Sequential(nn.Conv2d(16, 32, 3, padding=1)), torch.zeros(1, 16, 14, 14))
    best, *_ = ranked(task)
    slowed = iter([1.35e-3] * 3)  # no longer close enough, were it not for the pace
    clock = Clock(lambda candidate: next(slowed, 0.9e-3) if candidate == best else 1e-3)
    monkeypatch.setattr(tune, "Alone", clock)

    def slowed_pace() -> float:
        return 1.5 if clock.timed[-1:] == [best] and next(slowed_beside, False) else 1.0

    slowed_beside = iter([True] * 4)
    assert tune._fastest(task, ranked(task), isas()[0], 1, pace=slowed_pace) == best


def test_patience_with_a_slow_machine_ends(tasks_of: TasksOf, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = tasks_of(nn.Sequential(nn.Conv2d(16, 32, 3, padding=1)), torch.zeros(1, 16, 14, 14))
    best, *_ = ranked(task)
    clock = Clock(lambda candidate: 1e-3 if candidate == best else 1.1e-3)
    monkeypatch.setattr(tune, "Alone", clock)
    assert tune._fastest(task, ranked(task), isas()[0], 1, pace=lambda: 1.4) == best
    assert len(clock.timed) * 1e-3 < 3 * tune.PATIENCE_SECONDS
    sooner = Clock(lambda candidate: 1e-3 if candidate == best else 1.1e-3)
    monkeypatch.setattr(tune, "Alone", sooner)
    assert tune._fastest(task, ranked(task), isas()[0], 1, pace=quiet) == best
    assert len(sooner.timed) < len(clock.timed)


def test_inputs_that_are_read_once_are_timed_with_a_panel(tasks_of: TasksOf, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = tasks_of(nn.Sequential(nn.Conv2d(16, 32, 1)), torch.zeros(1, 16, 14, 14))
    first = next(c for c in ranked(task) if c.family == "pixels")
    best = replace(first, runs_outer=False, panel=True)
    clock = Clock(lambda candidate: 1.9e-3 if candidate == best else 2e-3)
    monkeypatch.setattr(tune, "Alone", clock)
    assert tune._fastest(task, ranked(task), isas()[0], 1, pace=quiet) == best
    assert not any(c.panel for c in clock.timed if c.family == "channels" or c.runs_outer)
    (taps,) = tasks_of(nn.Sequential(nn.Conv2d(16, 32, 3, padding=1)), torch.zeros(1, 16, 14, 14))
    assert not any(other.panel for c in ranked(taps) for other in other_orders(taps, c))


def test_how_the_layer_is_computed_when_nothing_is_pruned_is_settled(
    tasks_of: TasksOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PRUNEMAP_CACHE", str(tmp_path))
    monkeypatch.setattr(tune, "machine_pace", lambda: quiet)
    monkeypatch.setattr(tune, "measured_rates", nominal_rates)
    model, images = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1)), torch.zeros(1, 16, 14, 14)
    (whole,) = tasks_of(model, images)
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = 0.0
    (pruned,) = tasks_of(model, images)
    slowest = ranked(whole)[-1]
    as_dense = replace(slowest, dense=True)
    best = {slowest}
    clock = Clock(lambda candidate: 1e-3 if candidate in best else 2e-3)
    monkeypatch.setattr(tune, "Alone", clock)
    assert tune.choose(whole, isas()[0], 1, tune=True) == slowest
    clock.timed.clear()
    best.clear()
    best.add(as_dense)
    assert tune.choose(pruned, isas()[0], 1, tune=True) == as_dense
    assert {c for c in clock.timed if c.dense} == {as_dense}
    assert any(not c.dense for c in clock.timed)


def test_the_first_run_of_a_kernel_does_not_tell(tasks_of: TasksOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for its code: in a fresh process the best kernel of a small layer may run first."""
    (task,) = tasks_of(nn.Sequential(nn.Conv2d(16, 32, 3, padding=1)), torch.zeros(1, 16, 14, 14))
    best, *_ = ranked(task)
    first = iter([10e-6])
    monkeypatch.setattr(tune, "Alone", Clock(lambda c: next(first, 1e-6) if c == best else 1.3e-6))
    assert tune._fastest(task, ranked(task), isas()[0], 1, pace=quiet) == best


def test_plain_kernels_are_timed_beside_winograds(tasks_of: TasksOf) -> None:
    """With few filters transforms cost more than they save."""
    (task,) = tasks_of(nn.Sequential(nn.Conv2d(64, 8, 3, padding=1)), torch.zeros(1, 64, 56, 56))
    assert ranked(task)[0].family != "winograd"


def test_many_weights_are_read_once(tasks_of: TasksOf) -> None:
    for width, orders in ((64, True), (512, False)):
        (task,) = tasks_of(nn.Sequential(nn.Conv2d(width, width, 3, padding=1)), torch.zeros(1, width, 14, 14))
        plain = [c for c in enumerate_candidates(task, isas()[0]) if c.family != "winograd"]
        assert any(other_orders(task, c) for c in plain) == orders


def test_one_candidate_is_not_timed(tasks_of: TasksOf, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = tasks_of(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.zeros(1, 3, 2, 2))
    monkeypatch.setattr(tune, "Alone", lambda *_: pytest.fail("timed"))
    (candidate, *_) = ranked(task)
    assert tune._fastest(task, [candidate], isas()[0], 1, pace=quiet) == candidate
