"""From fused operations to a program: candidates are chosen, memory is placed, steps are appended."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..pruning.errors import PrunemapError
from . import _engine
from .arena import Placement, place
from .candidate import Candidate
from .layout import Layout, Staging
from .operations import Lowered, Operation
from .pitches import plan_layout
from .place import Place, add_convolution, add_staging, scratch_size
from .task import Task


@dataclass(frozen=True)
class Step:
    """One step of a program.

    Attributes:
        op: ``input``, ``stage`` (take apart for a stride), ``convolution``, ``pool``, ``add``, ``function`` or
            ``output``.
        layer: Qualified name of the layer it belongs to, or None.
        name: The value that it computes.
        shape: (channels, height, width) of that value.
        candidate: How a convolution is computed, or None.
        kept_weights: Non-zero weights among live channels.
        all_weights: Weights of the layer among live channels.
        weights_bytes: Bytes of the weights as stored.
        index_bytes: Bytes of the lists.
        macs: Multiply-adds by kept weights.
        staged: Whether a convolution reads its input as a step before it has rearranged it.
        together: Filters that a convolution computes together; fewer take about as long.
    """

    op: str
    layer: str | None
    name: str
    shape: tuple[int, int, int]
    candidate: str | None = None
    kept_weights: int = 0
    all_weights: int = 0
    weights_bytes: int = 0
    index_bytes: int = 0
    macs: int = 0
    staged: bool = False
    together: int = 1


@dataclass(frozen=True)
class Built:
    """A program, what its steps are, and the floats of its arena and of all threads' scratch memory."""

    program: _engine.Program
    steps: tuple[Step, ...]
    arena: int


@dataclass(frozen=True)
class _Item:
    """A step before memory is placed: the memory it writes and reads by key, and the operation it comes from."""

    op: str
    writes: str
    reads: tuple[str, ...]
    operation: Operation | None = None


def build(lowered: Lowered, isa: str, threads: int, choose: Callable[[Task], Candidate]) -> Built:
    """Choose how to compute every convolution, place all values in one arena and make the program."""
    return _Builder(lowered, isa, threads, choose).build()


INPUT, OUTPUT = "input/", "output/"
MAX_FLOATS = 2**31 - 1  # of a buffer: offsets have 32 bits. Four values and some room fit, to time candidates.


def _check_size(floats: int, most: int, what: str) -> None:
    if floats > most:
        raise PrunemapError(
            f"{what}: {floats / 2**28:.1f} GiB for one image, at most {most / 2**28:.1f} GiB; use smaller images"
        )


