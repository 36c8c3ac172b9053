from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunemap.kernels.pack import SETS, Matrix, Packed, make_runs, pack, pack_jammed, similar_order, union_counts


def random_matrix(filters: int, positions: int, groups: int, density: float, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    mask = rng.random((filters, positions)) < density
    weights = np.where(mask, rng.standard_normal((filters, positions)), 0.0).astype(np.float32)
    return Matrix(weights, weights != 0, np.sort(np.arange(filters) % groups))


def unpack(packed: Packed, matrix: Matrix, offsets: np.ndarray, width: int) -> np.ndarray:
    """The weights again, from the lists."""
    weights = np.zeros_like(matrix.weights)
    for offset, stored, count, first, size in packed.runs.tolist():
        filters = packed.rows[first : first + size]
        values = packed.weights[stored : stored + count * (width or size)].reshape(count, width or size)
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
    padded=st.booleans(),
    reorder=st.booleans(),
    seed=st.integers(0, 99),
)
def test_unpacking_gives_the_weights_back(
    filters: int, positions: int, groups: int, density: float, size: int, padded: bool, reorder: bool, seed: int
) -> None:
    matrix = random_matrix(filters, positions, min(groups, filters), density, seed)
    order = similar_order(matrix) if reorder else np.arange(filters)
    runs = make_runs(order, matrix.groups, size, padded)
    assert sorted(runs.order[runs.order >= 0].tolist()) == list(range(filters))
    offsets = np.random.default_rng(seed).permutation(groups * positions).reshape(groups, positions)
    packed = pack(matrix, runs, offsets, size if padded else 0)
    assert np.array_equal(unpack(packed, matrix, offsets, size if padded else 0), matrix.weights)
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
    runs = make_runs(np.arange(filters), matrix.groups, size, False)
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
    assert len(packed.weights) == np.count_nonzero(matrix.weights)
    assert np.array_equal(weights, matrix.weights)


def test_runs_stay_within_groups() -> None:
    groups = np.repeat([0, 1, 2], [5, 1, 9])
    for padded in (False, True):
        runs = make_runs(np.arange(15), groups, 4, padded)
        for start, size in zip(runs.starts, runs.sizes, strict=True):
            assert len(set(groups[runs.order[start : start + size]])) == 1
    assert make_runs(np.arange(15), groups, 4, False).sizes.tolist() == [4, 1, 1, 4, 4, 1]
    assert make_runs(np.arange(15), groups, 4, True).sizes.tolist() == [4, 1, 1, 4, 4, 1]


def test_equal_masks_come_together() -> None:
    mask = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 1]], dtype=bool)
    matrix = Matrix(mask.astype(np.float32), mask, np.zeros(5, dtype=np.int64))
    assert similar_order(matrix).tolist() == [0, 2, 1, 3, 4]


@pytest.mark.parametrize("size", [1, 4, 8])
def test_lists_hold_only_what_a_filter_needs(size: int) -> None:
    matrix = random_matrix(16, 50, 1, 0.2, 0)
    counts = union_counts(matrix, make_runs(np.arange(16), matrix.groups, size, False))
    assert counts.tolist() == matrix.mask.reshape(-1, size, 50).any(axis=1).sum(axis=1).tolist()


def test_equal_lists_are_stored_once() -> None:
    matrix = Matrix(np.ones((8, 6), np.float32), np.ones((8, 6), bool), np.zeros(8, dtype=np.int64))
    packed = pack(matrix, make_runs(np.arange(8), matrix.groups, 4, False), np.arange(6)[None], 0)
    assert len(packed.offsets) == 6
    assert len(packed.weights) == 48
