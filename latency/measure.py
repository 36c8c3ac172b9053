"""Measuring whole networks: pinned, warmed up, interleaved in batches, with median, spread and raw samples."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from scipy.stats import binom

from ..kernels.pace import QUIET, Pace
from ..pruning.errors import PrunemapError
from .batches import ROUNDS, Batches, Sampler, Samples, batch_size, interleave, median_and_mad
from .cache import exclusive_lock
from .machine import Machine, machine, pinned

EVALUATIONS = 9
"""How often an unstable measurement is repeated (Highway's nanobenchmark)."""
PATIENCE_SECONDS = 45.0
"""After so long no further evaluation is begun, however unstable the last one was."""
STABLE = 0.01
"""Largest relative MAD of a stable measurement."""
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


@dataclass(frozen=True)
class Measurement:
    """Latency of one network.

    Attributes:
        median_ms: Median of the medians of the batches that count: those on a quiet machine, where there are five.
        mad_ms: Median absolute deviation of these medians.
        p90_ms: Upper bound of the 90th percentile of all single runs with 99 % confidence (MLPerf early stopping).
        samples_ms: Every run as it was, in order, ``batch`` of them per batch.
        batch: Runs per batch.
        threads: Threads of the network.
        pace: How many times slower than at its quietest the machine was, at most, beside the batches that count.
        unstable: Whether no evaluation reached a relative MAD of 1 %.
        disturbed: Whether the machine was more than 3 % slower than at its quietest beside the batches that count:
            something else computes on it.
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


def steadiest(samplers: Sequence[Sampler], batches: Sequence[int], evaluations: int) -> list[Batches]:
    """Evaluate until the worst relative MAD is small enough; return the evaluation where it is smallest."""
    rng, start, pace = np.random.default_rng(0), time.monotonic(), Pace()
    best: list[Batches] = []
    smallest = (True, math.inf)
    for _ in range(evaluations):
        taken = interleave(samplers, batches, ROUNDS, rng, pace)
        disturbed = any(float(one.rounds()[1].max()) > QUIET for one in taken)
        worst = disturbed, max(_relative_mad(one.rounds()[0]) for one in taken)
        if worst < smallest:
            best, smallest = taken, worst
        if smallest[1] <= STABLE or time.monotonic() - start > PATIENCE_SECONDS:
            break
    return best


def _relative_mad(rounds: Samples) -> float:
    median, mad = median_and_mad(rounds)
    return float(mad / max(float(median), 1e-12))


def _summarise(taken: Batches, threads: int, where: Machine) -> Measurement:
    milliseconds = taken.samples * 1e3
    rounds, beside = taken.rounds()
    median, mad = median_and_mad(1e3 * rounds)
    pace = float(beside.max())
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
