"""Which candidates are worth timing: those of the best estimates."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from dataclasses import replace

from .candidate import Candidate
from .candidates import enumerate_candidates
from .estimate import estimate
from .rates import Rates
from .task import Task

PROMISING = 5  # candidates kept by the estimate
DENSE_FORMS = 4  # of those that compute the layer as if nothing were pruned, where that may win
LIKELY_DENSE = 0.4  # share of kept weights from which it may
TRANSFORMED = 3  # of those by Winograd's minimal filtering, where there are any
UNLIKELY = 1.6  # times the best estimate: not timed
HEAVY = 1 << 23  # weights: packing so many costs more than choosing could gain, only the best are timed


def promising(task: Task, isa: str, rates: AbstractMapping[int, Rates]) -> list[Candidate]:
    """Candidates worth timing, best estimate first; the dense form is always one of them. Runs are the outer loop."""
    costs = {c: estimate(task, c, rates) for c in enumerate_candidates(task, isa)}
    ranked = sorted((c for c in costs if not c.reordered or _gains(c, costs)), key=lambda c: (costs[c], c))
    likely = [c for c in ranked if costs[c] < UNLIKELY * costs[ranked[0]]]
    count = PROMISING if task.matrix.weights.size < HEAVY else 1
    # Both kinds: what transforming takes is told less well than what products do.
    keep = [c for c in likely if c.family != "winograd"][:count]
    keep += [c for c in likely if c.family == "winograd"][: min(count, TRANSFORMED)]
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
