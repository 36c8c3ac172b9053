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

from ..pruning.errors import PrunemapError
from .cache import exclusive_lock
from .machine import Machine, machine, pinned

Samples = NDArray[np.float64]

ROUNDS = 9
"""Interleaved repetitions of each subject in one evaluation (google-benchmark's default)."""
EVALUATIONS = 9
"""How often an unstable measurement is repeated (Highway's nanobenchmark)."""
TRIES = 3
"""How often a batch is taken when another process interrupts it."""
PATIENCE_SECONDS = 45.0
"""After so long no further evaluation is begun, however unstable the last one was."""
STABLE = 0.01
"""Largest relative MAD of a stable measurement."""
BATCH_SECONDS = 1e-3
"""Shortest batch: below it, timer and interrupts would show (pyperf)."""
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
        samples_ms: Every run, in order, ``batch`` of them per batch.
        batch: Runs per batch.
        unstable: Whether no evaluation reached a relative MAD of 1 %.
        machine: The machine, as it was then.
    """

    median_ms: float
    mad_ms: float
    p90_ms: float
    samples_ms: tuple[float, ...]
    batch: int
    unstable: bool
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
    return [_summarise(samples, place) for samples, place in zip(best, where, strict=True)]


def steadiest(samplers: Sequence[Sampler], batches: Sequence[int], evaluations: int) -> list[Samples]:
    """Evaluate until the worst relative MAD is small enough; return the evaluation where it is smallest."""
    rng, start = np.random.default_rng(0), time.monotonic()
    best: list[Samples] = []
    smallest = math.inf
    for _ in range(evaluations):
        taken = interleave(samplers, batches, ROUNDS, rng)
        worst = max(_relative_mad(samples) for samples in taken)
        if worst < smallest:
            best, smallest = taken, worst
        if smallest <= STABLE or time.monotonic() - start > PATIENCE_SECONDS:
            break
    return best


def interleave(
    samplers: Sequence[Sampler], batches: Sequence[int], rounds: int, rng: np.random.Generator
) -> list[Samples]:
    """Take one batch of every sampler per round, in a new random order each round.

    The first run of a batch finds the caches filled by another subject and is not counted. A batch during which the
    system gave the CPU to another process is taken again, at most twice.

    Returns:
        Per sampler, seconds of shape (rounds, runs per batch, ...).
    """
    taken: list[list[Samples]] = [[] for _ in samplers]
    for _ in range(rounds):
        for index in rng.permutation(len(samplers)):
            taken[index].append(_uninterrupted(samplers[index], batches[index] + 1)[1:])
    return [np.stack(samples) for samples in taken]


def _uninterrupted(sampler: Sampler, repeats: int) -> Samples:
    for _ in range(TRIES):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        samples = sampler(repeats)
        if resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw == before:
            break
    return samples


def batch_size(sampler: Sampler, fewest: int = 1) -> int:
    """Warm up, then return how many runs last at least a millisecond.

    Steps of one run, where the sampler gives them, are summed.
    """
    warm = np.concatenate([_totals(sampler(1)) for _ in range(3)])
    enough = max(3, math.ceil(10 * BATCH_SECONDS / max(float(warm.min()), 1e-7)))
    one = float(np.median(_totals(sampler(enough))))
    return max(fewest, math.ceil(BATCH_SECONDS / max(one, 1e-7)))


def _totals(samples: Samples) -> Samples:
    return np.asarray(samples.reshape(len(samples), -1).sum(axis=1))


def _relative_mad(samples: Samples) -> float:
    median, mad = median_and_mad(np.median(samples, axis=1))
    return float(mad / max(float(median), 1e-12))


def _summarise(samples: Samples, where: Machine) -> Measurement:
    milliseconds = samples * 1e3
    median, mad = median_and_mad(np.median(milliseconds, axis=1))
    return Measurement(
        median_ms=float(median),
        mad_ms=float(mad),
        p90_ms=early_stopping_percentile(milliseconds.ravel()),
        samples_ms=tuple(milliseconds.ravel().tolist()),
        batch=milliseconds.shape[1],
        unstable=bool(mad > STABLE * median),
        machine=where,
    )