class _Builder:
    def __init__(self, lowered: Lowered, isa: str, threads: int, choose: Callable[[Task], Candidate]) -> None:
        self._lowered = lowered
        self._isa = isa
        self._threads = threads
        self._layout: Layout = plan_layout(lowered, _engine.families(isa)[0][0])
        staged = {s.name: s.planes for s in self._layout.staged.values()}
        for name, geometry in {**self._layout.values, **staged}.items():
            _check_size(geometry.size, MAX_FLOATS // 5, name)
        self._tasks = {o.name: self._task(o) for o in lowered.operations if o.convolution is not None}
        self._chosen = {name: choose(task) for name, task in self._tasks.items()}
        self._stagings = self._share_stagings()

    def _share_stagings(self) -> dict[str, Staging]:
        """One staging per value and stride, with the phases of all convolutions that share it."""
        shared: dict[str, Staging] = {}
        for name in filter(self._staged, self._tasks):
            own = self._layout.staged[name]
            phases = {*own.phases, *(shared[own.name].phases if own.name in shared else ())}
            shared[own.name] = replace(own, phases=tuple(sorted(phases)))
        for name in filter(self._staged, self._tasks):
            own = self._layout.staged[name]
            self._tasks[name] = replace(self._tasks[name], staging=replace(own, phases=shared[own.name].phases))
        return shared

    def build(self) -> Built:
        """Place the memory and append all steps."""
        items = self._items()
        geometry = {**self._layout.values, **{name: s.planes for name, s in self._stagings.items()}}
        spans: dict[str, tuple[int, int]] = {}
        for index, item in enumerate(items):
            for key in (item.writes, *item.reads):
                if key not in (INPUT, OUTPUT):
                    spans[key] = (spans.get(key, (index, index))[0], index)
        keys = list(spans)
        placements, arena = place([geometry[k].size for k in keys], [spans[k] for k in keys])
        memory = dict(zip(keys, placements, strict=True))
        sizes = [math.prod(self._lowered.values[n].shape) for n in (self._lowered.source, self._lowered.result)]
        scratch = max((scratch_size(task, self._chosen[name]) for name, task in self._tasks.items()), default=0)
        _check_size(arena + self._threads * scratch, MAX_FLOATS, "all activations")
        program = _engine.Program(self._isa, self._threads, arena, sizes[0], sizes[1], scratch)
        appender = _Appender(program, self._lowered, self._layout, memory)
        steps = tuple(self._append(appender, item) for item in items)
        return Built(program, steps, arena + self._threads * scratch)

    def _task(self, operation: Operation) -> Task:
        assert operation.convolution is not None
        values = self._layout.values
        return Task(
            operation.convolution,
            operation.clamp,
            values[operation.inputs[0]],
            values[operation.name],
            values[operation.residual] if operation.residual is not None else None,
            self._layout.staged.get(operation.name),
        )

    def _items(self) -> list[_Item]:
        """The steps, with the network's input copied only if something reads it other than through staging."""
        source = self._lowered.source
        items: list[_Item] = []
        done: set[str] = set()
        for operation in self._lowered.operations:
            reads = list(operation.reads)
            if operation.name in self._tasks and self._staged(operation.name):
                staging = self._layout.staged[operation.name].name
                if staging not in done:
                    fed = INPUT if reads[0] == source else reads[0]
                    items.append(_Item("stage", staging, (fed,), operation))
                    done.add(staging)
                reads[0] = staging
            items.append(_Item(operation.kind, operation.name, tuple(reads), operation))
        result = self._lowered.result
        items.append(_Item("output", OUTPUT, (result,)))
        if any(source in item.reads for item in items):
            items.insert(0, _Item("input", source, (INPUT,)))
        return items

    def _staged(self, name: str) -> bool:
        return self._tasks[name].reads_staged(self._chosen[name].family)

    def _append(self, appender: _Appender, item: _Item) -> Step:
        if item.operation is None:
            return appender.copy(item.op)
        name = item.operation.name
        if item.op == "stage":
            return appender.stage(item.operation, self._tasks[name])
        if item.op == "convolution":
            return appender.convolution(item.operation, self._tasks[name], self._chosen[name])
        return appender.other(item.operation)


class _Appender:
    """Appends steps to a program whose memory is placed."""

    def __init__(
        self, program: _engine.Program, lowered: Lowered, layout: Layout, memory: dict[str, Placement]
    ) -> None:
        self._program = program
        self._lowered = lowered
        self._layout = layout
        self._memory = memory

    def _planes(self, name: str) -> _engine.Planes:
        return self._layout.values[name].planes(self._memory[name].start)

    def _rows(self, name: str) -> _engine.Planes:
        """The planes of a value; a vector as one row."""
        geometry, start = self._layout.values[name], self._memory[name].start
        return geometry.as_row(start) if geometry.is_vector else geometry.planes(start)

    def _clear(self, name: str) -> bool:
        return self._memory[name].shared and not self._layout.values[name].is_vector

    def _outside(self, name: str, space: _engine.Space) -> _engine.Planes:
        """The network's input or output: planes without margins."""
        channels, height, width = self._lowered.values[name].shape
        if self._layout.values[name].is_vector:
            return _engine.Planes(space, 0, channels, 0, channels, (1, 1, channels))
        return _engine.Planes(space, 0, height * width, 0, width, (channels, height, width))

    def copy(self, op: str) -> Step:
        """The network's input into the arena, or its output out of it."""
        if op == "input":
            name = self._lowered.source
            source, target, clear = self._outside(name, _engine.Space.input), self._rows(name), self._clear(name)
        else:
            name = self._lowered.result
            source, target, clear = self._rows(name), self._outside(name, _engine.Space.output), False
        self._program.stage(source, target, [(0, 0)], (1, 1), clear)
        return Step(op, None, name, self._lowered.values[name].shape)

    def stage(self, operation: Operation, task: Task) -> Step:
        """A strided convolution's input, taken apart."""
        source = self._source(operation.inputs[0])
        assert task.staging is not None
        memory = self._memory[task.staging.name]
        place = Place(source, self._planes(operation.name), None, self._staged(task), memory.shared)
        add_staging(self._program, task, source, place, memory.shared)
        return Step("stage", operation.layer, task.staging.name, task.staging.planes.shape)

    def _source(self, name: str) -> _engine.Planes:
        """What is rearranged: a value, or the network's input as it comes from outside."""
        if name != self._lowered.source:
            return self._planes(name)
        channels, height, width = self._lowered.values[name].shape
        return _engine.Planes(_engine.Space.input, 0, height * width, 0, width, (channels, height, width))

    def _staged(self, task: Task) -> _engine.Planes | None:
        if task.staging is None or task.staging.name not in self._memory:
            return None
        return task.staging.planes.planes(self._memory[task.staging.name].start)

    def convolution(self, operation: Operation, task: Task, candidate: Candidate) -> Step:
        """A convolution or linear layer."""
        source = operation.inputs[0]
        residual = self._planes(operation.residual) if operation.residual is not None else None
        staged = self._staged(task)
        # With staging the unstaged input may have no memory by now: only the staged planes are read.
        fed = self._planes(source) if source in self._memory else staged
        assert fed is not None
        place = Place(fed, self._planes(operation.name), residual, staged, self._clear(operation.name))
        packed = task.packed(candidate)
        add_convolution(self._program, task, candidate, packed, place)
        shape = self._lowered.values[operation.name].shape
        kept = int(task.matrix.kept.sum())
        return Step(
            "convolution", operation.layer, operation.name, shape, str(candidate), kept, task.matrix.mask.size,
            packed.weights.nbytes, packed.offsets.nbytes + packed.runs.nbytes, kept * shape[1] * shape[2],
            task.reads_staged(candidate.family), candidate.together,
        )  # fmt: skip

    def other(self, operation: Operation) -> Step:
        """A pool, an addition or a function."""
        append = {"pool": self._pool, "add": self._add, "function": self._function}
        append[operation.kind](operation)
        return Step(operation.kind, None, operation.name, self._lowered.values[operation.name].shape)

    def _pool(self, operation: Operation) -> None:
        p = operation.pooling
        assert p is not None
        window = (*p.kernel, *p.stride, *p.padding)
        source, target = self._planes(operation.inputs[0]), self._planes(operation.name)
        self._program.pool(source, target, p.maximum, window, p.count_padding, self._clear(operation.name))

    def _add(self, operation: Operation) -> None:
        planes = [self._rows(name) for name in operation.inputs]
        other = planes[1] if len(planes) > 1 else None
        target = self._rows(operation.name)
        self._program.add(planes[0], other, target, operation.clamp, self._clear(operation.name))

    def _function(self, operation: Operation) -> None:
        source, target = self._rows(operation.inputs[0]), self._rows(operation.name)
        self._program.function(operation.function, source, target, self._clear(operation.name))
