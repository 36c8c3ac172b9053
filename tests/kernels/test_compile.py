"""The public face: arguments, errors, threads, repeatability, what is told about the program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.envs.networks import build_network
from prunemap.kernels import CompiledNetwork, compile_network, compile_state, isas, resolve_isa
from prunemap.pruning import Choice, Mapping, PrunemapError, Pruner, apply_mapping, capture


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def compiled(images: torch.Tensor) -> CompiledNetwork:
    return compile_network(build_network("resnet8", width=8), images)


def test_types_follow_the_input(compiled: CompiledNetwork, images: torch.Tensor) -> None:
    tensor, array = compiled(images), compiled(images.numpy())
    assert isinstance(tensor, torch.Tensor)
    assert isinstance(array, np.ndarray)
    assert np.array_equal(tensor.numpy(), array)
    assert array.shape == (3, 10)


def test_a_batch_is_its_images(compiled: CompiledNetwork, images: torch.Tensor) -> None:
    assert torch.equal(compiled(images), torch.cat([compiled(images[i : i + 1]) for i in range(3)]))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (np.zeros((1, 3, 16, 16)), "float64"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.float16), "float16"),
        (np.zeros((3, 16, 16), np.float32), "shape"),
        (np.zeros((1, 3, 16, 17), np.float32), "shape"),
        (np.zeros((0, 3, 16, 16), np.float32), "shape"),
        (np.zeros((1, 16, 16, 3), np.float32).transpose(0, 3, 1, 2), "contiguous"),
        (torch.zeros(1, 3, 16, 16, device="meta"), "meta"),
        ([[0.0]], "list"),
    ],
)
def test_wrong_input_is_told(compiled: CompiledNetwork, wrong: Any, told: str) -> None:
    with pytest.raises(PrunemapError, match=told):
        compiled(wrong)


@pytest.mark.parametrize(
    "arguments",
    [{"threads": 0}, {"threads": True}, {"threads": 1.5}, {"isa": "sse9"}, {"example_input": torch.zeros(1, 3, 0, 8)}],
)
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(PrunemapError):
        compile_network(**{"model": build_network("resnet8"), "example_input": torch.zeros(1, 3, 16, 16), **arguments})


def test_unsupported_module_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Softmax2d()))
    with pytest.raises(PrunemapError, match=r"1\.0"):
        compile_network(model, torch.zeros(1, 3, 8, 8))


def test_a_state_compiles_as_its_module_does(images: torch.Tensor) -> None:
    model, mapping = build_network("resnet8", width=8), Mapping({"layer2.0.conv1": Choice("simd:8", 4)})
    network = capture(model, images[:1])
    state = Pruner(network, model.state_dict()).state(mapping)
    whole = compile_network(apply_mapping(model, mapping, network), images, tune=False)
    parts = compile_state(network, state, tune=False)
    assert whole.steps == parts.steps
    assert torch.equal(whole(images), parts(images))
    with pytest.raises(PrunemapError, match="threads"):
        compile_state(network, state, threads=0)


def test_isa_from_the_environment(monkeypatch: pytest.MonkeyPatch, images: torch.Tensor) -> None:
    monkeypatch.setenv("PRUNEMAP_ISA", "portable")
    assert compile_network(build_network("resnet8"), images, tune=False).isa == "portable"
    assert resolve_isa(isas()[0]) == isas()[0]
    monkeypatch.setenv("PRUNEMAP_ISA", "portabel")
    with pytest.raises(PrunemapError, match="did you mean portable"):
        resolve_isa()
    monkeypatch.delenv("PRUNEMAP_ISA")
    assert resolve_isa() == isas()[0]


def test_unsupported_isa_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunemap.kernels.compile.isas", lambda: ("portable",))
    monkeypatch.setattr("prunemap.kernels._engine.built_isas", lambda: ["avx2", "portable"])
    with pytest.raises(PrunemapError, match="does not support"):
        resolve_isa("avx2")


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_give_the_same_bits(isa: str, threads: int, images: torch.Tensor) -> None:
    model = apply_mapping(build_network("resnet8", width=8), Mapping({"layer1.0.conv1": Choice("simd:4", 4.0)}))
    one = compile_network(model, images, isa=isa, tune=False)
    many = compile_network(model, images, threads=threads, isa=isa, tune=False)
    expected = one(images)
    for _ in range(5):
        assert torch.equal(many(images), expected)


def test_runs_repeat_bit_by_bit(compiled: CompiledNetwork, images: torch.Tensor) -> None:
    first = compiled(images)
    compiled.time(3)
    assert torch.equal(compiled(images), first)


def test_programs_do_not_disturb_each_other(compiled: CompiledNetwork, images: torch.Tensor) -> None:
    other = compile_network(build_network("resnet8", width=8, seed=1), images, threads=2, tune=False)
    first, second = compiled(images), other(images)
    assert torch.equal(compiled(images), first)
    assert torch.equal(other(images), second)


def test_compiling_leaves_the_model_alone(images: torch.Tensor) -> None:
    model = build_network("resnet8").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    compile_network(model, images, tune=False)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_denormals_are_flushed_only_inside(compiled: CompiledNetwork, images: torch.Tensor) -> None:
    compiled(images)
    tiny = np.float32(1e-39)
    assert np.multiply(tiny, np.float32(1.0)) > 0


def test_times(compiled: CompiledNetwork) -> None:
    whole, steps = compiled.time(4), compiled.time_steps(5)
    assert whole.shape == (4,)
    assert steps.shape == (5, len(compiled.steps))
    assert (whole > 0).all()
    assert (steps >= 0).all()
    with pytest.raises(PrunemapError):
        compiled.time(0)


def test_plan_and_steps(compiled: CompiledNetwork) -> None:
    layers = [layer.name for layer in compiled.network.layers]
    assert [step.layer for step in compiled.steps if step.op == "convolution"] == layers
    plan = compiled.plan()
    assert all(layer in plan for layer in layers)
    assert compiled.memory.weights == sum(step.weights_bytes for step in compiled.steps) > 0
    assert compiled.memory.activations > 0


def test_same_program_twice(images: torch.Tensor) -> None:
    model = build_network("resnet8", width=8)
    first, second = (compile_network(model, images) for _ in range(2))
    assert first.plan() == second.plan()
    assert torch.equal(first(images), second(images))


class _Odd(nn.Module):
    """Operations that no listed network has, where nothing can be fused."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 1)
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.max = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.act = nn.ModuleList([nn.Sigmoid(), nn.SiLU(), nn.Hardswish(), nn.Tanh()])
        self.fc = nn.Linear(6 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(self.norm(x)))
        x = torch.relu(x + x)
        x = self.act[0](x) + self.b(self.act[1](x)) + torch.relu(x)
        x = self.max(self.pool(self.act[2](x)))
        return self.act[3](self.fc(torch.flatten(x, 1)))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("shared_from", [0, 1 << 20])
def test_unusual_operations(isa: str, shared_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunemap.kernels.arena.SHARED_FROM", shared_from)
    torch.manual_seed(0)
    model = _Odd().eval()
    images = torch.randn(2, 3, 11, 11)
    with torch.no_grad():
        model.norm.running_mean.uniform_(-1, 1)
        expected = model(images)
    assert torch.allclose(compile_network(model, images, isa=isa, tune=False)(images), expected, rtol=1e-5, atol=1e-6)


def test_negative_values_in_max_pooling() -> None:
    """The zero margin must not win over negative pixels."""
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.MaxPool2d(3, 2, 1)).eval()
    with torch.no_grad():
        model[0].bias.fill_(-9.0)
    images = torch.rand(1, 2, 7, 7)
    with torch.no_grad():
        expected = model(images)
    assert torch.allclose(compile_network(model, images, tune=False)(images), expected)
