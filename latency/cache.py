"""The lock that only one measuring process holds."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ..kernels.cache import cache_folder, write_atomically

__all__ = ["cache_folder", "exclusive_lock", "write_atomically"]


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
