"""Winograd's minimal filtering: dense kernels with fewer multiplications, two by two outputs at a time.

Along one axis two outputs of a filter with three taps take four multiplications instead of six, F(2, 3), and of two
taps three instead of four, F(2, 2) (Winograd 1980; nested for two axes: Lavin and Gray, CVPR 2016, section 4.1). More
taps are cut into threes and twos, and those that a stride sets apart belong to phases of the input. All are written so
that they add up alike, whatever the kernel, from four components:

    first output  = m0 + m1 + m2
    second output = m1 - m2 - m3

A component sums products over all its terms and all input channels: a 1x1 convolution of transformed inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

from . import _engine
from .layout import LINE, Geometry, align
from .operations import Convolution, Ints

CHUNK = 32  # filters whose sums are kept until they become outputs
WORTH = 0.8  # multiplications of those of the plain convolution, from which it is no gain
MOST_TAPS, MOST_PADDING = 16, 1024  # of a kernel along one axis: larger ones would be cut into very many terms


@dataclass(frozen=True)
class Term:
    """A product along one axis.

    Attributes:
        component: That it is added to.
        first: Index of an input, of those that two outputs read.
        second: Another, ``sign`` times of which is added to it.
        sign: 1, -1, or 0 where the first stands alone.
        taps: What each tap of the kernel contributes to its weight.
    """

    component: int
    first: int
    second: int
    sign: int
    taps: tuple[float, ...]


@cache
def make_terms(kernel: int, stride: int) -> tuple[Term, ...]:
    """The products of two outputs of a filter along one axis, by component."""
    found: list[Term] = []
    for phase in range(min(stride, kernel)):
        taps = list(range(phase, kernel, stride))
        while taps:
            count = 3 if len(taps) == 3 or len(taps) > 4 else min(2, len(taps))
            found += _filter(taps[:count], kernel, stride)
            taps = taps[count:]
    return tuple(sorted(found, key=lambda term: term.component))


def _filter(taps: Sequence[int], kernel: int, stride: int) -> list[Term]:
    d = [taps[0] + i * stride for i in range(4)]

    def term(component: int, first: int, second: int, sign: int, *weights: float) -> Term:
        spread = dict(zip(taps, weights, strict=True))
        return Term(component, d[first], d[second], sign, tuple(spread.get(t, 0.0) for t in range(kernel)))

    if len(taps) == 3:
        return [
            term(0, 0, 2, -1, 1, 0, 0),
            term(1, 1, 2, 1, 0.5, 0.5, 0.5),
            term(2, 2, 1, -1, 0.5, -0.5, 0.5),
            term(3, 1, 3, -1, 0, 0, 1),
        ]
    if len(taps) == 2:
        return [term(0, 0, 1, -1, 1, 0), term(1, 1, 1, 0, 1, 1), term(3, 1, 2, -1, 0, 1)]
    return [term(0, 0, 0, 0, 1), term(3, 1, 1, 0, -1)]


@dataclass(frozen=True)
class Filtering:
    """How one convolution is computed that way.

    Attributes:
        weight: (filters, channels, kernel height, kernel width).
        channels: (channels,): of the input.
        outputs: Height and width of the output.
        stride: Vertical and horizontal.
        padding: Rows above and below, columns left and right.
    """

    weight: npt.NDArray[np.float32]
    channels: Ints
    outputs: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def terms(self) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
        """Of rows, and of columns."""
        height, width = self.weight.shape[2:]
        return make_terms(height, self.stride[0]), make_terms(width, self.stride[1])

    @property
    def components(self) -> tuple[list[int], list[int]]:
        """Those that are used, of rows and of columns."""
        rows, columns = (sorted({term.component for term in terms}) for terms in self.terms)
        return rows, columns

    @property
    def pairs(self) -> tuple[int, int]:
        """Pairs of rows and of columns of the output."""
        return -(-self.outputs[0] // 2), -(-self.outputs[1] // 2)

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
        return len(rows) * len(columns) / (4 * int(height) * int(width))

    @property
    def is_worth_it(self) -> bool:
        """Whether there are kernels for it, and a gain."""
        kinds = all({0, 1, 3} <= set(used) for used in self.components)
        small = max(self.weight.shape[2:]) <= MOST_TAPS and max(self.padding) <= MOST_PADDING
        return kinds and small and max(self.stride) <= _engine.MAX_WINOGRAD_STEP and self.share < WORTH

    def geometry(self, planes: int, band: int) -> Geometry:
        """So many planes of a band of pairs of rows; vectors may run over the end of each."""
        pixels = band * self.pairs[1]
        return Geometry((planes, 1, pixels), pixels + LINE, 0, 0)

    def memory(self, band: int) -> int:
        """Floats that a thread needs for a band of pairs of rows: planes in between, and lines to take rows apart."""
        rows, columns = (
            max(2 * stride, *(max(term.first, term.second) + 1 for term in terms))
            for terms, stride in zip(self.terms, self.stride, strict=True)
        )
        phases = 2 * self.stride[1]
        line = align(self.pairs[1] + -(-columns // phases) + self.padding[1]) + LINE
        return sum(self.planes) * self.geometry(1, band).stride + (rows + 2) * phases * line

    @cached_property
    def products(self) -> Convolution:
        """The 1x1 convolution from (channel, row term, column term) to (chunk, row and column component, filter)."""
        rows, columns = self.terms
        along = np.kron(*(np.array([term.taps for term in terms]) for terms in (rows, columns)))
        plain = self.weight.reshape(len(self.weight), len(self.channels), -1).astype(np.float64)
        transformed = (plain @ along.T).astype(np.float32).reshape(*plain.shape[:2], len(rows), len(columns))
        read = [
            [[i for i, t in enumerate(terms) if t.component == c] for c in used]
            for terms, used in zip(self.terms, self.components, strict=True)
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
