"""Networks and compiled networks without an engine: their times follow a rule that the tests know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.kernels import pace
from prunemap.kernels.lowering import lower
from prunemap.latency import survey
from prunemap.pruning import Network, capture, live_channels

PER_WEIGHT = 1e-8  # seconds per kept weight and output pixel
POOL = 2e-6
STAGING = 2e-6


class Block(nn.Module):
    """Two convolutions of a chain, one residual block, a convolution with a stride, a classifier."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(x + self.conv2(torch.relu(self.conv1(x))))
        x = torch.relu(self.down(x))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


@dataclass(frozen=True)
class FakeStep:
    op: str
    layer: str | None
    shape: tuple[int, int, int] = (0, 1, 1)
    staged: bool = False
    weights_bytes: int = 0
    together: int = 1


@dataclass
class FakeCompiled:
    """Takes ``seconds`` per step, with relative noise."""

    steps: tuple[FakeStep, ...]
    seconds: np.ndarray
    noise: float = 0.0
    threads: int = 1
    isa: str = "auto"
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def time_steps(self, repeats: int, chosen: Sequence[int] | None = None) -> np.ndarray:
        seconds = self.seconds if chosen is None else self.seconds[list(chosen)]
        return seconds * (1 + self.noise * self.rng.standard_normal((repeats, len(seconds))))

    def time(self, repeats: int) -> np.ndarray:
        return self.time_steps(repeats).sum(axis=1) + POOL


def fake_compile(noise: float = 0.0) -> Callable[..., FakeCompiled]:
    """A compiler whose networks take time for every weight that meets live channels.

    Layers with larger kernels also rearrange their input, which takes time for every channel of it.
    """

    def compile_state(network: Network, state: dict[str, torch.Tensor], threads: int, isa: str) -> FakeCompiled:
        live = live_channels(network, state)
        values = lower(network, state)
        stored = {op.layer: values.values[op.name].shape[0] for op in values.operations}
        read = {op.layer: values.values[op.inputs[0]].shape[0] for op in values.operations}
        steps, seconds = [FakeStep("pool", None)], [POOL]
        for layer in network.layers:
            staged = layer.kind == "conv" and layer.kernel != (1, 1)
            if staged:
                steps.append(FakeStep("stage", layer.name, (read[layer.name], 4, 4)))
                seconds.append(STAGING * read[layer.name])
            weight = state[f"{layer.name}.weight"].reshape(layer.weight_shape)
            kept = weight[torch.from_numpy(live[layer.name].outputs)][:, torch.from_numpy(live[layer.name].inputs)]
            shape = (stored[layer.name], *layer.out_shape[1:])
            steps.append(FakeStep("convolution", layer.name, shape, staged, 4 * weight.numel()))
            pixels = layer.out_shape[1] * layer.out_shape[2]
            seconds.append(PER_WEIGHT * int(torch.count_nonzero(kept)) * pixels)
        return FakeCompiled(tuple(steps), np.array(seconds), noise, threads, isa)

    return compile_state


@pytest.fixture(scope="session")
def network() -> Network:
    return capture(Block(), torch.zeros(1, 3, 8, 8))


@pytest.fixture(scope="session")
def wide() -> Network:
    """Wide enough that it hardly depends on the weights which channels are left unread."""
    return capture(Block(width=64), torch.zeros(1, 3, 8, 8))


@pytest.fixture(scope="module")
def quiet_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The fake compiler, without noise, for all tests of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEMAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(survey, "compile_state", fake_compile())
        yield


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Call it with a relative noise to put such a fake compiler in place of the real one."""
    return lambda noise: monkeypatch.setattr(survey, "compile_state", fake_compile(noise))


@pytest.fixture(scope="session", autouse=True)
def even_pace() -> Iterator[None]:
    """A machine that is as fast now as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace.Pace, "__call__", lambda self: 1.0)
        patch.setattr(pace, "_APART", 0.0)
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("PRUNEMAP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
