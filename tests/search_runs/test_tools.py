from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.agents import BudgetSpent, Candidate, LearnedAgent, LocalTools
from prunemap.envs import REWARDS, Problem
from prunemap.pruning import Choice, Mapping, capture
from prunemap.search_runs.config import AgentSpec, BudgetSpec
from prunemap.search_runs.folder import RunFolder
from prunemap.search_runs.memory import Question
from prunemap.search_runs.store import Answer, Asker
from prunemap.search_runs.tools import StoredTools, search_as

CHOICES = tuple(map(Choice.parse, ("simd:2@2", "simd:2@4", "filter@2")))


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Two layers and tables: an evaluation costs nothing."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    network = capture(model, torch.zeros(1, 1, 8, 8))
    rng = np.random.default_rng(0)
    shape = (len(network.layers), 1 + len(CHOICES))
    return Problem.tabular(
        network, CHOICES, rng.uniform(size=shape), rng.uniform(0.1, 1.0, shape), REWARDS["weighted"]()
    )


class Answers:
    """Answers from the problem, every evaluation said to have taken a second; keeps what was asked."""

    def __init__(self, problem: Problem) -> None:
        self.asked: list[tuple[int, int]] = []
        self._problem = problem

    def __call__(self, position: int, questions: Sequence[Question]) -> list[Answer]:
        self.asked.append((position, len(questions)))
        mappings = [Mapping.from_json(question.mapping) for question in questions]
        return [evaluation.to_dict() | {"seconds": 1.0} for evaluation in self._problem.evaluate(mappings)]


def candidates(count: int) -> list[Candidate]:
    return [Candidate(Mapping({"0": CHOICES[number % 3]})) for number in range(count)]


def test_budget_counts_what_is_asked_as_local_tools_do(problem: Problem) -> None:
    answers = Answers(problem)
    stored, local = StoredTools(problem, BudgetSpec(evaluations=7), answers), LocalTools(problem, 7)
    for tools in (stored, local):
        assert len(tools.evaluate(candidates(4))) == 4
        assert tools.evaluate([]) == []
        assert tools.remaining == 3
        with pytest.raises(BudgetSpent):
            tools.evaluate(candidates(5))
        assert tools.remaining == 0
        with pytest.raises(BudgetSpent):
            tools.evaluate(candidates(1))
    assert answers.asked == [(0, 4), (4, 3)]


def test_answers_equal_those_of_the_problem(problem: Problem) -> None:
    stored = StoredTools(problem, BudgetSpec(evaluations=9), Answers(problem))
    assert stored.evaluate(candidates(3)) == LocalTools(problem, 9).evaluate(candidates(3))


def test_spent_seconds_leave_one_evaluation(problem: Problem) -> None:
    tools = StoredTools(problem, BudgetSpec(evaluations=100, seconds=5.5), Answers(problem))
    tools.evaluate(candidates(5))
    assert tools.remaining == 95
    tools.evaluate(candidates(2))
    assert tools.remaining == 1
    tools.evaluate(candidates(1))
    assert tools.remaining == 0
    with pytest.raises(BudgetSpent):
        tools.evaluate(candidates(1))


def test_an_answer_to_another_question_is_an_error(problem: Problem) -> None:
    def mixed(position: int, questions: Sequence[Question]) -> list[Answer]:
        return Answers(problem)(position, questions)[::-1]

    with pytest.raises(RuntimeError, match="another profile"):
        StoredTools(problem, BudgetSpec(evaluations=5), mixed).evaluate(candidates(2))


@pytest.mark.parametrize("name", ["reinforce", "ppo", "random", "uniform", "rule-based"])
def test_an_agent_searched_again_asks_the_same(problem: Problem, tmp_path: Path, name: str) -> None:
    """What resuming rests on: the same seed and the same answers make the same questions."""
    asked: list[list[str]] = []
    for turn in range(2):
        folder = RunFolder(tmp_path / str(turn))
        answers = Answers(problem)
        keys: list[str] = []

        def ask(position: int, questions: Sequence[Question], answers=answers, keys=keys) -> list[Answer]:  # type: ignore[no-untyped-def]
            assert position == len(keys)
            keys.extend(question.key for question in questions)
            return answers(position, questions)

        tools = StoredTools(problem, BudgetSpec(evaluations=20), ask)
        search_as(AgentSpec(name=name), 3, problem, tools, folder)
        asked.append(keys)
        policy = folder.agent_folder(Asker(name, 3)) / "agent.json"
        if policy.is_file():
            greedy = LearnedAgent.load(policy.parent).greedy(problem)
            assert problem.evaluation_key(greedy) == keys[-1], "a search ends by asking what its policy leads to"
    assert asked[0] == asked[1]
    assert 0 < len(asked[0]) <= 20
