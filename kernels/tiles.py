"""How a plane is cut into tiles, and how long those keep the multiply-add units busy."""

from __future__ import annotations

from collections.abc import Iterator

from . import _engine

LATENCY = 4.6
"""Cycles of a multiply-add, and what it waits for an operand: eight accumulators do not quite cover it."""
ROW = 0.4
"""Cycles that another row of a tile costs per entry: inputs from another cache line."""
MOST_ROWS: int = _engine.MAX_ROWS
EVEN_COLUMNS: int = _engine.MAX_EVEN_COLUMNS
"""Widest tile that a row may be cut into unevenly."""
SHAPES = 2
"""Shapes of tiles worth an estimate, for one number of vectors."""
FILLED = 0.97
"""Share of its pixels that a tile computes: good enough."""


def cut(length: int, most: int) -> dict[int, int]:
    """Parts of at most ``most`` that differ by one at most: their lengths -> how many."""
    count = -(-length // most)
    each, longer = divmod(length, count)
    return {size: n for size, n in ((each + 1, longer), (each, count - longer)) if n}


def tile_sizes(height: int, width: int, rows: int, columns: int) -> dict[tuple[int, int], int]:
    """(rows, columns) of all tiles of a plane -> how many: bands, the last one lower, each cut evenly."""
    whole, rest = divmod(height, rows)
    bands = {r: n for r, n in ((rows, whole), (rest, 1)) if r and n}
    return {(r, c): n * m for r, n in bands.items() for c, m in cut(width, columns).items()}


def latency(accumulators: int) -> float:
    """Cycles per entry of a list that few accumulators of the channel family wait for one another.

    Partial sums keep the units busy: as many as ``split`` in ``channel_conv.hpp``.
    """
    return LATENCY / next(parts for least, parts in ((8, 1), (4, 2), (2, 4), (0, 8)) if accumulators >= least)


def channel_tiles(height: int, width: int, pixels: int, vectors: int, step: int) -> list[tuple[int, int]]:
    """The shapes (rows, columns) of at most ``pixels`` that compute a plane soonest, by fewest and lowest tiles."""
    shapes = {(min(MOST_ROWS, height, pixels // c), c) for c in _columns(width, min(width, pixels), step)}
    return sorted(shapes, key=lambda shape: (*_busy(height, width, shape, vectors), shape))[:SHAPES]


def _columns(width: int, most: int, step: int) -> Iterator[int]:
    """Widths for which there are kernels: any, or those that leave no rest."""
    for columns in range(1, most + 1):
        uneven = step == 1 and columns <= EVEN_COLUMNS
        if _engine.has_columns(columns, step) and (uneven or width % columns == 0):
            yield columns


def _busy(height: int, width: int, shape: tuple[int, int], vectors: int) -> tuple[float, int]:
    """Cycles of one entry of a list on all tiles, two multiply-adds at a time, and the number of tiles."""
    sizes = tile_sizes(height, width, *shape)
    cycles = {(r, c): max(r * c * vectors / 2, latency(r * c * vectors)) + ROW * (r - 1) for r, c in sizes}
    return sum(n * cycles[size] for size, n in sizes.items()), sum(sizes.values())


def joined_rows(height: int, width: int, pixels: int) -> int:
    """The fewest rows that, walked as one, leave next to no tile short; the best where all leave some."""
    found = {n: _filled(n * width, pixels) for n in range(1, height + 1) if height % n == 0}
    return next((n for n, filled in found.items() if filled >= FILLED), max(found, key=lambda n: found[n]))


def _filled(width: int, pixels: int) -> float:
    """Share of its ``pixels`` that a tile computes where rows of ``width`` are cut evenly."""
    return width / -(-width // pixels) / pixels
