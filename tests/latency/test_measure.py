"""Measuring: interleaving, stability and percentiles, on timers that are told what to say."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from scipy.stats import binom

from prunemap.kernels.pace import QUIET, Pace
from prunemap.latency import batches, measure, measure_interleaved
from prunemap.latency.batches import (
    PART_SECONDS,
    ROUNDS,
    TRIES,
    Batches,
    InParts,
    interleave,
    median_and_mad,
    midmean,
    step_sampler,
)
from prunemap.latency.measure import MIN_RUNS, early_stopping_percentile
from prunemap.pruning import PrunemapError


class Told:
    """Times itself with the next level for every batch: median of a batch = its level."""

    threads = 1
    isa = "auto"

    def __init__(self, levels: Iterator[float]) -> None:
        self.levels = levels
        self.batches: list[int] = []

    def time(self, repeats: int) -> np.ndarray:
        self.batches.append(repeats)
        return np.full(repeats, next(self.levels))


def quiet() -> float:
    return 1.0


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process takes the CPU away, whatever else runs while the tests do."""
    monkeypatch.setattr(batches, "interruptions", lambda: 0)


def constant(level: float) -> Iterator[float]:
    while True:
        yield level


def wavering(steady_after: int, level: float) -> Iterator[float]:
    """Goes through three levels 10 % apart for ``steady_after`` batches, then stays."""
    for count in range(steady_after):
        yield level * (1.0 + 0.1 * (count % 3))
    yield from constant(level)


@pytest.mark.parametrize("count", [64, 65, 100, 130, 500, 1000])
def test_early_stopping_is_the_binomial_rule(count: int) -> None:
    samples = np.random.default_rng(0).permutation(np.arange(count, dtype=float))
    allowed = max(t for t in range(count) if binom.cdf(t, count, 0.1) <= 0.01)
    assert early_stopping_percentile(samples) == count - allowed


def test_early_stopping_needs_64_runs() -> None:
    with pytest.raises(PrunemapError, match="63 runs are too few"):
        early_stopping_percentile(np.ones(63))
    with pytest.raises(PrunemapError, match="10 runs are too few"):
        measure(Told(constant(1e-3)), runs=10)


def test_early_stopping_covers_the_percentile() -> None:
    rng = np.random.default_rng(1)
    above = [early_stopping_percentile(rng.random(200)) >= 0.9 for _ in range(500)]
    assert np.mean(above) > 0.98


def test_median_and_mad_by_hand() -> None:
    median, mad = median_and_mad(np.array([[1.0, 5.0], [2.0, 5.0], [9.0, 5.0]]))
    assert median.tolist() == [2.0, 5.0]
    assert mad.tolist() == [1.0, 0.0]


def test_interleave_drops_the_first_run_of_each_batch() -> None:
    def sampler(repeats: int) -> np.ndarray:
        return np.arange(repeats, dtype=float)

    (taken,) = interleave([sampler], [4], 3, np.random.default_rng(0), quiet)
    assert taken.samples.shape == (3, 4)
    assert taken.samples[0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_interleave_takes_turns_in_changing_order() -> None:
    order: list[int] = []

    def sampler(index: int, repeats: int) -> np.ndarray:
        order.append(index)
        return np.ones(repeats)

    samplers = [lambda repeats, index=index: sampler(index, repeats) for index in range(4)]
    interleave(samplers, [1] * 4, 9, np.random.default_rng(0), quiet)
    rounds = [tuple(order[start : start + 4]) for start in range(0, 36, 4)]
    assert all(sorted(turn) == [0, 1, 2, 3] for turn in rounds)
    assert len(set(rounds)) > 1


def test_batches_on_a_slow_machine_are_taken_again() -> None:
    paces = iter([1.0, 1.5, 1.5, 1.01, 1.0])
    counted: list[int] = []

    def sampler(repeats: int) -> np.ndarray:
        counted.append(repeats)
        return np.full(repeats, float(len(counted)))

    (taken,) = interleave([sampler], [2], 1, np.random.default_rng(0), lambda: next(paces))
    assert len(counted) == 4  # three beside a slow machine, one beside a quiet one
    assert taken.samples[0].tolist() == [4.0, 4.0]
    assert taken.pace.tolist() == pytest.approx([1.005])


def test_batches_that_were_interrupted_are_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = iter([0, 1, 1, 3, 3, 3])
    counted: list[int] = []

    def sampler(repeats: int) -> np.ndarray:
        counted.append(repeats)
        return np.full(repeats, float(len(counted)))

    monkeypatch.setattr(batches, "interruptions", lambda: next(interrupted))
    (taken,) = interleave([sampler], [2], 1, np.random.default_rng(0), quiet)
    assert taken.samples.tolist() == [[3.0, 3.0]]


def test_on_a_machine_that_stays_slow_batches_are_taken_twice_on_average() -> None:
    counted: list[int] = []

    def sampler(repeats: int) -> np.ndarray:
        counted.append(repeats)
        return np.ones(repeats)

    interleave([sampler], [2], 100, np.random.default_rng(0), lambda: 1.5)
    assert 200 <= len(counted) <= 200 + TRIES


def test_a_profile_is_of_a_quiet_machine_and_a_measurement_of_this_one() -> None:
    taken = Batches(np.array([[3.0, 3.0], [2.0, 2.0], [2.0, 2.0]]), np.array([1.5, 1.0, QUIET]))
    assert taken.rounds()[0].tolist() == pytest.approx([2.0, 2.0])
    assert taken.fine_rounds().tolist() == pytest.approx([2.0, 2.0, 2.0])


@pytest.mark.parametrize("quiet", range(8))
def test_rounds_on_a_quiet_machine_count_or_the_quietest(quiet: int) -> None:
    pace = np.array([1.5, 1.4, 1.3, 1.2, 1.45, 1.35, 1.25])
    pace[:quiet] = 1.02
    rounds, beside = Batches(2.0 * pace[:, None], pace).rounds()
    assert len(rounds) == max(quiet, 4)
    assert (beside.max() > QUIET) == (quiet < 4)
    assert sorted(beside) == sorted(pace)[: len(rounds)]
    assert rounds.tolist() == (2.0 * beside).tolist()


def test_a_machine_that_stays_slow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "__call__", lambda self: 1.25)
    found = measure(Told(constant(2e-3)))
    assert found.disturbed
    assert found.threads == Told.threads
    assert found.pace == pytest.approx(1.25)
    assert found.median_ms == pytest.approx(2.0)
    assert found.samples_ms[0] == pytest.approx(2.0)


