from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from prunemap.agents import AGENTS, BudgetSpent, Candidate, LocalTools
from prunemap.envs import REWARDS, Evaluation, Problem, build_network
from prunemap.pruning import DENSE, Choice, Mapping, Network, capture

SCHEMES = {  # name -> share of the pruned work that is saved, harm done to the accuracy
    "unstructured": (0.3, 0.5),
    "simd:8": (0.8, 1.0),
    "block-punched:8x4": (0.85, 1.2),
    "filter": (1.0, 3.0),
    "pattern:8": (0.7, 0.8),
}
CHOICES = tuple(Choice(scheme, rate) for scheme in SCHEMES for rate in (2.5, 4.0, 8.0))

Search = Callable[..., LocalTools]


class RecordingTools(LocalTools):
    """Local tools that also keep the sizes of the lists they were asked."""

    def __init__(self, problem: Problem, budget: int) -> None:
        super().__init__(problem, budget)
        self.sizes: list[int] = []

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        self.sizes.append(len(candidates))
        return super().evaluate(candidates)


def run(problem: Problem, name: str, seed: int = 0, budget: int = 20, **options: object) -> RecordingTools:
    tools = RecordingTools(problem, budget)
    try:
        AGENTS[name](**options).search(problem, tools, np.random.default_rng(seed))
    except BudgetSpent:
        assert tools.remaining == 0
    return tools


@pytest.fixture(scope="session")
def search() -> Search:
    """Let an agent search; gives its tools back."""
    return run


def make_network() -> Network:
    return capture(build_network("resnet8", width=16), torch.zeros(1, 3, 16, 16))


@pytest.fixture(scope="session")
def network() -> Network:
    return make_network()


@pytest.fixture(scope="session")
def toy(network: Network) -> Problem:
    """Layers differ in size and sensitivity, schemes and rates trade accuracy for latency: the optimum is known."""
    return make_toy(network, seed=0)


@pytest.fixture(scope="session")
def toys(network: Network) -> list[Problem]:
    return [make_toy(network, seed) for seed in (0, 3)]


@pytest.fixture(scope="session")
def optimum() -> Callable[[Problem], float]:
    """Largest reward that a mapping of the toy can have: accuracy and latency add up over layers."""

    def best(problem: Problem) -> float:
        (dense,) = problem.evaluate([Mapping()])
        single = {
            name: [e.reward - dense.reward for e in problem.evaluate([Mapping({name: choice}) for choice in choices])]
            for name, choices in problem.allowed.items()
        }
        return dense.reward + sum(map(max, single.values()))

    return best


def make_toy(network: Network, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    layers = len(network.layers)
    share = rng.dirichlet(np.full(layers, 2.0))
    sensitivity = rng.lognormal(0.0, 0.8, layers)
    catalogue = (DENSE, *CHOICES)
    latency, accuracy = np.ones((2, layers, len(catalogue)))
    latency *= share[:, None]
    for column, choice in enumerate(catalogue[1:], start=1):
        saved, harm = SCHEMES[choice.scheme]
        latency[:, column] *= 1.0 - np.clip(saved * rng.normal(1.0, 0.1, layers), 0.0, 1.0) * (1.0 - 1.0 / choice.rate)
        accuracy[:, column] -= (
            0.04 * sensitivity * harm * math.log2(choice.rate) ** 1.5 * rng.lognormal(0.0, 0.2, layers)
        )
    return Problem.tabular(network, CHOICES, accuracy.clip(0.0, 1.0), latency, REWARDS["weighted"](weight=0.5))
