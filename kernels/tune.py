"""Which candidate computes a convolution: the fastest of the most promising ones, timed on the real shapes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from .alone import Alone
from .candidate import Candidate
from .candidates import other_orders
from .pace import QUIET, machine_pace
from .pack import Matrix
from .plans import machine_plans
from .rates import measured_rates, nominal_rates
from .shortlist import promising
from .task import Task

COLD = 2.5  # times the best when first run, with code and weights in no cache yet: not timed again
CLOSE = 1.4  # times the best: timed on, and in other orders of loops too
HOPELESS = 1.15  # times the best, once timed on a quiet machine: not timed again
ROUNDS = 5  # of what may still win
MOST_ROUNDS = 12  # of what may still win and was never timed on a quiet machine
BUDGET_SECONDS = 0.015  # of runs in these rounds, after which only what was never timed on a quiet machine is
PATIENCE_SECONDS = 0.04  # after which nothing is
PART_SECONDS = 300e-6  # of runs at least between two looks at the pace: short ones in turn, as often as that takes


def choose(task: Task, isa: str, threads: int, tune: bool) -> Candidate:
    """The best candidate for a convolution.

    With ``tune`` the result is remembered in the cache folder: equal layers with equal zeros are timed once, so that
    compiling a network twice gives the same program. Where it is known how the layer is computed when nothing is
    pruned, no other dense form is timed: a pruned layer that is computed as if it were dense is so as the dense one is.

    Args:
        task: The convolution and its geometry.
        isa: Instruction set.
        threads: Threads that will share the work.
        tune: Whether to time; otherwise the estimate decides.
    """
    if not tune:
        return promising(task, isa, nominal_rates(isa))[0]
    plans = machine_plans()
    key, dense_key = (f"{isa} {threads} {_digest(task, matrix)}" for matrix in (task.matrix, task.dense_matrix))
    known, dense = plans[key], plans[dense_key]
    if known is None:
        settled = [replace(dense, dense=True)] if dense else []
        others = [c for c in promising(task, isa, measured_rates(isa)) if not (settled and c.dense)]
        known = plans[key] = _fastest(task, others, isa, threads, settled)
    return known


def _digest(task: Task, matrix: Matrix) -> str:
    """Everything that the choice depends on: geometry and zeros, not the weights' values."""
    c = task.convolution
    told = (c.weight.shape, c.stride, c.padding, c.dilation, task.source, task.target, task.residual, task.staging)
    code = hashlib.blake2b(repr(told).encode(), digest_size=16)
    code.update(matrix.bits.tobytes())
    code.update(c.inputs.tobytes())
    return code.hexdigest()


def _fastest(
    task: Task,
    candidates: Sequence[Candidate],
    isa: str,
    threads: int,
    settled: Sequence[Candidate] = (),
    pace: Callable[[], float] | None = None,
) -> Candidate:
    """Time all, those that are close again and with their loops in other orders, then what may still win.

    Of what is ``settled`` the order of loops is known.
    """
    others = {c: other_orders(task, c) for c in candidates}
    candidates = [*candidates, *settled]
    if len(candidates) + sum(map(len, others.values())) == 1:
        return candidates[0]
    race = _Race(Alone(task, candidates, isa, threads), candidates, pace or machine_pace())
    race.start(candidates)
    if close := [other for c, own in others.items() for other in own if race.fastest(c) <= CLOSE * race.least]:
        race.add(close)
        race.start(close)
    race.finish()
    return min(race.runners, key=race.fastest)


class _Race:
    """Candidates and their fastest runs so far.

    While a neighbour slows the machine down, which is for milliseconds or minutes, runs last up to 1.6 times as long. A
    candidate must not lose by that, so that one whose fastest run was not on a quiet machine gets more chances.

    Attributes:
        runners: The candidates.
    """

    def __init__(self, alone: Alone, runners: Sequence[Candidate], pace: Callable[[], float]) -> None:
        self._alone, self._pace = alone, pace
        self.runners = [*runners]
        self._spent = 0.0
        self._best = dict.fromkeys(runners, math.inf)
        self._sure: set[Candidate] = set()

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Take more."""
        self._alone.add(candidates)
        self.runners += candidates
        self._best.update(dict.fromkeys(candidates, math.inf))

    def start(self, which: Sequence[Candidate]) -> None:
        """Time what was not run before: once, again if not hopeless, a third time if close and not yet quiet.

        The first run of a kernel in a process waits for its code: short ones are run until that does not tell.
        """
        self._run(which, 1)
        if more := int(PART_SECONDS / sum(map(self.fastest, which))):
            self._run(which, more)
        self._time([c for c in which if self.fastest(c) <= COLD * self.least])
        self._time([c for c in which if c not in self._sure and self.fastest(c) <= CLOSE * self.least])

    def finish(self) -> None:
        """Time what may still win, some rounds, and what was never timed on a quiet machine until patience ends."""
        before = self._spent
        for done in range(MOST_ROUNDS):
            left, spent = [c for c in self.runners if self._may_win(c)], self._spent - before
            if len(left) == 1 or spent > PATIENCE_SECONDS:
                return
            if done >= ROUNDS or spent > BUDGET_SECONDS:
                unsure = [c for c in left if c not in self._sure]
                if not unsure:
                    return
                if len(unsure) == 1:  # alone it would keep its weights in the nearest cache
                    unsure.append(min((c for c in left if c in self._sure), key=self.fastest))
                left = unsure
            self._time(left)

    def fastest(self, candidate: Candidate) -> float:
        """Seconds of the candidate's fastest run."""
        return self._best[candidate]

    @property
    def least(self) -> float:
        """Seconds of the fastest run of all."""
        return min(self._best.values())

    def _may_win(self, candidate: Candidate) -> bool:
        limit = HOPELESS if candidate in self._sure else CLOSE
        return self.fastest(candidate) <= limit * self.least

    def _time(self, which: Sequence[Candidate]) -> None:
        """Run these, short ones many times in turn, and look at the pace before and after every part of that.

        Not one of them several times in a row: a layer of a network finds its weights where other layers left them.
        """
        before = self._pace()
        for part in self._parts(which):
            times = max(1, int(PART_SECONDS / sum(map(self.fastest, part))))
            self._run(part, times)
            after = self._pace()
            if max(before, after) <= QUIET:
                self._sure.update(part)
            before = after

    def _parts(self, which: Sequence[Candidate]) -> Iterator[list[Candidate]]:
        """As many of these in a row as make up a part; the rest go with the last one."""
        part: list[Candidate] = []
        left = sum(map(self.fastest, which))
        for candidate in which:
            part.append(candidate)
            left -= self.fastest(candidate)
            if sum(map(self.fastest, part)) >= PART_SECONDS <= left:
                yield part
                part = []
        if part:
            yield part

    def _run(self, which: Sequence[Candidate], times: int) -> None:
        places = [self.runners.index(c) for c in which]
        taken = self._alone.time(places * times).reshape(times, len(which))
        for candidate, seconds in zip(which, taken.min(axis=0).tolist(), strict=True):
            self._best[candidate] = min(self._best[candidate], seconds)
        self._spent += float(taken.sum())
