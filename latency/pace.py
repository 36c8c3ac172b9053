"""How fast this machine computes at the moment: a fixed piece of arithmetic, timed beside everything that is measured.

A neighbour on the same core, or a clock that gives way when other cores work, slows everything by the same factor or
nearly so, for milliseconds to minutes; real-time priority does not help. Dividing by the pace beside it takes most of
that out of a measurement, and the pace itself tells that the machine was not quiet.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from ..kernels import isas
from ..kernels._engine import RoofLoop, families
from ..kernels.plans import cpu_model
from .cache import cache_folder, write_atomically

_FLOATS, _PASSES = 4096, 640
"""Multiply-adds of one reading: some 50 microseconds, in registers."""
_TRIES = 3
_FIRST = 200
_QUIET = 5.0
"""Percentile of many readings that stands for the machine left alone."""


class Pace:
    """Tells how many times longer the fixed arithmetic takes now than on this machine when it is quiet.

    What quiet means is the fastest that any process saw so far on such a CPU; it is kept in the cache folder.

    The arithmetic is the engine's own loop, on the calling thread. A numerical library would not do: one that hands
    part of it to a thread of its own waits for a thread that real-time priority keeps from running.
    """

    def __init__(self) -> None:
        isa = isas()[0]
        lanes = families(isa)[0][0]
        self._loop = RoofLoop(isa, "registers", lanes, _FLOATS, _PASSES, 1)
        self._path = cache_folder() / "pace.json"
        self._key = f"{cpu_model()} | {isa}, {lanes} lanes, {_FLOATS} x {_PASSES}"
        kept, seen = self._kept(), [self._read() for _ in range(_FIRST)]
        self._quiet = min(kept, float(np.percentile(seen, _QUIET)))
        if self._quiet < kept:
            self._keep(self._quiet)

    def __call__(self) -> float:
        """Now's slowdown: 1 on a quiet machine."""
        return self._read() / self._quiet

    def _read(self) -> float:
        """Seconds of the fixed arithmetic, the fastest of three: an interrupt says nothing about the pace."""
        return float(self._loop.time(_TRIES).min())

    def _kept(self) -> float:
        return self._all_kept().get(self._key, math.inf)

    def _all_kept(self) -> dict[str, float]:
        """What is in the file: machines may share a cache folder."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {key: seconds for key, seconds in found.items() if seconds > 0.0}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _keep(self, seconds: float) -> None:
        kept = self._all_kept() | {self._key: seconds}

        def write(temporary: Path) -> None:
            temporary.write_text(json.dumps(kept), encoding="utf-8")

        write_atomically(self._path, write)
