"""Which candidate computes a convolution: the fastest of the most promising ones, timed on the real shapes."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from . import _engine
from .candidates import Candidate, Task, enumerate_candidates, estimate
from .layout import LINE, WIDEST

PROMISING = 4  # candidates kept by each estimate
HEAVY = 1 << 23  # weights: packing so many costs more than choosing could gain, only the best are timed
ROUNDS = 7
BUDGET_SECONDS = 0.02  # after which only the fastest are timed again; at twice that it ends
HOPELESS = 1.25  # times the best so far: not timed again

_chosen: dict[tuple[object, ...], Candidate] = {}


def choose(task: Task, isa: str, threads: int, tune: bool) -> Candidate:
    """The best candidate for a convolution.

    With ``tune`` the result is remembered for the process: equal layers with equal zeros are timed once, so that
    compiling a network twice gives the same program.

    Args:
        task: The convolution and its geometry.
        isa: Instruction set.
        threads: Threads that will share the work.
        tune: Whether to time; otherwise the estimate decides.
    """
    ranked = promising(task, isa)
    if not tune or len(ranked) == 1:
        return ranked[0]
    key = (isa, threads, _digest(task))
    if key not in _chosen:
        _chosen[key] = _fastest(task, ranked, isa, threads)
    return _chosen[key]


def promising(task: Task, isa: str) -> list[Candidate]:
    """Candidates worth timing, best estimate first; two estimates, since CPUs differ in how fast 16 lanes are."""
    everything = set(enumerate_candidates(task, isa))
    outer = sorted(c for c in everything if c.runs_outer and not (c.reordered and not _gains(task, c)))
    keep: dict[Candidate, None] = {}
    count = PROMISING if task.matrix.weights.size < HEAVY else 1
    for rate in (2.0, 1.0):
        costs = {c: estimate(task, c, rate) for c in outer}
        for candidate in sorted(outer, key=lambda c: costs[c])[:count]:
            keep[candidate] = None
    for candidate in list(keep):
        other = replace(candidate, runs_outer=False)
        if other in everything:
            keep[other] = None
    first = next(iter(keep))
    if not task.matrix.mask.all():
        keep[replace(first, dense=True, reordered=False)] = None
    return list(keep)


def _gains(task: Task, candidate: Candidate) -> bool:
    """Whether putting filters with equal zeros together makes the lists shorter."""
    plain = replace(candidate, reordered=False)
    return estimate(task, candidate, 2.0) < 0.98 * estimate(task, plain, 2.0)


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
