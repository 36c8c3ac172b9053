from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunemap.pruning.errors import PrunemapError
from prunemap.search_runs.store import Answer, Asker, Store

ASKER = Asker("random", 0)

WRITER = """
import sys
from collections.abc import Iterator
from pathlib import Path
from prunemap.search_runs.store import Asker, Store

store = Store(Path(sys.argv[1]))
for number in range(100_000):
    key = f"key-{number}"
    store.asked(Asker("random", 0), number, [key])
    store.record({"key": key, "reward": number, "failed": None}, 1.0, 2.0)
    print(key, flush=True)
"""


def answer(key: str, reward: float, failed: str | None = None) -> Answer:
    return {"key": key, "reward": reward, "failed": failed, "seconds": 0.5}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "evaluations.sqlite") as opened:
        yield opened


def ask(store: Store, *answers: Answer, asker: Asker = ASKER, position: int = 0) -> None:
    store.asked(asker, position, [entry["key"] for entry in answers])
    for entry in answers:
        if store.answer(entry["key"]) is None:
            store.record(entry, 0.0, 1.0)


def test_answers_come_back_in_the_order_asked_repeats_included(store: Store) -> None:
    first, second = answer("a", 0.1), answer("b", 0.2)
    ask(store, second, first, second)
    ask(store, first, position=3)
    assert store.history(ASKER) == [second, first, second, first]
    assert store.history(Asker("random", 1)) == []
    assert store.computed() == {"a": 1, "b": 1}


def test_status(store: Store) -> None:
    assert store.status(ASKER).state == "waiting"
    store.set_state(ASKER, "running")
    ask(store, answer("a", 0.1), answer("b", 0.3), answer("c", 0.3), answer("d", 0.9, failed="diverged"))
    store.asked(ASKER, 4, ["e"])
    status = store.status(ASKER)
    assert (status.state, status.asked, status.answered) == ("running", 5, 4)
    assert status.best is not None
    assert status.best["key"] == "b", "the earliest of the best; a failed one is none"


def test_asking_again_in_the_same_order_agrees(store: Store) -> None:
    keys = ["a", "b", "c"]
    assert store.asked(ASKER, 0, keys[:2])
    assert store.asked(ASKER, 0, keys), "longer than before: the search was interrupted in between"
    assert store.asked(ASKER, 1, keys[1:])


def test_asking_otherwise_forgets_the_old_order_but_no_evaluation(store: Store) -> None:
    old = [answer(key, 0.0) for key in "abcd"]
    ask(store, *old)
    new = answer("x", 1.0)
    assert not store.asked(ASKER, 1, ["x"])
    store.record(new, 0.0, 1.0)
    assert [entry["key"] for entry in store.history(ASKER)] == ["a", "x"]
    assert all(store.answer(entry["key"]) == entry for entry in old)


def test_computed_counts_work_done_twice(store: Store) -> None:
    for reward in (0.1, 0.2):
        store.record(answer("a", reward), 0.0, 1.0)
    assert store.computed() == {"a": 2}
    assert store.answer("a") == answer("a", 0.1), "what agents were told stays true"


def test_readers_see_what_was_written_while_the_writer_goes_on(store: Store, tmp_path: Path) -> None:
    with Store(tmp_path / "evaluations.sqlite", readonly=True) as reader:
        ask(store, answer("a", 0.1))
        assert reader.status(ASKER).answered == 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.set_state(ASKER, "done")


def test_nothing_that_was_stored_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.sqlite"
    for turn in range(3):
        line = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = [process.stdout.readline().strip() for _ in range(40 + 17 * turn)]
            os.kill(process.pid, signal.SIGKILL)
        with Store(path) as store:
            assert all(store.answer(key) is not None for key in told)
            status = store.status(ASKER)
            assert status.answered in (status.asked, status.asked - 1), "at most the one in flight has no answer"


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be looked at" * 50])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evaluations.sqlite"
    path.write_bytes(content)
    with pytest.raises(PrunemapError, match=r"evaluations\.sqlite"):
        Store(path, readonly=True)


def test_newer_versions_are_refused(store: Store, tmp_path: Path) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "evaluations.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(PrunemapError, match="version 99 of the record; this prunemap reads version 1"):
        Store(tmp_path / "evaluations.sqlite")


def test_missing_record(tmp_path: Path) -> None:
    with pytest.raises(PrunemapError, match="no such file"):
        Store(tmp_path / "none.sqlite", readonly=True)


def test_rows_are_plain_json(store: Store, tmp_path: Path) -> None:
    ask(store, answer("a", 0.1))
    db = sqlite3.connect(tmp_path / "evaluations.sqlite")
    (text,) = db.execute("SELECT answer FROM evaluations").fetchone()
    db.close()
    assert json.loads(text) == answer("a", 0.1)
