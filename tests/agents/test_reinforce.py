from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from prunemap.agents import LocalTools
from prunemap.agents.reinforce import Reinforce, _Baseline
from prunemap.agents.sequence import SequencePolicy
from prunemap.envs import Problem
from prunemap.pruning import DENSE, Choice, PrunemapError

Search = Callable[..., LocalTools]
CATALOGUE = (DENSE, Choice("unstructured", 2.0), Choice("unstructured", 4.0), Choice("filter", 2.0))
LAYERS = torch.tensor([[0.0, 0.3, 0.1, 0.5], [0.0, 0.3, 0.5, 0.5], [1.0, 0.1, 0.5, 0.2]])
LEGAL = torch.tensor([[True, True, True, True], [True, False, True, False], [True, False, False, True]])


@pytest.fixture
def policy() -> SequencePolicy:
    generator = torch.Generator().manual_seed(0)
    policy = SequencePolicy(CATALOGUE, inputs=4, hidden=8, repeat=1.5)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return policy


def taking(mappings: Tensor) -> Callable[[Tensor], Tensor]:
    columns = iter(mappings.T)
    return lambda log_probs: next(columns)


def test_policy_is_a_distribution_over_legal_mappings(policy: SequencePolicy) -> None:
    every = torch.tensor(list(itertools.product(range(4), repeat=3)))
    decisions = policy(LAYERS, LEGAL, len(every), taking(every))
    probabilities = decisions.log_prob.exp()
    legal = LEGAL[range(3), every].all(dim=1)
    assert torch.all(probabilities[~legal] == 0.0)
    assert torch.all(probabilities[legal] > 0.0)
    torch.testing.assert_close(probabilities.sum(), torch.tensor(1.0))


def test_first_decisions_are_even() -> None:
    policy = SequencePolicy(CATALOGUE, inputs=4, hidden=8, repeat=0.0)
    decisions = policy(LAYERS, LEGAL, 1, taking(torch.zeros(1, 3, dtype=torch.int64)))
    expected = sum(math.log(count) for count in (4, 2, 2))
    torch.testing.assert_close(decisions.entropy, torch.tensor([expected]))
    torch.testing.assert_close(decisions.log_prob, torch.tensor([-expected]))


def test_choices_that_share_a_part_repeat() -> None:
    policy = SequencePolicy(CATALOGUE, inputs=4, hidden=8, repeat=2.0)
    legal = torch.ones(2, 4, dtype=torch.bool)
    seen: list[Tensor] = []

    def pick(log_probs: Tensor) -> Tensor:
        seen.append(log_probs[0])
        return torch.tensor([1])

    policy(LAYERS[:2], legal, 1, pick)
    shared = torch.tensor([0.0, 4.0, 2.0, 2.0])  # unstructured@2: both parts, the scheme, the rate
    torch.testing.assert_close(seen[0], torch.full((4,), -math.log(4.0)))
    torch.testing.assert_close(seen[1], shared.log_softmax(dim=0))


def test_gradient_is_that_of_equation_6(policy: SequencePolicy) -> None:
    """The surrogate's gradient against a difference quotient of the same sum of log-probabilities."""
    policy = policy.double()
    mappings = torch.tensor([[0, 0, 0], [3, 2, 3], [1, 0, 3]])
    advantage = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64)

    def surrogate() -> Tensor:
        decisions = policy(LAYERS.double(), LEGAL, 3, taking(mappings))
        return (advantage * decisions.log_prob).sum() / 3

    surrogate().backward()
    entry = policy.decoder.weight_hh.data
    at, step = (5, 2), 1e-6
    values = []
    for sign in (1, -1):
        entry[at] += sign * step
        values.append(surrogate().item())
        entry[at] -= sign * step
    assert policy.decoder.weight_hh.grad is not None
    assert policy.decoder.weight_hh.grad[at].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-3)


def test_baseline() -> None:
    baseline = _Baseline(decay=0.75)
    first, spread = baseline.advantage(np.array([1.0, 3.0], np.float32))
    assert first.tolist() == [-1.0, 1.0]
    assert spread == 1.0
    second, spread = baseline.advantage(np.array([6.0, 6.0], np.float32))
    assert second.tolist() == [3.0, 3.0]  # the average moved from 2 to 3
    assert spread == pytest.approx(math.sqrt(0.75 * 1.0 + 0.25 * 9.0))
    assert _Baseline(decay=0.5).advantage(np.full(3, 0.1, np.float32))[1] == 1e-6


def test_paper_mode(toy: Problem, search: Search) -> None:
    for evaluation in search(toy, "reinforce", rate=4.0).asked:
        assert {choice.rate for choice in evaluation.mapping.values()} <= {4.0}


def test_rates_by_name_are_moved_to_the_nearest(toy: Problem, search: Search) -> None:
    first, second = toy.network.layers[1].name, toy.network.layers[2].name
    for evaluation in search(toy, "reinforce", rate={first: 6.5, second: 2.1}).asked:
        assert set(evaluation.mapping) <= {first, second}
        assert evaluation.mapping[first].rate in (1.0, 8.0)
        assert evaluation.mapping[second].rate in (1.0, 2.5)


def test_rates_of_unknown_layers(toy: Problem) -> None:
    with pytest.raises(PrunemapError, match="unknown layer 'conv_1'"):
        Reinforce(rate={"conv_1": 4.0}).search(toy, LocalTools(toy, 4), np.random.default_rng(0))
