"""Which candidate computes a convolution: the fastest of the most promising ones, timed on the real shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from . import _engine
from .candidates import Candidate, Task, enumerate_candidates, estimate
from .layout import LINE, WIDEST
from .plans import machine_plans
from .rates import Rates, measured_rates, nominal_rates

PROMISING = 6  # candidates kept by the estimate
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
        keep += [replace(c, dense=True, jammed=False, reordered=False) for c in _best_dense(outer, task, rates)]
    return keep


def _best_dense(candidates: Sequence[Candidate], task: Task, rates: AbstractMapping[int, Rates]) -> list[Candidate]:
    """How the layer would best be computed if nothing were pruned."""
    dense = {replace(c, dense=True, jammed=False, reordered=False) for c in candidates}
    return sorted(dense, key=lambda c: (estimate(task, c, rates), c))[:1]


def _gains(candidate: Candidate, costs: AbstractMapping[Candidate, float]) -> bool:
    """Whether putting filters with equal zeros together makes the lists shorter."""
    return costs[candidate] < 0.98 * costs[replace(candidate, reordered=False)]


def _digest(task: Task) -> str:
    """Everything that the choice depends on: geometry and zeros, not the weights' values."""
    c = task.convolution
    staging = (task.staging.geometry, task.staging.phases) if task.staging is not None else None
    told = (c.weight.shape, c.stride, c.padding, c.dilation, task.source, task.target, task.residual, staging)
    code = hashlib.blake2b(repr(told).encode(), digest_size=16)
    code.update(np.packbits(task.matrix.mask).tobytes())
    code.update(c.inputs.tobytes())
    return code.hexdigest()


def _fastest(task: Task, candidates: list[Candidate], isa: str, threads: int) -> Candidate:
    """Time all once or twice, then, again and again, those that were not clearly slower."""
    program, steps = _trial(task, candidates, isa, threads)
    image = np.zeros(1, dtype=np.float32)
    best = np.full(len(candidates), np.inf)
    spent = 0.0
    for turn in range(ROUNDS):
        screened = turn >= 2 or spent > BUDGET_SECONDS
        for index in np.flatnonzero(best <= (best.min() * HOPELESS if screened else np.inf)):
            seconds = float(program.time_steps(image, 1, steps[index]).sum())
            best[index] = min(best[index], seconds)
            spent += seconds
        if turn >= 1 and spent > 2 * BUDGET_SECONDS:
            break
    return candidates[int(np.argmin(best))]


def _trial(task: Task, candidates: list[Candidate], isa: str, threads: int) -> tuple[_engine.Program, list[range]]:
    """A program whose steps are the candidates, and the steps of each."""
    pieces = [task.source, task.target, *([task.staging.planes] if task.staging else [])]
    pieces += [task.residual] if task.residual else []
    starts = [WIDEST + sum(p.size + LINE for p in pieces[:i]) for i in range(len(pieces))]
    program = _engine.Program(isa, threads, WIDEST + starts[-1] + pieces[-1].size, 1, 1)
    residual = pieces[-1].planes(starts[-1]) if task.residual else None
    staged = task.staging.planes.planes(starts[2]) if task.staging else None
    steps: list[range] = []
    packs: dict[object, _engine.Filters] = {}
    for candidate in candidates:
        key = replace(candidate, runs_outer=True)
        if key not in packs:
            packs[key] = task.filters(task.packed(candidate))
        place = Place(task.source.planes(starts[0]), task.target.planes(starts[1]), residual, staged, False)
        before = program.steps
        if needs_staging(task, candidate):
            add_staging(program, task, place.source, place, False)
        add_convolution(program, task, candidate, packs[key], place)
        steps.append(range(before, program.steps))
    return program, steps


class Place:
    """Where a convolution's planes lie in a program."""

    def __init__(
        self, source: _engine.Planes, target: _engine.Planes, residual: _engine.Planes | None,
        staged: _engine.Planes | None, clear: bool,
    ) -> None:  # fmt: skip
        self.source = source
        self.target = target
        self.residual = residual
        self.staged = staged
        self.clear = clear


def needs_staging(task: Task, candidate: Candidate) -> bool:
    """Whether the input is taken apart by phases first."""
    return candidate.family == "pixels" and task.staging is not None


def add_staging(program: _engine.Program, task: Task, source: _engine.Planes, place: Place, clear: bool) -> None:
    """Append the step that takes the input apart."""
    assert task.staging is not None
    assert place.staged is not None
    program.stage(source, place.staged, list(task.staging.phases), task.convolution.stride, clear)


def add_convolution(
    program: _engine.Program, task: Task, candidate: Candidate, packed: _engine.Filters, place: Place
) -> None:
    """Append the convolution's step."""
    c = candidate
    tile = _engine.Tile(c.lanes, c.vectors, c.rows, c.columns, c.runs_outer)
    if c.family == "pixels":
        source = place.staged if needs_staging(task, c) else place.source
        assert source is not None
        program.pixel_conv(packed, tile, source, place.target, place.residual, place.clear)
    else:
        program.channel_conv(
            packed, tile, place.source, place.target, place.residual, task.convolution.stride, place.clear
        )
