"""Batches of runs, taken in turn and beside the machine's pace; long runs are timed in parts."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from ..kernels.pace import QUIET

Samples = NDArray[np.float64]

ROUNDS = 9
"""Interleaved repetitions of each subject in one evaluation (google-benchmark's default)."""
TRIES = 6
"""How often a batch is taken at most when another process interrupts it or slows the machine down."""
BATCH_SECONDS = 1e-3
"""Shortest batch: below it, timer and interrupts would show (pyperf)."""
WARM_SECONDS = 10 * BATCH_SECONDS
"""Shortest warm-up."""
WARM_RUNS = 3
"""Fewest counted runs in a batch whose steps are timed: networks run again and again, with warm caches."""
FEWEST = 3
"""Rounds of a step that count at least: those on a quiet machine, or else the quietest."""
LONG_SECONDS = 2e-3
"""Runs from this length on are timed in parts."""
PART_SECONDS = 1e-3
"""Shortest part, but for the last one: the pace is looked at in between."""

Sampler = Callable[[int], Samples]
"""Takes a number of runs, returns seconds with runs along the first axis."""


class Stepwise(Protocol):
    """Anything that can time its steps: a compiled network."""

    def time_steps(self, repeats: int, chosen: Sequence[int] | None = None) -> Samples:
        """Seconds of all steps, or those chosen, in each of ``repeats`` runs: shape (repeats, steps)."""
        ...


@dataclass(frozen=True)
class InParts:
    """A network whose runs are timed a part at a time, with a look at the pace in between.

    A machine that neighbours leave alone for milliseconds at a time is seldom quiet for all of a long run, but for
    every part of it in one run or another.

    Attributes:
        network: The network.
        parts: Its steps, in order.
    """

    network: Stepwise
    parts: tuple[range, ...]

    @classmethod
    def of(cls, network: Stepwise, steps: Samples) -> InParts:
        """Parts that last as long as they should, given the seconds of every step."""
        found, start = [], 0
        for end in range(1, len(steps) + 1):
            if end == len(steps) or steps[start:end].sum() >= PART_SECONDS:
                found.append(range(start, end))
                start = end
        return cls(network, tuple(found))


def interruptions() -> int:
    """How often the system took the CPU away from this thread so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def counted(pace: Samples, fewest: int = FEWEST) -> NDArray[np.bool_]:
    """Which rounds count, told by the pace beside them: those on a quiet machine, or else the ``fewest`` quietest."""
    return np.asarray(pace <= np.maximum(QUIET, np.sort(pace, axis=0)[min(fewest, len(pace)) - 1]))


def slowdown(pace: Samples) -> Samples:
    """By what times are longer than on a quiet machine; below ``QUIET`` paces differ for reasons of their own."""
    return np.where(pace > QUIET, pace, 1.0)


def step_sampler(network: Stepwise) -> tuple[Sampler | InParts, int]:
    """How all steps of a network are timed, and the runs of a batch: one where they are long."""
    steps = network.time_steps(2).min(axis=0)
    if steps.sum() >= LONG_SECONDS:
        return InParts.of(network, steps), 1
    return network.time_steps, batch_size(network.time_steps, WARM_RUNS)


def median_and_mad(samples: Samples) -> tuple[Samples, Samples]:
    """Median and median absolute deviation along the first axis."""
    median = np.median(samples, axis=0)
    return median, np.median(np.abs(samples - median), axis=0)


def midmean(runs: Samples) -> Samples:
    """Mean of the middle half along the first axis: as robust as the median against interrupts, and finer.

    Steps of a small network take a few ticks of the clock only, so that their median would be one of very few values.
    """
    return np.asarray(trim_mean(runs, 0.25, axis=0))


@dataclass(frozen=True)
class Batches:
    """Batches of one subject.

    Attributes:
        samples: Seconds as they were, shape (rounds, runs per batch, ...).
        pace: The machine's pace beside each batch, shape (rounds,), or beside each of its steps, shape (rounds, steps).
    """

    samples: Samples
    pace: Samples

    def rounds(self) -> tuple[Samples, Samples]:
        """Median seconds of the batches that count, most of them at least, and the pace beside: shape (rounds,)."""
        which = counted(self.pace, len(self.pace) // 2 + 1)
        return np.median(self.samples[which], axis=1), self.pace[which]

    def fine_rounds(self) -> Samples:
        """Midmean seconds of every batch, at a quiet machine's pace: shape (rounds, ...)."""
        means = np.stack([midmean(batch) for batch in self.samples])
        return np.asarray((means.T / slowdown(self.pace).T).T)

    def pace_of_steps(self) -> Samples:
        """The machine's pace beside every step: shape (rounds, steps)."""
        return np.broadcast_to(self.pace.reshape(len(self.pace), -1), (len(self.pace), self.samples.shape[2]))

    def quiet_steps(self) -> tuple[Samples, Samples]:
        """Seconds of every step and the pace beside it: medians of rounds on a quiet machine, or else the quietest."""
        means, pace = np.stack([midmean(batch) for batch in self.samples]), self.pace_of_steps()
        quietest = counted(pace, 1)
        seconds, beside = (np.nanmedian(np.where(quietest, values, np.nan), axis=0) for values in (means, pace))
        return seconds, beside


@dataclass
class Allowance:
    """How many batches may still be taken again: some, and one more for every batch."""

    spare: int = TRIES


def interleave(
    samplers: Sequence[Sampler | InParts],
    batches: Sequence[int],
    rounds: int,
    rng: np.random.Generator,
    pace: Callable[[], float],
    allowance: Allowance | None = None,
) -> list[Batches]:
    """Take one batch of every sampler per round, in a new random order each round.

    The first run of a batch finds the caches filled by another subject and is not counted. A batch beside which the
    machine was slower than when it is quiet, or during which the system gave the CPU to another process, is taken
    again, up to ``TRIES`` times in all; the quietest counts, of each part where runs are timed in parts. On a machine
    that stays slow, each is taken twice on average: trying longer would not help. Calls that belong together share an
    ``allowance``.

    Returns:
        Per sampler, what was taken.
    """
    taken: list[list[tuple[Samples, Samples]]] = [[] for _ in samplers]
    left = allowance or Allowance()
    for _ in range(rounds):
        for index in rng.permutation(len(samplers)):
            pieces = _pieces(samplers[index], batches[index])
            found, tries = _undisturbed(pieces, pace, min(TRIES, 1 + left.spare))
            left.spare += 2 - tries
            taken[index].append(found)
    return [Batches(np.stack([runs for runs, _ in own]), np.stack([beside for _, beside in own])) for own in taken]


def _pieces(sampler: Sampler | InParts, runs: int) -> list[Callable[[], Samples]]:
    """What is timed between two looks at the pace, in order."""
    if isinstance(sampler, InParts):
        sampler.network.time_steps(1)
        return [partial(sampler.network.time_steps, 1, part) for part in sampler.parts]
    return [lambda: sampler(runs + 1)[1:]]


def _undisturbed(
    pieces: Sequence[Callable[[], Samples]], pace: Callable[[], float], most: int
) -> tuple[tuple[Samples, Samples], int]:
    """Of each piece the first time on a quiet machine, or else the quietest, and the pace beside it; and the tries."""
    best: list[tuple[float, Samples, float]] = [(math.inf, np.empty(0), math.inf)] * len(pieces)
    before = pace()
    tries = 0
    while tries < most and max(noise for noise, _, _ in best) > QUIET:
        tries += 1
        for number, piece in enumerate(pieces):
            earlier = interruptions()
            samples, after = piece(), pace()
            beside = (before + after) / 2
            noise = beside + (interruptions() > earlier)
            if best[number][0] > QUIET and noise < best[number][0]:
                best[number] = noise, samples, beside
            before = after
    taken, paces = [samples for _, samples, _ in best], np.array([pace for _, _, pace in best])
    if len(pieces) == 1:
        return (taken[0], paces[0]), tries
    return (np.concatenate(taken, axis=1), np.repeat(paces, [samples.shape[1] for samples in taken])), tries


def batch_size(sampler: Sampler, fewest: int = 1) -> int:
    """Warm up, then return how many runs last at least a millisecond, and no fewer than ``fewest``.

    Steps of one run, where the sampler gives them, are summed. Where two runs are warm-up enough, each is far longer
    than a batch has to be, and there is nothing more to tell.

    Args:
        sampler: What is run.
        fewest: Fewest runs.
    """
    one = min(float(_totals(sampler(1))[0]) for _ in range(2))
    if one < WARM_SECONDS / 2:
        enough = max(3, math.ceil(WARM_SECONDS / max(one, 1e-7)))
        one = max(float(np.median(_totals(sampler(enough)))), 1e-7)
    return max(math.ceil(BATCH_SECONDS / one), fewest)


def _totals(samples: Samples) -> Samples:
    return np.asarray(samples.reshape(len(samples), -1).sum(axis=1))
