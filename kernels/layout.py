"""Planes: how the pixels of a value, and of its rearranged copies, lie in memory.

A value is stored channel by channel, rows one after the other with ``pitch`` floats from one to the next. The zeros
between two rows are the right padding of one and the left padding of the next; the ``halo`` zero rows between two
channels likewise. A vector of consecutive floats then holds the same tap for consecutive pixels of a whole plane.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import _engine
from .operations import Convolution

Phase = tuple[int, int]
Taps = list[tuple[int, int]]
"""(kernel index, input index at output 0) along one axis."""
LINE = 16  # floats of a cache line
WIDEST = 64  # most output channels of one tile; vectors are padded to it


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
        """Floats from one channel to the next: an odd number of lines, so that planes use all places of a cache."""
        if self.is_vector:
            return 1
        stride = align((self.shape[1] + self.halo) * self.pitch)
        return stride if stride // LINE % 2 else stride + LINE

    @property
    def flat(self) -> int:
        """Floats from the first to the last pixel of a plane."""
        return (self.shape[1] - 1) * self.pitch + self.shape[2]

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
    """An input rearranged: for a stride, or so that rows need no margins.

    Plane (channel, phase) holds every stride-th row from the phase's row on, and of it every stride-th pixel from the
    phase's column on; beyond the edges zeros.

    Attributes:
        name: Of the memory it lies in: that of the input and the stride.
        geometry: Of the planes of one phase.
        phases: (row, column) of each phase, sorted. Rows are below the stride.
        shifted: Whether there is a phase for every column of the kernel, which may begin left of the input: nothing
            beyond the edges of a row is read then. Otherwise columns are below the stride.
        required: Whether the input itself lacks the margins that a convolution would read.
    """

    name: str
    geometry: Geometry
    phases: tuple[Phase, ...]
    shifted: bool
    required: bool

    @property
    def planes(self) -> Geometry:
        """Geometry of all planes: the phases of one channel lie together."""
        channels, height, width = self.geometry.shape
        return replace(self.geometry, shape=(channels * len(self.phases), height, width))

    def offset(self, y: int, x: int, stride: tuple[int, int]) -> int | None:
        """Floats from a channel's first plane to what is read at row ``y`` and column ``x``; None: nothing."""
        phase = (y % stride[0], x if self.shifted else x % stride[1])
        if phase not in self.phases:
            return None
        column = 0 if self.shifted else x // stride[1]
        return self.phases.index(phase) * self.geometry.stride + y // stride[0] * self.geometry.pitch + column


@dataclass(frozen=True)
class Layout:
    """Geometry of every value, and the staging of every convolution that has one, by the convolution's name.

    Convolutions of equal stride on one value share their staging's geometry, each with the phases that it reads.
    """

    values: dict[str, Geometry]
    staged: dict[str, Staging]


def walks_rows(c: Convolution, outputs: tuple[int, int]) -> bool:
    """Whether a convolution is computed row by row, so that its input needs no margins between rows.

    That is worth it where channels have filters of their own: nothing is shared that a stride could be rearranged for.
    """
    groups, inputs = c.inputs.shape
    return groups > 1 and inputs == 1 and outputs != (1, 1) and c.stride[1] <= _engine.MAX_ROW_STEP


def taps(c: Convolution, axis: int, size: int, outputs: int) -> Taps:
    """The taps along one axis, without those that only ever meet padding."""
    found = []
    for index in range(c.weight.shape[2 + axis]):
        at = index * c.dilation[axis] - c.padding[axis]
        if any(0 <= at + o * c.stride[axis] < size for o in range(outputs)):
            found.append((index, at))
    return found
