"""Hostile numbers, wherever one can be given: an error or a right answer, never a crash, a hang or a huge buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from prunemap.kernels import _engine, compile_network, isas
from prunemap.pruning import PrunemapError

ARENA = 4096
SCRATCH_SIZE = 256
REFUSED = (ValueError, TypeError, IndexError)
FUZZ = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
POWERS = (15, 16, 30, 31, 32, 40, 61, 62, 63)
LIMITS = [sign * (2**bits + near) for bits in POWERS for near in (-1, 0) for sign in (1, -1)]
NEAR = st.one_of(st.integers(-4, 20), st.integers(ARENA - 70, ARENA + 70))
NUMBERS = st.one_of(NEAR, st.integers(0, ARENA), st.sampled_from(LIMITS))
SPACES = st.sampled_from([_engine.Space.arena, *_engine.Space.__members__.values()])
PLANES = {"base": 256, "stride": 48, "before": 10, "pitch": 6, "channels": 2, "height": 4, "width": 4}
RUN = {"offsets": 0, "weights": 0, "count": 3, "filter": 0, "size": 2}
WINDOW = {"kernel_y": 2, "kernel_x": 2, "step_y": 1, "step_x": 1, "pad_y": 0, "pad_x": 0}


class Numbers:
    """The numbers of a step: sound ones, but for those that were replaced."""

    def __init__(self, replaced: dict[str, int], spaces: dict[str, _engine.Space]) -> None:
        self._replaced = replaced
        self._spaces = spaces

    def of(self, name: str, sound: dict[str, int]) -> dict[str, int]:
        return {key: self._replaced.get(f"{name}.{key}", value) for key, value in sound.items()}

    def planes(self, name: str, base: int, space: _engine.Space = _engine.Space.arena) -> _engine.Planes:
        n = self.of(name, {**PLANES, "base": base})
        shape = n["channels"], n["height"], n["width"]
        return _engine.Planes(self._spaces.get(name, space), n["base"], n["stride"], n["before"], n["pitch"], shape)

    def tile(self, lanes: int, vectors: int, outer: int = 1, passes: int = 1) -> _engine.Tile:
        n = self.of(
            "tile",
            {"lanes": lanes, "vectors": vectors, "rows": 1, "columns": 1, "joined": 1, "rest": 0, "passes": passes},
        )
        return _engine.Tile(**n, runs_outer=bool(self.of("tile", {"outer": outer})["outer"] % 2))

    def filters(self, width: int, size: int = 2, passes: int = 1) -> _engine.Filters:
        named = [
            (f"run{i or ''}", {**RUN, "offsets": 3 * i, "weights": 3 * i * width, "size": size}) for i in range(passes)
        ]
        runs = np.array([list(self.of(*one).values()) for one in named], np.int64)
        if self.of("runs", {"none": 0})["none"] % 2:
            runs = runs[:0]
        offsets = np.array(list(self.of("offset", {"0": 0, "1": 1, "2": 6}).values()) * passes, np.int32)
        rows = np.full(width, -1, np.int32)
        rows[:2] = list(self.of("row", {"0": 0, "1": 1}).values())
        sets = np.zeros((0, 15), np.int32)
        if self.of("set", {"s": 0})["s"] % 2:  # entries read by the first filter, the second and both
            sets = np.zeros((passes, 15), np.int32)
            sets[:, :3] = list(self.of("set", {"1": 1, "2": 1, "3": 1}).values())
        weights, bias = np.ones(3 * width * passes, np.float32), np.zeros(width, np.float32)
        return _engine.Filters(runs, offsets, weights, bias, rows, (0, 6), sets)


Append = Callable[[_engine.Program, Numbers, str, _engine.Planes, _engine.Planes, bool], None]


def pixel_conv(p: _engine.Program, n: Numbers, isa: str, source: Any, target: Any, clear: bool) -> None:
    residual = n.planes("residual", 2048) if clear else None
    p.pixel_conv(n.filters(2), n.tile(_engine.families(isa)[0][0], 2), source, target, residual, clear)


def panel_conv(p: _engine.Program, n: Numbers, isa: str, source: Any, target: Any, clear: bool) -> None:
    residual = n.planes("residual", 2048) if clear else None
    panel = np.array(list(n.of("panel", {"0": 0, "1": 1, "2": 6}).values()), np.int32)
    tile = n.tile(_engine.families(isa)[0][0], 2, outer=0)
    p.panel_conv(n.filters(2), panel, tile, source, target, residual, clear)


def pixel_passes(p: _engine.Program, n: Numbers, isa: str, source: Any, target: Any, clear: bool) -> None:
    residual = n.planes("residual", 2048) if clear else None
    tile = n.tile(_engine.families(isa)[0][0], 2, outer=0, passes=2)
    p.pixel_conv(n.filters(2, passes=2), tile, source, target, residual, clear)


def panel_passes(p: _engine.Program, n: Numbers, isa: str, source: Any, target: Any, clear: bool) -> None:
    residual = n.planes("residual", 2048) if clear else None
    panel = np.array(list(n.of("panel", {"0": 0, "1": 1, "2": 6, "3": 6}).values()), np.int32)
    tile = n.tile(_engine.families(isa)[0][0], 2, outer=0, passes=2)
    p.panel_conv(n.filters(2, passes=2), panel, tile, source, target, residual, clear)


def channel_conv(p: _engine.Program, n: Numbers, isa: str, source: Any, target: Any, clear: bool) -> None:
    lanes = _engine.families(isa)[0][0]
    residual = n.planes("residual", 2048) if clear else None
    step = tuple(n.of("step", {"y": 1, "x": 1}).values())
    p.channel_conv(n.filters(lanes), n.tile(lanes, 1), source, target, residual, step, clear)


def stage(p: _engine.Program, n: Numbers, isa: str, source: Any, target: Any, clear: bool) -> None:
    count = n.of("phase", {"s": 1})["s"] % 3
    phases = [tuple(n.of(f"phase{i}", {"row": 0, "column": i}).values()) for i in range(count)]
    p.stage(source, target, phases, tuple(n.of("step", {"y": 1, "x": 1}).values()), clear)


def rows_conv(p: _engine.Program, n: Numbers, isa: str, source: Any, target: Any, clear: bool) -> None:
    residual = n.planes("residual", 2048) if clear else None
    columns = np.array(list(n.of("column", {"0": -1, "1": 0, "2": 1}).values()), np.int32)
    tile, step = n.tile(_engine.families(isa)[-1][0], 1), tuple(n.of("step", {"y": 1, "x": 2}).values())
    p.rows_conv(n.filters(2, size=1), columns, tile, source, target, residual, step, clear)


def pool(p: _engine.Program, n: Numbers, isa: str, source: Any, target: Any, clear: bool) -> None:
    maximum = bool(n.of("pool", {"max": 0})["max"] % 2)
    p.pool(source, target, maximum, tuple(n.of("window", WINDOW).values()), clear, clear)


def add(p: _engine.Program, n: Numbers, isa: str, source: Any, target: Any, clear: bool) -> None:
    p.add(source, n.planes("residual", 2048) if clear else None, target, (0.0, 6.0), clear)


def function(p: _engine.Program, n: Numbers, isa: str, source: Any, target: Any, clear: bool) -> None:
    p.function("tanh", source, target, clear)


SOURCE, TARGET, OTHER = ([f"{name}.{key}" for key in PLANES] for name in ("source", "target", "residual"))
FILTERS = [
    *(f"run.{key}" for key in RUN),
    "runs.none",
    "offset.0",
    "offset.2",
    "row.0",
    "row.1",
    "set.s",
    "set.1",
    "set.3",
]
SECOND = [f"run1.{key}" for key in RUN]  # the run of the second pass
TILE = [f"tile.{key}" for key in ("lanes", "vectors", "rows", "columns", "joined", "rest", "passes", "outer")]
STAGE = ["phase0.row", "phase0.column", "phase1.row", "phase1.column", "step.y", "step.x"]
STEPS: dict[str, tuple[Append, list[str]]] = {
    "pixel_conv": (pixel_conv, [*OTHER, *FILTERS, *TILE]),
    "panel_conv": (panel_conv, [*OTHER, *FILTERS, *TILE, "panel.0", "panel.2"]),
    "pixel_passes": (pixel_passes, [*OTHER, *FILTERS, *SECOND, *TILE]),
    "panel_passes": (panel_passes, [*OTHER, *FILTERS, *SECOND, *TILE, "panel.0", "panel.3"]),
    "channel_conv": (channel_conv, [*OTHER, *FILTERS, *TILE, "step.y", "step.x"]),
    "stage": (stage, ["phase.s", *STAGE]),
    "rows_conv": (rows_conv, [*OTHER, *FILTERS, *TILE, "step.y", "step.x", "column.0", "column.2"]),
    "pool": (pool, ["pool.max", *(f"window.{key}" for key in WINDOW)]),
    "add": (add, OTHER),
    "function": (function, []),
}


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("step", STEPS)
def test_sound_numbers_are_accepted(step: str, isa: str) -> None:
    program = _engine.Program(isa, 1, ARENA, 64, 64, SCRATCH_SIZE)
    numbers = Numbers({}, {})
    for clear in (False, True):
        STEPS[step][0](program, numbers, isa, numbers.planes("source", 256), numbers.planes("target", 1024), clear)
    assert program.steps == 2
    program.run(np.zeros(64, np.float32))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("step", STEPS)
def test_steps(step: str, isa: str) -> None:
    """Whatever is accepted runs; an address sanitiser sees what it should not have touched."""
    append, names = STEPS[step]
    accepted = 0

    @settings(FUZZ, max_examples=150)
    @given(
        st.dictionaries(st.sampled_from([*SOURCE, *TARGET, *names]), NUMBERS, max_size=3),
        st.dictionaries(st.sampled_from(["source", "target"]), SPACES),
        st.booleans(),
    )
    def fuzz(replaced: dict[str, int], spaces: dict[str, _engine.Space], clear: bool) -> None:
        nonlocal accepted
        numbers = Numbers(replaced, spaces)
        program = _engine.Program(isa, 1, ARENA, 64, 64, SCRATCH_SIZE)
        try:
            append(program, numbers, isa, numbers.planes("source", 256), numbers.planes("target", 1024), clear)
        except (*REFUSED, OverflowError):  # the last: a number too large for an array
            return
        accepted += 1
        program.run(np.ones(64, np.float32))

    fuzz()
    assert accepted > 10


@given(st.integers(1, 5).flatmap(lambda n: st.lists(NUMBERS, min_size=n, max_size=n)))
@settings(FUZZ, max_examples=100)
def test_programs(sizes: list[int]) -> None:
    given_sizes = [1, ARENA, 64, 64, SCRATCH_SIZE]
    given_sizes[: len(sizes)] = sizes
    if any(2**24 < size < 2**31 for size in given_sizes):
        return  # sound, but large
    threads, arena, *_, scratch = given_sizes
    sound = 1 <= threads <= 256 and min(given_sizes[:4]) > 0 and max(given_sizes) < 2**31
    sound = sound and scratch >= 0 and arena + threads * scratch < 2**31
    if sound:
        _engine.Program("portable", min(given_sizes[0], 4), *given_sizes[1:])
    else:
        with pytest.raises(REFUSED):
            _engine.Program("portable", *given_sizes)


@pytest.mark.parametrize("repeats", [-1, 0, 10**7 + 1, 2**31, 2**62, 2**63 - 1])
def test_repeats(repeats: int) -> None:
    program = _engine.Program("portable", 1, ARENA, 64, 64)
    with pytest.raises(ValueError, match="repeats"):
        program.time(np.zeros(64, np.float32), repeats)
    with pytest.raises(ValueError, match="repeats"):
        program.time_steps(np.zeros(64, np.float32), repeats, [0])


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"filters": [[0, 3]]}, "no such filter"),
        ({"filters": [[0, -1]]}, "no such filter"),
        ({"filters": [[2**62, 0]]}, "no such filter"),
        ({"filters": [[0, 1], [1, 2]]}, "shapes"),
        ({"listed": [[True] * 5]}, "shapes"),
        ({"listed": [True] * 4}, "matrices"),
        ({"width": 1}, "width"),
        ({"width": 2**40}, "width"),
        ({"width": 2**62}, "width"),
    ],
)
def test_gathering(changed: dict[str, Any], error: str) -> None:
    sound: dict[str, Any] = {"weights": np.ones((3, 4)), "listed": [[True] * 4], "filters": [[0, 2]], "width": 2}
    kinds = {"weights": np.float32, "listed": np.bool_, "filters": np.int64}
    values = {**sound, **changed}
    arrays = {name: np.asarray(values[name], kind) for name, kind in kinds.items()}
    with pytest.raises(ValueError, match=error):
        _engine.gather_weights(**arrays, width=values["width"])


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"filters": [[0, 3, -1, -1]]}, "no such filter"),
        ({"filters": [[0, 1]]}, "shapes"),
        ({"mask": [[True] * 4] * 2}, "shapes"),
        ({"groups": [1]}, "no such group"),
        ({"groups": [-1]}, "no such group"),
        ({"groups": [0, 0]}, "shapes"),
        ({"offsets": [[0] * 3]}, "shapes"),
        ({"block": 0}, "shapes"),
        ({"weights": np.ones(4)}, "matrices"),
    ],
)
def test_jamming(changed: dict[str, Any], error: str) -> None:
    sound: dict[str, Any] = {
        "weights": np.ones((3, 4)), "mask": np.ones((3, 4)), "filters": [[0, 2, -1, -1]], "offsets": [[0] * 4],
        "groups": [0], "block": 2,
    }  # fmt: skip
    kinds = {"weights": np.float32, "mask": np.bool_, "filters": np.int64, "offsets": np.int32, "groups": np.int64}

    def jam(values: dict[str, Any]) -> object:
        arrays = {name: np.asarray(values[name], kind) for name, kind in kinds.items()}
        return _engine.jam_weights(**arrays, block=values["block"])

    jam(sound)
    with pytest.raises(ValueError, match=error):
        jam({**sound, **changed})


SMALL = st.integers(1, 5)


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)), kernel=st.tuples(SMALL, SMALL),
    stride=st.tuples(SMALL, SMALL), padding=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    dilation=st.tuples(SMALL, SMALL),
    channels=st.tuples(SMALL, SMALL, SMALL), density=st.sampled_from([0.0, 0.2, 1.0]),
    isa=st.sampled_from(isas()), bias=st.booleans(), copy=st.sampled_from([0.0, 1e9]),
)  # fmt: skip
@settings(FUZZ, max_examples=150)
def test_any_small_convolution_is_exact(
    size: tuple[int, int], channels: tuple[int, int, int], density: float, isa: str, copy: float, **options: Any
) -> None:
    inputs, outputs, groups = channels
    kernel = options.pop("kernel")
    conv = nn.Conv2d(groups * inputs, groups * outputs, kernel, groups=groups, **options)
    reach = [(k - 1) * d - 2 * p for k, d, p in zip(kernel, options["dilation"], options["padding"], strict=True)]
    if any(r >= n for r, n in zip(reach, size, strict=True)):
        return  # the kernel is larger than the padded input: torch refuses it
    generator = torch.Generator().manual_seed(sum(size) + 10 * sum(channels))
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randint(-9, 10, parameter.shape, generator=generator))
        conv.weight *= torch.rand(conv.weight.shape, generator=generator) < density
        images = torch.randint(-9, 10, (2, groups * inputs, *size), generator=generator).float()
        expected = conv(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunemap.kernels.pitches.COPY", copy)  # rows with margins, or without
        compiled = compile_network(nn.Sequential(conv), images, isa=isa, tune=False)
    assert torch.equal(compiled(images), expected)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, stride=2**31),
        nn.Conv2d(3, 4, 3, stride=(1, 2**62)),
        nn.Conv2d(3, 4, 3, padding=2**62, dilation=2**62),
        nn.MaxPool2d(2, stride=2**40),
        nn.MaxPool2d(2**16, padding=2**15),
        nn.AvgPool2d(3, stride=2**31),
    ],
    ids=str,
)
def test_layers_beyond_the_engine(layer: nn.Module) -> None:
    with pytest.raises(PrunemapError, match=r"\w"):
        compile_network(nn.Sequential(layer), torch.zeros(1, 3, 8, 8), tune=False)


@pytest.mark.parametrize(
    "options",
    [{"dilation": 2**40, "padding": 2**40}, {"stride": 2**31 - 1, "padding": 1}, {"stride": 2**20, "padding": 9}],
)
def test_extreme_but_sound_convolutions(options: dict[str, int]) -> None:
    conv = nn.Conv2d(3, 4, 3, **options)
    images = torch.ones(1, 3, 8, 8)
    with torch.no_grad():
        expected = conv(images)
    assert torch.allclose(compile_network(nn.Sequential(conv), images, tune=False)(images), expected, atol=1e-6)


def test_activations_beyond_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunemap.kernels.build.MAX_FLOATS", 5 * 1024)
    conv = nn.Sequential(nn.Conv2d(1, 2, 3))
    compile_network(conv, torch.zeros(1, 1, 8, 8), tune=False)
    for side in (28, 64):  # together, alone
        with pytest.raises(PrunemapError, match="GiB"):
            compile_network(conv, torch.zeros(1, 1, side, side), tune=False)
