"""The agents that neither learn nor follow a paper: uniform and random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prunemap.agents import LocalTools
from prunemap.agents.uniform import schedule
from prunemap.envs import Problem
from prunemap.pruning import DENSE, Choice, Mapping

Search = Callable[..., LocalTools]


def test_schedule() -> None:
    two = tuple(Choice(scheme, rate) for scheme in ("simd:8", "filter") for rate in (2.0, 4.0, 8.0))
    order = schedule((DENSE, *two))
    assert order[0] == DENSE
    assert [choice.rate for choice in order[1:]] == [4.0, 4.0, 2.0, 2.0, 8.0, 8.0]
    assert [choice.scheme for choice in order[1:]] == ["simd:8", "filter"] * 3
    assert schedule((DENSE,)) == [DENSE]


def test_uniform(toy: Problem, search: Search) -> None:
    tools = search(toy, "uniform", budget=100)
    assert tools.sizes == [len(toy.catalogue)]
    assert tools.asked[0].mapping == Mapping()
    for choice, evaluation in zip(schedule(toy.catalogue), tools.asked, strict=True):
        assert set(evaluation.mapping.values()) <= {choice}
        assert set(evaluation.mapping) == {
            name for name, allowed in toy.allowed.items() if choice in allowed and choice != DENSE
        }


def test_uniform_asks_equal_mappings_once(toy: Problem, search: Search) -> None:
    """On layers of 16 filters and fewer, simd:16 and simd:32 prune alike; neither leaves such a layer out."""
    choices = (Choice("simd:64", 4.0), Choice("simd:128", 4.0))
    tables = np.ones((2, len(toy.network.layers), 3))
    problem = Problem.tabular(toy.network, choices, *tables, reward=toy.reward)
    tools = search(problem, "uniform")
    assert len(tools.asked) == 2
    assert len(tools.asked[1].mapping) == len(toy.network.layers)


def test_random_latencies_spread(toy: Problem, search: Search) -> None:
    latencies = np.array([evaluation.latency_fraction for evaluation in search(toy, "random", budget=60).asked])
    alone, alike = latencies[::2], latencies[1::2]
    assert np.ptp(alike) > 1.5 * np.ptp(alone)


def test_random_focus(toy: Problem, search: Search) -> None:
    """The narrower, the more alike are the rates of a mapping's layers."""

    def spread(focus: float) -> float:
        asked = search(toy, "random", budget=60, focus=focus).asked[1::2]
        return float(np.mean([np.std([np.log2(e.mapping[name].rate) for name in toy.allowed]) for e in asked]))

    assert spread(0.05) < 0.5 * spread(5.0)


def test_random_batches(toy: Problem, search: Search) -> None:
    assert search(toy, "random", budget=20, batch=8).sizes == [8, 8, 8]
