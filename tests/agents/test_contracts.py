"""What every agent must keep, whatever it does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import prunemap.agents
from prunemap.agents import AGENTS, Agent, BudgetSpent, Candidate, LearnedAgent, LocalTools
from prunemap.envs import Problem
from prunemap.pruning import Choice, Mapping, PrunemapError

Search = Callable[..., LocalTools]
RANDOM = ("ppo", "random", "reinforce")

every_agent = pytest.mark.parametrize("name", AGENTS.names())


def asked(tools: LocalTools) -> list[str]:
    return [evaluation.key for evaluation in tools.asked]


def test_registry() -> None:
    folder = Path(prunemap.agents.__file__).parent
    registering = {path for path in folder.glob("*.py") if "@AGENTS.register(" in path.read_text()}
    assert len(registering) == len(AGENTS)
    assert set(AGENTS) >= {"ppo", "random", "reinforce", "rule-based", "uniform"}


@every_agent
def test_description(name: str) -> None:
    kind = AGENTS[name]
    assert issubclass(kind, Agent)
    assert kind.name == name
    assert kind.learned == issubclass(kind, LearnedAgent)
    assert kind.__doc__
    for field in kind.options_type.model_fields.values():
        assert field.description is not None
        assert field.description.endswith(".")
        assert not field.is_required()
    assert kind().options == kind.options_type()


@every_agent
def test_unknown_option(name: str) -> None:
    with pytest.raises(PrunemapError, match=f"unknown option of agent {name}.*'no_such_option'"):
        AGENTS[name](no_such_option=1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("reinforce", {"sample": 4}, "did you mean samples"),
        ("reinforce", {"samples": 0}, "agent reinforce, options.samples: must be >= 1, got 0"),
        ("reinforce", {"rate": 1.0}, "agent reinforce, options.rate"),
        ("ppo", {"lr": "fast"}, "agent ppo, options.lr: .* got 'fast'"),
        ("ppo", {"episodes": 1}, "agent ppo, options.episodes: must be >= 2, got 1"),
        ("rule-based", {"beta": -0.1}, "agent rule-based, options.beta: must be >= 0"),
        ("uniform", {"rate": 4}, "unknown option of agent uniform 'rate'; it takes none"),
    ],
)
def test_wrong_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(PrunemapError, match=message) as error:
        AGENTS[name](**options)
    assert "\n" not in str(error.value)


@every_agent
def test_only_the_seed_counts(name: str, toy: Problem, search: Search) -> None:
    """The same questions whatever the global random states and the number of threads, all of which stay as they are."""
    found = []
    threads = torch.get_num_threads()
    for state, count in ((1, 1), (2, 2)):
        random.seed(state)
        np.random.seed(state)  # noqa: NPY002
        torch.manual_seed(state)
        torch.set_num_threads(count)
        found.append(asked(search(toy, name, seed=5)))
        after = (random.random(), np.random.random(), torch.rand(1).item(), torch.get_num_threads())  # noqa: NPY002
        random.seed(state)
        np.random.seed(state)  # noqa: NPY002
        torch.manual_seed(state)
        assert after == (random.random(), np.random.random(), torch.rand(1).item(), count)  # noqa: NPY002
    torch.set_num_threads(threads)
    assert found[0] == found[1]
    assert (asked(search(toy, name, seed=6)) != found[0]) == (name in RANDOM)


@every_agent
@pytest.mark.parametrize("budget", [1, 2, 5, 23])
def test_budget(name: str, budget: int, toy: Problem, search: Search) -> None:
    tools = search(toy, name, budget=budget)
    assert 1 <= len(tools.asked) <= budget
    if name in RANDOM:
        assert len(tools.asked) == budget


@every_agent
def test_asks_in_lists_for_legal_mappings(name: str, toy: Problem, search: Search) -> None:
    tools = search(toy, name, budget=30)
    assert max(tools.sizes) > 1 or len(tools.asked) == 1
    for evaluation in tools.asked:
        assert set(evaluation.mapping) <= set(toy.allowed)
        for layer, choice in evaluation.mapping.items():
            assert choice in toy.allowed[layer]


@every_agent
def test_layers_that_stay_dense(name: str, toy: Problem, search: Search) -> None:
    skipped = frozenset(layer.name for layer in toy.network.layers[:3])
    problem = replace(toy, choices=replace(toy.choices, skip=skipped))
    tools = search(problem, name, budget=12)
    assert not any(skipped & set(evaluation.mapping) for evaluation in tools.asked)


def test_same_in_another_process(tmp_path: Path, toy: Problem, search: Search) -> None:
    """Neither the process nor its hash seed matters."""
    script = tmp_path / "script.py"
    script.write_text(
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('helpers', sys.argv[1])\n"
        "helpers = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(helpers)\n"
        "toy = helpers.make_toy(helpers.make_network(), seed=0)\n"
        "for name in sys.argv[2:]:\n"
        "    print(name, *[e.key for e in helpers.run(toy, name, seed=5).asked])\n"
    )
    command = [sys.executable, str(script), str(Path(__file__).with_name("conftest.py")), *AGENTS.names()]
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines == [" ".join([name, *asked(search(toy, name, seed=5))]) for name in AGENTS]


def test_local_tools(toy: Problem) -> None:
    tools = LocalTools(toy, 4)
    dense, pruned = Candidate(Mapping()), Candidate(Mapping({"conv1": Choice("simd:8", 4.0)}))
    assert tools.evaluate([]) == []
    first, second, third = tools.evaluate([dense, pruned, dense])
    assert first is third
    assert tools.remaining == 1
    with pytest.raises(BudgetSpent):
        tools.evaluate([pruned, dense])
    assert tools.asked == [first, second, first, second]
    assert tools.remaining == 0
    assert tools.best == max((first, second), key=lambda evaluation: evaluation.reward)
    with pytest.raises(BudgetSpent):
        tools.evaluate([dense])
