from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunemap.pruning import PrunemapError, Registry


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of plug-ins with a registry of its own, importable as ``plugins``."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "__init__.py").write_text("from prunemap.pruning import Registry\nTHINGS = Registry('thing', __name__)\n")
    (folder / "beta.py").write_text("from . import THINGS\nTHINGS.register('beta')(2)\n")
    (folder / "alpha.py").write_text("from . import THINGS\nTHINGS.register('alpha')(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugins"]:
        del sys.modules[name]


def things() -> Registry[int]:
    from plugins import THINGS  # type: ignore[import-not-found]

    return THINGS  # type: ignore[no-any-return]


@pytest.mark.usefixtures("package")
def test_finds_every_file() -> None:
    assert things().names() == tuple(things()) == ("alpha", "beta")
    assert things()["beta"] == 2
    assert len(things()) == 2
    assert "alpha" in things()
    assert "gamma" not in things()


@pytest.mark.usefixtures("package")
def test_unknown_names() -> None:
    with pytest.raises(PrunemapError, match="unknown thing 'alhpa'; did you mean alpha"):
        things()["alhpa"]
    with pytest.raises(PrunemapError, match="known: alpha, beta"):
        things()["zzzz"]


@pytest.mark.usefixtures("package")
def test_a_name_can_be_taken_once() -> None:
    assert things()["alpha"] == 1
    with pytest.raises(ValueError, match="registered twice"):
        things().register("alpha")(3)


def test_a_broken_plug_in_fails_every_time(package: Path) -> None:
    (package / "gamma.py").write_text("raise RuntimeError('broken')\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            things().names()
