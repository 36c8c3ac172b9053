"""Layers computed in several passes, each with input channels that the first-level cache holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.kernels import isas
from prunemap.kernels import task as tasks
from prunemap.kernels.candidate import Candidate
from prunemap.kernels.candidates import enumerate_candidates, other_orders
from prunemap.kernels.pack import SETS, Packed
from prunemap.kernels.task import Task

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
        offsets = task._offsets("pixels")[0, : task.tap_count]
        read = {int(offset) + i for offset in offsets for i in range(floats)}
        assert task.channel_bytes("pixels", floats) == 4 * len(read)


def test_every_pass_fits_the_cache(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_LEVEL", 3 * 1024)
    for plain in pixels(task):
        (several,) = [c for c in other_orders(task, plain) if c.passes > 1]
        fit = max(1, tasks.FIRST_LEVEL // task.channel_bytes("pixels", several.tile_floats))
        read = task.matrix.mask.reshape(-1, task.convolution.weight.shape[1], task.tap_count).any(axis=(0, 2))
        ranges = task._pass_ranges(several.passes)
        channels = [int(read[begin // task.tap_count : end // task.tap_count].sum()) for begin, end in ranges]
        assert sum(channels) == read.sum()
        assert max(channels) - min(channels) <= 1
        assert max(channels) <= fit
        assert several.passes == -(-read.sum() // fit)


def entries(packed: Packed, jammed: bool) -> Counter[tuple[int, int, float]]:
    """(filter slot, offset, weight) of every stored weight that is not zero."""
    found: Counter[tuple[int, int, float]] = Counter()
    blocks = len(packed.sets) // len(packed.runs)
    for index, (offset, weight, count, first, size) in enumerate(packed.runs.tolist()):
        listed = packed.offsets[offset : offset + count].tolist()
        sets = packed.sets[index * blocks : (index + 1) * blocks].reshape(-1).tolist()
        readers = [s % SETS + 1 for s, n in enumerate(sets) for _ in range(n)] if jammed else [2**size - 1] * count
        for at, reader in zip(listed, readers, strict=True):
            for slot in (i for i in range(size) if reader >> i & 1):
                found[first + slot, at, float(packed.weights[weight])] += float(packed.weights[weight]) != 0
                weight += 1
    return +found


def test_passes_have_the_entries_of_one(task: Task) -> None:
    for plain in pixels(task):
        one, several = task.packed(plain), task.packed(replace(plain, passes=3))
        assert np.array_equal(several.runs[:, 3:], np.tile(one.runs[:, 3:], (3, 1)))
        assert np.array_equal(several.rows, one.rows)
        assert entries(several, plain.jammed) == entries(one, plain.jammed)
        assert sum(entries(one, plain.jammed).values()) == task.matrix.kept.sum()


def test_what_fits_at_once_takes_one_pass(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_LEVEL", 1 << 20)
    assert all(other.passes == 1 for c in pixels(task) for other in other_orders(task, c))
