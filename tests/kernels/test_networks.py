"""Whole networks: every registered one, under every scheme, on every ISA, against torch on the same zeros."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from prunemap.envs.networks import NETWORKS, build_network
from prunemap.kernels import compile_network, isas
from prunemap.pruning import Choice, Mapping, Network, apply_mapping, capture, parse_scheme

TOLERANCE = 1e-5
SIZES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "lenet5": ({}, (1, 28, 28)),
    "resnet8": ({"width": 8}, (3, 16, 16)),
    "resnet20": ({"width": 8}, (3, 20, 20)),
    "resnet56": ({"width": 4}, (3, 9, 9)),
    "resnet18": ({"width": 16}, (3, 64, 64)),
    "resnet50": ({"width": 8}, (3, 45, 45)),
    "vgg16": ({"width": 8, "small": True}, (3, 32, 32)),
    "mobilenetv1": ({"width": 0.25}, (3, 64, 64)),
    "mobilenetv2": ({"width": 0.25}, (3, 33, 33)),
}
SCHEMES = (
    "dense", "unstructured", "filter", "channel", "column", "simd:4", "simd:8", "block-punched:8x4", "block-row:4x8",
    "block-column:8x4", "pattern:8",
)  # fmt: skip


def make(name: str) -> tuple[nn.Module, torch.Tensor, Network]:
    """A network whose batch norms do something, and an image."""
    options, shape = SIZES[name]
    model = build_network(name, **options).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("running_mean"):
                value.normal_(0, 0.1, generator=generator)
            elif key.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif key.endswith("bias"):
                value.normal_(0, 0.1, generator=generator)
    images = torch.randn(2, *shape, generator=generator)
    return model, images, capture(model, images)


def everywhere(network: Network, scheme: str, rate: float) -> Mapping:
    parsed = parse_scheme(scheme)
    fitting = [layer.name for layer in network.layers[:-1] if parsed.fits(layer) is None]
    return Mapping({name: Choice(scheme, rate) for name in fitting})


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result - expected).norm() / expected.norm())


def test_all_networks_are_here() -> None:
    assert set(SIZES) == set(NETWORKS.names())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", sorted(SIZES))
def test_agrees_with_torch(name: str, scheme: str) -> None:
    model, images, network = make(name)
    pruned = apply_mapping(model, everywhere(network, scheme, 4.0), network).eval()
    with torch.no_grad():
        expected = pruned(images)
    for isa in isas():
        compiled = compile_network(pruned, images, isa=isa, tune=False)
        assert relative_error(compiled(images), expected) <= TOLERANCE, isa


@pytest.mark.parametrize("isa", isas())
def test_tuned_and_mixed(isa: str) -> None:
    """Different schemes in one network, kernels chosen by timing."""
    model, images, network = make("resnet8")
    schemes = ["filter", "unstructured", "channel", "simd:8", "column", "pattern:8", "block-punched:4x4"]
    layers = [layer for layer in network.layers if layer.kind == "conv"]
    fitting = {la.name: s for la, s in zip(layers, schemes, strict=False) if parse_scheme(s).fits(la) is None}
    mapping = Mapping({name: Choice(scheme, 3.0) for name, scheme in fitting.items()})
    pruned = apply_mapping(model, mapping, network).eval()
    with torch.no_grad():
        expected = pruned(images)
    assert relative_error(compile_network(pruned, images, isa=isa)(images), expected) <= TOLERANCE


@pytest.mark.parametrize("rate", [1.5, 4.0, 30.0])
@pytest.mark.parametrize("scheme", ["filter", "channel"])
@pytest.mark.parametrize("name", ["resnet8", "resnet50", "mobilenetv2"])
def test_dead_channels_are_removed(name: str, scheme: str, rate: float) -> None:
    """Through residual groups and depthwise layers, at rates where whole layers almost vanish."""
    model, images, network = make(name)
    pruned = apply_mapping(model, everywhere(network, scheme, rate), network).eval()
    with torch.no_grad():
        expected = pruned(images)
    compiled = compile_network(pruned, images, tune=False)
    assert relative_error(compiled(images), expected) <= TOLERANCE
    dense = compile_network(model, images, tune=False)
    assert sum(s.all_weights for s in compiled.steps) < sum(s.all_weights for s in dense.steps)


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2", "resnet50"])
def test_memory_used_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values in shared memory: what an earlier one left in the margins must not be seen, in any order of images."""
    model, images, _ = make(name)
    monkeypatch.setattr("prunemap.kernels.arena.SHARED_FROM", 1 << 30)
    apart = compile_network(model, images, tune=False)
    monkeypatch.setattr("prunemap.kernels.arena.SHARED_FROM", 0)
    shared = compile_network(model, images, tune=False)
    assert shared.memory.activations < apart.memory.activations
    parallel = compile_network(model, images, threads=2, tune=False)
    outputs = [shared(images), shared(images.flip(0)).flip(0), shared(images), parallel(images)]
    for output in outputs:
        assert torch.equal(output, apart(images))


def test_all_weights_zero() -> None:
    model, images, _ = make("resnet8")
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.zero_()
        expected = model(images)
    assert relative_error(compile_network(model, images, tune=False)(images), expected) <= TOLERANCE
