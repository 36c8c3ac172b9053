"""Pooling against torch: odd sizes, every padding, negative numbers and NaN, on every ISA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from prunemap.kernels import compile_network, isas

WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 2, "stride": 2, "ceil_mode": True},
    {"kernel_size": (2, 5), "stride": (1, 2), "padding": (0, 2)},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 3)},
    {"kernel_size": 5, "stride": 2},
]
SIZES = [(7, 7), (8, 33), (9, 64), (5, 71), (6, 6)]


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_maxima(window: dict[str, Any], size: tuple[int, int], isa: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.MaxPool2d(**window)).eval()
    generator = torch.Generator().manual_seed(sum(size))
    images = torch.randn(2, 2, *size, generator=generator) - 2.0
    images[0, 0, 3, 4] = torch.nan
    images[1, 1, -1, -1] = torch.nan
    images[1, 1, 0, 0] = -torch.inf
    with torch.no_grad():
        expected = model(images)
    result = compile_network(model, images, isa=isa, tune=False)(images)
    assert torch.allclose(result, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("counted", [True, False])
def test_averages(counted: bool, isa: str) -> None:
    pool = nn.AvgPool2d(3, 2, 1, count_include_pad=counted)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), pool).eval()
    images = torch.randn(1, 2, 9, 21, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images)
    assert torch.allclose(compile_network(model, images, isa=isa, tune=False)(images), expected, rtol=1e-5, atol=1e-6)
