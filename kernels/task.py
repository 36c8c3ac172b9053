"""One convolution with the geometry around it: what each way to compute it reads, and its lists."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from . import _engine
from .candidate import Candidate, Family
from .layout import Geometry, Staging, taps, walks_rows
from .operations import NO_CLAMP, Clamp, Convolution
from .pack import (
    Bools,
    Floats,
    Ints,
    Matrix,
    Packed,
    Runs,
    join_passes,
    make_runs,
    pack,
    pack_jammed,
    plain_order,
    similar_order,
    union_counts,
)
from .winograd import POINTS, Axis, Filtering, find_holes

FIRST_LEVEL = 24 * 1024  # bytes of the first-level cache that are left for inputs


@dataclass(frozen=True)
class Structure:
    """What a candidate computes: a matrix, its filters cut into runs, the length of every run's list, its non-zeros."""

    matrix: Matrix
    runs: Runs
    counts: Ints
    kept: Ints

    @property
    def zeros(self) -> bool:
        """Whether some run would store zeros."""
        return bool((self.kept < self.counts * self.runs.sizes).any())


@dataclass(frozen=True)
class Task:
    """One convolution with the geometry around it.

    Attributes:
        convolution: Weights and sizes.
        clamp: Bounds of the result.
        source: Geometry of the input.
        target: Geometry of the output, and of the residual.
        residual: Geometry of the residual, or None.
        staging: How the input is rearranged, where there is a stride or where it lacks margins; the channel family
            reads the input itself unless it lacks margins.
    """

    convolution: Convolution
    clamp: Clamp
    source: Geometry
    target: Geometry
    residual: Geometry | None
    staging: Staging | None

    @cached_property
    def _valid(self) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
        """(groups, positions): the channel is there and the tap meets more than padding."""
        c = self.convolution
        kernel = np.zeros(c.weight.shape[2:], dtype=np.bool_)
        rows, columns = (
            [i for i, _ in taps(c, axis, self.source.shape[1 + axis], self.target.shape[1 + axis])] for axis in (0, 1)
        )
        kernel[np.ix_(rows, columns)] = True
        return ((c.inputs >= 0)[:, :, None] & kernel.reshape(-1)).reshape(len(c.inputs), -1)

    @cached_property
    def matrix(self) -> Matrix:
        """The weights that must be computed."""
        c = self.convolution
        weights = c.weight.reshape(len(c.weight), -1)
        return Matrix(weights, (weights != 0) & self._valid[c.groups], c.groups)

    @cached_property
    def dense_matrix(self) -> Matrix:
        """The same with every weight of a position that any filter of the group reads."""
        mask, groups = self.matrix.mask, self.matrix.groups
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        used = np.logical_or.reduceat(mask, starts, axis=0)
        return Matrix(self.matrix.weights, np.repeat(used, np.diff(starts, append=len(mask)), axis=0), groups)

    def reads_staged(self, family: Family) -> bool:
        """Whether a family reads the rearranged input."""
        return self.staging is not None and family != "winograd" and (family == "pixels" or self.staging.required)

    @property
    def walks_rows(self) -> bool:
        """Whether it is computed row by row."""
        return walks_rows(self.convolution, self.target.shape[1:])

    def step(self, family: Family) -> tuple[int, int]:
        """Rows and columns, of what a family reads, from one output to the next."""
        return (1, 1) if self.reads_staged(family) else self.convolution.stride

    def rows(self, candidate: Candidate) -> tuple[int, int]:
        """How many rows of the output a candidate of the channel family walks, and how long they are."""
        _, height, width = self.target.shape
        return height // candidate.joined, width * candidate.joined

    @cached_property
    def walked_as_one(self) -> bool:
        """Whether the channel family may walk several rows as one: nothing lies between them, in input and output."""
        if self.step("channels") != (1, 1) or self.target.shape[1:] == (1, 1):
            return False
        read = self.staging.geometry if self.staging and self.reads_staged("channels") else self.source
        return read.pitch == self.target.pitch == self.target.shape[2]

    @cached_property
    def reads_once(self) -> bool:
        """Whether a tile reads every input once, and all filters the same: it may as well be copied together."""
        kernel = self.convolution.weight.shape[2:]
        return kernel == (1, 1) and len(self.convolution.inputs) == 1 and bool(self.matrix.mask.any())

    def panel(self, candidate: Candidate) -> npt.NDArray[np.int32]:
        """(passes, rows): where the rows of a candidate's panel are read: every position that some filter reads.

        A pass that has fewer than another reads its last one again.
        """
        offsets = self._offsets(candidate.family)[0]
        parts = [begin + np.flatnonzero(self.used[begin:end]) for begin, end in self._pass_ranges(candidate.passes)]
        rows = max(map(len, parts))
        return np.stack([offsets[np.pad(part, (0, rows - len(part)), "edge")] for part in parts]).astype(np.int32)

    def passes_needed(self, candidate: Candidate) -> int:
        """The fewest passes of which each reads no more channels than the first-level cache holds."""
        return -(-len(self._used_channels) // self._cached_channels(candidate))

    @cached_property
    def used(self) -> Bools:
        """(positions,): whether some filter reads it; the dense form of a layer reads no more."""
        return np.asarray(self.matrix.mask.any(axis=0))

    @cached_property
    def _used_channels(self) -> Ints:
        return np.flatnonzero(self.used.reshape(-1, self.tap_count).any(axis=1))

    def _pass_ranges(self, passes: int) -> list[tuple[int, int]]:
        """The positions of each pass: of as many channels that are read as any other, or one less."""
        firsts = [int(part[0]) * self.tap_count for part in np.array_split(self._used_channels, passes)[1:]]
        return list(pairwise([0, *firsts, len(self.used)]))

    @property
    def tap_count(self) -> int:
        """Positions of one input channel."""
        return math.prod(self.convolution.weight.shape[2:])

    def _cached_channels(self, candidate: Candidate) -> int:
        """Input channels of which the first-level cache holds what a tile reads."""
        return max(1, FIRST_LEVEL // self.channel_bytes(candidate.family, candidate.tile_floats))

    def _block(self, candidate: Candidate) -> int:
        """Positions whose inputs the first-level cache holds while a run is computed.

        All of them where each is read once, and in passes, which are as small anyway.
        """
        if self.tap_count == 1 or candidate.passes > 1:
            return max(1, int(self.matrix.mask.shape[1]))
        return self.tap_count * self._cached_channels(candidate)

    def channel_bytes(self, family: Family, floats: int) -> int:
        """Bytes of an input channel, of all its planes, that the taps read for so many outputs in a row."""
        sorted_taps = self._sorted_taps[self.reads_staged(family)]
        apart = sorted_taps[1:] - sorted_taps[:-1]
        return 4 * (floats + int(np.minimum(apart, floats).sum()))

    @cached_property
    def _sorted_taps(self) -> dict[bool, Ints]:
        """Where the taps of a channel read, in the order of memory; whether of the rearranged input."""
        read = {False: self._direct_offsets} | ({True: self._staged_offsets} if self.staging else {})
        return {staged: np.sort(offsets[0, : self.tap_count]) for staged, offsets in read.items()}

    @cached_property
    def filterings(self) -> dict[int, Filtering]:
        """How Winograd's minimal filtering computes it, by the outputs of a cell; none where that is no gain."""
        c = self.convolution
        if len(c.inputs) > 1 or c.dilation != (1, 1) or self.target.shape[1:] == (1, 1):
            return {}
        used = self.used.reshape(-1, *c.weight.shape[2:])
        read = used.any(axis=(1, 2))
        if not read.any():
            return {}
        axes = [Axis(self.source.shape[1 + i], self.target.shape[1 + i], c.stride[i], self._taps(i)) for i in (0, 1)]
        kept = c.weight[:, read], c.inputs[0, read], find_holes(used[read], *axes)
        found = {cell: Filtering(cell, *kept, self.target.shape[1:], c.stride, c.padding) for cell in POINTS}
        return {cell: filtering for cell, filtering in found.items() if filtering.is_worth_it}

    def products(self, candidate: Candidate) -> Task:
        """The products of Winograd's minimal filtering of a band of rows of cells."""
        filtering, band = self.filterings[candidate.columns], candidate.rows
        key = filtering.cell, band
        if key not in self._products:
            c, (inputs, _) = filtering.products, filtering.planes
            source, target = (filtering.geometry(planes, band) for planes in (inputs, len(c.weight)))
            self._products[key] = Task(c, NO_CLAMP, source, target, None, None)
        return self._products[key]

    @cached_property
    def _products(self) -> dict[tuple[int, int], Task]:
        return {}

    def structure(self, candidate: Candidate) -> Structure:
        """What a candidate computes: remembered, since many candidates share it."""
        if candidate.family == "winograd":
            return self.products(candidate).structure(candidate.products)
        key = (candidate.size, candidate.run_lanes, candidate.reordered, candidate.dense)
        if key not in self._structures:
            matrix = self.dense_matrix if candidate.dense else self.matrix
            order = similar_order(self.matrix, candidate.size) if candidate.reordered else plain_order(matrix)
            runs = make_runs(order, candidate.size, candidate.run_lanes)
            kept = np.append(matrix.kept, 0)[runs.order]
            self._structures[key] = Structure(
                matrix, runs, union_counts(matrix, runs), np.add.reduceat(kept, runs.starts)
            )
        return self._structures[key]

    @cached_property
    def _structures(self) -> dict[tuple[int, int, bool, bool], Structure]:
        return {}

    def packed(self, candidate: Candidate) -> Packed:
        """The lists and weights of a candidate."""
        if candidate.family == "winograd":
            return self.products(candidate).packed(candidate.products)
        structure = self.structure(candidate)
        offsets = self._offsets(candidate.family)
        if candidate.family == "rows":
            positions = np.arange(offsets.size).reshape(offsets.shape)
            packed = pack(structure.matrix, structure.runs, positions)
            columns = np.tile(self._columns(), len(offsets))[packed.offsets]
            return replace(packed, offsets=offsets.reshape(-1)[packed.offsets].astype(np.int32), columns=columns)
        if candidate.passes == 1:
            return self._lists(candidate, structure.matrix, offsets)
        return join_passes(
            [
                self._lists(candidate, structure.matrix.part(begin, end), offsets[:, begin:end])
                for begin, end in self._pass_ranges(candidate.passes)
            ]
        )

    def _lists(self, candidate: Candidate, matrix: Matrix, offsets: Ints) -> Packed:
        runs = self.structure(candidate).runs
        if candidate.jammed:
            return pack_jammed(matrix, runs, offsets, self._block(candidate))
        return pack(matrix, runs, offsets, candidate.run_lanes)

    def filters(self, packed: Packed) -> _engine.Filters:
        """What the engine takes."""
        bias: Floats = np.where(packed.rows >= 0, self.convolution.bias[packed.rows], 0.0).astype(np.float32)
        return _engine.Filters(packed.runs, packed.offsets, packed.weights, bias, packed.rows, self.clamp, packed.sets)

    def _offsets(self, family: Family) -> Ints:
        """(groups, positions): where a family reads each position."""
        return self._staged_offsets if self.reads_staged(family) else self._direct_offsets

    def _taps(self, axis: int) -> Ints:
        """How far below, or right of, an output each tap of the kernel reads."""
        c = self.convolution
        return np.arange(c.weight.shape[2 + axis]) * c.dilation[axis] - c.padding[axis]

    def _columns(self) -> npt.NDArray[np.int32]:
        """(positions,): how far right of an output each position of a channel of its own reads."""
        return np.tile(self._taps(1), self.convolution.weight.shape[2]).astype(np.int32)

    @cached_property
    def _direct_offsets(self) -> Ints:
        c = self.convolution
        kernel = self._taps(0)[:, None] * self.source.pitch + self._taps(1)
        return (c.inputs[:, :, None] * self.source.stride + kernel.reshape(-1)).reshape(len(c.inputs), -1)

    @cached_property
    def _staged_offsets(self) -> Ints:
        assert self.staging is not None
        c, geometry = self.convolution, self.staging.geometry
        kernel = np.zeros(c.weight.shape[2:], dtype=np.int64)
        for r, s in np.ndindex(*kernel.shape):
            y, x = r * c.dilation[0] - c.padding[0], s * c.dilation[1] - c.padding[1]
            kernel[r, s] = self.staging.offset(y, x, c.stride) or 0  # unread where no phase has it
        planes = c.inputs[:, :, None] * (len(self.staging.phases) * geometry.stride)
        return (planes + kernel.reshape(-1)).reshape(len(c.inputs), -1)
