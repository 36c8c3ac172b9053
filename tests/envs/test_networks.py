from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prunemap.envs import NETWORKS, build_network, default_input_shape, load_weights, save_weights
from prunemap.pruning import PrunemapError, capture

NARROW: dict[str, dict[str, Any]] = {
    "lenet5": {},
    "mobilenetv1": {"width": 0.25},
    "mobilenetv2": {"width": 0.25},
    "vgg16": {"width": 8},
}
SMALL = [name for name in NETWORKS if NETWORKS[name].small_shape]


def narrow(name: str) -> dict[str, Any]:
    return NARROW.get(name, {"width": 8})


def norm(name: str) -> Iterator[str]:
    yield from (f"{name}.{entry}" for entry in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))


def resnet_keys(convolutions: int, depths: tuple[int, ...], projected: tuple[int, ...]) -> Iterator[str]:
    yield "conv1.weight"
    yield from norm("bn1")
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            for index in range(1, convolutions + 1):
                yield f"{prefix}.conv{index}.weight"
                yield from norm(f"{prefix}.bn{index}")
            if block == 0 and stage in projected:
                yield f"{prefix}.downsample.0.weight"
                yield from norm(f"{prefix}.downsample.1")
    yield from ("fc.weight", "fc.bias")


def vgg16_keys() -> Iterator[str]:
    for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        yield from (f"features.{index}.weight", f"features.{index}.bias")
    for index in (0, 3, 6):
        yield from (f"classifier.{index}.weight", f"classifier.{index}.bias")


def mobilenetv2_keys() -> Iterator[str]:
    yield "features.0.0.weight"
    yield from norm("features.0.1")
    for block in range(1, 18):
        units = 1 if block == 1 else 2
        for unit in range(units):
            yield f"features.{block}.conv.{unit}.0.weight"
            yield from norm(f"features.{block}.conv.{unit}.1")
        yield f"features.{block}.conv.{units}.weight"
        yield from norm(f"features.{block}.conv.{units + 1}")
    yield "features.18.0.weight"
    yield from norm("features.18.1")
    yield from ("classifier.1.weight", "classifier.1.bias")


