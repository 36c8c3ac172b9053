"""Element-wise operations after flattening, which are computed on the map that was flattened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunemap.kernels import CompiledNetwork, compile_network
from prunemap.pruning import Choice, Mapping, PrunemapError, apply_mapping

Forward = Callable[["_Net", torch.Tensor], torch.Tensor]


class _Net(nn.Module):
    """A convolution to (8, 8, 8), another to (8, 4, 4), linear layers on what they give, and any way through them."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding=1)
        self.d = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.whole = nn.Linear(8 * 64, 5)
        self.quarter = nn.Linear(8 * 16, 5)
        self.mean = nn.Linear(8, 5)
        self.way = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.way(self, x)


def flat(x: torch.Tensor) -> torch.Tensor:
    return torch.flatten(x, 1)


def mean(x: torch.Tensor) -> torch.Tensor:
    return flat(F.adaptive_avg_pool2d(x, 1))


def pooled(net: _Net, x: torch.Tensor) -> torch.Tensor:
    return flat(F.max_pool2d(net.c(x), 2))


def read_by_pool_too(net: _Net, x: torch.Tensor) -> torch.Tensor:
    c = net.c(x)
    return net.whole(F.relu(flat(c))) + net.mean(mean(c))


def read_twice(net: _Net, x: torch.Tensor) -> torch.Tensor:
    c = net.c(x)
    return F.relu(flat(c)) + flat(c)


def added_to_itself(net: _Net, x: torch.Tensor) -> torch.Tensor:
    p = pooled(net, x)
    return net.quarter(F.relu(p) + p)


def two_maps_added(net: _Net, x: torch.Tensor) -> torch.Tensor:
    c = F.relu(net.c(x))
    return net.quarter(F.relu(flat(net.d(c)) + flat(F.avg_pool2d(c, 2))))


def vector_added(net: _Net, x: torch.Tensor) -> torch.Tensor:
    c = net.c(x)
    return net.mean(torch.tanh(mean(c) + mean(net.d(c))))


def result_is_a_sum(net: _Net, x: torch.Tensor) -> torch.Tensor:
    c = net.c(x)
    return flat(net.d(F.relu(c))) + flat(F.avg_pool2d(c, 2))


WAYS: dict[str, Forward] = {
    "read by a pool too": read_by_pool_too,
    "relu, its input and the output": read_twice,
    "fused": lambda net, x: net.quarter(F.relu(flat(net.d(net.c(x))))),
    "relu after a pool": lambda net, x: net.quarter(F.relu(pooled(net, x))),
    "relu6 twice flattened": lambda net, x: net.quarter(flat(F.relu6(pooled(net, x)))),
    "tanh": lambda net, x: net.quarter(torch.tanh(pooled(net, x))),
    "sigmoid": lambda net, x: net.quarter(torch.sigmoid(F.relu(flat(net.d(net.c(x)))))),
    "sum with itself": added_to_itself,
    "sum of two maps": two_maps_added,
    "sum of vectors": vector_added,
    "output is flat": lambda net, x: torch.tanh(pooled(net, x)),
    "output is a sum": result_is_a_sum,
}


def run_beside_torch(model: nn.Module, images: torch.Tensor) -> CompiledNetwork:
    """Compile, compare the outputs and return what was compiled."""
    with torch.no_grad():
        expected = model(images)
    compiled = compile_network(model, images, tune=False)
    assert torch.allclose(compiled(images), expected, rtol=1e-5, atol=1e-5)
    return compiled


def make(forward: Forward) -> tuple[_Net, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _Net(forward).eval(), torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize("shared_from", [0, 1 << 20])
@pytest.mark.parametrize("way", WAYS)
def test_agrees_with_torch(way: str, shared_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunemap.kernels.arena.SHARED_FROM", shared_from)
    run_beside_torch(*make(WAYS[way]))


@pytest.mark.parametrize("way", WAYS)
def test_filters_removed_before_it(way: str) -> None:
    model, images = make(WAYS[way])
    convs = [layer.name for layer in compile_network(model, images, tune=False).network.layers if layer.kind == "conv"]
    pruned = apply_mapping(model, Mapping({name: Choice("filter", 2.0) for name in convs})).eval()
    run_beside_torch(pruned, images)


@pytest.mark.parametrize("way", ["fused", "relu after a pool", "tanh", "sum with itself"])
def test_dead_channels_are_removed(way: str) -> None:
    """The filters' zeros pass through what comes after the flattening, up to the linear layer's columns."""
    model, images = make(WAYS[way])
    last = {"fused": "d"}.get(way, "c")
    pruned = apply_mapping(model, Mapping({last: Choice("filter", 4.0)})).eval()
    compiled = run_beside_torch(pruned, images)
    weights = {step.layer: step.all_weights for step in compiled.steps}
    assert weights["quarter"] == 5 * 2 * 16
    assert {step.shape[0] for step in compiled.steps if step.layer is None and step.op not in ("input", "output")} <= {
        2
    }


def test_columns_that_nobody_reads() -> None:
    """A channel is computed while one of its features is read, and only then."""
    model, images = make(WAYS["relu after a pool"])
    with torch.no_grad():
        model.quarter.weight.view(5, 8, 16)[:, 1:] = 0
        model.quarter.weight.view(5, 8, 16)[:, 3, 7] = 1
    compiled = run_beside_torch(model, images)
    assert {step.shape[0] for step in compiled.steps if step.layer == "c"} == {2}


def test_maps_of_different_shapes_cannot_be_added() -> None:
    def forward(net: _Net, x: torch.Tensor) -> torch.Tensor:
        c = net.c(x)
        return net.quarter(flat(F.max_pool2d(c, (1, 4))) + flat(F.max_pool2d(c, (4, 1))))

    with pytest.raises(PrunemapError, match=r"^add: .*\(8, 8, 2\) and \(8, 2, 8\)"):
        compile_network(*make(forward), tune=False)


def test_a_map_and_a_vector_cannot_be_added() -> None:
    def forward(net: _Net, x: torch.Tensor) -> torch.Tensor:
        p = pooled(net, x)
        return F.relu(p + net.quarter(p))

    model, images = make(forward)
    model.quarter = nn.Linear(8 * 16, 8 * 16)
    with pytest.raises(PrunemapError, match=r"c, quarter: sums of maps with \[8, 128\] channels"):
        compile_network(model, images, tune=False)
