"""The rooms: what may be imported from where, and under which name."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("pruning", "kernels", "latency", "envs", "agents", "search_runs")
ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file of prunemap imports, relative imports resolved by path."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            parts = (*base, *(node.module or "").split("."))
            names = [parts[0]] if parts[0] else [alias.name for alias in node.names]
            found |= set(names) & set(ROOMS)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            for module in modules:
                assert module.split(".")[0] not in ROOMS, f"{path}: import {module} under a bare name"
                if module.startswith("prunemap."):
                    found.add(module.split(".")[1])
    return found & set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    assert not imported_rooms(path) & above


def test_every_source_file_is_checked() -> None:
    assert len(SOURCES) > 30
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(ROOMS)


def test_only_tune_imports_ray() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "ray" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "ray")
    }
    assert users == {"search_runs/tune.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_no_bare_names(room: str) -> None:
    # -P: the current folder is not put on the path, as for an installed program.
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({room!r}) is not None)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
    assert importlib.util.find_spec(f"prunemap.{room}") is not None


def test_import_is_light() -> None:
    """`import prunemap` must not pull torch or ray: Gymnasium imports it to find the environments."""
    code = "import prunemap, sys; sys.exit(bool({'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
