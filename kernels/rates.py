"""How fast this machine multiplies and loads, measured once per process: what estimates are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from . import _engine

FLOATS = 4096  # 16 KiB: in the first-level cache
PASSES = 40
REPEATS = 5


@dataclass(frozen=True)
class Rates:
    """Cycles of a multiply-add with vectors of one width, by where its operand comes from.

    A cycle is half the time of the fastest multiply-add from registers: CPUs with vectors start two of them at once.

    Attributes:
        registers: From a register.
        aligned: From the first-level cache.
        misaligned: The same, off by four bytes: some loads cross a cache line.
        broadcast: One float for all lanes.
    """

    registers: float
    aligned: float
    misaligned: float
    broadcast: float


NOMINAL = Rates(0.5, 0.6, 0.9, 0.7)
"""Where nothing may be measured; the same for all widths."""


@cache
def measured_rates(isa: str) -> dict[int, Rates]:
    """The rates of every vector width of an instruction set, by lanes; some milliseconds."""
    seconds = {
        lanes: [_seconds(isa, loop, lanes) for loop in Rates.__annotations__] for lanes, *_ in _engine.families(isa)
    }
    cycle = 2.0 * min(times[0] for times in seconds.values())
    return {lanes: Rates(*(time / cycle for time in times)) for lanes, times in seconds.items()}


def nominal_rates(isa: str) -> dict[int, Rates]:
    """What is assumed where nothing may be measured."""
    return {lanes: NOMINAL for lanes, *_ in _engine.families(isa)}


def _seconds(isa: str, loop: str, lanes: int) -> float:
    """Of one multiply-add."""
    runs = _engine.RoofLoop(isa, loop, lanes, FLOATS, PASSES, 1)
    return float(runs.time(REPEATS).min()) * 2.0 * lanes / runs.flops
