"""Decisions outlive the process that took them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from prunemap.kernels import compile_network, plans, tune
from prunemap.kernels.candidate import Candidate
from prunemap.kernels.plans import Plans

CHOSEN = Candidate("pixels", 8, 4, 3, jammed=True)


def test_what_one_process_decides_another_knows(tmp_path: Path) -> None:
    path = tmp_path / "plans" / "cpu.jsonl"
    first = Plans(path)
    assert first["layer"] is None
    first["layer"] = CHOSEN
    first["other"] = Candidate("channels", 16, 32, 2, 1, 14)
    assert Plans(path)["layer"] == CHOSEN == first["layer"]


@pytest.mark.parametrize("line", ["", "{", '["layer"]', '["layer", {"family": "rows", "lanes": 8}]', "\ufffd"])
def test_a_spoilt_line_is_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cpu.jsonl"
    Plans(path)["layer"] = CHOSEN
    path.write_text(f"{line}\n{path.read_text()}")
    assert Plans(path)["layer"] == CHOSEN


def test_nothing_is_lost_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for known in (Plans(tmp_path / "file" / "below.jsonl"), Plans(None)):
        known["layer"] = CHOSEN
        assert known["layer"] == CHOSEN


def test_compiling_again_times_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRUNEMAP_CACHE", str(tmp_path))
    model, image = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()).eval(), torch.zeros(1, 3, 9, 9)
    before = compile_network(model, image)
    (file,) = (tmp_path / "plans").iterdir()
    assert [json.loads(line)[1]["family"] for line in file.read_text().splitlines()]
    plans._plans.cache_clear()  # as in a new process
    monkeypatch.setattr(tune, "_fastest", lambda *_: pytest.fail("timed again"))
    assert [step.candidate for step in compile_network(model, image).steps] == [s.candidate for s in before.steps]
