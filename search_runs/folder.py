"""The folder of a run: where things lie in it, and who may use it."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..latency.cache import write_atomically
from ..pruning.errors import PrunemapError, unknown_name
from .config import RunConfig, load_config
from .locks import Held, hold, is_held
from .store import Asker

RUNS = Path("runs")
"""Where runs are kept when no other folder is named."""
_PROBE_SECONDS = 0.5
"""Longest that a look at the lock, as ``status`` takes it, may keep a search from it."""


class RunInUse(PrunemapError):
    """Another process is searching in the run."""


@dataclass(frozen=True)
class RunFolder:
    """One run on disk.

    Attributes:
        path: The folder, absolute.
    """

    path: Path

    @property
    def name(self) -> str:
        """The folder as a user would write it: relative when it lies below the working directory."""
        here = Path.cwd()
        return str(self.path.relative_to(here) if self.path.is_relative_to(here) else self.path)

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def machine_file(self) -> Path:
        """Machine and versions that the run was made with."""
        return self.path / "machine.json"

    @property
    def profile_file(self) -> Path:
        """The profile that the run's latencies come from; kept, so that resuming asks the same one."""
        return self.path / "profile.parquet"

    @property
    def database(self) -> Path:
        """Every evaluation."""
        return self.path / "evaluations.sqlite"

    @property
    def best_file(self) -> Path:
        """The best mapping of every trial."""
        return self.path / "best.json"

    @property
    def lock_file(self) -> Path:
        """Held by the process that searches."""
        return self.path / ".lock"

    @property
    def ray_folder(self) -> Path:
        """What Ray Tune writes."""
        return self.path / "ray"

    def agent_folder(self, asker: Asker) -> Path:
        """What one trial leaves: its result and, when it learned one, its policy."""
        return self.path / "agents" / str(asker)

    def replay_folder(self, asker: Asker) -> Path:
        """What a replay of one trial leaves: its result and the retrained weights."""
        return self.path / "replay" / str(asker)

    def config(self) -> RunConfig:
        """The configuration that the run was started with."""
        return load_config(str(self.config_file))

    def is_locked(self) -> bool:
        """Whether a process is searching in it now."""
        return is_held(self.lock_file)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run, so that no other process searches in it; the system frees it however this process ends.

        Raises:
            RunInUse: When another process holds it.
        """
        try:
            file = hold(self.lock_file, _PROBE_SECONDS)
        except Held as held:
            raise RunInUse(f"{self.name}: process {held.holder} is searching in it now") from None
        with file:
            yield

    def is_half_made(self) -> bool:
        """Whether it holds no more than what a search writes before ``config.yaml``: one was killed just then."""
        before = (self.machine_file.name, self.profile_file.name)
        return self.path.is_dir() and all(
            entry.name in before or entry.name.startswith(".") for entry in self.path.iterdir()
        )


def refuse_existing(runs: Path, name: str, fresh: bool) -> None:
    """Make sure that a run of this name can be made; see ``create_run``.

    Raises:
        PrunemapError: When it cannot, with what to do.
    """
    path = runs / name
    if not path.exists():
        return
    whole, half = (path / "config.yaml").is_file(), RunFolder(path).is_half_made()
    if not whole and not half:
        raise PrunemapError(f"{path}: is there, but is not a run; choose another --name")
    if not fresh and half:
        raise PrunemapError(f"{path}: has no config.yaml; choose another --name, or set it aside with --fresh")
    if not fresh:
        hint = f"go on with `prunemap resume {path}`, choose another --name, or set it aside with --fresh"
        raise PrunemapError(f"{path}: there is a run of this name; {hint}")


def create_run(runs: Path, name: str, fresh: bool) -> RunFolder:
    """Make the folder of a new run.

    Args:
        runs: Where runs are kept.
        name: Name of the run.
        fresh: Set an earlier run of this name aside, with the time behind its name, instead of refusing.

    Raises:
        PrunemapError: When there is a run of this name, or the folder cannot be made.
    """
    refuse_existing(runs, name, fresh)
    path = (runs / name).absolute()
    try:
        if path.exists():
            with RunFolder(path).locked():
                path.rename(path.with_name(f"{name}.{time.strftime('%Y%m%d-%H%M%S')}"))
        path.mkdir(parents=True)
        path.chmod(path.stat().st_mode & ~stat.S_IWOTH)
    except OSError as error:
        raise PrunemapError(f"{path}: cannot be made: {error.strerror}") from None
    return RunFolder(path)


def open_run(name: str, runs: Path = RUNS) -> RunFolder:
    """The run that ``name`` means: a folder, or a name below ``runs``.

    Raises:
        PrunemapError: When there is no such run.
    """
    for path in (Path(name), runs / name):
        if (path / "config.yaml").is_file():
            return RunFolder(path.absolute())
    if Path(name).is_dir():
        raise PrunemapError(f"{name}: is not the folder of a run: it has no config.yaml")
    known = [run.path.name for run in all_runs(runs)]
    if not known:
        raise PrunemapError(f"{name}: no such run; there are none in {runs}/")
    raise unknown_name("run", name, known)


def all_runs(runs: Path = RUNS) -> list[RunFolder]:
    """Every run below ``runs``, by name."""
    return [RunFolder(path.parent.absolute()) for path in sorted(runs.glob("*/config.yaml"))]


def refuse_foreign(folder: RunFolder) -> None:
    """Make sure that nobody else can have put something into the folder.

    Raises:
        PrunemapError: When it belongs to another user, or everybody may write to it.
    """
    for path in (folder.path, folder.config_file, folder.database):
        if not path.exists():
            continue
        facts = path.stat()
        if facts.st_uid != os.getuid():
            raise PrunemapError(f"{path}: belongs to user {facts.st_uid}, not to you ({os.getuid()}); not resumed")
        if facts.st_mode & stat.S_IWOTH:
            raise PrunemapError(f"{path}: everybody may write to it; not resumed (mend with `chmod o-w {path}`)")


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one step; see ``write_text``."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text in one step: a reader sees the old file or the new one."""

    def write(file: Path) -> None:
        file.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        PrunemapError: When it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PrunemapError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PrunemapError(f"{path}: is not JSON: {error}") from None
