from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunemap.pruning import (
    BlockedStorage,
    Choice,
    Mapping,
    PrunemapError,
    apply_mapping,
    capture,
    live_counts,
    stored_bytes,
)
from prunemap.pruning.storage import index_bytes

MATRIX = np.array(
    [
        [1, 0, 0, 2, 0, 0, 3],
        [4, 0, 0, 5, 0, 0, 6],
        [0, 7, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [8, 0, 0, 9, 0, 0, 1],
    ],
    dtype=np.float32,
)


def test_arrays_on_rows_that_share_columns_and_rows_that_do_not() -> None:
    """The paper's own numbers for its first two rows: columns [0, 3, 6], shared by rows 0 and 1."""
    stored = BlockedStorage.encode(MATRIX)
    assert stored.weights.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]
    assert stored.compact_column.tolist() == [0, 3, 6, 1, 0, 3, 6]
    assert stored.column_stride.tolist() == [0, 3, 4, 4, 7]
    assert stored.occurrence.tolist() == [0, 2, 3, 4, 5]
    assert stored.row_offset.tolist() == [0, 3, 6, 7, 7, 10]
    assert stored.nbytes == 4 * 10 + 7 + 4 * (5 + 5 + 6)
    np.testing.assert_array_equal(stored.decode(), MATRIX)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_decoding_gives_the_matrix_back(rows: int, columns: int, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((rows, columns)).astype(np.float32)
    matrix[rng.random((rows, columns)) >= density] = 0
    stored = BlockedStorage.encode(np.repeat(matrix, 2, axis=0))
    np.testing.assert_array_equal(stored.decode(), np.repeat(matrix, 2, axis=0))
    assert stored.occurrence[-1] == 2 * rows
    assert len(stored.occurrence) <= rows + 1


def test_only_matrices() -> None:
    with pytest.raises(PrunemapError, match="reshape it"):
        BlockedStorage.encode(np.zeros((2, 2, 3, 3), np.float32))


def test_shared_columns_store_fewer_bytes_than_scattered_ones() -> None:
    model = nn.Sequential(nn.Linear(64, 64))
    network = capture(nn.Sequential(nn.Flatten(), model[0]), torch.zeros(1, 1, 8, 8))
    sizes = {}
    for scheme in ("unstructured", "simd:8", "block-column:8x16"):
        pruned = apply_mapping(nn.Sequential(nn.Flatten(), model[0]), Mapping({"1": Choice(scheme, 4)}), network)
        sizes[scheme] = BlockedStorage.encode(pruned.get_parameter("1.weight").detach().numpy()).nbytes
    assert sizes["block-column:8x16"] < sizes["simd:8"] * 1.05 < sizes["unstructured"]


@pytest.mark.parametrize(("count", "width"), [(1, 1), (2, 1), (256, 1), (257, 2), (65536, 2), (65537, 3)])
def test_index_width(count: int, width: int) -> None:
    assert index_bytes(count) == width


def network_of_one_convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(32, 64, 3, bias=False), nn.ReLU(), nn.Conv2d(64, 8, 1, bias=False))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("dense", 4 * 18432),
        ("filter@4", 4 * 4608),
        ("channel@4", 4 * 4608),
        ("unstructured@4", 4 * 4608 + 2 * 4608 + 4 * 65),
        ("simd:8@4", 4 * 4608 + 2 * 576 + 4 * 9),
        ("block-punched:8x4@4", 4 * 4608 + 1 * 144 + 4 * 9),
        ("column@4", 4 * 4608 + 2 * 72 + 4 * 2),
        ("pattern:8@4", 4 * 4608 + 1 * 1152 + 4 * 65),
        ("pattern:9@4", 4 * 4608 + 2 * 1152 + 4 * 65),
    ],
)
def test_stored_bytes(choice: str, expected: int) -> None:
    network = capture(network_of_one_convolution(), torch.zeros(1, 32, 5, 5))
    mapping = Mapping({"0": Choice.parse(choice)})
    assert stored_bytes(network.layer("0"), live_counts(network, mapping)["0"], mapping["0"]) == expected


def test_stored_bytes_of_a_layer_that_its_neighbour_narrowed() -> None:
    network = capture(network_of_one_convolution(), torch.zeros(1, 32, 5, 5))
    mapping = Mapping({"0": Choice("filter", 2), "2": Choice("simd:4", 2)})
    count = live_counts(network, mapping)["2"]
    assert (count.live_in, count.kept_weights) == (32, 128)
    assert stored_bytes(network.layer("2"), count, mapping["2"]) == 4 * 128 + 1 * 32 + 4 * 3
