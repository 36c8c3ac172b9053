"""Lists: which input offsets each run of filters reads, and the weights that go with them.

A run is up to ``size`` filters that share one list: the union of their non-zero positions, zeros stored where a filter
has none. The finer the runs the fewer zeros are stored, the wider the more work each loaded input does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from . import _engine

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SETS = (1 << _engine.MAX_JAMMED) - 1
"""Sets of filters by which the list of a run can be sorted."""
_WORD = 64


@dataclass(frozen=True)
class Matrix:
    """The weights of a convolution as (filters, positions), a position being (input channel of the group, row, column).

    Attributes:
        weights: (filters, positions).
        mask: (filters, positions): the weights that must be computed.
        groups: (filters,): convolution group of each filter, ascending.
    """

    weights: Floats
    mask: Bools
    groups: Ints

    @cached_property
    def bits(self) -> npt.NDArray[np.uint64]:
        """The mask, 64 positions per word: (filters, words)."""
        padded = np.zeros((len(self.mask), -(-self.mask.shape[1] // _WORD) * _WORD // 8), dtype=np.uint8)
        packed = np.packbits(self.mask, axis=1)
        padded[:, : packed.shape[1]] = packed
        return padded.view(np.uint64)

    @cached_property
    def kept(self) -> Ints:
        """(filters,): weights that must be computed."""
        return _count_bits(self.bits)

    def part(self, begin: int, end: int) -> Matrix:
        """The weights of some positions."""
        weights, mask = self.weights[:, begin:end], self.mask[:, begin:end]
        return Matrix(np.ascontiguousarray(weights), np.ascontiguousarray(mask), self.groups)


@dataclass(frozen=True)
class Order:
    """Filters in the order they are computed.

    Attributes:
        filters: (filters,).
        parts: How many filters follow one another that may share a run; no run crosses from one part to the next.
    """

    filters: Ints
    parts: Ints


@dataclass(frozen=True)
class Runs:
    """Filters in the order they are computed, cut into runs.

    Attributes:
        order: Filter of every slot; -1 for a slot that only pads, where lanes hold filters, and a filter twice where
            pixels do.
        starts: First slot of every run.
        sizes: Filters of every run, those that are there twice included.
    """

    order: Ints
    starts: Ints
    sizes: Ints


@dataclass(frozen=True)
class Packed:
    """What the engine's ``Filters`` takes, but for the bias and the clamp.

    Attributes:
        columns: (entries,), where rows are read one by one: how far right of an output each entry of the lists reads.
    """

    runs: Ints
    offsets: npt.NDArray[np.int32]
    weights: Floats
    rows: npt.NDArray[np.int32]
    sets: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    def in_panel(self, panel: npt.NDArray[np.int32], pitch: int) -> Packed:
        """The same lists for inputs that are copied together.

        Args:
            panel: (passes, rows): the offset that each row of the panel holds. All offsets of the lists are there, none
                in two passes.
            pitch: Floats from one row to the next.
        """
        held = panel.reshape(-1)
        order = np.argsort(held)
        rows = order[np.searchsorted(held, self.offsets, sorter=order)] % panel.shape[1]
        return replace(self, offsets=(rows * pitch).astype(np.int32))


def make_runs(order: Order, size: int, lanes: int = 0) -> Runs:
    """Cut filters into runs of ``size``.

    Args:
        order: The filters, in parts.
        size: Filters per run, a power of two.
        lanes: Of the vectors that a rest fills, as few as hold it (``slots_of``); 0: it is cut into powers of two, one
            of which may lack a filter.
    """
    count = len(order.filters)
    if (order.parts == 1).all() and not lanes:
        return Runs(order.filters, np.arange(count), np.ones(count, dtype=np.int64))
    filled = np.asarray([s for part in order.parts.tolist() for s in _cut(part, size, lanes > 0)], dtype=np.int64)
    begins = np.cumsum(filled) - filled
    if not lanes:
        return _filled_up(order.filters, begins, filled)
    slots = slots_of(filled, lanes)
    starts = np.cumsum(slots) - slots
    filters = np.full(int(slots.sum()), -1, dtype=np.int64)
    filters[np.repeat(starts - begins, filled) + np.arange(count)] = order.filters
    return Runs(filters, starts, filled)


def _filled_up(filters: Ints, begins: Ints, sizes: Ints) -> Runs:
    """Runs of a power of two: one that lacks a filter takes its last one twice, which two runs would be slower than."""
    slots = 1 << np.ceil(np.log2(sizes)).astype(np.int64)
    starts = np.cumsum(slots) - slots
    place = np.arange(slots.sum()) - np.repeat(starts, slots)
    return Runs(filters[np.repeat(begins, slots) + np.minimum(place, np.repeat(sizes, slots) - 1)], starts, slots)


def slots_of(sizes: Ints, lanes: int) -> Ints:
    """Slots of runs of so many filters: 1, 2 or 4 vectors of ``lanes``, as the engine's ``channel_vectors``."""
    return lanes * np.where(sizes <= lanes, 1, np.where(sizes <= 2 * lanes, 2, 4))