TORCHVISION = {
    "resnet18": (11_689_512, resnet_keys(2, (2, 2, 2, 2), (2, 3, 4))),
    "resnet50": (25_557_032, resnet_keys(3, (3, 4, 6, 3), (1, 2, 3, 4))),
    "vgg16": (138_357_544, vgg16_keys()),
    "mobilenetv2": (3_504_872, mobilenetv2_keys()),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_has_torchvisions_parameters(name: str) -> None:
    with torch.device("meta"):
        model = build_network(name)
    parameters, keys = TORCHVISION[name]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert set(model.state_dict()) == set(keys)


def test_lenet5_is_caffes() -> None:
    weights = [p.numel() for name, p in build_network("lenet5").named_parameters() if name.endswith("weight")]
    assert weights == [500, 25_000, 400_000, 5_000]


def test_cifar_resnets_have_the_depth_of_their_names() -> None:
    for name in ("resnet8", "resnet20", "resnet56"):
        network = capture(build_network(name), torch.zeros(1, 3, 32, 32))
        counted = [layer for layer in network.layers if "downsample" not in layer.name]
        assert len(counted) == int(name.removeprefix("resnet"))


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_images_to_logits(name: str) -> None:
    options = narrow(name) | {"num_classes": 7, "in_channels": 2}
    variants = [options, options | {"small": True}] if name in SMALL else [options]
    for variant in variants:
        shape = default_input_shape(name, **variant)
        assert shape[0] == 2
        with torch.no_grad():
            assert build_network(name, **variant).eval()(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", SMALL)
def test_small_variants_shrink_the_map_later(name: str) -> None:
    shape = default_input_shape(name, small=True)
    assert shape == (3, 32, 32)
    network = capture(build_network(name, **narrow(name), small=True), torch.zeros(1, *shape))
    assert network.layers[0].out_shape[1:] == (32, 32)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_come_from_the_seed_alone(name: str) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    one, same, other = (build_network(name, seed=seed, **narrow(name)).state_dict() for seed in (1, 1, 2))
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet9", {}, "unknown network 'resnet9'; did you mean resnet8"),
        ("resnet8", {"widht": 4}, "unknown option of network resnet8: 'widht'; did you mean width"),
        ("resnet8", {"width": 0}, "option 'width': must be greater than or equal to 1, got 0"),
        ("resnet8", {"width": "4"}, "option 'width': must be a valid integer, got '4'"),
        ("resnet8", {"small": True}, "unknown option of network resnet8: 'small'"),
        ("no_such_module:make", {}, "cannot import 'no_such_module'"),
        ("mine:missing", {}, "module 'mine' has no such name; expected package.module:function"),
        ("mine:number", {}, "module 'mine' holds a int there"),
        ("mine:nothing", {}, "returned NoneType, not a torch.nn.Module"),
        ("mine:make", {"depth": 3}, "does not take these options: got an unexpected keyword argument 'depth'"),
        ("broken:make", {}, "cannot import 'broken' (No module named 'not_installed')"),
        (":make", {}, "cannot import ''"),
    ],
)
def test_bad_names_and_options(name: str, options: dict[str, object], message: str, own_networks: Path) -> None:
    with pytest.raises(PrunemapError) as error:
        build_network(name, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def own_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lines = (
        "from torch import nn",
        "number = 3",
        "def nothing(): return None",
        "def make(width=4): return nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten())",
    )
    (tmp_path / "mine.py").write_text("\n".join(lines))
    (tmp_path / "broken.py").write_text("import not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_own_network(own_networks: Path) -> None:
    model = build_network("mine:make", seed=3, width=6)
    assert model.state_dict()["0.weight"].shape == (6, 1, 3, 3)
    assert torch.equal(
        model.state_dict()["0.weight"], build_network("mine:make", seed=3, width=6).state_dict()["0.weight"]
    )
    with pytest.raises(PrunemapError, match="no default input shape"):
        default_input_shape("mine:make")


@pytest.fixture
def model() -> nn.Module:
    return build_network("resnet8", width=4)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_weights_come_back(model: nn.Module, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(model.state_dict(), path)
    else:
        save_weights(model, path)
    other = build_network("resnet8", width=4, seed=1)
    load_weights(other, path)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_weights_without_batch_counters_load(model: nn.Module, tmp_path: Path) -> None:
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "old.safetensors")
    load_weights(model, tmp_path / "old.safetensors")


def test_weights_that_do_not_fit(model: nn.Module, tmp_path: Path) -> None:
    state = model.state_dict()
    state["head.weight"] = state.pop("fc.weight")
    state["conv1.weight"] = torch.zeros(5, 3, 3, 3)
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(PrunemapError) as error:
        load_weights(model, tmp_path / "odd.safetensors")
    told = "missing: fc.weight; unexpected: head.weight; wrong shape: conv1.weight is (5, 3, 3, 3), needs (4, 3, 3, 3)"
    assert str(error.value).endswith(told)


def test_many_misfits_are_counted(model: nn.Module, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(PrunemapError, match=r"missing: conv1.weight, .* and \d+ more; unexpected: a$"):
        load_weights(model, tmp_path / "odd.safetensors")


def test_unreadable_weights(model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "noise.safetensors").write_bytes(b"no tensors")
    (tmp_path / "noise.pth").write_bytes(b"no tensors")
    torch.save(model, tmp_path / "module.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({"state": {"a": torch.zeros(1)}}, tmp_path / "nested.pth")
    for name in ("absent.pth", "noise.safetensors", "noise.pth", "module.pth", "list.pth", "nested.pth"):
        with pytest.raises(PrunemapError) as error:
            load_weights(model, tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)
