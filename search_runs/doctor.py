"""The command ``doctor``: what of this machine matters to prunemap, and how steady latencies are on it."""

from __future__ import annotations

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from threadpoolctl import threadpool_info

from ..envs import build_network
from ..kernels import compile_network, isas
from ..latency import cache_folder, machine, measure_interleaved
from .config import usable_cpus
from .tables import Row, show, text

_GIB = 2**30
_NOISE = 0.02
"""Largest difference between two measurements of one network that still lets 2 % be told apart."""

Finding = tuple[str, str, str]
"""What was looked at, what was found, and a remark: empty when all is well."""


def doctor(args: Namespace) -> int:
    """Print findings; remarks say what may go wrong and what to do."""
    rows: list[Row] = [
        {"what": what, "found": found, "remark": remark}
        for examine in (_machine, _memory, _libraries, _noise)
        for what, found, remark in examine()
    ]
    show(rows, (text("what"), text("found"), text("remark")), args.format)
    return 0


def _machine() -> Iterator[Finding]:
    here = machine()
    yield "CPU", here.cpu, ""
    yield "instruction sets", ", ".join(isas()), ""
    yield "CPUs", f"{usable_cpus()} usable of {here.logical_cores}", ""
    slow = here.governor not in ("performance", "unknown")
    yield "governor", here.governor, "latencies wander; set it to performance" if slow else ""
    yield "boost", here.boost, ""
    yield "SMT", here.smt, "busy neighbours slow a core down" if here.smt == "on" else ""
    busy = here.load > 0.5 * usable_cpus()
    yield "load", f"{here.load:.2f}", "measure while nothing else runs" if busy else ""


def _memory() -> Iterator[Finding]:
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free / _GIB
        yield "/dev/shm", f"{free:.1f} GiB free", "Ray wants 0.2 GiB; it will use the disk" if free < 0.25 else ""
    for what, folder in (("cache folder", cache_folder()), ("working directory", Path.cwd())):
        free = shutil.disk_usage(folder).free / _GIB
        remark = "little space left" if free < 1.0 else "" if os.access(folder, os.W_OK) else "not writable"
        yield what, f"{folder}, {free:.1f} GiB free", remark


def _libraries() -> Iterator[Finding]:
    yield "Python", sys.version.split()[0], ""
    for package in ("prunemap", "torch", "ray", "gymnasium", "stable-baselines3", "numpy"):
        yield package, version(package), ""
    yield "torch's CPU capability", torch.backends.cpu.get_cpu_capability(), ""
    pools = [f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info()]
    yield "thread pools", ", ".join(pools), ""
    given = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "PRUNEMAP_ISA") if name in os.environ]
    yield "environment", ", ".join(given) or "-", ""


def _noise() -> Iterator[Finding]:
    """The same network compiled twice and measured against itself: any difference is noise."""
    model = build_network("resnet8", in_channels=1, width=8).eval()
    example = torch.zeros(1, 1, 16, 16)
    one, other = measure_interleaved([compile_network(model, example) for _ in range(2)])
    difference = abs(one.median_ms / other.median_ms - 1.0)
    noisy = difference > _NOISE or one.unstable or other.unstable
    yield (
        "A/A latency",
        f"{one.median_ms:.5f} ± {one.mad_ms:.5f} ms and {other.median_ms:.5f} ± {other.mad_ms:.5f} ms: "
        f"{difference:.1%} apart",
        "unsteady: measure while nothing else runs, or on another machine" if noisy else "",
    )
