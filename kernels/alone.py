"""One convolution alone: a program that runs it on data of its own, with several copies of its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from . import _engine
from .candidates import Candidate, Task
from .layout import LINE, WIDEST, Geometry
from .tune import Place, add_convolution, add_staging, needs_staging


class Alone:
    """A convolution outside its network; taking its input apart for a stride is part of it.

    Attributes:
        weights_bytes: Bytes of one copy of the weights.
        index_bytes: Bytes of the lists that go with them.
    """

    def __init__(self, task: Task, candidate: Candidate, isa: str, threads: int, copies: int = 1) -> None:
        """Pack the weights and place everything.

        Args:
            task: The convolution.
            candidate: How it is computed.
            isa: Instruction set.
            threads: Threads that share the work.
            copies: How often weights and lists are stored, each time in memory of their own.
        """
        pieces = [task.source, task.target, *([task.staging.planes] if task.staging else [])]
        pieces += [task.residual] if task.residual else []
        starts = [WIDEST + sum(p.size + LINE for p in pieces[:i]) for i in range(len(pieces))]
        shape = task.source.shape
        program = _engine.Program(isa, threads, WIDEST + starts[-1] + pieces[-1].size, math.prod(shape), 1)
        program.stage(*_input(task.source, starts[0]), [(0, 0)], (1, 1), False)
        staged = task.staging.planes.planes(starts[2]) if task.staging else None
        residual = pieces[-1].planes(starts[-1]) if task.residual else None
        place = Place(task.source.planes(starts[0]), task.target.planes(starts[1]), residual, staged, False)
        packed = task.packed(candidate)
        self.weights_bytes = packed.weights.nbytes
        self.index_bytes = packed.offsets.nbytes + packed.runs.nbytes
        self._copies: list[range] = []
        for _ in range(copies):
            before = program.steps
            if needs_staging(task, candidate):
                add_staging(program, task, place.source, place, False)
            add_convolution(program, task, candidate, task.filters(packed), place)
            self._copies.append(range(before, program.steps))
        self._program = program
        self._image = np.random.default_rng(0).standard_normal(math.prod(shape), dtype=np.float32)
        program.time_steps(self._image, 1, [0])

    def time(self, copies: Iterable[int]) -> npt.NDArray[np.float64]:
        """Seconds of one run with each of these copies of the weights, one after the other; the copies start over."""
        steps = [self._copies[copy % len(self._copies)] for copy in copies]
        taken = self._program.time_steps(self._image, 1, [index for each in steps for index in each])
        return np.asarray(taken.reshape(len(steps), -1).sum(axis=1))


def _input(source: Geometry, start: int) -> tuple[_engine.Planes, _engine.Planes]:
    """A network's input as it comes from outside, and where it goes."""
    channels, height, width = source.shape
    if source.is_vector:
        return _engine.Planes(_engine.Space.input, 0, channels, 0, channels, (1, 1, channels)), source.as_row(start)
    return _engine.Planes(_engine.Space.input, 0, height * width, 0, width, source.shape), source.planes(start)
