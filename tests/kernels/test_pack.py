from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunemap.kernels.pack import (
    SETS,
    Matrix,
    Packed,
    make_runs,
    pack,
    pack_jammed,
    plain_order,
    similar_order,
    slots_of,
    union_counts,
)


def random_matrix(filters: int, positions: int, groups: int, density: float, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    mask = rng.random((filters, positions)) < density
    weights = np.where(mask, rng.standard_normal((filters, positions)), 0.0).astype(np.float32)
    return Matrix(weights, weights != 0, np.sort(np.arange(filters) % groups))


def unpack(packed: Packed, matrix: Matrix, offsets: np.ndarray, lanes: int) -> np.ndarray:
    """The weights again, from the lists."""
    weights = np.zeros_like(matrix.weights)
    for offset, stored, count, first, size in packed.runs.tolist():
        width = int(slots_of(np.array(size), lanes)) if lanes else size
        filters = packed.rows[first : first + size]
        values = packed.weights[stored : stored + count * width].reshape(count, width)
        assert not values[:, size:].any()
        for entry, at in zip(values, packed.offsets[offset : offset + count], strict=True):
            (position,) = np.flatnonzero(offsets[matrix.groups[filters[0]]] == at)
            weights[filters, position] = entry[:size]
    return weights


@given(
    filters=st.integers(1, 40),
    positions=st.integers(1, 30),
    groups=st.integers(1, 5),
    density=st.floats(0, 1),
    size=st.sampled_from([1, 2, 4, 8, 16]),
    lanes=st.sampled_from([0, 4, 8]),
    reorder=st.booleans(),
    seed=st.integers(0, 99),
)
def test_unpacking_gives_the_weights_back(
    filters: int, positions: int, groups: int, density: float, size: int, lanes: int, reorder: bool, seed: int
) -> None:
    matrix = random_matrix(filters, positions, min(groups, filters), density, seed)
    order = similar_order(matrix, size) if reorder else plain_order(matrix)
    size = lanes * min(size, 4) if lanes else size
    runs = make_runs(order, size, lanes)
    placed = runs.order[runs.order >= 0].tolist()
    assert sorted(placed if lanes else set(placed)) == list(range(filters))
    offsets = np.random.default_rng(seed).permutation(groups * positions).reshape(groups, positions)
    packed = pack(matrix, runs, offsets, lanes)
    assert np.array_equal(unpack(packed, matrix, offsets, lanes), matrix.weights)
    assert np.array_equal(packed.runs[:, 2], union_counts(matrix, runs))


@given(
    filters=st.integers(1, 12),
    positions=st.integers(1, 30),
    density=st.floats(0, 1),
    size=st.sampled_from([2, 4]),
    block=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_jammed_lists_give_the_weights_back(
    filters: int, positions: int, density: float, size: int, block: int, seed: int
) -> None:
    """Every entry stands in its block, under the set of filters that read it, and stores no zeros."""
    matrix = random_matrix(filters, positions, 1, density, seed)
    runs = make_runs(plain_order(matrix), size)
    offsets = np.random.default_rng(seed).permutation(positions)[None]
    packed = pack_jammed(matrix, runs, offsets, block)
    sets = packed.sets.reshape(len(packed.runs), -1, SETS)
    weights = np.zeros_like(matrix.weights)
    for run, counts in zip(packed.runs.tolist(), sets, strict=True):
        entry, stored, count, first, size = run
        assert counts.sum() == count
        for number, of_block in enumerate(counts):
            for code in np.repeat(np.arange(SETS) + 1, of_block).tolist():
                (position,) = np.flatnonzero(offsets[0] == packed.offsets[entry])
                assert position // block == number
                for member in (g for g in range(size) if code >> g & 1):
                    weights[packed.rows[first + member], position] = packed.weights[stored]
                    stored += 1
                entry += 1
    assert len(packed.weights) == np.count_nonzero(matrix.weights[runs.order])
    assert np.array_equal(weights, matrix.weights)


@pytest.mark.parametrize(
    ("filters", "size", "sizes"),
    [(3, 4, [4]), (7, 4, [4, 4]), (7, 8, [8]), (6, 8, [4, 2]), (11, 8, [8, 4]), (13, 16, [8, 4, 1]), (2, 4, [2])],
)
def test_a_run_that_lacks_one_filter_takes_its_last_twice(filters: int, size: int, sizes: list[int]) -> None:
    matrix = random_matrix(filters, 5, 1, 1.0, 0)
    runs = make_runs(plain_order(matrix), size)
    assert runs.sizes.tolist() == sizes
    twice = [filters - 1] * (sum(sizes) - filters)
    assert runs.order.tolist() == [*range(filters), *twice]


def test_runs_stay_within_groups() -> None:
    groups = np.repeat([0, 1, 2], [5, 1, 9])
    order = plain_order(Matrix(np.ones((15, 1), np.float32), np.ones((15, 1), bool), groups))
    for lanes in (0, 4):
        runs = make_runs(order, 4, lanes)
        for start, size in zip(runs.starts, runs.sizes, strict=True):
            assert len(set(groups[runs.order[start : start + size]])) == 1
        assert runs.sizes.tolist() == [4, 1, 1, 4, 4, 1]


@pytest.mark.parametrize(
    ("size", "order", "parts"),
    [
        (2, [0, 2, 1, 3, 4, 5, 6], [2, 2, 1, 2]),
        (4, [0, 2, 1, 3, 4, 5, 6], [2, 2, 1, 2]),
        (8, [0, 1, 2, 3, 4, 5, 6], [5, 2]),
    ],
)
def test_equal_masks_come_together_where_they_fill_half_a_run(size: int, order: list[int], parts: list[int]) -> None:
    mask = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 1], [1, 0], [1, 0]], dtype=bool)
    matrix = Matrix(mask.astype(np.float32), mask, np.array([0] * 5 + [1] * 2))
    found = similar_order(matrix, size)
    assert found.filters.tolist() == order
    assert found.parts.tolist() == parts


def test_no_list_serves_two_kinds_of_filters() -> None:
    """Blocks of eight of which some filters are gone: those that are left have lists of their own."""
    mask = np.repeat(np.random.default_rng(0).random((4, 30)) < 0.3, [6, 5, 7, 5], axis=0)
    matrix = Matrix(mask.astype(np.float32), mask, np.zeros(23, dtype=np.int64))
    for lanes in (0, 4):
        runs = make_runs(similar_order(matrix, 8), 8, lanes)
        assert (union_counts(matrix, runs) * runs.sizes).sum() == mask[runs.order[runs.order >= 0]].sum()
        mixed = make_runs(plain_order(matrix), 8, lanes)
        assert (union_counts(matrix, mixed) * mixed.sizes).sum() > mask[mixed.order[mixed.order >= 0]].sum()


@pytest.mark.parametrize("size", [1, 4, 8])
def test_lists_hold_only_what_a_filter_needs(size: int) -> None:
    matrix = random_matrix(16, 50, 1, 0.2, 0)
    counts = union_counts(matrix, make_runs(plain_order(matrix), size))
    assert counts.tolist() == matrix.mask.reshape(-1, size, 50).any(axis=1).sum(axis=1).tolist()


def test_equal_lists_are_stored_once() -> None:
    matrix = Matrix(np.ones((8, 6), np.float32), np.ones((8, 6), bool), np.zeros(8, dtype=np.int64))
    packed = pack(matrix, make_runs(plain_order(matrix), 4), np.arange(6)[None])
    assert len(packed.offsets) == 6
    assert len(packed.weights) == 48
