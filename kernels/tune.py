"""Which candidate computes a convolution: the fastest of the most promising ones, timed on the real shapes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from dataclasses import replace

from .alone import Alone
from .candidate import Candidate
from .candidates import enumerate_candidates, other_orders
from .estimate import estimate
from .plans import machine_plans
from .rates import Rates, measured_rates, nominal_rates
from .task import Task

PROMISING = 5  # candidates kept by the estimate
DENSE_FORMS = 4  # of those that compute the layer as if nothing were pruned, where that may win
LIKELY_DENSE = 0.4  # share of kept weights from which it may
TRANSFORMED = 3  # of those by Winograd's minimal filtering, where there are any
UNLIKELY = 1.6  # times the best estimate: not timed
HEAVY = 1 << 23  # weights: packing so many costs more than choosing could gain, only the best are timed
CLOSE = 1.4  # times the best when first timed: timed once more, and in other orders of loops too
HOPELESS = 1.15  # times the best so far: not timed again, once its time can be believed
STEADY = 1.03  # times the fastest run of a candidate: when the second fastest is slower, neither may be the candidate's
ROUNDS = 5  # of all others
BUDGET_SECONDS = 0.015  # of these rounds, after which none begins when all are steady
PATIENCE_SECONDS = 0.03  # after which none begins
ROUND_SECONDS = 200e-6  # at least: what takes microseconds is timed as often as that takes, one after the other in turn


def choose(task: Task, isa: str, threads: int, tune: bool) -> Candidate:
    """The best candidate for a convolution.

    With ``tune`` the result is remembered in the cache folder: equal layers with equal zeros are timed once, so that
    compiling a network twice gives the same program.

    Args:
        task: The convolution and its geometry.
        isa: Instruction set.
        threads: Threads that will share the work.
        tune: Whether to time; otherwise the estimate decides.
    """
    if not tune:
        return promising(task, isa, nominal_rates(isa))[0]
    plans, key = machine_plans(), f"{isa} {threads} {_digest(task)}"
    known = plans[key]
    if known is None:
        known = plans[key] = _fastest(task, promising(task, isa, measured_rates(isa)), isa, threads)
    return known


def promising(task: Task, isa: str, rates: AbstractMapping[int, Rates]) -> list[Candidate]:
    """Candidates worth timing, best estimate first; the dense form is always one of them. Runs are the outer loop."""
    costs = {c: estimate(task, c, rates) for c in enumerate_candidates(task, isa)}
    ranked = sorted((c for c in costs if not c.reordered or _gains(c, costs)), key=lambda c: (costs[c], c))
    count = PROMISING if task.matrix.weights.size < HEAVY else 1
    keep = [c for c in ranked[:count] if costs[c] < UNLIKELY * costs[ranked[0]]]
    keep += [c for c in ranked if c.family == "winograd"][: min(count, TRANSFORMED)]
    if not task.matrix.mask.all():
        count = DENSE_FORMS if task.matrix.kept.sum() > LIKELY_DENSE * task.matrix.mask.size else 1
        keep += _dense_forms(ranked, task, rates)[:count]
    return list(dict.fromkeys(keep))


def _dense_forms(candidates: Sequence[Candidate], task: Task, rates: AbstractMapping[int, Rates]) -> list[Candidate]:
    """How the layer would be computed if nothing were pruned, best estimate first."""
    dense = {replace(c, dense=True, jammed=False) for c in candidates if not c.reordered}
    return sorted(dense, key=lambda c: (estimate(task, c, rates), c))


def _gains(candidate: Candidate, costs: AbstractMapping[Candidate, float]) -> bool:
    """Whether putting filters with equal zeros together makes the lists shorter."""
    return costs[candidate] < 0.98 * costs[replace(candidate, reordered=False)]


def _digest(task: Task) -> str:
    """Everything that the choice depends on: geometry and zeros, not the weights' values."""
    c = task.convolution
    told = (c.weight.shape, c.stride, c.padding, c.dilation, task.source, task.target, task.residual, task.staging)
    code = hashlib.blake2b(repr(told).encode(), digest_size=16)
    code.update(task.matrix.bits.tobytes())
    code.update(c.inputs.tobytes())
    return code.hexdigest()


def _fastest(task: Task, candidates: list[Candidate], isa: str, threads: int) -> Candidate:
    """Time all once, those that are close again and with their loops in other orders, then what may still win."""
    others = {c: other_orders(task, c) for c in candidates}
    if len(candidates) + sum(map(len, others.values())) == 1:
        return candidates[0]
    race = _Race(Alone(task, candidates, isa, threads), candidates)
    race.time(candidates)
    race.time([c for c in candidates if race.fastest(c) <= CLOSE * race.least])
    if close := [other for c in candidates for other in others[c] if race.fastest(c) <= CLOSE * race.least]:
        race.add(close)
        race.time(close)
        race.time([c for c in close if race.fastest(c) <= CLOSE * race.least])
    before = race.spent
    for _ in range(ROUNDS):
        left = [c for c in race.runners if race.may_win(c)]
        patience = BUDGET_SECONDS if all(map(race.steady, left)) else PATIENCE_SECONDS
        if len(left) == 1 or race.spent - before > patience:
            break
        race.time(left)
    return min(race.runners, key=race.fastest)


class _Race:
    """Candidates and their two fastest runs so far.

    Attributes:
        runners: The candidates.
        spent: Seconds of all runs.
    """

    def __init__(self, alone: Alone, runners: Sequence[Candidate]) -> None:
        self._alone = alone
        self.runners = [*runners]
        self.spent = 0.0
        self._two = dict.fromkeys(runners, (math.inf, math.inf))

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Take more."""
        self._alone.add(candidates)
        self.runners += candidates
        self._two.update((c, (math.inf, math.inf)) for c in candidates)

    def time(self, which: Sequence[Candidate]) -> None:
        """Run these in turn, several times once it is known that they are short.

        Not one of them several times in a row: a layer of a network finds its weights where other layers left them.
        """
        if not which:
            return
        times = max(1, int(ROUND_SECONDS / sum(map(self.fastest, which))))
        taken = self._alone.time([self.runners.index(c) for c in which] * times).reshape(times, len(which))
        for c, runs in zip(which, taken.T.tolist(), strict=True):
            first, second, *_ = sorted([*self._two[c], *runs])
            self._two[c] = first, second
        self.spent += float(taken.sum())

    def fastest(self, candidate: Candidate) -> float:
        """Seconds of the candidate's fastest run."""
        return self._two[candidate][0]

    @property
    def least(self) -> float:
        """Seconds of the fastest run of all."""
        return min(map(self.fastest, self.runners))

    def steady(self, candidate: Candidate) -> bool:
        """Whether the candidate's fastest run can be believed, since another was about as fast."""
        first, second = self._two[candidate]
        return second <= STEADY * first

    def may_win(self, candidate: Candidate) -> bool:
        """Whether it is close to the fastest, or not far from it and disturbed."""
        limit = HOPELESS if self.steady(candidate) else CLOSE
        return self.fastest(candidate) <= limit * self.least
