"""Appending one convolution to a program whose memory is placed."""

from __future__ import annotations

from dataclasses import dataclass

from . import _engine
from .candidates import Candidate, Task
from .layout import LINE
from .pack import Packed


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
    """Floats that a thread needs to rearrange a channel or a tile's inputs.

    Some for vectors that reach beyond the last plane are included.
    """
    if candidate.panel:
        return len(task.panel(candidate)) * candidate.panel_pitch
    if not task.stages_itself(candidate.family):
        return 0
    assert task.staging is not None
    return task.staging.one_channel.size + 2 * LINE


def add_staging(program: _engine.Program, task: Task, source: _engine.Planes, place: Place, clear: bool) -> None:
    """Append the step that rearranges the input."""
    assert task.staging is not None
    assert place.staged is not None
    program.stage(source, place.staged, list(task.staging.phases), task.convolution.stride, clear)


def add_convolution(program: _engine.Program, task: Task, candidate: Candidate, packed: Packed, place: Place) -> None:
    """Append the convolution's step."""
    c = candidate
    tile = _engine.Tile(c.lanes, c.vectors, c.rows, c.columns, c.joined, c.rest, c.runs_outer)
    panel = task.panel(c) if c.panel else None
    filters = task.filters(packed if panel is None else packed.in_panel(panel, c.panel_pitch))
    if task.stages_itself(c.family):
        assert task.staging is not None
        scratch = task.staging.one_channel.planes(0, _engine.Space.scratch)
        program.staged_conv(
            filters, tile, task.channels(packed), place.source, place.target, place.residual, scratch,
            task.staging.phases, task.convolution.stride, place.clear,
        )  # fmt: skip
        return
    source = place.staged if task.reads_staged(c.family) else place.source
    assert source is not None
    if panel is not None:
        program.panel_conv(filters, panel, tile, source, place.target, place.residual, place.clear)
    elif c.family == "strided":
        step = task.step(c.family)[0]
        program.strided_conv(filters, tile, source, place.target, place.residual, step, place.clear)
    elif c.family == "pixels":
        program.pixel_conv(filters, tile, source, place.target, place.residual, place.clear)
    else:
        steps = task.step(c.family)
        program.channel_conv(filters, tile, source, place.target, place.residual, steps, place.clear)
