"""The engine in a process of its own, for the tests: on an emulated CPU, or built with sanitisers.

A pytest plugin: ``pytest -p engine_process --engine "qemu-aarch64 build/neon/kernels/engine_process" tests/kernels``
with this folder on PYTHONPATH runs the same tests, planner and oracles as ever; only ``_engine.Program`` and what tells
about ISAs are replaced by messages to that process (engine_process.cpp). Whatever kills the process fails the test with
its last words.
"""

from __future__ import annotations

import itertools
import shlex
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from prunemap.kernels import _engine, tune
from prunemap.kernels.rates import nominal_rates

ERRORS = {error.__name__: error for error in (AssertionError, IndexError, MemoryError, ValueError)}
NO_SETS = np.zeros(0, np.int32)
SIZES, VECTORS = (1, 2, 4, 8, 16), (1, 2, 4)


class Process:
    """Sends messages and reads answers; starts the process again when it has died."""

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, *message: object) -> list[str]:
        """The words of the answer."""
        with self._lock:
            return self._ask(message)

    def array(self, dtype: type[np.generic], *message: object) -> np.ndarray[Any, Any]:
        """The array of the answer."""
        with self._lock:
            (count,) = self._ask(message)
            assert self._process is not None
            assert self._process.stdout is not None
            return np.frombuffer(self._process.stdout.read(int(count) * np.dtype(dtype).itemsize), dtype).copy()

    def stop(self) -> None:
        """End the process; a sanitiser's report of leaks is an error."""
        if self._process is not None:
            self._process.communicate()
            if self._process.returncode:
                raise self._died()
            self._errors.close()

    def _ask(self, message: Sequence[object]) -> list[str]:
        if self._process is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=self._errors)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words, arrays = list[str](), list[bytes]()
        for part in flat(message):
            if isinstance(part, bytes):
                arrays.append(part)
            else:
                words.append(part)
        payload = b"".join(arrays)
        try:
            self._process.stdin.write(f"{' '.join(words)} {len(payload)}\n".encode() + payload)
            self._process.stdin.flush()
            verdict, *answer = self._process.stdout.readline().decode().split()
        except (BrokenPipeError, ValueError):
            raise self._died() from None
        if verdict == "ok":
            return answer
        raise ERRORS[answer[0]](" ".join(answer[1:]))

    def _died(self) -> AssertionError:
        assert self._process is not None
        ended, self._process = self._process, None
        ended.communicate()
        with self._errors as errors:
            errors.seek(0)
            return AssertionError(f"the engine's process ended with {ended.returncode}:\n{errors.read().decode()}")


def flat(value: object) -> Iterator[str | bytes]:
    """Words and bytes of a message: tuples as their parts, lists and arrays with their length first."""
    match value:
        case Part():
            yield from flat(value.parts)
        case None | bool() | int():
            yield str(int(value or 0))
        case str():
            yield value
        case float():
            yield value.hex()
        case np.ndarray():
            yield str(value.size)
            yield value.tobytes()
        case tuple():
            for part in value:
                yield from flat(part)
        case list() | range():
            yield str(len(value))
            for part in value:
                yield from flat(part)
        case _:
            raise TypeError(f"not an argument: {value!r}")


class Part:
    """An argument that the real engine makes an object of: made there too, for its errors, and kept as it came."""

    parts: tuple[object, ...]


class Planes(Part):
    def __init__(
        self, space: _engine.Space, base: int, stride: int, before: int, pitch: int, shape: tuple[int, int, int]
    ) -> None:
        REAL["Planes"](space, base, stride, before, pitch, shape)
        self.parts = (True, space.value, base, stride, before, pitch, shape)


class Filters(Part):
    def __init__(
        self, runs: Any, offsets: Any, weights: Any, bias: Any, rows: Any, clamp: Any, sets: Any = NO_SETS
    ) -> None:
        REAL["Filters"](runs, offsets, weights, bias, rows, clamp, sets)
        low, high = map(float, clamp)
        arrays = map(np.ascontiguousarray, (runs, offsets, weights, bias, rows))
        self.parts = (*arrays, low, high, np.ascontiguousarray(sets))


class Tile(Part):
    def __init__(
        self, lanes: int, vectors: int, rows: int, columns: int, joined: int, rest: int, passes: int, runs_outer: bool
    ) -> None:
        self.parts = (lanes, vectors, rows, columns, joined, rest, passes, runs_outer)
        REAL["Tile"](*self.parts)


class Filtering(Part):
    def __init__(
        self, cell: int, rows: Any, columns: Any, components: Any, step: Any, padding: Any, channels: Any, holes: Any,
        band: int, chunk: int, stride: int, bias: Any, clamp: Any,
    ) -> None:  # fmt: skip
        REAL["Filtering"](
            cell, rows, columns, components, step, padding, channels, holes, band, chunk, stride, bias, clamp
        )
        parts = [
            [(len(inputs), *inputs, *map(float, factors.reshape(-1))) for inputs, factors in each]
            for each in (rows, columns)
        ]
        low, high = map(float, clamp)
        self.parts = (
            cell,
            *parts,
            components,
            step,
            padding,
            np.asarray(channels, np.int32),
            [tuple(hole) for hole in holes.tolist()],
            band,
            chunk,
            stride,
            np.ascontiguousarray(bias),
            low,
            high,
        )


