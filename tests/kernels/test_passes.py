"""Layers computed in several passes, each with input channels that the first-level cache holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.kernels import candidates, isas
from prunemap.kernels.candidates import Candidate, Task, enumerate_candidates, other_orders

TasksOf = Callable[..., list[Task]]
CONVOLUTIONS = [
    nn.Conv2d(96, 32, 1), nn.Conv2d(64, 16, 3, padding=1), nn.Conv2d(64, 16, 3, 2, padding=1),
    nn.Conv2d(64, 16, (1, 5), dilation=2),
]  # fmt: skip


@pytest.fixture(params=CONVOLUTIONS, ids=str)
def task(request: pytest.FixtureRequest, tasks_of: TasksOf) -> Task:
    """A layer of which every other input channel is read, by a third of all weights."""
    conv = request.param
    with torch.no_grad():
        conv.weight.normal_(generator=torch.Generator().manual_seed(0))
        conv.weight *= torch.rand(conv.weight.shape, generator=torch.Generator().manual_seed(1)) < 1 / 3
        conv.weight[:, ::2] = 0
    (found,) = tasks_of(nn.Sequential(conv), torch.zeros(1, conv.in_channels, 28, 28), isas()[0])
    return found


def pixels(task: Task) -> list[Candidate]:
    return [c for c in enumerate_candidates(task, isas()[0]) if c.family == "pixels"]


def test_bytes_of_a_channel(task: Task) -> None:
    for floats in (8, 96):
        offsets = task._offsets("pixels")[0, : task.taps]
        read = {int(offset) + i for offset in offsets for i in range(floats)}
        assert task.channel_bytes("pixels", floats) == 4 * len(read)


def test_every_pass_fits_the_cache(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "FIRST_LEVEL", 2 * 1024)
    for plain in pixels(task):
        (several,) = [c for c in other_orders(task, plain) if c.passes > 1]
        read = (
            task.structure(several)
            .matrix.mask.reshape(-1, task.convolution.weight.shape[1], task.taps)
            .any(axis=(0, 2))
        )
        channels = [int(read[begin // task.taps : end // task.taps].sum()) for begin, end in task._passes(several)]
        assert sum(channels) == read.sum()
        assert max(channels) - min(channels) <= 1
        assert max(channels) * task.channel_bytes("pixels", several.tile_floats) <= candidates.FIRST_LEVEL
        assert max(channels) > 1 or task.channel_bytes("pixels", several.tile_floats) * 2 > candidates.FIRST_LEVEL


def test_passes_have_the_entries_of_one(task: Task) -> None:
    """The same offsets with the same weights, by filter, whatever the passes are."""
    for plain in pixels(task):
        if plain.jammed or plain.reordered:
            continue
        one, several = task.packed(plain), task.packed(replace(plain, passes=3))
        count = len(one.runs)
        assert len(several.runs) == 3 * count
        assert np.array_equal(several.runs[:, 3:], np.tile(one.runs[:, 3:], (3, 1)))
        for run in range(count):
            offset, weight, entries, _, size = one.runs[run]
            parts = [several.runs[run + i * count] for i in range(3)]
            listed = np.concatenate([several.offsets[o : o + n] for o, _, n, _, _ in parts])
            stored = np.concatenate([several.weights[w : w + n * size] for _, w, n, _, _ in parts])
            assert np.array_equal(listed, one.offsets[offset : offset + entries])
            assert np.array_equal(stored, one.weights[weight : weight + entries * size])


def test_what_fits_at_once_takes_one_pass(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "FIRST_LEVEL", 1 << 20)
    assert all(other.passes == 1 for c in pixels(task) for other in other_orders(task, c))
