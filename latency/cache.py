"""The user's cache folder, the lock that only one measuring process holds, and atomic writing."""

from __future__ import annotations

import fcntl
import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import platformdirs

from ..pruning.errors import PrunemapError


def cache_folder() -> Path:
    """Where profiles and trained dense weights are kept; the variable ``PRUNEMAP_CACHE`` overrides it.

    The folder exists when this returns.

    Raises:
        PrunemapError: When it cannot be made.
    """
    folder = Path(os.environ.get("PRUNEMAP_CACHE") or platformdirs.user_cache_dir("prunemap")).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "let PRUNEMAP_CACHE name a folder that you may write to"
        raise PrunemapError(f"{folder}: the cache folder cannot be made: {error.strerror}; {hint}") from None
    return folder


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in its place in one step.

    A reader sees the old file or the new one, never a part; nothing is left behind when ``write`` fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # With the permissions that any new file gets here.
    temporary.touch(exist_ok=False)
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Held:
    """Who holds the lock in this process: a thread may take it again, other threads wait."""

    thread = threading.RLock()
    depth = 0


@contextmanager
def exclusive_lock(notify: Callable[[str], None] = _to_stderr) -> Iterator[None]:
    """Hold the measuring lock, so that no other process measures on this machine at the same time.

    May be nested. The lock is freed by the system when the process dies, however it dies.

    Args:
        notify: Told in one line, before waiting, which process is being waited for.
    """
    with _Held.thread:
        if _Held.depth:
            yield from _nested()
            return
        path = cache_folder() / "measuring.lock"
        with path.open("a+", encoding="utf-8") as file:
            _acquire(file, path, notify)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield from _nested()


def _nested() -> Iterator[None]:
    _Held.depth += 1
    try:
        yield
    finally:
        _Held.depth -= 1


def _acquire(file: TextIO, path: Path, notify: Callable[[str], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        notify(f"waiting for process {holder}, which is measuring latency on this machine (lock {path})")
        fcntl.flock(file, fcntl.LOCK_EX)
