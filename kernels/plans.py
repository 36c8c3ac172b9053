"""Which candidates were the fastest, remembered between processes: compiling again times nothing.

One file per CPU and engine in the cache folder, a line of JSON per decision. A line that cannot be read is passed over:
the layer is timed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from dataclasses import asdict
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..pruning.errors import PrunemapError
from . import _engine
from .cache import cache_folder
from .candidate import Candidate

_LINE: TypeAdapter[tuple[str, Candidate]] = TypeAdapter(tuple[str, Candidate])


class Plans:
    """Decisions by key, those of other processes included that were there when this object was made.

    Args:
        path: The file; None: nothing is kept beyond this process.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found = dict(_read(path)) if path else {}

    def __getitem__(self, key: str) -> Candidate | None:
        return self._found.get(key)

    def __setitem__(self, key: str, candidate: Candidate) -> None:
        self._found[key] = candidate
        if self._path:
            with contextlib.suppress(OSError):  # a full disk costs time later, not this result
                self._append(self._path, key, candidate)

    @staticmethod
    def _append(path: Path, key: str, candidate: Candidate) -> None:
        line = json.dumps([key, asdict(candidate)]) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode())  # at once, so that lines of several processes do not mix
        finally:
            os.close(handle)


def _read(path: Path) -> list[tuple[str, Candidate]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(_LINE.validate_json(line, strict=False))
        except ValidationError:
            continue
    return found


def machine_plans() -> Plans:
    """What is known of this CPU and engine; ``PRUNEMAP_CACHE`` is looked at each time."""
    try:
        return _plans(cache_folder() / "plans" / f"{_machine()}.jsonl")
    except PrunemapError:  # no cache folder can be made
        return _plans(None)


_plans = cache(Plans)


@cache
def _machine() -> str:
    """Engine, planner and CPU."""
    return hashlib.sha256(f"{cpu_model()} {engine_digest()}".encode()).hexdigest()[:24]


@cache
def engine_digest() -> str:
    """Hexadecimal SHA-256 of everything that decides how a network runs: the compiled extension and these modules."""
    assert _engine.__file__ is not None
    digest = hashlib.sha256()
    for path in (Path(_engine.__file__), *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def cpu_model() -> str:
    """Model name with family, model and stepping, where the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    ids = ", ".join(f"{key} {fields[key]}" for key in ("cpu family", "model", "stepping") if key in fields)
    name = fields.get("model name", platform.machine())
    return f"{name} ({ids})" if ids else name