def test_the_midmean_ignores_outliers_and_sees_between_ticks() -> None:
    assert midmean(np.array([1.0, 1.0, 2.0, 2.0, 1.0, 2.0, 99.0, 0.0])) == pytest.approx(1.5)


def test_a_steady_subject_is_measured_once() -> None:
    subject = Told(constant(2e-3))
    found = measure(subject)
    assert found.median_ms == pytest.approx(2.0)
    assert found.mad_ms == 0.0
    assert found.p90_ms == pytest.approx(2.0)
    assert not found.unstable
    assert len(found.samples_ms) == ROUNDS * found.batch >= MIN_RUNS
    assert found.machine.fingerprint()


def test_short_runs_are_batched_to_a_millisecond() -> None:
    assert measure(Told(constant(1e-5))).batch >= 100


@pytest.mark.parametrize(("seconds", "runs"), [(1e-5, 100), (0.5e-3, 3)])
def test_short_runs_are_repeated_for_the_sake_of_warm_caches(seconds: float, runs: int) -> None:
    assert step_sampler(Steps([seconds]))[1] == runs


class Steps:
    """A network of some steps, which notes what ran."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.seconds = np.array(seconds)
        self.ran: list[list[int]] = []

    def time_steps(self, repeats: int, chosen: Sequence[int] | None = None) -> np.ndarray:
        steps = list(range(len(self.seconds)) if chosen is None else chosen)
        self.ran.append(steps)
        return np.tile(self.seconds[steps], (repeats, 1))


def test_long_runs_are_timed_in_parts() -> None:
    network = Steps([0.6e-3, 0.6e-3, 3e-3, 0.2e-3])
    sampler, runs = step_sampler(network)
    assert isinstance(sampler, InParts)
    assert runs == 1
    assert [list(part) for part in sampler.parts] == [[0, 1], [2], [3]]
    assert all(network.seconds[list(part)].sum() >= PART_SECONDS for part in sampler.parts[:-1])
    network.ran.clear()
    (taken,) = interleave([sampler], [1], 2, np.random.default_rng(0), quiet)
    assert network.ran == [[0, 1, 2, 3], [0, 1], [2], [3]] * 2
    assert taken.samples.shape == (2, 1, 4)
    assert taken.quiet_steps()[0].tolist() == pytest.approx(network.seconds.tolist())


def test_every_part_is_taken_until_the_machine_is_quiet_beside_it() -> None:
    network = Steps([3e-3, 3e-3])
    sampler, _ = step_sampler(network)
    network.ran.clear()
    looks = iter([1.0, 1.02, 1.5, 1.0, 1.0])  # before the run, and after each part: the second one was disturbed
    (taken,) = interleave([sampler], [1], 1, np.random.default_rng(0), lambda: next(looks))
    assert network.ran == [[0, 1], [0], [1], [0], [1]]
    assert taken.pace.tolist() == [pytest.approx([1.01, 1.0])]
    assert next(looks, None) is None


def test_steps_are_told_from_the_rounds_on_a_quiet_machine() -> None:
    samples = np.array([[[1.0, 2.0]], [[1.4, 2.2]], [[1.1, 2.6]]])
    pace = np.array([[1.0, 1.1], [1.4, 1.05], [1.01, 1.3]])
    seconds, beside = Batches(samples, pace).quiet_steps()
    assert seconds.tolist() == pytest.approx([1.05, 2.2])
    assert beside.tolist() == pytest.approx([1.005, 1.05])
    assert Batches(samples, pace).fine_rounds()[1].tolist() == pytest.approx([1.0, 2.2 / 1.05])


def test_unsteady_subjects_are_measured_again_together() -> None:
    shaky, steady = Told(wavering(4 + 2 * ROUNDS, 1e-3)), Told(constant(1e-3))
    found = measure_interleaved([shaky, steady])
    assert [one.unstable for one in found] == [False, False]
    assert found[0].median_ms == pytest.approx(1.0)
    assert len(shaky.batches) == len(steady.batches)


def test_what_stays_unsteady_is_flagged() -> None:
    shaky = Told(wavering(10**6, 1e-3))
    found = measure(shaky, evaluations=3)
    assert found.unstable
    assert found.mad_ms > 0.01 * found.median_ms


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("prunemap.latency.measure"), "PATIENCE_SECONDS", 0.0)
    shaky = Told(wavering(10**6, 1e-3))
    assert measure(shaky).unstable
    assert len(shaky.batches) < 4 + 2 * 3 * ROUNDS


def test_measurements_are_plain_json() -> None:
    found = measure(Told(constant(1e-3)))
    assert json.loads(json.dumps(found.to_dict()))["median_ms"] == found.median_ms