REAL: dict[str, Any] = {name: getattr(_engine, name) for name in ("Planes", "Filters", "Tile", "Filtering")}


class Program:
    """Stands for ``_engine.Program``; ``process`` is set before the first is made."""

    process: ClassVar[Process]
    numbers: ClassVar[Iterator[int]] = itertools.count()
    dropped: ClassVar[list[int]] = []  # noted when a program goes, which may be in the middle of a message

    def __init__(self, isa: str, threads: int, arena: int, input: int, output: int, scratch: int = 0) -> None:
        self._number, self._output, self.steps = next(self.numbers), output, 0
        while self.dropped:
            self.process.ask("drop", self.dropped.pop())
        self.process.ask("program", self._number, isa, threads, arena, input, output, scratch)
        weakref.finalize(self, self.dropped.append, self._number)

    def pixel_conv(self, filters: Any, tile: Any, source: Any, target: Any, residual: Any, clear: bool) -> None:
        self._append("pixel_conv", filters, tile, source, target, residual, clear)

    def panel_conv(
        self, filters: Any, panel: Any, tile: Any, source: Any, target: Any, residual: Any, clear: bool
    ) -> None:
        self._append("panel_conv", filters, np.ascontiguousarray(panel), tile, source, target, residual, clear)

    def channel_conv(
        self, filters: Any, tile: Any, source: Any, target: Any, residual: Any, step: Any, clear: bool
    ) -> None:
        self._append("channel_conv", filters, tile, source, target, residual, step, clear)

    def stage(self, source: Any, target: Any, phases: Any, step: Any, clear: bool) -> None:
        self._append("stage", source, target, phases, step, clear)

    def rows_conv(
        self, filters: Any, columns: Any, tile: Any, source: Any, target: Any, residual: Any, step: Any, clear: bool
    ) -> None:
        columns = np.ascontiguousarray(columns)
        self._append("rows_conv", filters, columns, tile, source, target, residual, step, clear)

    def winograd_conv(
        self, products: Any, filtering: Any, tile: Any, source: Any, target: Any, residual: Any, clear: bool
    ) -> None:
        self._append("winograd_conv", products, filtering, tile, source, target, residual, clear)

    def pool(self, source: Any, target: Any, maximum: bool, window: Any, count_padding: bool, clear: bool) -> None:
        self._append("pool", source, target, maximum, window, count_padding, clear)

    def add(self, source: Any, other: Any, target: Any, clamp: Any, clear: bool) -> None:
        self._append("add", source, other, target, clamp, clear)

    def function(self, name: str, source: Any, target: Any, clear: bool) -> None:
        self._append("function", name, source, target, clear)

    def run(self, input: Any) -> Any:
        return self.process.array(np.float32, "run", self._number, floats(input)).reshape(-1, self._output)

    def time(self, input: Any, repeats: int) -> Any:
        return self.process.array(np.float64, "time", self._number, floats(input), repeats, np.zeros(0, np.int64))

    def time_steps(self, input: Any, repeats: int, chosen: Sequence[int]) -> Any:
        return self.process.array(
            np.float64, "time", self._number, floats(input), repeats, np.asarray(chosen, np.int64)
        )

    def _append(self, *message: object) -> None:
        self.process.ask(message[0], self._number, *message[1:])
        self.steps += 1


def floats(array: Any) -> Any:
    """What the binding takes."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or not array.flags.c_contiguous:
        raise TypeError("expected a contiguous float32 array")
    return array


def families(process: Process, isa: str) -> list[tuple[int, dict[int, int], dict[int, int], dict[int, int]]]:
    """What ``_engine.families`` gives."""
    numbers = [int(word) for word in process.ask("families", isa)]
    rows = [numbers[i : i + 14] for i in range(0, len(numbers), 14)]
    return [
        (
            lanes,
            {size: most for size, most in zip(SIZES, most[:5], strict=True) if most},
            {size: most for size, most in zip(SIZES, most[5:10], strict=True) if most},
            dict(zip(VECTORS, most[10:], strict=True)),
        )
        for lanes, *most in rows
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", required=True, help="command of the engine's process")


def pytest_configure(config: pytest.Config) -> None:
    process = Program.process = Process(config.getoption("--engine"))
    process.ask("supported")  # a process that does not start is told here
    replaced = {
        "Planes": Planes, "Filters": Filters, "Tile": Tile, "Filtering": Filtering, "Program": Program,
        "built_isas": lambda: process.ask("built"),
        "supported_isas": lambda: process.ask("supported"),
        "function_names": lambda: process.ask("functions"),
        "families": lambda isa: families(process, isa),
    }  # fmt: skip
    for name, value in replaced.items():
        setattr(_engine, name, value)
    tune.measured_rates = nominal_rates  # an emulated CPU's rates say nothing
    config.add_cleanup(process.stop)
