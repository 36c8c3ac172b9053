"""Winograd's minimal filtering: dense kernels with fewer multiplications, a square of outputs at a time.

Along one axis, ``cell`` outputs of a filter with r taps take cell + r - 1 multiplications instead of cell * r,
F(cell, r) (Winograd 1980; nested for two axes: Lavin and Gray, CVPR 2016, section 4). They are made as Toom and Cook
multiply polynomials: each stands for a point, and the outputs are values there put together. More than three taps are
cut into threes and twos, and those that a stride sets apart belong to phases of the input. All use the first of the
same points and the point at infinity, so that they add up alike, whatever the kernel: output i is the sum of the
components, each times the i-th power of its point, and that of infinity belongs to the last output alone.

A component sums products over all its terms and all input channels: a 1x1 convolution of transformed inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
from numpy.polynomial.polynomial import polyfromroots

from . import _engine
from .layout import LINE, Geometry, align
from .operations import Convolution, Ints
from .pack import Bools

CHUNK = 32  # filters whose sums are kept until they become outputs
WORTH = 0.8  # multiplications of those of the plain convolution, from which it is no gain
MOST_TAPS, MOST_PADDING = 16, 1024  # of a kernel along one axis: larger ones would be cut into very many terms
POINTS = {2: (0, 1, -1), 4: (0, 1, -1, 2, -2)}
"""The finite points of three taps, by outputs of a cell; fewer taps leave out the last ones."""


@dataclass(frozen=True)
class Part:
    """F(cell, r) of some taps of a kernel along one axis: as many products as inputs.

    Attributes:
        inputs: (n,): those that a cell reads for these taps, counted from the first that it reads at all.
        components: (n,): that the products are added to.
        factors: (n, n): of the inputs, in each product.
        taps: (n, kernel): what each tap contributes to the weight of each product.
    """

    inputs: Ints
    components: Ints
    factors: npt.NDArray[np.float32]
    taps: npt.NDArray[np.float64]


@cache
def make_parts(kernel: int, stride: int, cell: int) -> tuple[Part, ...]:
    """How ``cell`` outputs of a filter are computed along one axis."""
    found: list[Part] = []
    for phase in range(min(stride, kernel)):
        taps = list(range(phase, kernel, stride))
        while taps:
            count = 3 if len(taps) == 3 or len(taps) > 4 else min(2, len(taps))
            found.append(_filter(taps[:count], kernel, stride, cell))
            taps = taps[count:]
    return tuple(found)


def _filter(taps: Sequence[int], kernel: int, stride: int, cell: int) -> Part:
    """For each point, inputs by the polynomial that is zero at all others, weights by the powers of the point."""
    points, count = POINTS[cell][: cell + len(taps) - 2], cell + len(taps) - 1
    factors, weights = np.zeros((count, count)), np.zeros((count, kernel))
    for i, point in enumerate(points):
        others = [p for p in points if p != point]
        scale = math.prod(point - p for p in others)
        factors[i, :-1] = polyfromroots(others) * math.copysign(1, scale)
        weights[i, taps] = [point**j / abs(scale) for j in range(len(taps))]
    factors[-1], weights[-1, taps[-1]] = polyfromroots(points), 1.0
    components = np.array([*range(len(points)), cell + 1])
    return Part(taps[0] + stride * np.arange(count), components, factors.astype(np.float32), weights)


@dataclass(frozen=True)
class Axis:
    """Rows, or columns, of a convolution.

    Attributes:
        size: Of the input.
        outputs: Of the output.
        stride: From one output to the next.
        taps: (taps,): how far below, or right of, an output each tap of the kernel reads.
    """

    size: int
    outputs: int
    stride: int
    taps: Ints

    def kinds(self) -> tuple[list[tuple[int, int, int]], Ints]:
        """The inputs as (first, end, step) of those alike; (kinds, taps): 1 where a tap reads inputs of the kind."""
        reads = np.zeros((self.size, len(self.taps)), dtype=np.int64)
        places = np.arange(self.outputs)[:, None] * self.stride + self.taps
        inside = (places >= 0) & (places < self.size)
        reads[places[inside], np.nonzero(inside)[1]] = 1
        ranges, readers = [], []
        for kind in np.unique(reads, axis=0):
            alike = np.flatnonzero((reads == kind).all(axis=1))
            step = int(alike[1] - alike[0]) if len(alike) > 1 else 1
            parts = [alike] if (np.diff(alike) == step).all() else alike[:, None]
            ranges += [(int(part[0]), int(part[-1]) + 1, step) for part in parts]
            readers += [kind] * len(parts)
        return ranges, np.array(readers)


def find_holes(used: Bools, rows: Axis, columns: Axis) -> npt.NDArray[np.int32]:
    """What no weight reads of an input: it must not be among the sums that are filtering's inputs.

    Args:
        used: (channels, kernel height, kernel width): whether some weight of the tap is kept.
        rows: Of the input.
        columns: Of the input.

    Returns:
        (n, 7): channel; first, end and step of rows, and of columns.
    """
    (down, by_row), (along, by_column) = rows.kinds(), columns.kinds()
    readers = np.einsum("cst,as,bt->cab", used.astype(np.int64), by_row, by_column)
    found = [(channel, *down[a], *along[b]) for channel, a, b in np.argwhere(readers == 0).tolist()]
    return np.array(found, dtype=np.int32).reshape(-1, 7)


@dataclass(frozen=True)
class Filtering:
    """How one convolution is computed that way.

    Attributes:
        cell: Outputs along each axis that are computed together.
        weight: (filters, channels, kernel height, kernel width).
        channels: (channels,): of the input.
        holes: (n, 7): inputs of these that count as zeros: index of the channel, by channel; first, end and step of
            rows, and of columns.
        outputs: Height and width of the output.
        stride: Vertical and horizontal.
        padding: Rows above and below, columns left and right.
    """

    cell: int
    weight: npt.NDArray[np.float32]
    channels: Ints
    holes: npt.NDArray[np.int32]
    outputs: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def parts(self) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        """Of rows, and of columns."""
        (height, width), (down, along) = self.weight.shape[2:], self.stride
        return make_parts(height, down, self.cell), make_parts(width, along, self.cell)

    @property
    def terms(self) -> tuple[Ints, Ints]:
        """The component of every product along an axis, part by part: of rows, and of columns."""
        rows, columns = (np.concatenate([part.components for part in parts]) for parts in self.parts)
        return rows, columns

    @property
    def components(self) -> tuple[list[int], list[int]]:
        """Those that are used, of rows and of columns."""
        rows, columns = (sorted({*terms.tolist()}) for terms in self.terms)
        return rows, columns

    @property
    def cells(self) -> tuple[int, int]:
        """Cells of rows and of columns of the output."""
        return -(-self.outputs[0] // self.cell), -(-self.outputs[1] // self.cell)

    @property
    def chunk(self) -> int:
        """Filters that are computed together."""
        return min(CHUNK, len(self.weight))

    @property
    def planes(self) -> tuple[int, int]:
        """Planes of transformed inputs, and of sums of a chunk."""
        (rows, columns), components = self.terms, self.components
        return len(self.channels) * len(rows) * len(columns), len(components[0]) * len(components[1]) * self.chunk

    @property
    def share(self) -> float:
        """Multiplications, of those of the plain convolution."""
        rows, columns = self.terms
        height, width = self.weight.shape[2:]
        return len(rows) * len(columns) / (self.cell**2 * int(height) * int(width))

    @property
    def is_worth_it(self) -> bool:
        """Whether there are kernels for it, and a gain."""
        kinds = all({*range(self.cell), self.cell + 1} <= set(used) for used in self.components)
        small = max(self.weight.shape[2:]) <= MOST_TAPS and max(self.padding) <= MOST_PADDING
        return kinds and small and max(self.stride) <= _engine.MAX_WINOGRAD_STEP and self.share < WORTH

    def geometry(self, planes: int, band: int) -> Geometry:
        """So many planes of a band of rows of cells; vectors may run over the end of each."""
        pixels = band * self.cells[1]
        return Geometry((planes, 1, pixels), pixels + LINE, 0, 0)

    def memory(self, band: int) -> int:
        """Floats that a thread needs for a band of rows of cells: planes in between, and to transform rows."""
        rows, columns = (
            max(self.cell * stride, *(int(part.inputs[-1]) + 1 for part in parts))
            for parts, stride in zip(self.parts, self.stride, strict=True)
        )
        phases = self.cell * self.stride[1]
        line = align(self.cells[1] + (columns - 1) // phases) + LINE
        ring = 1 << (rows + (_engine.CELL_ROWS - 1) * self.cell * self.stride[0] - 1).bit_length()
        lines = ring * (len(self.terms[1]) + 2 * phases) + 2 * phases
        return sum(self.planes) * self.geometry(1, band).stride + lines * line

    @property
    def slots(self) -> npt.NDArray[np.int32]:
        """(products' filters,): the plane of sums that each is kept in: those of a filter lie together."""
        each = self.planes[1] // self.chunk
        sizes = [len(self.weight[start : start + self.chunk]) for start in range(0, len(self.weight), self.chunk)]
        return np.concatenate([np.arange(each * n, dtype=np.int32).reshape(n, each).T.reshape(-1) for n in sizes])

    @cached_property
    def products(self) -> Convolution:
        """The 1x1 convolution from (channel, row term, column term) to (chunk, row and column component, filter)."""
        rows, columns = self.terms
        along = np.kron(*(np.concatenate([part.taps for part in parts]) for parts in self.parts))
        plain = self.weight.reshape(len(self.weight), len(self.channels), -1).astype(np.float64)
        transformed = (plain @ along.T).astype(np.float32).reshape(*plain.shape[:2], len(rows), len(columns))
        read = [
            [np.flatnonzero(terms == c) for c in used]
            for terms, used in zip((rows, columns), self.components, strict=True)
        ]
        blocks = [np.ix_(r, c) for r, c in product(*read)]
        each = np.arange(self.planes[0]).reshape(len(self.channels), len(rows), len(columns))
        inputs = [each[:, r, c].reshape(-1) for r, c in blocks]
        weights = [transformed[:, :, r, c].reshape(len(self.weight), -1) for r, c in blocks]
        most = max(map(len, inputs))
        table = np.stack([np.pad(i, (0, most - len(i)), constant_values=-1) for i in inputs])
        filled = np.stack([np.pad(w, ((0, 0), (0, most - w.shape[1]))) for w in weights])
        starts = range(0, len(self.weight), self.chunk)
        chunks = [filled[:, start : start + self.chunk] for start in starts]
        weight = np.concatenate([chunk.reshape(-1, most) for chunk in chunks])
        sizes = [chunk.shape[1] for chunk in chunks for _ in blocks]
        return Convolution(
            weight[:, :, None, None], np.zeros(len(weight), np.float32), np.repeat(np.arange(len(sizes)), sizes),
            np.tile(table, (len(chunks), 1)), (1, 1), (0, 0), (1, 1),
        )  # fmt: skip
