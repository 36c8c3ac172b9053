"""Finding a dataset's files, with errors that say which files are expected where."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...pruning.errors import PrunemapError


def existing_folder(dataset: str, folder: str | Path, expected: Iterable[str]) -> Path:
    """The folder as a path.

    Args:
        dataset: Whose option ``folder`` it is, for the message.
        folder: What the user gave; ``~`` is expanded.
        expected: What it should hold, for the message.

    Raises:
        PrunemapError: When it is not a folder.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise PrunemapError(
            f"dataset {dataset}, option 'folder': {path} is not a folder; expected one that holds {', '.join(expected)}"
        )
    return path


def existing_file(dataset: str, folder: Path, *names: str) -> Path:
    """The first of ``folder / name`` that is a file.

    Raises:
        PrunemapError: When none is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise PrunemapError(f"dataset {dataset}, option 'folder': {folder} holds no file {' or '.join(names)}")
