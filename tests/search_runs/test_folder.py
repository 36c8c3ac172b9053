from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunemap.pruning.errors import PrunemapError
from prunemap.search_runs import store
from prunemap.search_runs.folder import RunFolder, RunInUse, create_run
from prunemap.search_runs.locks import hold

HOLDER = """
import sys
from pathlib import Path
from prunemap.search_runs.locks import hold
file = hold(Path(sys.argv[1]), 0.0)
print("held", flush=True)
sys.stdin.readline()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the file until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("left", [(), ("machine.json",), ("machine.json", "profile.parquet", ".config.yaml.0a")])
def test_what_a_search_killed_at_its_start_leaves_can_be_set_aside(tmp_path: Path, left: tuple[str, ...]) -> None:
    half = tmp_path / "digits"
    half.mkdir()
    for name in left:
        (half / name).touch()
    with pytest.raises(PrunemapError, match=r"no config\.yaml; choose another --name, or set it aside with --fresh"):
        create_run(tmp_path, "digits", fresh=False)
    folder = create_run(tmp_path, "digits", fresh=True)
    assert list(folder.path.iterdir()) == []
    (aside,) = tmp_path.glob("digits.*")
    assert {path.name for path in aside.iterdir()} - {".lock"} == set(left)


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_no_run_is_left_alone(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "thesis.tex").touch()
    (tmp_path / "notes").touch()
    for name in ("digits", "notes"):
        with pytest.raises(PrunemapError, match="is not a run"):
            create_run(tmp_path, name, fresh)
    assert (tmp_path / "digits" / "thesis.tex").is_file()


def test_looking_at_the_lock_writes_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.is_locked()
    assert not folder.lock_file.exists()
    folder.lock_file.write_text("123")
    assert not folder.is_locked()
    assert folder.lock_file.read_text() == "123"
    with folder.locked():
        assert folder.is_locked()
        with pytest.raises(RunInUse, match=f"process {os.getpid()} is searching in it now"), folder.locked():
            pass
    assert not folder.is_locked()


def test_a_lock_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    RunFolder(tmp_path).lock_file.mkdir()
    with pytest.raises(PrunemapError, match="cannot be read: Is a directory"):
        RunFolder(tmp_path).is_locked()


def test_a_writer_waits_for_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = tmp_path / "evaluations.sqlite"
    before = holder(tmp_path / "evaluations.sqlite.lock")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "_WRITER_SECONDS", 0.2)
            with pytest.raises(PrunemapError, match=f"process {before.pid} still writes to it"):
                store.Store(database)
        assert capsys.readouterr().err == f"waiting for process {before.pid}, which still writes to {database}\n"
    finally:
        before.kill()
        before.communicate()
    with store.Store(database), store.Store(database, readonly=True):
        assert (tmp_path / "evaluations.sqlite.lock").read_text() == str(os.getpid())


def test_waiting_ends_when_the_holder_dies(tmp_path: Path) -> None:
    before = holder(tmp_path / "lock")
    told: list[str] = []

    def kill(pid: str) -> None:
        told.append(pid)
        before.kill()

    hold(tmp_path / "lock", 60.0, kill).close()
    before.communicate()
    assert told == [str(before.pid)]
