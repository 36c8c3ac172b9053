"""A problem as small as it can be while real, and runs of it, searched by the program itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from prunemap.search_runs.cli import main

TINY = """
name: tiny
problem:
  network: {name: resnet8, options: {width: 2}}
  data: {name: digits}
  recipe: {pretrain_epochs: 2, fast_epochs: 1, full_epochs: 1}
  choices:
    schemes: ["simd:2", filter]
    rates: [2, 4]
agents:
  - {name: reinforce, options: {samples: 4}}
  - name: random
    options: {batch: 5}
budget: {evaluations: 14}
workers: 2
"""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Profiles and dense weights are made once per session, apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEMAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process; returns its status and what it wrote to standard output and error."""

    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The configuration in a file, line by line as above."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str, object], Path]:
    """Writes the configuration with one value changed, given by its path."""

    def write(dotted: str, value: object) -> Path:
        config = yaml.safe_load(TINY)
        *parents, last = dotted.split(".")
        here = config
        for key in parents:
            here = here[_key(here, key)]
        here[_key(here, last)] = value
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return path

    return write


def _key(here: object, key: str) -> int | str:
    return int(key) if isinstance(here, list) else key


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def start() -> Iterator[Start]:
    """Starts the program as a user would, in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def popen(*words: object, cwd: Path) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "prunemap.search_runs.cli", *map(str, words)]
        process = subprocess.Popen(line, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield popen
    for process in started:
        with process:
            process.kill()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, start: Start) -> Path:
    """The folder of a run that was searched without interruption."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY)
    process = start("search", "tiny.yaml", cwd=folder)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    return folder / "runs" / "tiny"
