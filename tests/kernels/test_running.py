"""Running compiled networks: several at once, from several threads, with NaNs and denormals about."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from prunemap.envs.networks import build_network
from prunemap.kernels import CompiledNetwork, compile_network, isas
from prunemap.pruning import SCHEMES, Choice, Mapping, apply_mapping, capture, parse_scheme


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def patient() -> Iterator[None]:
    """Python threads that switch only where the lock is given up, not because time has passed."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(100.0)
    yield
    sys.setswitchinterval(before)


def compiled(images: torch.Tensor, seed: int = 0, threads: int = 1, isa: str = "auto") -> CompiledNetwork:
    return compile_network(build_network("resnet8", width=8, seed=seed), images, threads, isa, tune=False)


@pytest.mark.parametrize("isa", isas())
def test_batches_runs_and_threads_give_the_same_bits(isa: str, images: torch.Tensor) -> None:
    one, two = compiled(images, isa=isa), compiled(images, threads=2, isa=isa)
    expected = torch.cat([one(images[i : i + 1]) for i in range(len(images))])
    for outputs in (one(images), one(images), two(images), two(images)):
        assert torch.equal(outputs, expected)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("copy", [0.0, 1e9])
def test_channels_are_staged_one_by_one(isa: str, copy: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Depthwise layers of several sizes share scratch memory: one leaves its pixels in another's margins."""
    monkeypatch.setattr("prunemap.kernels.pitches.COPY", copy)
    generator = torch.Generator().manual_seed(0)
    sizes = [
        nn.Conv2d(7, 7, k, stride=s, padding=k // 2, groups=7) for k, s in ((3, 2), (5, 1), (3, 1), (5, 2), (3, 2))
    ]
    model = nn.Sequential(*sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape, generator=generator))
        images = torch.randint(-3, 4, (2, 7, 33, 30), generator=generator).float()
        expected = model(images)
    for threads in (1, 2, 3):
        compiled = compile_network(model, images, threads, isa, tune=False)
        assert "stage" not in {step.op for step in compiled.steps}
        assert torch.equal(compiled(images), expected)


def test_networks_run_at_once(images: torch.Tensor) -> None:
    """Each from a thread of its own, and one of them from two."""
    networks = [compiled(images, seed, threads) for seed, threads in ((1, 1), (2, 2), (3, 2))]
    expected = [network(images) for network in networks]
    start = threading.Barrier(4)

    def run(index: int) -> bool:
        start.wait()
        return all(torch.equal(networks[index](images), expected[index]) for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, [0, 1, 2, 2]))


@pytest.mark.usefixtures("patient")
def test_other_python_threads_go_on(images: torch.Tensor) -> None:
    network = compiled(images)
    counted = 0
    running = True

    def count() -> None:
        nonlocal counted
        while running:
            counted += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = counted
        network.time(1000)
        after = counted
    finally:
        running = False
        thread.join()
    assert after > before


@pytest.mark.parametrize("isa", isas())
def test_denormals_count_as_zero(isa: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 5, 1, bias=False), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    images = torch.full((1, 2, 9, 9), 1e-39)
    assert bool((images > 0).all())
    assert bool((compile_network(model, images, isa=isa, tune=False)(images) == 0).all())


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("family", SCHEMES)
def test_nan_that_only_pruned_weights_touch(family: str, isa: str) -> None:
    """Inputs under small weights: pruned away where the scheme lets them go, else made zero."""
    scheme = parse_scheme(SCHEMES[family].example)
    layers = {"conv": nn.Conv2d(16, 16, 3, padding=1), "linear": nn.Linear(16, 32)}
    for kind in sorted(set(layers) & set(scheme.kinds)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten() if kind == "linear" else nn.Identity(), layers[kind])
        size = 1 if kind == "linear" else 7
        images = torch.randn(2, 16, size, size)
        small = torch.arange(16) % 4 == 1
        with torch.no_grad():
            layers[kind].weight[:, small] *= 1e-3
        rate = max(4.0, scheme.smallest_rate)
        choice = Choice("dense", 1.0) if family == "dense" else Choice(scheme.name, rate)
        pruned = apply_mapping(model, Mapping({"1": choice}), capture(model, images)).eval()
        weight = pruned[1].weight.detach()
        unread = (weight == 0).transpose(0, 1).flatten(1).all(dim=1)
        if not unread.any():
            weight[:, small] = 0.0
            unread = small
        clean, dirty = images.clone(), images.clone()
        clean[:, unread], dirty[:, unread] = 0.0, torch.nan
        with torch.no_grad():
            expected = pruned(clean)
        assert torch.allclose(compile_network(pruned, images, isa=isa, tune=False)(dirty), expected, atol=1e-5), kind
