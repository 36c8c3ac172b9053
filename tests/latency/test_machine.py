"""The machine's description, pinning, the measuring lock and atomic writes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prunemap.kernels import isas
from prunemap.latency import cache_folder, exclusive_lock, machine, pinned, write_atomically
from prunemap.pruning import PrunemapError

WAITER = """
from prunemap.latency.cache import exclusive_lock
with exclusive_lock(lambda text: print(text, flush=True)):
    print("mine", flush=True)
"""


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
