"""How many bytes a pruned layer takes, and Blocked Compressed Storage (scheme mapping, section 4.3 and figure 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .choices import canonical_choice
from .errors import PrunemapError
from .liveness import LayerCount
from .mapping import DENSE, Choice
from .network import LayerSpec
from .schemes import kept_units, parse_scheme

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

VALUE_BYTES = 4
OFFSET_BYTES = 4


def stored_bytes(layer: LayerSpec, count: LayerCount, choice: Choice) -> int:
    """Bytes of a layer's kept weights and of what says where they are; biases are not counted.

    Each weight is a 32-bit value. Removed filters and channels need no index: the layer is stored as a smaller one.
    Every other scheme is stored as compressed rows of units: one index per kept unit, in as many whole bytes as the
    units of one row of blocks need, and one 32-bit offset per row of blocks and one more. So a block of 8 filters x 4
    channels shares one index, and a pattern's index says channel and pattern at once.

    Args:
        layer: The layer.
        count: What the mapping left of it, from ``live_counts``.
        choice: Its choice in that mapping.
    """
    choice = canonical_choice(layer, choice)
    scheme = parse_scheme(choice.scheme)
    values = VALUE_BYTES * count.kept_weights
    if choice == DENSE or scheme.removes != "weights":
        return values
    shape = layer.live_shape(count.live_out, count.live_in)
    groups = layer.live_groups(count.live_out)
    rows, columns = scheme.block(shape[0] // groups, shape[1])
    per_row = math.ceil(shape[1] / columns) * scheme.units_per_block(math.prod(layer.kernel))
    units = kept_units(scheme, choice.rate, shape, groups)
    offsets = groups * math.ceil(shape[0] / groups / rows) + 1
    return values + units * index_bytes(per_row) + OFFSET_BYTES * offsets


def index_bytes(count: int) -> int:
    """Whole bytes of an index that tells ``count`` things apart."""
    return max(1, math.ceil(math.log2(count) / 8)) if count > 1 else 1


@dataclass(frozen=True)
class BlockedStorage:
    """A sparse matrix whose consecutive rows with the same columns share one list of column indices (figure 4).

    Attributes:
        shape: Rows and columns of the matrix.
        weights: The values that are not zero, row after row.
        compact_column: The column indices of each run of rows, one run after the other.
        column_stride: Where each run's indices begin in ``compact_column``, and the end.
        occurrence: The first row of each run, and the number of rows.
        row_offset: Where each row begins in ``weights``, and the end.
    """

    shape: tuple[int, int]
    weights: Floats
    compact_column: Integers
    column_stride: Integers
    occurrence: Integers
    row_offset: Integers

    @classmethod
    def encode(cls, matrix: Floats) -> BlockedStorage:
        """Store a matrix: a linear layer's weight, or a convolution's as (filters, channels x kernel positions).

        Raises:
            PrunemapError: When ``matrix`` has not two dimensions.
        """
        if matrix.ndim != 2:
            raise PrunemapError(f"weight of shape {matrix.shape}: reshape it to (filters, everything else) to store it")
        there = matrix != 0
        changes = (there[1:] != there[:-1]).any(axis=1)
        starts = np.flatnonzero(np.concatenate([[True], changes])) if len(matrix) else np.zeros(0, np.int64)
        columns = [np.flatnonzero(there[start]) for start in starts]
        return cls(
            shape=(matrix.shape[0], matrix.shape[1]),
            weights=matrix[there].astype(np.float32),
            compact_column=np.concatenate([np.zeros(0, np.int64), *columns]),
            column_stride=_offsets([len(run) for run in columns]),
            occurrence=np.append(starts, len(matrix)),
            row_offset=_offsets(there.sum(axis=1)),
        )

    def decode(self) -> Floats:
        """The matrix that was stored."""
        matrix = np.zeros(self.shape, np.float32)
        for run, (first, end) in enumerate(zip(self.occurrence[:-1], self.occurrence[1:], strict=True)):
            columns = self.compact_column[self.column_stride[run] : self.column_stride[run + 1]]
            values = self.weights[self.row_offset[first] : self.row_offset[end]]
            matrix[first:end, columns] = values.reshape(end - first, len(columns))
        return matrix

    @property
    def nbytes(self) -> int:
        """Bytes of all five arrays: 32-bit values and offsets, column indices as narrow as the matrix allows."""
        offsets = self.column_stride.size + self.occurrence.size + self.row_offset.size
        columns = self.compact_column.size * index_bytes(self.shape[1])
        return VALUE_BYTES * self.weights.size + columns + OFFSET_BYTES * offsets


def _offsets(lengths: list[int] | npt.NDArray[np.int_]) -> Integers:
    """Where each of several pieces begins, laid end to end, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
