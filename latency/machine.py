"""What a latency depends on besides the network: the machine, its settings and the kernels' version."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from .. import kernels
from ..kernels.plans import cpu_model, engine_digest

HIGHEST_PRIORITY = -20
_REAL_TIME = (os.SCHED_FIFO, os.SCHED_RR)
_SYSTEM = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Machine:
    """The machine a latency was measured on, as it was at that moment.

    Attributes:
        cpu: Model name with family, model and stepping (virtual machines often hide the name).
        isa: Instruction set that the kernels used: ``avx512``, ``avx2`` or ``portable``.
        physical_cores: Cores of the machine, None when the system does not say.
        logical_cores: Hardware threads of the machine.
        allowed_cpus: Hardware threads that this process may run on.
        governor: Frequency governor, ``unknown`` where the system hides it (most virtual machines do).
        boost: ``on``, ``off`` or ``unknown``.
        smt: ``on``, ``off`` or ``unknown``: whether cores are shared by hardware threads.
        niceness: Of the calling thread; -20 is the highest priority.
        policy: How the calling thread is scheduled: ``real-time`` or ``shared``.
        load: Average number of runnable processes over the last minute.
        kernels: Version of the engine: of the package, and a hash of its binary and its compiler's sources.
        system: Name and version of the operating system's kernel.
        python: Version of Python.
        torch: Version of torch.
    """

    cpu: str
    isa: str
    physical_cores: int | None
    logical_cores: int
    allowed_cpus: tuple[int, ...]
    governor: str
    boost: str
    smt: str
    niceness: int
    policy: str
    load: float
    kernels: str
    system: str
    python: str
    torch: str

    def fingerprint(self) -> str:
        """What makes latencies comparable, as one line: CPU, ISA and kernels, not the load of the moment."""
        return f"{self.cpu} | {self.isa} | kernels {self.kernels}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def machine(isa: str = "auto") -> Machine:
    """Describe this machine now.

    Args:
        isa: The instruction set in use; ``auto`` is the one that ``compile_network`` would choose.

    Raises:
        PrunemapError: For an ISA that is unknown or that this CPU does not have.
    """
    return Machine(
        cpu=cpu_model(),
        isa=kernels.resolve_isa(isa),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=os.cpu_count() or 1,
        allowed_cpus=tuple(sorted(os.sched_getaffinity(0))),
        governor=_setting("cpu0/cpufreq/scaling_governor", {}),
        boost=_setting("cpufreq/boost", {"1": "on", "0": "off"}),
        smt=_setting("smt/active", {"1": "on", "0": "off"}),
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
        policy="real-time" if os.sched_getscheduler(0) in _REAL_TIME else "shared",
        load=round(os.getloadavg()[0], 2),
        kernels=kernels_version(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=torch.__version__,
    )


def kernels_version() -> str:
    """Package version and 12 digits of the hash of everything that decides how a network runs."""
    return f"{version('prunemap')}+{engine_digest()[:12]}"


def _setting(path: str, words: dict[str, str]) -> str:
    try:
        value = (_SYSTEM / path).read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"
    return words.get(value, value)


def _least_busy(count: int) -> set[int]:
    """The ``count`` allowed CPUs that did least in the last twentieth of a second; ties to the highest number."""
    allowed = os.sched_getaffinity(0)
    busy = psutil.cpu_percent(interval=0.05, percpu=True)
    by_load = sorted(allowed, key=lambda cpu: (busy[cpu] if cpu < len(busy) else 0.0, -cpu))
    return set(by_load[:count])


@contextmanager
def pinned(threads: int = 1, cpus: set[int] | None = None) -> Iterator[set[int]]:
    """Keep the calling thread, and threads it starts meanwhile, on as many CPUs as it needs, and before others there.

    Priority over other processes is only taken where the system allows it; ``Machine`` tells. It is real-time priority
    where that is granted: niceness alone counts only among the processes of one session (Linux, autogroup). torch
    computes with as many threads meanwhile: more of them on these CPUs would wait for one another.

    Args:
        threads: How many CPUs, when ``cpus`` is not given: the least busy of those that this process may use.
        cpus: The CPUs to stay on.

    Yields:
        The CPUs. On leaving, everything is as it was.
    """
    before, torch_threads = os.sched_getaffinity(0), torch.get_num_threads()
    chosen = cpus or _least_busy(min(threads, len(before)))
    os.sched_setaffinity(0, chosen)
    torch.set_num_threads(len(chosen))
    try:
        with _first_in_line():
            yield chosen
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(torch_threads)


@contextmanager
def _first_in_line() -> Iterator[None]:
    """The highest priority that the system grants, given back on leaving."""
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, HIGHEST_PRIORITY)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
