"""Roughly what a candidate costs: enough to tell which ones are worth timing."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping

import numpy as np
import numpy.typing as npt

from .candidate import Candidate, Family
from .layout import LINE
from .pack import Ints, slots_of
from .pitches import COPY
from .rates import Rates
from .task import FIRST_LEVEL, Task
from .tiles import LATENCY, ROW, cut, latency, tile_sizes

FETCH = 2.0  # cycles for a line from the second-level cache, asked for ahead
LATE = 3.5  # cycles for one that is not
SPREAD, MERGE = {2: 12.0, 4: 18.0}, 4.0  # cycles per vector of a plane of transformed inputs, by cell, and of sums
MISPREDICTED = 10.0  # cycles lost at the end of a loop

Floats = npt.NDArray[np.float64]


def estimate(task: Task, candidate: Candidate, rates: AbstractMapping[int, Rates]) -> float:
    """Roughly how many cycles a candidate takes.

    Args:
        task: The convolution.
        candidate: How it is computed.
        rates: What operations cost, by lanes.
    """
    rate = rates[candidate.lanes]
    if candidate.family == "winograd":
        return _winograd(task, candidate, rates)
    copying = _copying(task) if task.reads_staged(candidate.family) else 0.0
    if candidate.family == "rows":
        return _rows(task, candidate, rate)
    if candidate.family == "pixels":
        parts = cut(-(-(task.target.flat - candidate.rest) // candidate.lanes), candidate.vectors)
        tiles = sum(n * _pixel_tile(task, candidate, rate, vectors) for vectors, n in parts.items())
        return tiles + _rest(task, candidate, rate) + copying
    sizes = tile_sizes(*task.rows(candidate), candidate.rows, candidate.columns)
    return sum(n * _channel_tile(task, candidate, rate, *size) for size, n in sizes.items()) + copying


def _winograd(task: Task, candidate: Candidate, rates: AbstractMapping[int, Rates]) -> float:
    """Cycles of the products of all bands, and of transforming inputs and sums."""
    f = task.filterings[candidate.columns]
    rows, columns = f.cells
    vectors = rows * -(-columns // candidate.lanes)
    inputs, sums = (planes * vectors * cost for planes, cost in zip(f.planes, (SPREAD[f.cell], MERGE), strict=True))
    products = -(-rows // candidate.rows) * estimate(task.products(candidate), candidate.products, rates)
    return products + inputs + sums * len(f.weight) / f.chunk


def _copying(task: Task) -> float:
    """Cycles to rearrange the input: whole planes at once without a stride, else row by row."""
    assert task.staging is not None
    planes, height, width = task.staging.planes.shape
    if task.convolution.stride == (1, 1):
        return planes * (COPY * task.staging.geometry.flat / LINE + 5.0)
    return planes * height * (12.0 + width / 8.0)


def _rows(task: Task, candidate: Candidate, rate: Rates) -> float:
    """Cycles of all runs: an entry loads as many vectors as its step, of tiles of eight vectors of outputs."""
    counts, step = task.structure(candidate).counts, task.convolution.stride[1]
    _, height, width = task.target.shape
    vectors = height * -(-width // candidate.lanes)
    return float((vectors * (counts * step * rate.misaligned + 4.0) + (20.0 + MISPREDICTED) * (1 + vectors / 8)).sum())


def _pixel_tile(task: Task, candidate: Candidate, rate: Rates, vectors: int) -> float:
    """Cycles of all runs on one tile of pixels: of multiply-adds, loads or lines from the second-level cache."""
    structure, lines = task.structure(candidate), vectors * candidate.lanes / 16
    counts, sizes = structure.counts, structure.runs.sizes
    products = structure.kept if candidate.jammed else counts * sizes
    load = rate.aligned if task.convolution.weight.shape[2:] == (1, 1) else rate.misaligned
    loads = counts * vectors * load + products / 2.0
    fetched = _fetched(task, candidate.family, counts, lines, FETCH)
    work = np.maximum(np.maximum(products * vectors * rate.registers, loads), np.maximum(fetched, counts * LATENCY))
    loops = (1 << sizes) - 1 if candidate.jammed else 1
    return float((work + 20.0 + MISPREDICTED * loops + 4.0 * sizes * vectors * rate.registers).sum())


def _fetched(task: Task, family: Family, counts: Ints, lines: float, cycles: float) -> Floats:
    """Cycles for the inputs of lists of so many entries, of ``lines`` each, where the first level cannot hold them."""
    if task.source.shape[0] * task.channel_bytes(family, int(lines * LINE)) <= FIRST_LEVEL:
        return np.zeros(len(counts))
    rows = task.source.shape[0] * task.convolution.weight.shape[2]
    return np.asarray(np.minimum(counts, rows) * (lines * cycles), dtype=np.float64)


def _rest(task: Task, candidate: Candidate, rate: Rates) -> float:
    """Cycles of all runs on the pixels beyond the last vector: of one broadcast per pixel, or of their list."""
    if not candidate.rest:
        return 0.0
    counts = task.structure(candidate).counts
    work = max(rate.aligned + candidate.rest * rate.broadcast, candidate.rest * candidate.size / 16, 1.5)
    return float((counts * work + 20.0 + MISPREDICTED).sum())


def _channel_tile(task: Task, candidate: Candidate, rate: Rates, rows: int, columns: int) -> float:
    """Cycles of all runs on one tile: of multiply-adds, broadcasts (one per pixel), waiting, or lines of the caches."""
    structure, pixels = task.structure(candidate), rows * columns
    slots = slots_of(structure.runs.sizes, candidate.lanes)
    found = 0.0
    for size in set(slots.tolist()):
        counts, vectors = structure.counts[slots == size], size // candidate.lanes
        loads = vectors * rate.aligned + pixels * rate.broadcast
        busy = max(pixels * vectors * rate.registers, loads, latency(pixels * vectors)) + ROW * (rows - 1)
        fetched = _fetched(task, candidate.family, counts, rows * (1 + columns / LINE), LATE if vectors == 1 else FETCH)
        work = np.maximum(counts * busy, fetched + counts * (size / LINE * FETCH))
        if task.target.is_vector:  # nothing is transposed
            found += float(work.sum() + 20.0 * len(counts))
        else:
            store = pixels * size * (0.4 if task.residual is None else 0.6)
            found += float(work.sum() + len(counts) * (20.0 + MISPREDICTED + store))
    return found
