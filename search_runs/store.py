"""The memory of a run: every evaluation and every question in one SQLite file with one writer."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..pruning.errors import PrunemapError
from .locks import Held, hold

VERSION = 1
_BUSY_SECONDS = 30.0
_WRITER_SECONDS = 20.0
"""How long a writer waits for another: that of a killed search may live on for a moment."""

_SCHEMA = f"""
CREATE TABLE evaluations (
  key TEXT PRIMARY KEY, answer TEXT NOT NULL, started REAL NOT NULL, finished REAL NOT NULL,
  computed INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
CREATE TABLE asks (
  agent TEXT NOT NULL, seed INTEGER NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL,
  PRIMARY KEY (agent, seed, position)
) WITHOUT ROWID;
CREATE TABLE trials (
  agent TEXT NOT NULL, seed INTEGER NOT NULL, state TEXT NOT NULL, message TEXT, updated REAL NOT NULL,
  PRIMARY KEY (agent, seed)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""

Answer = dict[str, Any]
"""An ``Evaluation`` as plain JSON values."""


@dataclass(frozen=True, order=True)
class Asker:
    """One agent with one seed: a trial of the search."""

    agent: str
    seed: int

    def __str__(self) -> str:
        return f"{self.agent}-{self.seed}"


@dataclass(frozen=True)
class TrialStatus:
    """How far one trial is.

    Attributes:
        asker: The trial.
        state: ``waiting``, ``running``, ``done``, ``stopped`` or ``failed``.
        message: Why it failed, or None.
        asked: Evaluations asked for so far, repeats included.
        answered: Of those, how many are known.
        best: The asked evaluation with the largest reward, the earliest of equals; failed ones do not count.
    """

    asker: Asker
    state: str
    message: str | None
    asked: int
    answered: int
    best: Answer | None


class Store:
    """``evaluations.sqlite``: JSON rows, write-ahead log, every change committed before the method returns.

    A process killed at any point leaves a file that opens, with everything in it that had been committed. There is one
    writer at a time: it holds the file ``evaluations.sqlite.lock``.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        """Open the file; unless ``readonly``, make it first when there is none.

        Where another process still writes to it, that is waited for, with a notice.

        Raises:
            PrunemapError: When it is no such file, of another version, or another process keeps writing to it.
        """
        self._path = path
        if readonly and not path.is_file():
            raise PrunemapError(f"{path}: no such file; the run has no record")
        self._held = None if readonly else _hold(path)
        uri = f"{path.resolve().as_uri()}?mode={'ro' if readonly else 'rwc'}"
        self._db = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            if not readonly:
                self._prepare()
            self._check_version()
        except PrunemapError:
            self.close()
            raise
        except sqlite3.DatabaseError as error:
            self.close()
            raise PrunemapError(f"{path}: cannot be opened as a record of evaluations: {error}") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        if self._held is not None:
            self._held.close()

    def answer(self, key: str) -> Answer | None:
        """The evaluation that is known under ``key``, or None."""
        row = self._db.execute("SELECT answer FROM evaluations WHERE key = ?", (key,)).fetchone()
        return None if row is None else _read(row[0])

    def record(self, answer: Answer, started: float, finished: float) -> None:
        """Keep an evaluation that was just done, failed ones included; times are seconds since the epoch.

        ``computed`` counts how often a key was recorded: more than once would mean that work was done twice.
        """
        self._db.execute(
            "INSERT INTO evaluations (key, answer, started, finished) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET computed = computed + 1",
            (answer["key"], json.dumps(answer), started, finished),
        )

    def asked(self, asker: Asker, position: int, keys: Sequence[str]) -> bool:
        """Note what a trial asks for, in order.

        Args:
            asker: The trial.
            position: How many evaluations it had asked for before.
            keys: What it asks for now.

        Returns:
            Whether this agrees with what the trial asked for at these positions before it was interrupted. If not, the
            old order is forgotten from here on; evaluations are never forgotten.
        """
        who = (asker.agent, asker.seed)
        before = self._db.execute(
            "SELECT key FROM asks WHERE agent = ? AND seed = ? AND position >= ? ORDER BY position LIMIT ?",
            (*who, position, len(keys)),
        ).fetchall()
        old = [key for (key,) in before]
        if old == list(keys):
            return True
        agrees = old == list(keys[: len(old)])
        rows = [(*who, position + offset, key) for offset, key in enumerate(keys)]
        with _transaction(self._db):
            if not agrees:
                forget = "DELETE FROM asks WHERE agent = ? AND seed = ? AND position >= ?"
                self._db.execute(forget, (*who, position))
            self._db.executemany("INSERT OR REPLACE INTO asks VALUES (?, ?, ?, ?)", rows)
        return agrees

    def set_state(self, asker: Asker, state: str, message: str | None = None) -> None:
        """Note what became of a trial; see ``TrialStatus``."""
        row = (asker.agent, asker.seed, state, message, time.time())
        self._db.execute("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?)", row)

    def history(self, asker: Asker) -> list[Answer]:
        """Every known evaluation that the trial asked for, in the order asked, repeats included."""
        rows = self._db.execute(
            "SELECT answer FROM asks JOIN evaluations USING (key) WHERE agent = ? AND seed = ? ORDER BY position",
            (asker.agent, asker.seed),
        )
        return [_read(text) for (text,) in rows]

    def status(self, asker: Asker) -> TrialStatus:
        """How far a trial is."""
        who = (asker.agent, asker.seed)
        known = self._db.execute("SELECT state, message FROM trials WHERE agent = ? AND seed = ?", who).fetchone()
        asked, answered = self._db.execute(
            "SELECT count(*), count(answer) FROM asks LEFT JOIN evaluations USING (key) WHERE agent = ? AND seed = ?",
            who,
        ).fetchone()
        best = self._db.execute(
            "SELECT answer FROM asks JOIN evaluations USING (key) WHERE agent = ? AND seed = ?"
            " AND json_extract(answer, '$.failed') IS NULL"
            " ORDER BY json_extract(answer, '$.reward') DESC, position LIMIT 1",
            who,
        ).fetchone()
        state, message = known or ("waiting", None)
        return TrialStatus(asker, state, message, asked, answered, None if best is None else _read(best[0]))

    def computed(self) -> dict[str, int]:
        """Key -> how often that evaluation was computed, for every known one."""
        return dict(self._db.execute("SELECT key, computed FROM evaluations"))

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if self._version() == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _check_version(self) -> None:
        if (found := self._version()) != VERSION:
            raise PrunemapError(f"{self._path}: version {found} of the record; this prunemap reads version {VERSION}")


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _hold(path: Path) -> TextIO:
    """Be the one writer of the record at ``path``."""

    def tell(holder: str) -> None:
        print(f"waiting for process {holder}, which still writes to {path}", file=sys.stderr, flush=True)

    try:
        return hold(path.with_name(f"{path.name}.lock"), _WRITER_SECONDS, tell)
    except Held as held:
        raise PrunemapError(f"{path}: process {held.holder} still writes to it; try again when it has ended") from None


def _read(text: str) -> Answer:
    answer: Answer = json.loads(text)
    return answer
