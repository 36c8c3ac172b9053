"""The tools of an agent inside a run: remembered answers first, cost counted by what was asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from ..agents import BudgetSpent, Candidate, LearnedAgent
from ..envs import Evaluation, Problem
from .config import AgentSpec, BudgetSpec
from .folder import RunFolder
from .memory import Question
from .store import Answer, Asker

Ask = Callable[[int, Sequence[Question]], Sequence[Answer]]
"""Takes how many questions were asked before and the next ones; returns their answers in order."""


class StoredTools:
    """Tools that pass questions on to the memory of a run, which evaluates in parallel what it does not know.

    The budget counts what was asked, repeats included, whether an answer was remembered or not; its seconds are those
    recorded with the answers. So a search that is run again spends exactly what it had spent.
    """

    def __init__(self, problem: Problem, budget: BudgetSpec, ask: Ask) -> None:
        """Offer ``budget``; ``ask`` answers."""
        self._problem = problem
        self._limit = budget.evaluations
        self._max_seconds = math.inf if budget.seconds is None else budget.seconds
        self._ask = ask
        self._asked = 0
        self._seconds = 0.0

    @property
    def remaining(self) -> int:
        """Evaluations left; once the seconds are spent, one more, for the mapping that a policy has settled on."""
        return self._limit - self._asked

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """See ``Tools.evaluate``.

        Raises:
            SearchStopped: When the user stopped the search.
        """
        covered = candidates[: self.remaining]
        questions = [self._question(candidate) for candidate in covered]
        answers = self._ask(self._asked, questions) if questions else []
        for question, answer in zip(questions, answers, strict=True):
            if answer["key"] != question.key:
                raise RuntimeError(
                    f"asked about {question.key}, got {answer['key']}: the workers have other dense weights, another "
                    "profile or another kind of processor than this process"
                )
        self._spend(answers)
        if len(covered) < len(candidates):
            raise BudgetSpent
        return [Evaluation.from_dict(answer) for answer in answers]

    def _spend(self, answers: Sequence[Answer]) -> None:
        self._asked += len(answers)
        self._seconds += sum(answer["seconds"] for answer in answers)
        if self._seconds >= self._max_seconds:
            self._limit = min(self._limit, self._asked + 1)

    def _question(self, candidate: Candidate) -> Question:
        return Question(self._problem.evaluation_key(candidate.mapping), candidate.mapping.to_json())


def search_as(spec: AgentSpec, seed: int, problem: Problem, tools: StoredTools, folder: RunFolder) -> None:
    """Let one agent search until its budget is spent, and keep what it learned.

    Args:
        spec: The agent.
        seed: Seed of all its randomness.
        problem: What it searches.
        tools: Answers its questions.
        folder: Gets the policy of an agent that learns one.

    Raises:
        SearchStopped: When the user stopped the search.
    """
    agent = spec.build()
    with suppress(BudgetSpent):
        agent.search(problem, tools, np.random.default_rng(seed))
    if isinstance(agent, LearnedAgent):
        agent.save(folder.agent_folder(Asker(spec.name, seed)))
