"""The machine's description, pinning, the measuring lock and atomic writes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from prunemap.kernels import isas
from prunemap.kernels.pace import Pace
from prunemap.latency import cache_folder, exclusive_lock, machine, pinned, write_atomically
from prunemap.pruning import PrunemapError

WAITER = """
from prunemap.latency.cache import exclusive_lock
with exclusive_lock(lambda text: print(text, flush=True)):
    print("mine", flush=True)
"""

PACE_NOW = Pace.__call__  # tests replace it


def test_fingerprint_leaves_out_the_load_of_the_moment() -> None:
    here = machine()
    assert dataclasses.replace(here, load=99.0).fingerprint() == here.fingerprint()
    assert here.cpu in here.fingerprint()
    assert here.kernels in here.fingerprint()
    json.dumps(here.to_dict())


@pytest.mark.parametrize("isa", isas())
def test_every_isa_has_its_own_fingerprint(isa: str) -> None:
    assert machine(isa).isa == isa
    assert isa in machine(isa).fingerprint()


def test_an_unknown_isa_is_refused() -> None:
    with pytest.raises(PrunemapError, match="avx9000"):
        machine("avx9000")


def test_pinning_is_undone() -> None:
    before = os.sched_getaffinity(0)
    with pinned() as cpus:
        assert os.sched_getaffinity(0) == cpus
        assert len(cpus) == 1
        assert cpus <= before
    assert os.sched_getaffinity(0) == before


def test_priority_and_threads_are_given_back() -> None:
    before, threads = os.getpriority(os.PRIO_PROCESS, 0), torch.get_num_threads()
    policy = os.sched_getscheduler(0)
    with pinned():
        assert os.getpriority(os.PRIO_PROCESS, 0) <= before
        assert machine().niceness == os.getpriority(os.PRIO_PROCESS, 0)
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads
    assert os.sched_getscheduler(0) == policy
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_pinning_takes_the_cpus_it_is_given_and_no_more_than_there_are() -> None:
    allowed = os.sched_getaffinity(0)
    with pinned(cpus={min(allowed)}) as cpus:
        assert cpus == {min(allowed)}
    with pinned(threads=10_000) as cpus:
        assert cpus == allowed


def test_the_lock_may_be_nested() -> None:
    with exclusive_lock(), exclusive_lock():
        assert (cache_folder() / "measuring.lock").exists()


def test_another_process_waits_and_says_for_whom() -> None:
    with exclusive_lock():
        waiter = subprocess.Popen([sys.executable, "-c", WAITER], stdout=subprocess.PIPE, text=True)
        assert waiter.stdout is not None
        assert f"waiting for process {os.getpid()}, which is measuring" in waiter.stdout.readline()
        assert waiter.poll() is None
    rest, _ = waiter.communicate(timeout=60)
    assert rest.strip() == "mine"
    assert waiter.returncode == 0


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    write_atomically(path, lambda temporary: temporary.write_text("old") and None)

    def fail(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_written_files_have_the_permissions_of_any_new_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file.txt", lambda temporary: temporary.write_text("new") and None)
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == mode


def test_a_cache_folder_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PRUNEMAP_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(PrunemapError, match="the cache folder cannot be made"):
        cache_folder()


def test_the_pace_of_the_quietest_moment_is_kept(own_cache: Path) -> None:
    path = own_cache / "pace.json"
    first = Pace()
    ((key, kept),) = json.loads(path.read_text()).items()
    assert kept > 0
    path.write_text(json.dumps({key: kept / 100, "another CPU": kept / 1e6}))
    assert Pace()._quiet == pytest.approx(kept / 100)
    for damaged in ("", "[]", "-1", "fast", json.dumps({key: "fast"}), json.dumps({key: -1})):
        path.write_text(damaged)
        assert Pace()._quiet > 0
    assert first._read() > 0


def test_the_pace_is_told_from_an_objects_own_quietest_reading(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that makes it a little slower is no neighbour; what is much slower than any process saw is one."""
    readings = [1.0]
    monkeypatch.setattr(Pace, "_read", lambda self: readings[-1])
    monkeypatch.setattr(Pace, "__call__", PACE_NOW)
    assert Pace()() == 1.0
    readings.append(1.03)
    placed = Pace()
    assert placed() == 1.0
    readings.append(1.5)
    assert placed() == pytest.approx(1.5 / 1.03)
    disturbed = Pace()
    assert disturbed() == pytest.approx(1.5)
    readings.append(0.9)
    assert placed() == pytest.approx(0.9 / 1.03)  # one lucky reading moves nothing
    readings.append(1.02)
    for _ in range(5):
        assert disturbed() == pytest.approx(1.02)
    assert disturbed() == 1.0


def test_the_pace_is_the_calling_threads_own(own_cache: Path) -> None:
    """Another thread could be kept waiting for by real-time priority, which holds it off the CPU."""
    pace = Pace()
    begun, own = time.process_time(), time.thread_time()
    for _ in range(50):
        pace._read()
    all_threads, own = time.process_time() - begun, time.thread_time() - own
    assert own > 0.0
    assert all_threads - own < own / 4


def test_machines_that_share_a_cache_folder_have_a_pace_each(own_cache: Path) -> None:
    own_cache.mkdir(exist_ok=True)
    (own_cache / "pace.json").write_text(json.dumps({"another CPU": 1e-12}))
    assert Pace()._quiet > 1e-9
    assert json.loads((own_cache / "pace.json").read_text())["another CPU"] == 1e-12
