"""How fast this machine computes at the moment: a fixed piece of arithmetic, timed beside everything that is measured.

A neighbour on the same core, or a clock that gives way when other cores work, slows everything by the same factor or
nearly so, for milliseconds to minutes; real-time priority does not help. Dividing by the pace beside it takes most of
that out of a measurement, and the pace itself tells that the machine was not quiet.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np

from ..kernels.plans import cpu_model
from .cache import cache_folder, write_atomically

_SIZE = 96
_TRIES = 3
_FIRST = 200
_QUIET = 5.0
"""Percentile of many readings that stands for the machine left alone."""


class Pace:
    """Tells how many times longer the fixed arithmetic takes now than on this machine when it is quiet.

    What quiet means is the fastest that any process saw so far on such a CPU; it is kept in the cache folder.
    """

    def __init__(self) -> None:
        self._matrix = np.random.default_rng(0).standard_normal((_SIZE, _SIZE), dtype=np.float32)
        self._result = np.empty_like(self._matrix)
        self._path = cache_folder() / "pace.json"
        self._key = f"{cpu_model()} | numpy {np.__version__}"
        kept, seen = self._kept(), [self._read() for _ in range(_FIRST)]
        self._quiet = min(kept, float(np.percentile(seen, _QUIET)))
        if self._quiet < kept:
            self._keep(self._quiet)

    def __call__(self) -> float:
        """Now's slowdown: 1 on a quiet machine."""
        return self._read() / self._quiet

    def _read(self) -> float:
        """Seconds of the fixed arithmetic, the fastest of three: an interrupt says nothing about the pace."""
        fastest = math.inf
        for _ in range(_TRIES):
            start = time.perf_counter()
            np.dot(self._matrix, self._matrix, out=self._result)
            np.dot(self._matrix, self._matrix, out=self._result)
            fastest = min(fastest, time.perf_counter() - start)
        return fastest

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
