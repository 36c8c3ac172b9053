"""Agents that learn: they beat chance, and their policies survive being written to files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prunemap.agents import AGENTS, BudgetSpent, LearnedAgent, LocalTools
from prunemap.envs import Problem, build_network
from prunemap.pruning import Mapping, PrunemapError, capture

Search = Callable[..., LocalTools]
LEARNED = [name for name in AGENTS if AGENTS[name].learned]

every_learner = pytest.mark.parametrize("name", LEARNED)


def trained(name: str, problem: Problem, budget: int = 13) -> LearnedAgent:
    agent = AGENTS[name]()
    assert isinstance(agent, LearnedAgent)
    agent.search(problem, LocalTools(problem, budget), np.random.default_rng(0))
    return agent


@every_learner
def test_beats_random(name: str, toys: list[Problem], optimum: Callable[[Problem], float], search: Search) -> None:
    def mean_regret(agent: str) -> float:
        regrets = []
        for problem in toys:
            best, (dense,) = optimum(problem), problem.evaluate([Mapping()])
            for seed in range(3):
                found = search(problem, agent, seed, budget=80).best.reward
                assert found <= best + 1e-9
                regrets.append((best - found) / (best - dense.reward))
        return float(np.mean(regrets))

    assert mean_regret(name) < 0.85 * mean_regret("random")


@every_learner
def test_the_last_question_is_the_greedy_mapping(name: str, toy: Problem) -> None:
    agent, tools = AGENTS[name](), LocalTools(toy, 13)
    assert isinstance(agent, LearnedAgent)
    agent.search(toy, tools, np.random.default_rng(0))
    assert len(tools.asked) == 13
    (greedy,) = toy.evaluate([agent.greedy(toy)])
    assert tools.asked[-1] == greedy


@every_learner
def test_a_search_cut_short_still_asks_for_the_greedy_mapping(name: str, toy: Problem) -> None:
    class Hurried(LocalTools):
        """Time is up after the first list: one evaluation is left."""

        @property
        def remaining(self) -> int:
            return (1 if self.asked else 100) - max(0, len(self.asked) - self.first)

        first = 0

        def evaluate(self, candidates):  # type: ignore[no-untyped-def]
            found = super().evaluate(candidates)
            self.first = self.first or len(self.asked)
            return found

    agent, tools = AGENTS[name](), Hurried(toy, 100)
    assert isinstance(agent, LearnedAgent)
    agent.search(toy, tools, np.random.default_rng(0))
    assert tools.remaining == 0
    assert tools.asked[-1].key == toy.evaluation_key(agent.greedy(toy))


@every_learner
def test_save_and_load(name: str, toy: Problem, tmp_path: Path) -> None:
    agent = trained(name, toy)
    agent.save(tmp_path / "new" / "folder")
    files = {path.name: path.read_bytes() for path in (tmp_path / "new" / "folder").iterdir()}
    assert set(files) == {"agent.json", "policy.safetensors"}
    json.loads(files["agent.json"])
    header = int.from_bytes(files["policy.safetensors"][:8], "little")
    assert json.loads(files["policy.safetensors"][8 : 8 + header])
    state = torch.random.get_rng_state()
    for kind in (LearnedAgent, type(agent)):
        again = kind.load(tmp_path / "new" / "folder")
        assert type(again) is type(agent)
        assert again.options == agent.options
        assert again.greedy(toy) == agent.greedy(toy)
    assert torch.equal(state, torch.random.get_rng_state())
    again.save(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == files


@every_learner
def test_policies_carry_over_to_other_networks(name: str, toy: Problem, tmp_path: Path) -> None:
    network = capture(build_network("lenet5"), torch.zeros(1, 1, 28, 28))
    tables = np.random.default_rng(0).uniform(0.1, 1.0, (2, len(network.layers), len(toy.catalogue)))
    other = Problem.tabular(network, toy.catalogue, *tables, toy.reward)
    mapping = trained(name, toy).greedy(other)
    assert all(choice in other.allowed[layer] for layer, choice in mapping.items())


@every_learner
def test_another_catalogue(name: str, toy: Problem) -> None:
    fewer = Problem.tabular(
        toy.network, toy.catalogue[:4], *np.ones((2, len(toy.network.layers), 4)), reward=toy.reward
    )
    with pytest.raises(PrunemapError, match=f"agent {name}: .* another catalogue .*not in both: .*filter@4"):
        trained(name, toy).greedy(fewer)


@every_learner
def test_another_observation(name: str, toy: Problem, tmp_path: Path) -> None:
    """As a later version may have it: the files fit together, but the policy expects other numbers per layer."""
    agent = trained(name, toy)
    assert agent._policy is not None
    network = agent._network(toy.catalogue, 3)
    agent._policy = replace(agent._policy, network=network, inputs=3)
    agent.save(tmp_path)
    with pytest.raises(PrunemapError, match="trained on layers described by 3 numbers, not"):
        LearnedAgent.load(tmp_path).greedy(toy)


@every_learner
def test_no_policy_yet(name: str, toy: Problem, tmp_path: Path) -> None:
    agent = AGENTS[name]()
    assert isinstance(agent, LearnedAgent)
    for use in (lambda: agent.greedy(toy), lambda: agent.save(tmp_path)):
        with pytest.raises(PrunemapError, match=f"agent {name}: has no policy yet"):
            use()
    assert not list(tmp_path.iterdir())


def edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "agent.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def narrower(folder: Path) -> None:
    path = folder / "policy.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name][..., :1].contiguous()}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "agent.json").unlink(), r"agent\.json: no such file; a saved policy is a folder"),
        (lambda folder: (folder / "policy.safetensors").unlink(), r"policy\.safetensors: no such file"),
        (lambda folder: (folder / "agent.json").write_text("{"), "not a saved policy of format 1: not JSON"),
        (lambda folder: (folder / "agent.json").write_text("[]"), "not a saved policy of format 1"),
        (edit(format=2), r"policy\.format: must be 1, got 2"),
        (edit(extra=1), r"policy\.extra: unknown key"),
        (edit(agent="reinforced"), "unknown agent 'reinforced'; did you mean reinforce"),
        (edit(agent="uniform", options={}), "is of agent uniform, not LearnedAgent"),
        (edit(options={"hidden": 0}), r"agent reinforce, options\.hidden: must be >= 1"),
        (edit(options={"hidden": 7}), r"policy\.safetensors: do not fit the network"),
        (edit(catalogue=[{"scheme": "dens", "rate": 1}]), "unknown scheme 'dens'"),
        (edit(catalogue=[{"scheme": "dense", "rate": 1}]), r"policy\.safetensors: do not fit the network"),
        (edit(inputs=10**9), r"policy\.inputs: must be <= 4096"),
        (lambda folder: (folder / "policy.safetensors").write_bytes(b"no tensors"), "not a readable state dict"),
        (narrower, "do not fit the network; wrong shape"),
    ],
)
def test_damaged_files(damage: Callable[[Path], object], message: str, toy: Problem, tmp_path: Path) -> None:
    trained("reinforce", toy).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(PrunemapError, match=message) as error:
        LearnedAgent.load(tmp_path)
    assert "\n" not in str(error.value)


def test_loading_as_another_agent(toy: Problem, tmp_path: Path) -> None:
    trained("reinforce", toy).save(tmp_path)
    kind = AGENTS["ppo"]
    assert issubclass(kind, LearnedAgent)
    with pytest.raises(PrunemapError, match="is of agent reinforce, not Ppo"):
        kind.load(tmp_path)


@every_learner
def test_budget_of_one_leaves_an_untrained_policy(name: str, toy: Problem) -> None:
    tools = LocalTools(toy, 1)
    agent = AGENTS[name]()
    assert isinstance(agent, LearnedAgent)
    agent.search(toy, tools, np.random.default_rng(0))
    assert tools.asked[0].key == toy.evaluation_key(agent.greedy(toy))
    with pytest.raises(BudgetSpent):
        agent.search(toy, LocalTools(toy, 0), np.random.default_rng(0))
