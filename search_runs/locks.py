"""Files that one process holds at a time; the system frees them however that process ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from ..pruning.errors import PrunemapError

_POLL_SECONDS = 0.05


class Held(PrunemapError):
    """Another process holds the file.

    Attributes:
        holder: Its id, or ``unknown``.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path}: process {holder} holds it")
        self.holder = holder


def hold(path: Path, seconds: float, waiting: Callable[[str], None] | None = None) -> TextIO:
    """Hold a file, which is made when it is missing, until what is returned is closed.

    Args:
        path: The file; the id of the holder is written into it.
        seconds: How long to wait for another holder.
        waiting: Told the other holder's id, once, before waiting.

    Raises:
        Held: When another process holds it all that time.
        PrunemapError: When it cannot be opened.
    """
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise PrunemapError(f"{path}: cannot be opened: {error.strerror}") from None
    try:
        _wait(file, path, time.monotonic() + seconds, waiting)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


def is_held(path: Path) -> bool:
    """Whether a process holds the file; nothing is written.

    Raises:
        PrunemapError: When it cannot be read.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise PrunemapError(f"{path}: cannot be read: {error.strerror}") from None
    return False


def _wait(file: TextIO, path: Path, deadline: float, waiting: Callable[[str], None] | None) -> None:
    while not _taken(file):
        file.seek(0)
        holder = file.read().strip() or "unknown"
        if time.monotonic() >= deadline:
            raise Held(path, holder)
        if waiting:
            waiting(holder)
            waiting = None
        time.sleep(_POLL_SECONDS)


def _taken(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
