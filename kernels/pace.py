"""How fast this machine computes at the moment: a fixed piece of arithmetic, timed beside everything that is measured.

A neighbour on the same core, or a clock that gives way when other cores work, slows everything by the same factor or
nearly so, for milliseconds to minutes; real-time priority does not help. Dividing by the pace beside it takes most of
that out of a measurement, and the pace itself tells that the machine was not quiet.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import deque
from functools import cache
from pathlib import Path

import numpy as np

from ..pruning.errors import PrunemapError
from . import _engine
from .alone import Alone
from .cache import cache_folder, write_atomically
from .layout import Geometry
from .operations import NO_CLAMP, Convolution
from .plans import cpu_model, engine_digest
from .rates import nominal_rates
from .shortlist import promising
from .task import Task

QUIET = 1.03
"""Largest pace that is taken for a quiet machine's."""
_INPUTS, _FILTERS, _MAP = 32, 64, (8, 24)
"""A 1x1 convolution whose input the nearest cache holds: some ten microseconds."""
_RUNS = 5
_TRIES = 3
_RECENT = 100
"""Readings from which it is told how fast the machine is when quiet."""
_APART = 0.01
"""Seconds between the first of them where none is kept yet: a slow moment must not pass for a quiet one."""
_QUIET = 0.05
"""Quantile of them that stands for the machine left alone."""
_PLACED = 1.05
"""How much longer the same arithmetic may take in other memory, on the same quiet machine (up to 4 % was seen)."""


class Pace:
    """Tells how many times longer the fixed arithmetic takes now than on this machine when it is quiet.

    Quiet is a low percentile of what this object read, the lowest so far. Where its memory happens to lie makes that
    differ by a few percent from one object to the next; only if it is further than that from the fastest that any
    object found when it was made on such a CPU, which is kept in the cache folder, was the machine not quiet yet, and
    that one counts. So a machine that is all the time slower by no more than that passes for a quiet one.

    The arithmetic is a convolution by the engine itself, so that it needs of the core what networks need: a neighbour
    that takes loads and instructions, but no multiplications, would leave a loop of multiply-adds alone. It runs on the
    calling thread: a library that hands part of it to another one may wait for what real-time priority keeps from
    running.
    """

    def __init__(self) -> None:
        isa, task = _engine.supported_isas()[0], _task()
        self._convolution = Alone(task, promising(task, isa, nominal_rates(isa))[:1], isa, 1)
        self._path = _kept_at()
        self._key = f"{cpu_model()} | {engine_digest()[:12]}"
        self._known = self._kept()
        seen = (self._read_after(_APART if math.isinf(self._known) else 0.0) for _ in range(_RECENT))
        self._recent = deque(seen, _RECENT)
        self._own = self._quietest()
        if self._own < self._known:
            self._known = self._own
            self._keep(self._own)

    def __call__(self) -> float:
        """Now's slowdown: 1 on a quiet machine."""
        seconds = self._read()
        self._recent.append(seconds)
        self._own = min(self._own, self._quietest())
        return seconds / self._quiet

    def _quietest(self) -> float:
        """Of the last readings, without the luckiest."""
        return sorted(self._recent)[int(_QUIET * len(self._recent))]

    @property
    def _quiet(self) -> float:
        """Seconds on a quiet machine."""
        return self._own if self._own <= _PLACED * self._known else self._known

    def _read_after(self, pause: float) -> float:
        time.sleep(pause)
        return self._read()

    def _read(self) -> float:
        """Seconds of the fixed arithmetic, the fastest of three: an interrupt says nothing about the pace."""
        return float(self._convolution.time([0] * _RUNS * _TRIES).reshape(_TRIES, _RUNS).sum(axis=1).min())

    def _kept(self) -> float:
        return self._all_kept().get(self._key, math.inf)

    def _all_kept(self) -> dict[str, float]:
        """What is in the file: machines may share a cache folder."""
        if self._path is None:
            return {}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {key: seconds for key, seconds in found.items() if seconds > 0.0}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _keep(self, seconds: float) -> None:
        kept = self._all_kept() | {self._key: seconds}

        def write(temporary: Path) -> None:
            temporary.write_text(json.dumps(kept), encoding="utf-8")

        if self._path:
            with contextlib.suppress(OSError):  # a folder that cannot be written to costs time later, not this result
                write_atomically(self._path, write)


@cache
def machine_pace() -> Pace:
    """The pace told to all that compile in this process: what one has seen of the machine, the next need not see."""
    return Pace()


def _kept_at() -> Path | None:
    try:
        return cache_folder() / "pace.json"
    except PrunemapError:  # no cache folder can be made
        return None


def _task() -> Task:
    """The convolution that is timed."""
    weight = np.random.default_rng(0).standard_normal((_FILTERS, _INPUTS, 1, 1), dtype=np.float32)
    bias, groups = np.zeros(_FILTERS, np.float32), np.zeros(_FILTERS, np.int64)
    convolution = Convolution(weight, bias, groups, np.arange(_INPUTS)[None], (1, 1), (0, 0), (1, 1))
    source, target = (Geometry((channels, *_MAP), _MAP[1], 0, 0) for channels in (_INPUTS, _FILTERS))
    return Task(convolution, NO_CLAMP, source, target, None, None)
