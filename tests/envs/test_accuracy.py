from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from prunemap.envs import (
    Dataset,
    Diverged,
    Recipe,
    Split,
    build_network,
    evaluate_accuracy,
    fast_retrain,
    full_retrain,
    load_dataset,
    retrain,
    train,
    train_dense,
)
from prunemap.envs.training import SCHEDULES
from prunemap.latency.cache import cache_folder
from prunemap.pruning import Choice, Mapping, Masks, PrunemapError, make_masks

RECIPE = Recipe(pretrain_epochs=2, fast_epochs=1, full_epochs=2)
OPTIONS = {"width": 4, "in_channels": 1}
CHOICES = {
    "layer1.0.conv1": "filter@2",
    "layer2.0.conv1": "simd:4@4",
    "layer2.0.conv2": "pattern:8@4",
    "layer3.0.conv1": "unstructured@8",
    "layer3.0.conv2": "block-punched:4x4@4",
}
MAPPING = Mapping({layer: Choice.parse(text) for layer, text in CHOICES.items()})


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def dense(data: Dataset) -> nn.Module:
    return train_dense("resnet8", OPTIONS, data, RECIPE, seed=0)


@pytest.fixture(scope="module")
def masks(dense: nn.Module) -> Masks:
    return make_masks(dense, MAPPING)


def bits(model: nn.Module) -> list[bytes]:
    return [value.numpy().tobytes() for value in model.state_dict().values()]


def test_dense_training_learns(dense: nn.Module, data: Dataset) -> None:
    assert evaluate_accuracy(dense, data.test) > 0.6
    assert not dense.training


def test_masked_entries_stay_exactly_zero(dense: nn.Module, masks: Masks, data: Dataset) -> None:
    assert any(name.endswith("bn1.bias") for name in masks)
    parameters = dict(full_retrain(dense, masks, data, RECIPE, seed=1).model.named_parameters())
    for name, mask in masks.items():
        assert not parameters[name][~mask].any(), name
        assert parameters[name][mask].all(), name


def test_momentum_of_earlier_steps_cannot_leak(data: Dataset) -> None:
    """Weights that are masked but not zero yet, with every other setting that moves weights."""
    model = build_network("resnet8", **OPTIONS)
    masks = {"fc.bias": torch.arange(10) < 5, "conv1.weight": torch.rand(4, 1, 3, 3) < 0.5}
    phase = RECIPE.model_copy(update={"weight_decay": 0.1, "momentum": 0.99}).fast
    train(model, data.train, phase, seed=0, masks=masks)
    parameters = dict(model.named_parameters())
    assert all(not parameters[name][~mask].any() for name, mask in masks.items())


def test_retraining_starts_from_a_copy(dense: nn.Module, masks: Masks, data: Dataset) -> None:
    before = bits(dense)
    retrained = full_retrain(dense, masks, data, RECIPE, seed=1)
    assert bits(dense) == before
    assert retrained.epochs == RECIPE.full_epochs
    assert retrained.validation == evaluate_accuracy(retrained.model, data.validation)
    assert not retrained.model.training


def test_retraining_recovers_accuracy(dense: nn.Module, data: Dataset) -> None:
    masks = make_masks(dense, Mapping({"layer3.0.conv1": Choice("filter", 4), "layer2.0.conv2": Choice("column", 4)}))
    broken = copy.deepcopy(dense)
    for name, parameter in broken.named_parameters():
        parameter.data *= masks.get(name, torch.tensor(True))
    assert full_retrain(dense, masks, data, RECIPE, 0).validation > evaluate_accuracy(broken, data.validation) + 0.05


def test_seed_decides(dense: nn.Module, masks: Masks, data: Dataset) -> None:
    one, same, other = (bits(retrain(dense, masks, data, RECIPE.fast, seed).model) for seed in (1, 1, 2))
    assert one == same != other


