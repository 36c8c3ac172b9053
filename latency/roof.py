"""What the machine can do at most: multiply-adds per second of a core, and bytes per second of every cache level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels import resolve_isa
from ..kernels._engine import RoofLoop, families
from ..kernels.pace import Pace
from .batches import Sampler, Samples, batch_size, interleave
from .cache import exclusive_lock
from .machine import pinned

FMA_LOOPS = ("registers", "aligned", "misaligned", "broadcast")
"""Where a multiply-add's operand comes from: a register; L1, aligned; L1, off by 4 bytes; L1, 4 bytes to all lanes."""
DRAM = "DRAM"
ROUNDS = 9
_RUN_BYTES = 4 << 20  # of a stream, read in one run: some tens of microseconds, several runs between two interrupts
_L1_FLOATS = 4096
_STREAM = 8
"""How many last-level caches long the streams of all threads from memory are: of two a part is still found there."""
_LARGEST = 512 << 20
"""Bytes beyond which no buffer goes: some virtual machines report caches that they do not get."""
_FALLBACK = {"L1": 32 << 10, "L2": 512 << 10, "L3": 16 << 20}
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class FmaRoof:
    """Multiply-adds with vectors of one width.

    Attributes:
        loop: One of ``FMA_LOOPS``.
        lanes: Floats per vector.
        threads: How many threads ran it at once, each on data of its own.
        gflops: 10^9 floating-point operations per second of all threads; a multiply-add is two.
    """

    loop: str
    lanes: int
    threads: int
    gflops: float


@dataclass(frozen=True)
class Bandwidth:
    """Reading a stream, again and again, with the widest vectors.

    Attributes:
        level: ``L1``, ``L2``, ``L3`` or ``DRAM``.
        holds: Bytes that the level holds, per core or in all as the system reports it; 0 for DRAM.
        read: Bytes of each thread's stream.
        threads: How many threads read at once, each its own stream.
        gbps: 10^9 bytes per second of all threads.
    """

    level: str
    holds: int
    read: int
    threads: int
    gbps: float


@dataclass(frozen=True)
class Roof:
    """What one instruction set reaches on this machine.

    Attributes:
        isa: The instruction set.
        threads: Threads of ``gflops`` and of the bandwidths.
        fma: Multiply-adds, for every loop, width and number of threads that was measured.
        bandwidths: Of the levels, the fastest first.
    """

    isa: str
    threads: int
    fma: tuple[FmaRoof, ...]
    bandwidths: tuple[Bandwidth, ...]

    def best(self, threads: int) -> float:
        """GFLOP/s from registers on so many threads, with the vectors that reach most; 0 where it was not measured."""
        return max((f.gflops for f in self.fma if f.loop == FMA_LOOPS[0] and f.threads == threads), default=0.0)

    @property
    def gflops(self) -> float:
        """The roof that kernels on ``threads`` threads are measured by."""
        return self.best(self.threads)

    def bandwidth(self, size: float) -> float:
        """GB/s at which ``size`` bytes can be read again and again: that of the level that holds them."""
        return next(b.gbps for b in self.bandwidths if b.level == DRAM or size <= b.holds)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"gflops": self.gflops}


@cache
def cache_sizes() -> dict[str, int]:
    """Bytes of the data caches that CPU 0 reads through, by level; usual sizes where the system tells none."""
    found = dict(_FALLBACK)
    for folder in sorted(_CACHES.glob("index*")):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                found[f"L{level}"] = _bytes(size)
        except (OSError, ValueError):
            continue
    found["L2"] = max(found["L2"], 2 * found["L1"])
    found["L3"] = max(found["L3"], 2 * found["L2"])
    return {level: found[level] for level in _FALLBACK}


def _bytes(text: str) -> int:
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper())
    return int(text[:-1]) * unit if unit else int(text)


def sweep_bytes() -> int:
    """Bytes of a stream that leaves next to nothing else in the caches."""
    return min(2 * cache_sizes()["L3"], _LARGEST)


def stream_bytes() -> int:
    """Bytes of a stream of which hardly anything is found in the caches."""
    return max(sweep_bytes(), min(_STREAM * cache_sizes()["L3"], _LARGEST))


