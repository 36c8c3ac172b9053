"""Evaluation in this process: for tests and for use as a library."""

from __future__ import annotations

from collections.abc import Sequence

from ..envs import Evaluation, Problem
from .base import BudgetSpent, Candidate


class LocalTools:
    """Evaluates one candidate after another, remembers answers, and counts what was asked.

    Attributes:
        asked: Every evaluation asked for, in order, repeats included.
    """

    def __init__(self, problem: Problem, budget: int) -> None:
        """Offer ``budget`` evaluations of ``problem``."""
        self.asked: list[Evaluation] = []
        self._problem = problem
        self._budget = budget
        self._known: dict[str, Evaluation] = {}

    @property
    def remaining(self) -> int:
        """See ``Tools.remaining``."""
        return self._budget - len(self.asked)

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """See ``Tools.evaluate``."""
        covered = candidates[: self.remaining]
        answers = [self._answer(candidate) for candidate in covered]
        if len(covered) < len(candidates):
            raise BudgetSpent
        return answers

    @property
    def best(self) -> Evaluation:
        """The evaluation with the largest reward, the earliest of equals; failed ones do not count.

        Raises:
            ValueError: When nothing was evaluated with success.
        """
        return max((answer for answer in self.asked if answer.failed is None), key=lambda answer: answer.reward)

    def _answer(self, candidate: Candidate) -> Evaluation:
        key = self._problem.evaluation_key(candidate.mapping)
        if key not in self._known:
            (self._known[key],) = self._problem.evaluate([candidate.mapping])
        self.asked.append(self._known[key])
        return self._known[key]