ELSEWHERE = f"""
import hashlib, json, random, sys
import numpy as np, torch
torch.set_num_threads(int(sys.argv[1]))
random.seed(5); np.random.seed(6); torch.manual_seed(7)
from prunemap.envs import Recipe, load_dataset, retrain, train_dense
from prunemap.pruning import Choice, Mapping, make_masks
data, recipe = load_dataset("digits"), Recipe(pretrain_epochs=2, fast_epochs=1, full_epochs=2)
dense = train_dense("resnet8", {OPTIONS!r}, data, recipe, seed=0)
mapping = Mapping({{layer: Choice.parse(text) for layer, text in {CHOICES!r}.items()}})
retrained = retrain(dense, make_masks(dense, mapping), data, recipe.fast, seed=3)
digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in retrained.model.state_dict().values()))
print(json.dumps([retrained.validation, digest.hexdigest()]))
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_repeat_in_any_process(
    threads: int, dense: nn.Module, masks: Masks, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread count, hash seed and random state; dense weights trained there, or from this process's cache."""
    here = retrain(dense, masks, data, RECIPE.fast, seed=3)
    monkeypatch.setenv("PYTHONHASHSEED", str(threads))
    if threads == 2:
        monkeypatch.setenv("PRUNEMAP_CACHE", str(tmp_path))
    command = [sys.executable, "-c", ELSEWHERE, str(threads)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found == [here.validation, hashlib.sha256(b"".join(bits(here.model))).hexdigest()]


def test_global_states_are_left_alone(dense: nn.Module, masks: Masks, data: Dataset) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        fast_retrain(dense, masks, data, RECIPE, seed=0)
        assert random.getstate() == states[0]
        assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), states[2])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_dropout_draws_from_the_seed(data: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    torch.manual_seed(1)
    one = retrain(model, {}, data, RECIPE.fast, seed=4).model
    torch.manual_seed(2)
    assert bits(one) == bits(retrain(model, {}, data, RECIPE.fast, seed=4).model)


def test_dense_weights_are_trained_once(data: Dataset) -> None:
    def trained(recipe: Recipe, images: Dataset = data, seed: int = 0, width: int = 4) -> bool:
        calls: list[int] = []
        model = train_dense("resnet8", OPTIONS | {"width": width}, images, recipe, seed, calls.append)
        assert calls in ([], list(range(1, recipe.pretrain_epochs + 1)))
        again = train_dense("resnet8", OPTIONS | {"width": width}, images, recipe, seed)
        assert bits(model) == bits(again)
        return bool(calls)

    recipe = RECIPE.model_copy(update={"pretrain_epochs": 1})
    assert trained(recipe)
    assert not trained(recipe.model_copy(update={"fast_epochs": 7, "full_lr": 0.3}))
    assert trained(recipe.model_copy(update={"lr": 0.05}))
    assert trained(recipe, seed=1)
    assert trained(recipe, width=5)
    assert trained(recipe, images=load_dataset("digits", seed=1))


def test_damaged_cache_is_told(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEMAP_CACHE", str(tmp_path))
    recipe = RECIPE.model_copy(update={"pretrain_epochs": 1})
    train_dense("resnet8", OPTIONS, data, recipe, seed=0)
    (file,) = cache_folder().rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(PrunemapError, match="not a readable state dict"):
        train_dense("resnet8", OPTIONS, data, recipe, seed=0)


def test_divergence_is_an_error_and_not_cached(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEMAP_CACHE", str(tmp_path))
    with pytest.raises(Diverged, match="lower the recipe's learning rates"):
        train_dense("lenet5", {}, load_dataset("digits", resize=28), RECIPE.model_copy(update={"lr": 1e9}), seed=0)
    assert not list(cache_folder().rglob("*.safetensors"))


def test_mask_of_no_parameter(dense: nn.Module, data: Dataset) -> None:
    for name, shape in (("conv9.weight", (1,)), ("conv1.weight", (1,))):
        with pytest.raises(PrunemapError, match=name):
            retrain(dense, {name: torch.zeros(shape, dtype=torch.bool)}, data, RECIPE.fast, seed=0)


def test_batch_norms_keep_their_momentum_and_see_the_final_weights(data: Dataset) -> None:
    model = build_network("resnet8", **OPTIONS)
    train(model, data.train, RECIPE.fast, seed=0)
    assert all(module.momentum == 0.1 for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        first = model.conv1(data.train.images)
    assert torch.allclose(model.bn1.running_mean, first.mean((0, 2, 3)), atol=1e-3)


def test_last_batch_is_never_a_single_image(data: Dataset) -> None:
    images = Split(data.train.images[:65], data.train.labels[:65])
    model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))
    train(model, images, RECIPE.model_copy(update={"batch": 64}).fast, seed=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_stay_between_zero_and_the_peak(name: str) -> None:
    rates = [SCHEDULES[name](progress) for progress in np.linspace(0.001, 0.999, 999)]
    assert min(rates) >= 0
    assert math.isclose(max(rates), 1.0, rel_tol=1e-2)


def test_recipe_is_checked_and_documented() -> None:
    assert all(field.description for field in Recipe.model_fields.values())
    for wrong in ({"epochs": 3}, {"batch": 0}, {"lr": -1.0}, {"schedule": "linear"}, {"device": "tpu"}):
        with pytest.raises(ValidationError):
            Recipe.model_validate(wrong)


def test_cuda_that_is_not_there(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PrunemapError, match=r"recipe\.device: torch sees no CUDA device"):
        train_dense("resnet8", OPTIONS, data, RECIPE.model_copy(update={"device": "cuda"}), seed=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_trains_on_cuda(dense: nn.Module, masks: Masks, data: Dataset) -> None:
    recipe = RECIPE.model_copy(update={"device": "cuda"})
    one, same = (full_retrain(dense, masks, data, recipe, seed=1) for _ in range(2))
    assert bits(one.model) == bits(same.model)
    assert one.validation > 0.5
