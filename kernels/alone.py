"""One convolution alone: a program that runs it on data of its own, in several ways."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from . import _engine
from .candidate import Candidate
from .candidates import other_orders
from .layout import LINE, WIDEST, Geometry
from .pack import Packed
from .place import Place, add_convolution, add_staging, scratch_size
from .task import Task


class Alone:
    """A convolution outside its network; taking its input apart for a stride is part of it.

    All candidates read one input and write one output; each has its weights in memory of its own, also if it is listed
    twice.

    Attributes:
        weights_bytes: Bytes of the first candidate's weights.
        index_bytes: Bytes of the lists that go with them.
    """

    def __init__(self, task: Task, candidates: Sequence[Candidate], isa: str, threads: int) -> None:
        """Pack the weights and place everything.

        Args:
            task: The convolution.
            candidates: How it is computed.
            isa: Instruction set.
            threads: Threads that share the work.
        """
        pieces = [task.source, task.target, *([task.staging.planes] if task.staging else [])]
        pieces += [task.residual] if task.residual else []
        starts = [WIDEST + sum(p.size + LINE for p in pieces[:i]) for i in range(len(pieces))]
        shape = task.source.shape
        arena = WIDEST + starts[-1] + pieces[-1].size
        scratch = max(scratch_size(task, c) for plain in candidates for c in (plain, *other_orders(task, plain)))
        program = _engine.Program(isa, threads, arena, math.prod(shape), 1, scratch)
        program.stage(*_input(task.source, starts[0]), [(0, 0)], (1, 1), False)
        staged = task.staging.planes.planes(starts[2]) if task.staging else None
        residual = pieces[-1].planes(starts[-1]) if task.residual else None
        place = Place(task.source.planes(starts[0]), task.target.planes(starts[1]), residual, staged, False)
        self._task, self._place = task, place
        self._packs: dict[Candidate, Packed] = {}
        self._steps: list[range] = []
        self._program = program
        self.add(candidates)
        first = next(iter(self._packs.values()))
        self.weights_bytes = first.weights.nbytes
        self.index_bytes = first.offsets.nbytes + first.runs.nbytes
        self._image = np.random.default_rng(0).standard_normal(math.prod(shape), dtype=np.float32)
        program.time_steps(self._image, 1, [0])

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Take more candidates behind those that are there, of families that are among these."""
        for candidate in candidates:
            lists = replace(candidate, runs_outer=True, panel=False)
            packed = self._packs[lists] = self._packs.get(lists) or self._task.packed(candidate)
            before = self._program.steps
            if self._task.reads_staged(candidate.family):
                add_staging(self._program, self._task, self._place.source, self._place, False)
            add_convolution(self._program, self._task, candidate, packed, self._place)
            self._steps.append(range(before, self._program.steps))

    def time(self, which: Iterable[int]) -> npt.NDArray[np.float64]:
        """Seconds of one run of each of these candidates, one after the other; beyond the last they start over."""
        steps = [self._steps[index % len(self._steps)] for index in which]
        taken = self._program.time_steps(self._image, 1, [index for each in steps for index in each])
        return np.add.reduceat(taken.reshape(-1), np.cumsum([0, *map(len, steps[:-1])]))


def _input(source: Geometry, start: int) -> tuple[_engine.Planes, _engine.Planes]:
    """A network's input as it comes from outside, and where it goes."""
    channels, height, width = source.shape
    if source.is_vector:
        return _engine.Planes(_engine.Space.input, 0, channels, 0, channels, (1, 1, channels)), source.as_row(start)
    return _engine.Planes(_engine.Space.input, 0, height * width, 0, width, source.shape), source.planes(start)