def _cut(count: int, size: int, whole: bool) -> list[int]:
    sizes = [size] * (count // size)
    rest = count % size
    if rest and whole:
        sizes.append(rest)
        rest = 0
    while rest:
        below = 1 << (rest.bit_length() - 1)
        sizes.append(rest if rest == 2 * below - 1 else below)
        rest -= sizes[-1]
    return sizes


def plain_order(matrix: Matrix) -> Order:
    """Filters as they are; a convolution group is a part."""
    counts = np.bincount(matrix.groups)
    return Order(np.arange(len(matrix.groups)), counts[counts > 0])


def similar_order(matrix: Matrix, size: int) -> Order:
    """Filters with equal masks put together (row reordering; Gong et al., section 4.3).

    Those that share their mask with enough others to fill half a run of ``size`` are a part of their own, so that no
    list is the union of two; the others of a convolution group are one part, in the order they had.
    """
    bits = np.concatenate([matrix.groups[:, None].astype(np.uint64), matrix.bits], axis=1)
    view = bits.view([("", np.void, 8 * bits.shape[1])]).reshape(-1)
    _, first, kinds, counts = np.unique(view, return_index=True, return_inverse=True, return_counts=True)
    few = counts < max(2, size / 2)
    kind = np.where(few, len(matrix.groups), first)[kinds.reshape(-1)]
    order = np.lexsort((kind, matrix.groups))
    ends = np.flatnonzero(np.diff(kind[order], append=-1) | np.diff(matrix.groups[order], append=-1)) + 1
    return Order(order, np.diff(ends, prepend=0))


def union_counts(matrix: Matrix, runs: Runs) -> Ints:
    """Length of every run's list."""
    counts = np.zeros(len(runs.starts), dtype=np.int64)
    for size in set(runs.sizes.tolist()):
        which = np.flatnonzero(runs.sizes == size)
        counts[which] = _count_bits(_union(matrix.bits, runs, which, size))
    return counts


def _count_bits(words: npt.NDArray[np.uint64]) -> Ints:
    """Bits that are on, per row."""
    return np.asarray(np.bitwise_count(words).sum(axis=1), dtype=np.int64)


def _union(bits: npt.NDArray[np.uint64], runs: Runs, which: Ints, size: int) -> npt.NDArray[np.uint64]:
    """Positions that any filter of a run reads, for the runs ``which``, all of ``size`` filters."""
    members = bits[runs.order[runs.starts[which][:, None] + np.arange(size)]]
    union: npt.NDArray[np.uint64] = members[:, 0] if size == 1 else np.bitwise_or.reduce(members, axis=1)
    return union


def _flags(bits: npt.NDArray[np.uint64], positions: int) -> Bools:
    """What ``Matrix.bits`` holds, unpacked."""
    return np.unpackbits(bits.view(np.uint8), axis=1, count=positions).view(np.bool_)


def pack(matrix: Matrix, runs: Runs, offsets: Ints, lanes: int = 0) -> Packed:
    """Make the lists of all runs.

    Args:
        matrix: The weights and their zero structure.
        runs: How filters are grouped.
        offsets: (groups, positions): input offset of every position, in floats.
        lanes: As for ``make_runs``: an entry stores a weight for every slot; 0: for every filter.
    """
    table = np.zeros((len(runs.starts), 5), dtype=np.int64)
    table[:, 3], table[:, 4] = runs.starts, runs.sizes
    lists: list[npt.NDArray[np.int32]] = []
    weights: list[Floats] = []
    listed = stored = 0
    for size in sorted(set(runs.sizes.tolist()), reverse=True):
        which = np.flatnonzero(runs.sizes == size)
        width = int(slots_of(np.array(size), lanes)) if lanes else size
        part = _pack_size(matrix, runs, which, size, offsets, width)
        table[which, 0], table[which, 1], table[which, 2] = part.begins + listed, part.stores + stored, part.counts
        lists.append(part.offsets)
        weights.append(part.weights)
        listed += len(part.offsets)
        stored += len(part.weights)
    joined = (lists[0], weights[0]) if len(lists) == 1 else (np.concatenate(lists), np.concatenate(weights))
    return Packed(table, *joined, runs.order.astype(np.int32), np.zeros((0, SETS), dtype=np.int32))


def pack_jammed(matrix: Matrix, runs: Runs, offsets: Ints, block: int) -> Packed:
    """Make lists that store no zeros although filters share them (unroll-and-sparse-jam, Wilkinson et al., PLDI 2023).

    The entries of a run are cut into blocks of positions, and those of a block sorted by the set of the run's filters
    that read them; set s holds filter i of the run if bit i of s is on. An entry has one weight for each of its set.

    Args:
        matrix: The weights and their zero structure.
        runs: How filters are grouped, at most ``MAX_JAMMED`` together.
        offsets: (groups, positions): input offset of every position, in floats.
        block: Positions of a block.
    """
    members = np.arange(_engine.MAX_JAMMED)
    filters = runs.order[runs.starts[:, None] + np.minimum(members, runs.sizes[:, None] - 1)]
    filters[members >= runs.sizes[:, None]] = -1
    entries, stored, listed, weights, sets = _engine.jam_weights(
        matrix.weights, matrix.mask, filters, offsets.astype(np.int32), matrix.groups[filters[:, 0]], block
    )
    begins, stores = (np.cumsum(each) - each for each in (entries, stored))
    table = np.stack([begins, stores, entries, runs.starts, runs.sizes], axis=1).astype(np.int64)
    return Packed(table, listed, weights, runs.order.astype(np.int32), sets)


def join_passes(parts: Sequence[Packed]) -> Packed:
    """The lists of several passes, one after the other: the runs of each are those of the first, with other entries."""
    tables, listed, stored = [], 0, 0
    for part in parts:
        tables.append(part.runs + np.array([listed, stored, 0, 0, 0]))
        listed += len(part.offsets)
        stored += len(part.weights)
    offsets, weights, sets = (
        np.concatenate(arrays) for arrays in zip(*((p.offsets, p.weights, p.sets) for p in parts), strict=True)
    )
    return Packed(np.concatenate(tables), offsets, weights, parts[0].rows, sets)


@dataclass(frozen=True)
class _Part:
    """The runs of one size: where each one's list and weights begin, their lengths, and the data."""

    begins: Ints
    stores: Ints
    counts: Ints
    offsets: npt.NDArray[np.int32]
    weights: Floats


def _pack_size(matrix: Matrix, runs: Runs, which: Ints, size: int, offsets: Ints, width: int) -> _Part:
    filters = runs.order[runs.starts[which][:, None] + np.arange(size)]
    groups = matrix.groups[filters[:, 0]]
    bits = _union(matrix.bits, runs, which, size)
    union = _flags(bits, matrix.mask.shape[1])
    counts = _count_bits(bits)
    ends = np.cumsum(counts)
    values = _engine.gather_weights(matrix.weights, union, filters, width)
    stores = (ends - counts) * width
    shared = len(which) > 1 and (groups == groups[0]).all() and (bits == bits[0]).all()
    if shared:
        listed = offsets[groups[0], np.flatnonzero(union[0])]
        return _Part(np.zeros_like(ends), stores, counts, listed.astype(np.int32), values.reshape(-1))
    # Where an entry is in ``union``, moved to where its group's offset is: several times faster than indexing by flags.
    ahead = (np.arange(len(union)) - groups) * union.shape[1]
    listed = offsets.reshape(-1)[np.flatnonzero(union) - np.repeat(ahead, counts)]
    return _Part(ends - counts, stores, counts, listed.astype(np.int32), values.reshape(-1))
