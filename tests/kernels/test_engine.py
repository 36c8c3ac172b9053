"""The engine refuses what could touch memory outside its buffers, instead of crashing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from prunemap.kernels import _engine

ARENA = 4096


def planes(base: int = 256, shape: tuple[int, int, int] = (2, 4, 4), **changed: Any) -> _engine.Planes:
    given = {"space": _engine.Space.arena, "stride": 48, "before": 10, "pitch": 6, **changed}
    return _engine.Planes(base=base, shape=shape, **given)


def filters(**changed: Any) -> _engine.Filters:
    given: dict[str, Any] = {
        "runs": np.array([[0, 0, 3, 0, 2]], np.int64),
        "offsets": np.array([0, 1, 6], np.int32),
        "weights": np.ones(6, np.float32),
        "bias": np.zeros(2, np.float32),
        "rows": np.array([0, 1], np.int32),
        "clamp": (0.0, 6.0),
    }
    return _engine.Filters(**{**given, **changed})


ONE = np.array([[0, 0, 3, 0, 1], [0, 3, 3, 1, 1]], np.int64)  # runs of one filter


def sets(**counts: int) -> npt.NDArray[np.int32]:
    """Entries by the set that reads them: s1 the first filter, s2 the second, s3 both."""
    found = np.zeros((1, 15), np.int32)
    for name, count in counts.items():
        found[0, int(name[1:]) - 1] = count
    return found


def program() -> _engine.Program:
    return _engine.Program("portable", 1, ARENA, 32, 32)


def tile(**changed: Any) -> _engine.Tile:
    return _engine.Tile(
        **{
            "lanes": 4,
            "vectors": 2,
            "rows": 1,
            "columns": 1,
            "joined": 1,
            "rest": 0,
            "passes": 1,
            "runs_outer": True,
            **changed,
        }
    )


@pytest.mark.parametrize("jammed", [{}, {"sets": sets(s1=1, s3=2)}, {"sets": np.concatenate([sets(s3=1)] * 3)}])
def test_the_unbroken_step_is_accepted(jammed: dict[str, Any]) -> None:
    built = program()
    built.pixel_conv(filters(**jammed), tile(), planes(), planes(1024), None, True)
    assert built.steps == 1
    built.run(np.zeros(32, np.float32))


@pytest.mark.parametrize(
    "broken",
    [
        {"source": planes(base=4090)},
        {"source": planes(space=_engine.Space.input)},
        {"source": planes(base=4)},
        {"target": planes(base=4040)},
        {"target": planes(stride=16)},
        {"target": planes(pitch=3)},
        {"target": planes(shape=(2, 4, 0))},
        {"target": planes(shape=(2, -4, 4))},
        {"target": planes(shape=(1, 4, 4))},
        {"target": planes(shape=(2, 2**31 - 1, 4))},
        {"target": planes(stride=2**61)},
        {"target": planes(base=2**63 - 1)},
        {"target": planes(space=_engine.Space.output, base=0, before=0)},
        {"residual": planes(base=4090)},
        {"residual": planes(pitch=7)},
        {"residual": planes(shape=(2, 3, 4))},
        {"residual": planes(shape=(2, 4, 3))},
        {"residual": planes(shape=(1, 4, 4))},
        {"target": planes(base=3980, stride=64)},
        {"tile": tile(lanes=16)},
        {"tile": tile(vectors=0)},
        {"tile": tile(vectors=99)},
        {"filters": filters(offsets=np.array([0, 1, 9999], np.int32))},
        {"filters": filters(offsets=np.array([0, 1, -300], np.int32))},
        {"filters": filters(offsets=np.array([0, 1], np.int32))},
        {"filters": filters(weights=np.ones(5, np.float32))},
        {"filters": filters(rows=np.array([0, 2], np.int32))},
        {"filters": filters(rows=np.array([0, -1], np.int32))},
        {"filters": filters(rows=np.array([0], np.int32), bias=np.zeros(1, np.float32))},
        {"filters": filters(bias=np.zeros(3, np.float32))},
        {"filters": filters(runs=np.array([[0, 0, 3, 0, 3]], np.int64))},
        {"filters": filters(runs=np.array([[0, -4, 3, 0, 2]], np.int64))},
        {"filters": filters(runs=np.array([[2**63 - 1, 0, 3, 0, 2]], np.int64))},
        {"filters": filters(sets=sets(s3=2))},
        {"filters": filters(sets=sets(s1=1, s4=2))},
        {"filters": filters(sets=sets(s1=-1, s3=4))},
        {"filters": filters(sets=sets(s3=3), weights=np.ones(5, np.float32))},
        {"filters": filters(sets=np.zeros(14, np.int32))},
        {"filters": filters(sets=sets(s3=3), runs=np.zeros((0, 5), np.int64))},
    ],
)
def test_broken_pixel_convolutions(broken: dict[str, Any]) -> None:
    given = {
        "filters": filters(), "tile": tile(), "source": planes(), "target": planes(1024), "residual": None,
        "clear": True,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"\w"):
        program().pixel_conv(**{**given, **broken})


@pytest.mark.parametrize(
    "broken",
    [
        {"step": (0, 1)},
        {"step": (999, 1)},
        {"tile": tile(vectors=3)},
        {"tile": tile(rows=7)},
        {"filters": filters(runs=np.array([[0, 0, 3, 0, 5]], np.int64))},
        {"tile": tile(columns=0)},
        {"tile": tile(columns=13)},
        {"tile": tile(joined=0)},
        {"tile": tile(joined=-1)},
        {"tile": tile(joined=2)},
        {"tile": tile(joined=2), "target": planes(1024, pitch=4), "source": planes(pitch=4), "step": (2, 1)},
        {"tile": tile(joined=2), "target": planes(1024, pitch=4)},
        {"tile": tile(joined=3), "target": planes(1024, pitch=4), "source": planes(pitch=4)},
        {"target": planes(base=4060)},
        {"residual": planes(shape=(2, 3, 4))},
        {"residual": planes(shape=(2, 4, 3))},
        {"residual": planes(shape=(1, 4, 4))},
        {"target": planes(base=4010), "clear": True},
        {"filters": filters(offsets=np.array([0, 1, 4000], np.int32))},
        {"filters": filters()},
        {"filters": filters(sets=sets(s3=3))},
    ],
)
def test_broken_channel_convolutions(broken: dict[str, Any]) -> None:
    wide = filters(
        weights=np.ones(12, np.float32), bias=np.zeros(4, np.float32), rows=np.array([0, 1, -1, -1], np.int32)
    )
    given = {
        "filters": wide, "tile": tile(vectors=1), "source": planes(), "target": planes(1024), "residual": None,
        "step": (1, 1), "clear": False,
    }  # fmt: skip
    program().channel_conv(**given)
    with pytest.raises(ValueError, match=r"\w"):
        program().channel_conv(**{**given, **broken})


def test_broken_others() -> None:
    with pytest.raises(ValueError, match="stage"):
        program().stage(planes(), planes(1024), [(0, 9)], (1, 1), False)
    with pytest.raises(ValueError, match="stage"):
        program().stage(planes(), planes(1024), [(0, 0), (0, 1)], (1, 1), False)
    with pytest.raises(ValueError, match="stage"):
        program().stage(planes(), planes(0, space=_engine.Space.input, before=0), [(0, 0)], (1, 1), False)
    with pytest.raises(ValueError, match="stage"):  # memory within one step only, which has no name here
        program().stage(planes(), planes(0, space=_engine.Space(3), before=0), [(0, 0)], (1, 1), False)
    with pytest.raises(ValueError, match="pool"):
        program().pool(planes(), planes(1024), True, (2, 2, 0, 1, 0, 0), False, False)
    with pytest.raises(ValueError, match="pool"):
        program().pool(planes(), planes(1024), True, (2, 2, 1, 1, 2, 0), False, False)
    with pytest.raises(ValueError, match="add"):
        program().add(planes(), planes(512, pitch=7), planes(1024), (0.0, 1.0), False)
    with pytest.raises(ValueError, match="function"):
        program().function("tanhh", planes(), planes(1024), False)
    with pytest.raises(ValueError, match="ISA"):
        _engine.Program("sse9", 1, ARENA, 1, 1)
    for sizes in ((-1, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ValueError, match="positive"):
            _engine.Program("portable", 1, *sizes)


@pytest.mark.parametrize(
    "broken",
    [
        {"panel": np.zeros(0, np.int32)},
        {"panel": np.array([0, 1, 9999], np.int32)},
        {"panel": np.array([0, 1, -300], np.int32)},
        {"panel": np.array([0, 1, 2**30], np.int32)},
        {"panel": np.zeros(33, np.int32)},
        {"tile": tile()},
        {"tile": tile(runs_outer=False, vectors=0)},
        {"tile": tile(runs_outer=False, lanes=0)},
        {"tile": tile(runs_outer=False, vectors=2**29)},
        {"tile": tile(runs_outer=False, passes=0)},
        {"tile": tile(runs_outer=False, passes=-1)},
        {"tile": tile(runs_outer=False, passes=2)},
        {"filters": filters(offsets=np.array([0, 8, 249], np.int32))},
        {"filters": filters(offsets=np.array([0, 8, -1], np.int32))},
        {"source": planes(0, space=_engine.Space.input, before=0)},
    ],
)
def test_broken_panel_convolutions(broken: dict[str, Any]) -> None:
    built = _engine.Program("portable", 1, ARENA, 32, 32, 256)
    given = {
        "filters": filters(offsets=np.array([0, 8, 16], np.int32)), "panel": np.array([0, 1, 6], np.int32),
        "tile": tile(runs_outer=False), "source": planes(), "target": planes(1024), "residual": None, "clear": True,
    }  # fmt: skip
    built.panel_conv(**given)
    built.run(np.zeros(32, np.float32))
    with pytest.raises(ValueError, match=r"\w"):
        built.panel_conv(**{**given, **broken})


def in_passes(*second: int, **changed: Any) -> _engine.Filters:
    """Two passes over the same two filters, or with another filter and size in the second; the third slot pads."""
    filter, size = second or (0, 2)
    given = {
        "runs": np.array([[0, 0, 1, 0, 2], [1, 2, 2, filter, size]], np.int64),
        "offsets": np.array([0, 0, 8], np.int32),
        "rows": np.array([0, 1, -1], np.int32),
        "bias": np.zeros(3, np.float32),
    }
    return filters(**{**given, **changed})


NO_RUNS = in_passes(runs=np.zeros((0, 5), np.int64))
MANY = {"rows": np.array([0, 1, *[-1] * 40], np.int32), "bias": np.zeros(42, np.float32)}


@pytest.mark.parametrize("panel", [None, np.array([0, 1, 6, 6], np.int32)], ids=["in_place", "panel"])
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"tile": tile(passes=2)}, "all runs of a tile"),
        ({"tile": tile(runs_outer=False, passes=0)}, "pass"),
        ({"tile": tile(runs_outer=False, passes=-2)}, "pass"),
        ({"tile": tile(runs_outer=False, passes=3)}, "equally many"),
        ({"tile": tile(runs_outer=False, passes=2, rest=2)}, "whole vectors"),
        ({"tile": tile(runs_outer=False, passes=2, vectors=2**29), "filters": NO_RUNS}, "without runs|no more than"),
        ({"tile": tile(runs_outer=False, passes=2**31 - 1), "filters": NO_RUNS}, "without runs|equally many"),
        ({"filters": in_passes(1, 2)}, "differ"),
        ({"filters": in_passes(0, 1)}, "differ"),
        ({"filters": in_passes(runs=np.array([[0, 0, 3, 0, 2]], np.int64))}, "equally many"),
        ({"filters": in_passes(**MANY)}, "sums between passes"),
    ],
)
def test_broken_convolutions_in_passes(panel: Any, broken: dict[str, Any], reason: str) -> None:
    built = _engine.Program("portable", 1, ARENA, 32, 32, 2 * 8 + 3 * 8)  # rows of the panel and slots, times the tile
    given = {
        "filters": in_passes(), "tile": tile(runs_outer=False, passes=2), "source": planes(), "target": planes(1024),
        "residual": planes(2048), "clear": True,
    }  # fmt: skip
    append = built.pixel_conv if panel is None else partial(built.panel_conv, panel=panel)
    append(**given)
    built.run(np.zeros(32, np.float32))
    with pytest.raises(ValueError, match=reason):
        append(**{**given, **broken})


def test_a_panel_and_sums_share_their_memory() -> None:
    given: Any = (planes(), planes(1024), None, True)
    built = _engine.Program("portable", 1, ARENA, 32, 32, 2 * 8 + 3 * 8 - 1)
    built.pixel_conv(in_passes(), tile(runs_outer=False, passes=2), *given)
    with pytest.raises(ValueError, match="sums between passes"):
        built.panel_conv(in_passes(), np.array([0, 1, 6, 6], np.int32), tile(runs_outer=False, passes=2), *given)


def test_other_families_make_one_pass() -> None:
    with pytest.raises(ValueError, match="passes"):
        program().channel_conv(filters(), tile(passes=2), planes(), planes(1024), None, (1, 1), False)
    with pytest.raises(ValueError, match="passes"):
        program().rows_conv(
            filters(runs=ONE), np.zeros(3, np.int32), tile(passes=2), planes(), planes(1024), None, (1, 1), False
        )


@pytest.mark.parametrize(
    "broken",
    [
        {"step": (0, 2)},
        {"step": (2, 0)},
        {"step": (2, 3)},
        {"step": (9999, 2)},
        {"columns": np.zeros(2, np.int32)},
        {"tile": tile(lanes=3)},
        {"filters": filters()},
        {"filters": filters(runs=ONE, sets=sets(s1=3))},
        {"filters": filters(runs=ONE, offsets=np.array([0, 1, 4050], np.int32))},
        {"filters": filters(runs=ONE, offsets=np.array([0, 1, -300], np.int32))},
        {"source": planes(0, space=_engine.Space.input, before=0)},
        {"target": planes(0, space=_engine.Space.output, before=0)},
        {"target": planes(4060)},
        {"residual": planes(shape=(2, 3, 4))},
        {"residual": planes(4023)},
    ],
)
def test_broken_convolutions_by_rows(broken: dict[str, Any]) -> None:
    given = {
        "filters": filters(runs=ONE), "columns": np.array([0, 1, -(2**31)], np.int32), "tile": tile(),
        "source": planes(), "target": planes(1024), "residual": None, "step": (2, 2), "clear": True,
    }  # fmt: skip
    built = program()
    built.rows_conv(**given)
    built.run(np.zeros(32, np.float32))
    with pytest.raises(ValueError, match=r"\w"):
        built.rows_conv(**{**given, **broken})


def test_tables_are_refused_where_lists_are_wanted() -> None:
    built, many = _engine.Program("portable", 1, ARENA, 32, 32, 256), np.zeros((1, 3), np.int32)
    with pytest.raises(ValueError, match="panel must be an array"):
        built.panel_conv(filters(), many, tile(runs_outer=False), planes(), planes(1024), None, True)
    with pytest.raises(ValueError, match="columns must be an array"):
        built.rows_conv(filters(runs=ONE), many, tile(), planes(), planes(1024), None, (2, 2), True)


def ends(over: int) -> _engine.Planes:
    """Two planes of which the last, with its margin, ends ``over`` floats behind the arena."""
    return planes(ARENA - 2 * 48 + over)


STEPS: dict[str, Callable[[_engine.Program, _engine.Planes, bool], None]] = {
    "stage": lambda p, to, clear: p.stage(planes(), to, [(0, 0)], (1, 1), clear),
    "pool": lambda p, to, clear: p.pool(planes(), to, True, (1, 1, 1, 1, 0, 0), False, clear),
    "add": lambda p, to, clear: p.add(planes(), None, to, (0.0, 1.0), clear),
    "function": lambda p, to, clear: p.function("tanh", planes(), to, clear),
    "pixel_conv": lambda p, to, clear: p.pixel_conv(filters(), tile(), planes(), to, None, clear),
}


@pytest.mark.parametrize("step", STEPS)
def test_margins_to_clear_lie_inside(step: str) -> None:
    built = program()
    STEPS[step](built, ends(0), True)
    STEPS[step](built, ends(1), False)
    built.run(np.zeros(32, np.float32))
    with pytest.raises(ValueError, match="margins to clear"):
        STEPS[step](built, ends(1), True)
    assert built.steps == 2


def test_whole_vectors_lie_inside() -> None:
    """Where a step stores or loads whole vectors: a stride of two, the mean of a plane."""
    built = program()
    built.stage(planes(shape=(2, 8, 8), pitch=10, stride=96), ends(0), [(0, 0)], (2, 2), False)
    with pytest.raises(ValueError, match="stage"):
        built.stage(planes(shape=(2, 8, 8), pitch=10, stride=96), ends(1), [(0, 0)], (2, 2), False)
    row: dict[str, Any] = {"shape": (1, 1, 3), "before": 0, "pitch": 3}
    mean = (1, 3, 1, 1, 0, 0)
    built.pool(planes(ARENA - 4, **row), planes(shape=(1, 1, 1)), False, mean, False, False)
    with pytest.raises(ValueError, match="pool"):
        built.pool(planes(ARENA - 3, **row), planes(shape=(1, 1, 1)), False, mean, False, False)
    built.pool(planes(ARENA - 3, **row), planes(shape=(1, 1, 1)), True, mean, False, False)
    built.run(np.zeros(32, np.float32))


def test_broken_filters() -> None:
    with pytest.raises(ValueError, match="too large"):
        filters(runs=np.array([[0, 0, 2**31, 0, 2]], np.int64))
    with pytest.raises(ValueError, match=r"\(n, 5\)"):
        filters(runs=np.zeros((1, 4), np.int64))
    with pytest.raises(TypeError):
        filters(weights=[[object()]])


def test_broken_runs() -> None:
    built = program()
    with pytest.raises(ValueError, match="whole images"):
        built.run(np.zeros(33, np.float32))
    with pytest.raises(ValueError, match="whole images"):
        built.run(np.zeros(0, np.float32))
    with pytest.raises(TypeError):
        built.run(np.zeros(32))  # float64
    with pytest.raises(ValueError, match="repeats"):
        built.time(np.zeros(32, np.float32), 0)
    with pytest.raises(IndexError):
        built.time_steps(np.zeros(32, np.float32), 1, [0])
