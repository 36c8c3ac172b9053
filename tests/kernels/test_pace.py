"""The machine's pace: what it is told from, and what is kept of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from prunemap.kernels import pace
from prunemap.kernels.pace import Pace

TOLD = Pace.__call__  # tests of latencies replace it


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNEMAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Pace, "__call__", TOLD)
    monkeypatch.setattr(pace, "_APART", 0.0)
    return tmp_path / "cache"


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
    own_pace = Pace()
    begun, own = time.process_time(), time.thread_time()
    for _ in range(50):
        own_pace._read()
    all_threads, own = time.process_time() - begun, time.thread_time() - own
    assert own > 0.0
    assert all_threads - own < own / 4


def test_machines_that_share_a_cache_folder_have_a_pace_each(own_cache: Path) -> None:
    own_cache.mkdir(exist_ok=True)
    (own_cache / "pace.json").write_text(json.dumps({"another CPU": 1e-12}))
    assert Pace()._quiet > 1e-9
    assert json.loads((own_cache / "pace.json").read_text())["another CPU"] == 1e-12


def test_a_cache_folder_that_takes_no_files_does_not_stop_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, write: object) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(pace, "write_atomically", refuse)
    assert Pace()() > 0.0
