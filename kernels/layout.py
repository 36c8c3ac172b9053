"""Where values lie: planes that share their margins, pitches that connected layers have in common, one arena.

A value is stored channel by channel, rows one after the other with ``pitch`` floats from one to the next. The zeros
between two rows are the right padding of one and the left padding of the next; the ``halo`` zero rows between two
channels likewise. A vector of consecutive floats then holds the same tap for consecutive pixels of a whole plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import _engine
from .operations import Convolution, Lowered, Operation, Value

Phase = tuple[int, int]
LINE = 16  # floats of a cache line
WIDEST = 64  # most output channels of one tile; vectors are padded to it
SHARED_FROM = 48 * 1024  # floats: below this all values get memory of their own, so that no margin is ever overwritten


def align(count: int, unit: int = LINE) -> int:
    """``count`` rounded up to a multiple of ``unit``."""
    return -(-count // unit) * unit


@dataclass(frozen=True)
class Geometry:
    """Planes of one value, wherever they lie.

    Attributes:
        shape: (channels, height, width).
        pitch: Floats from one row to the next.
        halo: Zero rows above and below every plane.
        left: Zero floats before the first pixel of a row that somebody reads.
    """

    shape: tuple[int, int, int]
    pitch: int
    halo: int
    left: int

    @property
    def is_vector(self) -> bool:
        """Whether the channels lie one after the other: a 1x1 map that nobody pads."""
        return self.shape[1:] == (1, 1) and self.pitch == 1 and self.halo == 0

    @property
    def stride(self) -> int:
        """Floats from one channel to the next; not a multiple of 4 KiB, where caches would collide."""
        if self.is_vector:
            return 1
        stride = align((self.shape[1] + self.halo) * self.pitch)
        return stride + LINE if stride % 1024 == 0 else stride

    @property
    def before(self) -> int:
        """Floats ahead of the first pixel that must be zero."""
        return self.halo * self.pitch + self.left

    @property
    def size(self) -> int:
        """Floats of memory, multiples of cache lines."""
        body = align(self.shape[0], WIDEST) if self.is_vector else self.shape[0] * self.stride
        return align(self.before) + body

    def planes(self, start: int) -> _engine.Planes:
        """The planes when the memory begins at ``start``, a multiple of a cache line."""
        base = start + align(self.before)
        return _engine.Planes(_engine.Space.arena, base, self.stride, self.before, self.pitch, self.shape)

    def as_row(self, start: int) -> _engine.Planes:
        """A vector seen as one plane of one row, for operations that walk planes."""
        shape = (1, 1, self.shape[0])
        return _engine.Planes(_engine.Space.arena, start, align(self.shape[0], WIDEST), 0, self.shape[0], shape)


@dataclass(frozen=True)
class Staging:
    """An input taken apart for a stride: plane (channel, phase) holds every stride-th pixel from that phase on.

    Attributes:
        name: Of the memory it lies in: that of the input and the stride.
        geometry: Of the planes of one phase.
        phases: (row, column) of each phase, both below the stride, sorted.
    """

    name: str
    geometry: Geometry
    phases: tuple[Phase, ...]

    @property
    def planes(self) -> Geometry:
        """Geometry of all planes: the phases of one channel lie together."""
        channels, height, width = self.geometry.shape
        return replace(self.geometry, shape=(channels * len(self.phases), height, width))


@dataclass(frozen=True)
class Layout:
    """Geometry of every value, and the staging of every convolution that has a stride, by the convolution's name.

    Convolutions of equal stride on one value share their staging's geometry, each with the phases that it reads.
    """

    values: dict[str, Geometry]
    staged: dict[str, Staging]


def taps(c: Convolution, axis: int, size: int, outputs: int) -> list[tuple[int, int]]:
    """(kernel index, input index at output 0) along one axis, without those that only ever meet padding."""
    found = []
    for index in range(c.weight.shape[2 + axis]):
        at = index * c.dilation[axis] - c.padding[axis]
        if any(0 <= at + o * c.stride[axis] < size for o in range(outputs)):
            found.append((index, at))
    return found


def plan_layout(lowered: Lowered) -> Layout:
    """Choose the geometry of all values.

    A convolution without stride walks input and output in step, so they need one pitch; so do the terms of an addition.
    """
    return _Planner(lowered).plan()


class _Planner:
    def __init__(self, lowered: Lowered) -> None:
        self._lowered = lowered
        self._nodes: dict[str, Geometry] = {}  # values, and staged values under names of their own
        self._phases: dict[str, tuple[str, tuple[Phase, ...]]] = {}  # by convolution: the staged value, the phases
        self._parent: dict[str, str] = {}
        for name, value in lowered.values.items():
            self._start(name, value.shape)

    def plan(self) -> Layout:
        for operation in self._lowered.operations:
            if operation.convolution is not None:
                self._convolution(operation, operation.convolution)
            if operation.kind == "add" or operation.residual is not None:
                for name in operation.reads if operation.kind == "add" else (str(operation.residual),):
                    self._unite(name, operation.name)
        pitches: dict[str, int] = {}
        for name, geometry in self._nodes.items():
            root = self._root(name)
            pitches[root] = max(pitches.get(root, 0), geometry.pitch)
        done = {name: replace(g, pitch=pitches[self._root(name)]) for name, g in self._nodes.items()}
        staged = {name: Staging(key, done[key], phases) for name, (key, phases) in self._phases.items()}
        return Layout({name: done[name] for name in self._lowered.values}, staged)

    def _start(self, name: str, shape: tuple[int, int, int]) -> None:
        self._nodes[name] = Geometry(shape, shape[2], 0, 0)
        self._parent[name] = name

    def _convolution(self, operation: Operation, c: Convolution) -> None:
        source = self._lowered.values[operation.inputs[0]]
        height, width = self._lowered.values[operation.name].shape[1:]
        rows, columns = taps(c, 0, source.shape[1], height), taps(c, 1, source.shape[2], width)
        self._margins(operation.inputs[0], rows, columns, (height, width), c.stride)
        if c.stride == (1, 1):
            if (height, width) != (1, 1):
                self._unite(operation.inputs[0], operation.name)
            return
        if (height, width) == (1, 1):
            return
        self._stage(operation, c, source, rows, columns)

    def _stage(
        self, operation: Operation, c: Convolution, source: Value, rows: list[tuple[int, int]],
        columns: list[tuple[int, int]],
    ) -> None:  # fmt: skip
        phases = tuple(sorted({(y % c.stride[0], x % c.stride[1]) for _, y in rows for _, x in columns}))
        key = f"{operation.inputs[0]}/{c.stride[0]}x{c.stride[1]}"
        if key not in self._nodes:
            height, width = (-(-size // step) for size, step in zip(source.shape[1:], c.stride, strict=True))
            self._start(key, (source.shape[0], height, width))
        self._phases[operation.name] = key, phases or ((0, 0),)
        outputs = self._lowered.values[operation.name].shape
        steps = [[(i, at // step) for i, at in taps] for taps, step in zip((rows, columns), c.stride, strict=True)]
        self._margins(key, steps[0], steps[1], (outputs[1], outputs[2]), (1, 1))
        self._unite(key, operation.name)

    def _margins(
        self, name: str, rows: list[tuple[int, int]], columns: list[tuple[int, int]], outputs: tuple[int, int],
        stride: tuple[int, int],
    ) -> None:  # fmt: skip
        """Make room around a value for everything that is read beyond its edges."""
        geometry = self._nodes[name]
        above, below = _beyond(rows, geometry.shape[1], outputs[0], stride[0])
        left, right = _beyond(columns, geometry.shape[2], outputs[1], stride[1])
        pitch = max(geometry.pitch, geometry.shape[2] + max(left, right))
        halo, left = max(geometry.halo, above, below), max(geometry.left, left)
        self._nodes[name] = replace(geometry, pitch=pitch, halo=halo, left=left)

    def _unite(self, a: str, b: str) -> None:
        self._parent[self._root(a)] = self._root(b)

    def _root(self, name: str) -> str:
        while self._parent[name] != name:
            name = self._parent[name]
        return name


def _beyond(taps: Sequence[tuple[int, int]], size: int, outputs: int, stride: int) -> tuple[int, int]:
    """How far the taps reach before the first and after the last input."""
    first = min((at for _, at in taps), default=0)
    last = max((at for _, at in taps), default=0) + (outputs - 1) * stride
    return max(0, -first), max(0, last - size + 1)


@dataclass(frozen=True)
class Placement:
    """Where a piece of memory lies, and whether others use the same memory at other times."""

    start: int
    shared: bool


def place(sizes: Sequence[int], spans: Sequence[tuple[int, int]]) -> tuple[list[Placement], int]:
    """Place pieces of memory in an arena so that pieces needed at the same time do not overlap.

    Args:
        sizes: Floats of each piece, multiples of a cache line.
        spans: First and last step that need it.

    Returns:
        The placements, and the arena's size. A line of slack lies at both ends: vectors may be read past the last row.
    """
    if sum(sizes) <= SHARED_FROM:
        starts = [WIDEST + sum(sizes[:i]) for i in range(len(sizes))]
        return [Placement(start, False) for start in starts], sum(sizes) + 2 * WIDEST
    placed: dict[int, int] = {}
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        busy = sorted(
            (placed[other], placed[other] + sizes[other]) for other in placed if _meet(spans[other], spans[index])
        )
        at = WIDEST
        for begin, end in busy:
            if begin - at >= sizes[index]:
                break
            at = max(at, end)
        placed[index] = at
    ranges = [(placed[i], placed[i] + size) for i, size in enumerate(sizes)]
    shared = [any(i != j and _meet((a, b - 1), (c, d - 1)) for j, (c, d) in enumerate(ranges))
              for i, (a, b) in enumerate(ranges)]  # fmt: skip
    placements = [Placement(start, flag) for (start, _), flag in zip(ranges, shared, strict=True)]
    return placements, max(end for _, end in ranges) + WIDEST


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]
