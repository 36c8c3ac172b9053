"""The ways to compute one convolution that are worth an estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from . import _engine
from .candidate import Candidate
from .layout import Geometry
from .task import Task
from .tiles import channel_tiles, joined_rows
from .winograd import Filtering

SPARSE_SPEED = 0.6
"""Multiply-adds per second by lists of kept weights, of those of dense products, at worst."""
MOST_BYTES = 64 << 20  # of transformed planes: no cache holds more
MOST_REREAD = 4 << 20  # bytes of weights: the last-level cache may not hold more, every tile would wait for memory
BANDS = (1536 << 10, 1 << 20, 512 << 10)  # bytes for a band of transformed planes: a second-level cache, more or less


def enumerate_candidates(task: Task, isa: str) -> Iterator[Candidate]:
    """All candidates worth an estimate, in a fixed order; runs are the outer loop of each."""
    most = int(np.bincount(task.matrix.groups).max())
    if task.walks_rows:
        yield Candidate("rows", _engine.families(isa)[-1][0], 1, 1)
        return
    for lanes, pixel, rests, channel in _engine.families(isa):
        if not task.target.is_vector and (task.convolution.stride == (1, 1) or task.staging is not None):
            yield from _pixel_candidates(task, lanes, pixel, rests, most)
        for filtering in task.filterings.values():
            yield from _winograd_candidates(task, filtering, lanes, pixel, rests)
        yield from _channel_candidates(task, lanes, channel, most)


def other_orders(task: Task, candidate: Candidate) -> list[Candidate]:
    """The candidate with tiles as the outer loop, where there are several; with a panel for each; in several passes."""
    if candidate.family == "rows":  # a run reads what no other reads
        return []
    tiles = replace(candidate, runs_outer=False)
    if candidate.family == "winograd":
        return [tiles]
    if 4 * int((task.dense_matrix if candidate.dense else task.matrix).kept.sum()) > MOST_REREAD:
        return []
    if candidate.family == "channels":
        return [tiles] if task.rows(candidate)[0] > candidate.rows else []
    orders = [tiles, replace(tiles, panel=True)] if task.reads_once else [tiles]
    whole = _fitted(replace(orders[-1], rest=0), task.target, 0)
    passes = task.passes_needed(whole) if len(task.convolution.inputs) == 1 else 1
    return [*orders, replace(whole, passes=passes)] if passes > 1 else orders


def _pixel_candidates(
    task: Task, lanes: int, tiles: dict[int, int], rests: dict[int, int], most: int
) -> Iterator[Candidate]:
    for size, widest in tiles.items():
        if size >= 2 * most:
            continue
        for wanted in sorted({widest, max(1, widest // 2)} if size < 4 else {widest}, reverse=True):
            plain = _fitted(Candidate("pixels", lanes, size, wanted), task.target, rests.get(size, 0))
            yield plain
            if task.structure(plain).zeros:  # or else there is nothing to gain by other lists
                yield replace(plain, reordered=True)
                if size <= _engine.MAX_JAMMED:
                    yield _fitted(Candidate("pixels", lanes, size, wanted, jammed=True), task.target, 0)


def _winograd_candidates(
    task: Task, filtering: Filtering, lanes: int, tiles: dict[int, int], rests: dict[int, int]
) -> Iterator[Candidate]:
    if task.matrix.kept.sum() < SPARSE_SPEED * filtering.share * task.matrix.mask.size:  # lists take less time
        return
    for band in _bands(filtering):
        planes = filtering.geometry(1, band)
        for size, widest in tiles.items():
            if size < 2 * filtering.chunk:
                plain = Candidate("winograd", lanes, size, widest, rows=band, columns=filtering.cell, dense=True)
                yield _fitted(plain, planes, rests.get(size, 0))


def _bands(filtering: Filtering) -> list[int]:
    """Rows of cells of which the second-level cache, or a part of it, holds what lies in between."""
    rows, columns = filtering.cells
    each = 4 * sum(filtering.planes) * columns
    counts = {-(-rows // max(1, memory // each)) for memory in BANDS}
    return sorted(band for band in {-(-rows // count) for count in counts} if band * each <= MOST_BYTES)


def _fitted(candidate: Candidate, geometry: Geometry, most: int) -> Candidate:
    """With tiles of one plane that differ by one vector at most, and at most ``most`` pixels left beyond the last."""
    vectors, rest = divmod(geometry.flat, candidate.lanes)
    if not vectors or rest > min(most, geometry.shape[2]):
        vectors, rest = vectors + (rest > 0), 0
    return replace(candidate, vectors=-(-vectors // -(-vectors // candidate.vectors)), rest=rest)


def _channel_candidates(task: Task, lanes: int, tiles: dict[int, int], most: int) -> Iterator[Candidate]:
    _, height, width = task.target.shape
    step = task.step("channels")[1]
    for vectors, pixels in tiles.items():
        size = vectors * lanes
        if size >= 2 * most and vectors > 1:
            continue
        for joined in sorted({1, joined_rows(height, width, pixels) if task.walked_as_one else 1}):
            for rows, columns in channel_tiles(height // joined, width * joined, pixels, vectors, step):
                plain = Candidate("channels", lanes, size, vectors, rows, columns, joined)
                yield plain
                if task.structure(plain).zeros:
                    yield replace(plain, reordered=True)
