"""Measuring whole networks: pinned, warmed up, interleaved in batches, with median, spread and raw samples."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, trim_mean

from ..kernels.pace import QUIET, Pace
from ..pruning.errors import PrunemapError
from .cache import exclusive_lock
from .machine import Machine, machine, pinned

Samples = NDArray[np.float64]

ROUNDS = 9
"""Interleaved repetitions of each subject in one evaluation (google-benchmark's default)."""
EVALUATIONS = 9
"""How often an unstable measurement is repeated (Highway's nanobenchmark)."""
TRIES = 6
"""How often a batch is taken at most when another process interrupts it or slows the machine down."""
PATIENCE_SECONDS = 45.0
"""After so long no further evaluation is begun, however unstable the last one was."""
STABLE = 0.01
"""Largest relative MAD of a stable measurement."""
BATCH_SECONDS = 1e-3
"""Shortest batch: below it, timer and interrupts would show (pyperf)."""
WARM_SECONDS = 10 * BATCH_SECONDS
"""Shortest warm-up."""
MIN_RUNS = 64
"""Fewest runs from which a 90th percentile can be told with 99 % confidence (MLPerf, early stopping)."""


class Timed(Protocol):
    """Anything that can time itself: a compiled network, a peer."""

    @property
    def threads(self) -> int:
        """Threads that it runs on."""
        ...

    @property
    def isa(self) -> str:
        """Instruction set of our kernels that it uses, ``auto`` where it uses none of them."""
        ...

    def time(self, repeats: int) -> Samples:
        """Seconds of each of ``repeats`` runs in a row, shape (repeats,)."""
        ...


Sampler = Callable[[int], Samples]
"""Takes a number of runs, returns seconds with runs along the first axis."""


@dataclass(frozen=True)
class Measurement:
    """Latency of one network.

    Attributes:
        median_ms: Median of the batches' medians.
        mad_ms: Median absolute deviation of the batches' medians.
        p90_ms: Upper bound of the 90th percentile of single runs with 99 % confidence (MLPerf early stopping).
        samples_ms: Every run as it was, in order, ``batch`` of them per batch.
        batch: Runs per batch.
        threads: Threads of the network.
        pace: How many times slower than at its quietest the machine was, median over batches.
        unstable: Whether no evaluation reached a relative MAD of 1 %.
        disturbed: Whether the machine was more than 3 % slower than at its quietest: something else computes on it.
        machine: The machine, as it was then.
    """

    median_ms: float
    mad_ms: float
    p90_ms: float
    samples_ms: tuple[float, ...]
    batch: int
    threads: int
    pace: float
    unstable: bool
    disturbed: bool
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def median_and_mad(samples: Samples) -> tuple[Samples, Samples]:
    """Median and median absolute deviation along the first axis."""
    median = np.median(samples, axis=0)
    return median, np.median(np.abs(samples - median), axis=0)


def midmean(runs: Samples) -> Samples:
    """Mean of the middle half along the first axis: as robust as the median against interrupts, and finer.

    Steps of a small network take a few ticks of the clock only, so that their median would be one of very few values.
    """
    return np.asarray(trim_mean(runs, 0.25, axis=0))


def early_stopping_percentile(samples: Samples, percentile: float = 0.9, confidence: float = 0.99) -> float:
    """The sample that bounds a percentile with the given confidence (MLPerf inference rules, single stream).

    With t the largest count of slower runs for which P(Binomial(n, 1 - percentile) <= t) <= 1 - confidence, the t - 1
    slowest samples are discarded and the slowest that is left is returned.

    Raises:
        PrunemapError: For too few samples (64 are needed at 0.9).
    """
    count = len(samples)
    tail = binom.cdf(np.arange(count + 1), count, 1.0 - percentile)
    discard = int(np.count_nonzero(tail <= 1.0 - confidence)) - 2
    if discard < 0:
        raise PrunemapError(f"{count} runs are too few for the {percentile:.0%} percentile: take at least {MIN_RUNS}")
    return float(np.sort(samples)[count - 1 - discard])


def measure(subject: Timed, *, runs: int = MIN_RUNS, evaluations: int = EVALUATIONS) -> Measurement:
    """Measure one network; see ``measure_interleaved``."""
    return measure_interleaved([subject], runs=runs, evaluations=evaluations)[0]


def measure_interleaved(
    subjects: Sequence[Timed], *, runs: int = MIN_RUNS, evaluations: int = EVALUATIONS
) -> list[Measurement]:
    """Measure networks against one another: batches of all of them in random order, nine times over.

    All are measured again, together, until every one's relative MAD is at most 1 % or patience is at an end; of the
    evaluations, the one whose worst MAD is smallest counts, so that ratios always come from interleaved runs.

    Args:
        subjects: What to time.
        runs: Fewest runs of each, at least 64.
        evaluations: Most evaluations.

    Returns:
        One measurement per subject, in order.

    Raises:
        PrunemapError: For fewer than 64 runs.
    """
    if runs < MIN_RUNS:
        raise PrunemapError(f"{runs} runs are too few for a 90th percentile: take at least {MIN_RUNS}")
    samplers = [subject.time for subject in subjects]
    with exclusive_lock(), pinned(max(subject.threads for subject in subjects)):
        where = [machine(subject.isa) for subject in subjects]
        batches = [batch_size(sampler, fewest=math.ceil(runs / ROUNDS)) for sampler in samplers]
        best = steadiest(samplers, batches, evaluations)
    return [_summarise(*one) for one in zip(best, (subject.threads for subject in subjects), where, strict=True)]


@dataclass(frozen=True)
class Batches:
    """Batches of one subject.

    Attributes:
        samples: Seconds as they were, shape (rounds, runs per batch, ...).
        pace: The machine's pace beside each batch, shape (rounds,).
    """

    samples: Samples
    pace: Samples

    def rounds(self) -> Samples:
        """Median seconds of every batch: shape (rounds,)."""
        return np.asarray(np.median(self.samples, axis=1))

    def fine_rounds(self) -> Samples:
        """Midmean seconds of every batch, at a quiet machine's pace: shape (rounds, ...)."""
        means = np.stack([midmean(batch) for batch in self.samples])
        return np.asarray((means.T / self.pace).T)


def steadiest(samplers: Sequence[Sampler], batches: Sequence[int], evaluations: int) -> list[Batches]:
    """Evaluate until the worst relative MAD is small enough; return the evaluation where it is smallest."""
    rng, start, pace = np.random.default_rng(0), time.monotonic(), Pace()
    best: list[Batches] = []
    smallest = math.inf
    for _ in range(evaluations):
        taken = interleave(samplers, batches, ROUNDS, rng, pace)
        worst = max(_relative_mad(one.rounds()) for one in taken)
        if worst < smallest:
            best, smallest = taken, worst
        if smallest <= STABLE or time.monotonic() - start > PATIENCE_SECONDS:
            break
    return best


@dataclass
class Allowance:
    """How many batches may still be taken again: some, and one more for every batch."""

    spare: int = TRIES


def interleave(
    samplers: Sequence[Sampler],
    batches: Sequence[int],
    rounds: int,
    rng: np.random.Generator,
    pace: Callable[[], float],
    allowance: Allowance | None = None,
) -> list[Batches]:
    """Take one batch of every sampler per round, in a new random order each round.

    The first run of a batch finds the caches filled by another subject and is not counted. A batch beside which the
    machine was slower than when it is quiet, or during which the system gave the CPU to another process, is taken
    again, up to ``TRIES`` times in all; the quietest counts. On a machine that stays slow, each is taken twice on
    average: trying longer would not help. Calls that belong together share an ``allowance``.

    Returns:
        Per sampler, what was taken.
    """
    taken: list[list[tuple[Samples, float]]] = [[] for _ in samplers]
    left = allowance or Allowance()
    for _ in range(rounds):
        for index in rng.permutation(len(samplers)):
            found, tries = _undisturbed(samplers[index], batches[index] + 1, pace, min(TRIES, 1 + left.spare))
            left.spare += 2 - tries
            taken[index].append(found)
    return [Batches(np.stack([runs[1:] for runs, _ in own]), np.array([beside for _, beside in own])) for own in taken]


def _undisturbed(
    sampler: Sampler, repeats: int, pace: Callable[[], float], most: int
) -> tuple[tuple[Samples, float], int]:
    """A batch and the pace beside it, the first one taken on a quiet machine or else the quietest; and tries needed."""
    best: tuple[Samples, float] | None = None
    quietest = math.inf
    before = pace()
    tries = 0
    while tries < most and quietest > QUIET:
        tries += 1
        switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        samples, after = sampler(repeats), pace()
        interrupted = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw > switches
        noise = max(before, after) + interrupted
        if best is None or noise < quietest:
            best, quietest = (samples, (before + after) / 2), noise
        before = after
    assert best is not None
    return best, tries


def batch_size(sampler: Sampler, fewest: int = 1, most_seconds: float = math.inf) -> int:
    """Warm up, then return how many runs last at least a millisecond, and no fewer than ``fewest``.

    Steps of one run, where the sampler gives them, are summed. Where two runs are warm-up enough, each is far longer
    than a batch has to be, and there is nothing more to tell.

    Args:
        sampler: What is run.
        fewest: Fewest runs.
        most_seconds: Not so many runs for the sake of ``fewest`` that they last much longer.
    """
    one = min(float(_totals(sampler(1))[0]) for _ in range(2))
    if one < WARM_SECONDS / 2:
        enough = max(3, math.ceil(WARM_SECONDS / max(one, 1e-7)))
        one = max(float(np.median(_totals(sampler(enough)))), 1e-7)
    return max(math.ceil(BATCH_SECONDS / one), math.ceil(min(most_seconds / one, fewest)))


def _totals(samples: Samples) -> Samples:
    return np.asarray(samples.reshape(len(samples), -1).sum(axis=1))


def _relative_mad(rounds: Samples) -> float:
    median, mad = median_and_mad(rounds)
    return float(mad / max(float(median), 1e-12))


def _summarise(taken: Batches, threads: int, where: Machine) -> Measurement:
    milliseconds = taken.samples * 1e3
    median, mad = median_and_mad(1e3 * taken.rounds())
    pace = float(np.median(taken.pace))
    return Measurement(
        median_ms=float(median),
        mad_ms=float(mad),
        p90_ms=early_stopping_percentile(milliseconds.ravel()),
        samples_ms=tuple(milliseconds.ravel().tolist()),
        batch=milliseconds.shape[1],
        threads=threads,
        pace=pace,
        unstable=bool(mad > STABLE * median),
        disturbed=pace > QUIET,
        machine=where,
    )
