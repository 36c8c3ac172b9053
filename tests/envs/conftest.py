from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.envs import DEFAULT_SPEC, REWARDS, Problem, ProblemSpec
from prunemap.pruning import Choice, Network, capture

CHOICES = tuple(map(Choice.parse, ("unstructured@2", "unstructured@4", "simd:4@2", "simd:4@4", "filter@2")))


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Dense weights and profiles are made once per test session, apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEMAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def network() -> Network:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    )
    return capture(model, torch.zeros(1, 1, 8, 8))


@pytest.fixture(scope="session")
def tables(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and latency in ms, (layers, dense and CHOICES)."""
    rng = np.random.default_rng(0)
    shape = (len(network.layers), 1 + len(CHOICES))
    latency = rng.uniform(0.1, 1.0, shape)
    latency[:, 0] = 1.0
    return rng.uniform(0.5, 1.0, shape), latency


@pytest.fixture(scope="session")
def tabular(network: Network, tables: tuple[np.ndarray, np.ndarray]) -> Problem:
    return Problem.tabular(network, CHOICES, *tables, REWARDS["weighted"]())


@pytest.fixture(scope="session")
def spec() -> ProblemSpec:
    """The smallest problem that is real: an evaluation takes a fraction of a second."""
    recipe = DEFAULT_SPEC.recipe.model_copy(update={"pretrain_epochs": 3, "fast_epochs": 1})
    return DEFAULT_SPEC.model_copy(update={"recipe": recipe})


@pytest.fixture(scope="session")
def real(spec: ProblemSpec) -> Problem:
    return Problem.from_spec(spec)
