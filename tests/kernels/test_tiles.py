"""How planes are cut into tiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunemap.kernels import _engine
from prunemap.kernels.tiles import EVEN_COLUMNS, MOST_ROWS, channel_tiles, cut, latency, tile_sizes

SIZES = st.integers(1, 120)


@given(SIZES, SIZES)
def test_parts_are_alike_and_as_few_as_can_be(length: int, most: int) -> None:
    parts = cut(length, most)
    assert sum(size * n for size, n in parts.items()) == length
    assert sum(parts.values()) == -(-length // most)
    assert max(parts) <= most
    assert max(parts) - min(parts) <= 1


@given(SIZES, SIZES, st.integers(1, 6), st.integers(1, 12))
def test_tiles_cover_the_plane(height: int, width: int, rows: int, columns: int) -> None:
    sizes = tile_sizes(height, width, rows, columns)
    assert sum(r * c * n for (r, c), n in sizes.items()) == height * width
    assert all(1 <= r <= rows and 1 <= c <= columns for r, c in sizes)


@given(SIZES, SIZES, st.sampled_from([2, 6, 12, 14, 28]), st.sampled_from([1, 2, 4]), st.integers(1, 3))
def test_there_are_kernels_for_every_tile(height: int, width: int, pixels: int, vectors: int, step: int) -> None:
    shapes = channel_tiles(height, width, pixels, vectors, step)
    assert shapes
    for rows, columns in shapes:
        assert 1 <= rows <= min(MOST_ROWS, height)
        assert rows * columns <= pixels
        assert all(_engine.has_columns(c, step) for _, c in tile_sizes(height, width, rows, columns))
        assert width % columns == 0 or (step == 1 and columns <= EVEN_COLUMNS)


@pytest.mark.parametrize(
    ("size", "pixels", "vectors", "best"),
    [((1, 196), 6, 2, (1, 6)), ((7, 7), 6, 2, (1, 4)), ((28, 28), 14, 2, (1, 14)), ((4, 4), 12, 1, (3, 4))],
)
def test_tiles_that_keep_the_units_busy(
    size: tuple[int, int], pixels: int, vectors: int, best: tuple[int, int]
) -> None:
    assert channel_tiles(*size, pixels, vectors, 1)[0] == best


def test_few_accumulators_wait_for_one_another() -> None:
    assert latency(8) > latency(4) > latency(2) > latency(1)
    assert latency(8) == latency(28)