class RoofLoops:
    """Loops to be timed between other measurements; of every one the fastest run counts.

    Make it where it is to run: its threads stay on the CPUs of that moment.

    Attributes:
        samplers: Of all loops, for ``interleave``.
        batches: Runs of each that make a batch.
    """

    def __init__(self, isa: str, threads: int, fma: Sequence[str] = FMA_LOOPS[:1], streams: bool = True) -> None:
        """Allocate the data.

        Args:
            isa: Instruction set.
            threads: Threads that run at once, each on data of its own.
            fma: Which of ``FMA_LOOPS``, for vectors of every width.
            streams: Whether to read streams from every level, too.
        """
        self._isa, self._threads = isa, threads
        lanes = [lanes for lanes, *_ in families(isa)]
        self._fma = {(name, wide): _fma_loop(isa, name, wide, threads) for wide in lanes for name in fma}
        holds = {**cache_sizes(), DRAM: 0} if streams else {}
        stream = max(sweep_bytes(), stream_bytes() // threads)
        self._reads = {level: _read_loop(isa, lanes[0], size // 2 or stream, threads) for level, size in holds.items()}
        self._sweep: RoofLoop | None = None
        self._loops = [*self._fma.values(), *self._reads.values()]
        self._seconds = [math.inf] * len(self._loops)
        self.samplers: list[Sampler] = [loop.time for loop in self._loops]
        self.batches = [batch_size(sampler) for sampler in self.samplers]

    def note(self, taken: Sequence[Samples]) -> None:
        """Keep the fastest runs of what ``interleave`` took of the samplers."""
        self._seconds = [min(s, float(t.min())) for s, t in zip(self._seconds, taken, strict=True)]

    def sweep(self) -> None:
        """Leave nothing of anyone else in the caches."""
        self._sweep = self._sweep or _read_loop(self._isa, families(self._isa)[0][0], sweep_bytes(), self._threads)
        self._sweep.time(1)

    def roof(self) -> Roof:
        """The best so far."""
        rates = {id(loop): 1e-9 / s for loop, s in zip(self._loops, self._seconds, strict=True)}
        fma = (FmaRoof(*key, self._threads, loop.flops * rates[id(loop)]) for key, loop in self._fma.items())
        holds = {**cache_sizes(), DRAM: 0}
        reads = (
            Bandwidth(level, holds[level], loop.size, self._threads, loop.bytes * rates[id(loop)])
            for level, loop in self._reads.items()
        )
        return Roof(self._isa, self._threads, tuple(fma), tuple(reads))


def _fma_loop(isa: str, name: str, lanes: int, threads: int) -> RoofLoop:
    return RoofLoop(isa, name, lanes, _L1_FLOATS, 640 // (lanes if name == "broadcast" else 1), threads)


def _read_loop(isa: str, lanes: int, size: int, threads: int) -> RoofLoop:
    return RoofLoop(isa, "read", lanes, size // 4, max(1, _RUN_BYTES // size), threads)


def measure_roof(isa: str = "auto", threads: int = 1) -> Roof:
    """Measure the roof: all loops in interleaved batches, nine times over.

    Args:
        isa: Instruction set.
        threads: Threads of the bandwidths and of ``Roof.gflops``. Multiply-adds are measured with every operand on one
            thread and, from registers, on two and on ``threads``.

    Raises:
        PrunemapError: For an ISA that is unknown or that this CPU does not have.
    """
    name = resolve_isa(isa)
    found: list[Roof] = []
    with exclusive_lock():
        for count in sorted({1, 2, threads}):
            with pinned(count):
                loops = RoofLoops(name, count, FMA_LOOPS if count == 1 else FMA_LOOPS[:1], streams=count == threads)
                taken = interleave(loops.samplers, loops.batches, ROUNDS, np.random.default_rng(0), Pace())
                loops.note([one.samples for one in taken])
                found.append(loops.roof())
    fma, reads = (f for roof in found for f in roof.fma), (b for roof in found for b in roof.bandwidths)
    return Roof(name, threads, tuple(fma), tuple(reads))
