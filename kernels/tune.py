"""Which candidate computes a convolution: the fastest of the most promising ones, timed on the real shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .alone import Alone
from .candidates import Candidate, Task, enumerate_candidates
from .estimate import estimate
from .plans import machine_plans
from .rates import Rates, measured_rates, nominal_rates

PROMISING = 6  # candidates kept by the estimate
DENSE_FORMS = 4  # of those that compute the layer as if nothing were pruned, where that may win
LIKELY_DENSE = 0.4  # share of kept weights from which it may
UNLIKELY = 1.6  # times the best estimate: not timed
HEAVY = 1 << 23  # weights: packing so many costs more than choosing could gain, only the best are timed
ROUNDS = 7
BUDGET_SECONDS = 0.02  # after which only the fastest are timed again; at twice that it ends
HOPELESS = 1.25  # times the best so far: not timed again


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
        ranked = promising(task, isa, measured_rates(isa))
        known = plans[key] = ranked[0] if len(ranked) == 1 else _fastest(task, ranked, isa, threads)
    return known


def promising(task: Task, isa: str, rates: AbstractMapping[int, Rates]) -> list[Candidate]:
    """Candidates worth timing, best estimate first; the dense form is always one of them."""
    everything = list(enumerate_candidates(task, isa))
    costs = {c: estimate(task, c, rates) for c in everything if c.runs_outer}
    outer = sorted((c for c in costs if not c.reordered or _gains(c, costs)), key=lambda c: (costs[c], c))
    count = PROMISING if task.matrix.weights.size < HEAVY else 1
    keep = [c for c in outer[:count] if costs[c] < UNLIKELY * costs[outer[0]]]
    keep += [other for c in keep if (other := replace(c, runs_outer=False)) in everything]
    if not task.matrix.mask.all():
        count = DENSE_FORMS if task.matrix.mask.mean() > LIKELY_DENSE else 1
        keep += _dense_forms(outer, task, rates)[:count]
    return keep


def _dense_forms(candidates: Sequence[Candidate], task: Task, rates: AbstractMapping[int, Rates]) -> list[Candidate]:
    """How the layer would be computed if nothing were pruned, best estimate first, in both orders."""
    dense = {replace(c, dense=True, jammed=False, reordered=False) for c in candidates}
    ranked = sorted(dense, key=lambda c: (estimate(task, c, rates), c))
    return [replace(c, runs_outer=outer) for c in ranked for outer in task.orders]


def _gains(candidate: Candidate, costs: AbstractMapping[Candidate, float]) -> bool:
    """Whether putting filters with equal zeros together makes the lists shorter."""
    return costs[candidate] < 0.98 * costs[replace(candidate, reordered=False)]


def _digest(task: Task) -> str:
    """Everything that the choice depends on: geometry and zeros, not the weights' values."""
    c = task.convolution
    told = (c.weight.shape, c.stride, c.padding, c.dilation, task.source, task.target, task.residual, task.staging)
    code = hashlib.blake2b(repr(told).encode(), digest_size=16)
    code.update(np.packbits(task.matrix.mask).tobytes())
    code.update(c.inputs.tobytes())
    return code.hexdigest()


def _fastest(task: Task, candidates: list[Candidate], isa: str, threads: int) -> Candidate:
    """Time all once or twice, then, again and again, those that were not clearly slower."""
    alone = Alone(task, candidates, isa, threads)
    best = np.full(len(candidates), np.inf)
    spent = 0.0
    for turn in range(ROUNDS):
        screened = turn >= 2 or spent > BUDGET_SECONDS
        for index in np.flatnonzero(best <= (best.min() * HOPELESS if screened else np.inf)).tolist():
            seconds = float(alone.time([index]).sum())
            best[index] = min(best[index], seconds)
            spent += seconds
        if turn >= 1 and spent > 2 * BUDGET_SECONDS:
            break
    return candidates[int(np.argmin(best))]
