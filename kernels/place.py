"""Appending one convolution to a program whose memory is placed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import _engine
from .candidate import Candidate
from .pack import Packed
from .task import Task


@dataclass(frozen=True)
class Place:
    """Where a convolution's planes lie in a program.

    Attributes:
        source: The input.
        target: The output.
        residual: What is added to it, or None.
        staged: The whole input rearranged, or None.
        clear: Whether the output's margins must be cleared first.
    """

    source: _engine.Planes
    target: _engine.Planes
    residual: _engine.Planes | None
    staged: _engine.Planes | None
    clear: bool


def scratch_size(task: Task, candidate: Candidate) -> int:
    """Floats that a thread needs: to transform inputs, or to copy a tile's and to leave its sums between passes."""
    if candidate.family == "winograd":
        return task.filterings[candidate.columns].memory(candidate.rows)
    rows = task.panel(candidate).shape[1] if candidate.panel else 0
    slots = len(task.structure(candidate).runs.order) if candidate.passes > 1 else 0
    return (rows + slots) * candidate.tile_floats


def add_staging(program: _engine.Program, task: Task, source: _engine.Planes, place: Place, clear: bool) -> None:
    """Append the step that rearranges the input."""
    assert task.staging is not None
    assert place.staged is not None
    program.stage(source, place.staged, list(task.staging.phases), task.convolution.stride, clear)


def add_convolution(program: _engine.Program, task: Task, candidate: Candidate, packed: Packed, place: Place) -> None:
    """Append the convolution's step."""
    c = candidate
    if c.family == "winograd":
        _add_winograd(program, task, c, packed, place)
        return
    tile = _engine.Tile(c.lanes, c.vectors, c.rows, c.columns, c.joined, c.rest, c.passes, c.runs_outer)
    panel = task.panel(c) if c.panel else None
    filters = task.filters(packed if panel is None else packed.in_panel(panel, c.tile_floats))
    source = place.staged if task.reads_staged(c.family) else place.source
    assert source is not None
    if panel is not None:
        program.panel_conv(filters, panel.reshape(-1), tile, source, place.target, place.residual, place.clear)
    elif c.family == "rows":
        columns, step = packed.columns, task.convolution.stride
        program.rows_conv(filters, columns, tile, source, place.target, place.residual, step, place.clear)
    elif c.family == "pixels":
        program.pixel_conv(filters, tile, source, place.target, place.residual, place.clear)
    else:
        step = task.step(c.family)
        program.channel_conv(filters, tile, source, place.target, place.residual, step, place.clear)


def _add_winograd(program: _engine.Program, task: Task, candidate: Candidate, packed: Packed, place: Place) -> None:
    """Append a step by Winograd's minimal filtering. Its sums lie in memory chunk by chunk, each from the beginning."""
    f = task.filterings[candidate.columns]
    c, products = candidate.products, task.products(candidate)
    rows, columns = ([(part.inputs.tolist(), part.factors) for part in parts] for parts in f.parts)
    filtering = _engine.Filtering(
        f.cell, rows, columns, (len(f.components[0]), len(f.components[1])), f.stride, f.padding, f.channels.tolist(),
        f.holes, candidate.rows, f.chunk, products.source.stride, task.convolution.bias, task.clamp,
    )  # fmt: skip
    filters = products.filters(replace(packed, rows=f.slots[packed.rows]))
    tile = _engine.Tile(c.lanes, c.vectors, 1, 1, 1, c.rest, 1, c.runs_outer)
    program.winograd_conv(filters, filtering, tile, place.source, place.target, place.residual, place.clear)
