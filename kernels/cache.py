"""The user's cache folder, and atomic writing."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import platformdirs

from ..pruning.errors import PrunemapError


def cache_folder() -> Path:
    """Where plans, profiles and trained dense weights are kept; the variable ``PRUNEMAP_CACHE`` overrides it.

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
