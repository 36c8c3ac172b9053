"""What agents that learn a policy have in common: the last evaluation, and files without pickles."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from ..envs import Evaluation, Problem, load_weights, save_weights, spec_error
from ..envs.training import reproducible
from ..latency.cache import write_atomically
from ..pruning import Choice, Mapping, PrunemapError
from .base import AGENTS, Agent, BudgetSpent, Candidate, Tools

FORMAT: Literal[1] = 1
_MOST_INPUTS = 4096
_DESCRIPTION, _WEIGHTS = "agent.json", "policy.safetensors"


class LearnedAgent(Agent):
    """An agent that learns a policy: a network that chooses for one layer after another.

    The policy is at hand from the first question of a search on, and stays when the budget ends it.
    """

    learned: ClassVar[bool] = True
    _policy: Policy | None = None

    def search(self, problem: Problem, tools: Tools, rng: np.random.Generator) -> None:
        """Learn from all evaluations but one; the last is the greedy mapping's, so that its result is on record."""
        with suppress(BudgetSpent):
            self._learn(problem, _AllButOne(tools), rng)
        tools.evaluate([Candidate(self.greedy(problem))])

    def greedy(self, problem: Problem) -> Mapping:
        """The mapping of the policy's most likely choices; costs nothing.

        Raises:
            PrunemapError: When there is no policy yet, or it was trained for another catalogue or observation than the
                problem's.
        """
        policy = self._ready()
        if problem.catalogue != policy.catalogue:
            odd = sorted(map(str, set(problem.catalogue) ^ set(policy.catalogue)))
            raise PrunemapError(
                f"agent {self.name}: its policy was trained for another catalogue of choices; "
                + (f"not in both: {', '.join(odd)}" if odd else "the same choices in another order")
            )
        return self._greedy(policy, problem)

    def save(self, folder: str | Path) -> None:
        """Write ``agent.json`` (options, catalogue, format) and ``policy.safetensors``; the folder may be new.

        Raises:
            PrunemapError: When there is no policy yet.
        """
        folder, policy = Path(folder), self._ready()
        description = _Description(
            format=FORMAT,
            agent=self.name,
            options=self.options.model_dump(mode="json"),
            catalogue=tuple(_SavedChoice(scheme=choice.scheme, rate=choice.rate) for choice in policy.catalogue),
            inputs=policy.inputs,
        )
        save_weights(policy.network, folder / _WEIGHTS)
        text = json.dumps(description.model_dump(mode="json"), indent=1) + "\n"
        write_atomically(folder / _DESCRIPTION, lambda temporary: _write(temporary, text))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what ``save`` wrote; called on ``LearnedAgent`` itself, whichever agent it was.

        Raises:
            PrunemapError: For files that are missing, damaged, of another format or agent, or that do not fit together.
        """
        path = Path(folder) / _DESCRIPTION
        description = _read(path)
        try:
            agent = AGENTS[description.agent](**description.options)
            catalogue = tuple(Choice(choice.scheme, choice.rate) for choice in description.catalogue)
        except PrunemapError as error:
            raise PrunemapError(f"{path}: {error}") from None
        if not isinstance(agent, cls):
            raise PrunemapError(f"{path}: is of agent {description.agent}, not {cls.__name__}")
        with reproducible("cpu", seed=0):
            network = agent._network(catalogue, description.inputs)
        load_weights(network, path.with_name(_WEIGHTS))
        agent._policy = Policy(network, catalogue, description.inputs)
        return agent

    def _ready(self) -> Policy:
        if self._policy is None:
            raise PrunemapError(f"agent {self.name}: has no policy yet; search first, or load one")
        return self._policy

    @abstractmethod
    def _learn(self, problem: Problem, tools: Tools, rng: np.random.Generator) -> None:
        """Set ``_policy`` before the first question, then ask and learn until BudgetSpent."""

    @abstractmethod
    def _network(self, catalogue: tuple[Choice, ...], inputs: int) -> nn.Module:
        """A policy network as ``_learn`` trains it; its weights are overwritten."""

    @abstractmethod
    def _greedy(self, policy: Policy, problem: Problem) -> Mapping:
        """The mapping of the most likely choices."""


def asking(tools: Tools) -> Callable[[list[Mapping]], list[Evaluation]]:
    """What ``MappingVecEnv`` evaluates finished mappings with."""
    return lambda mappings: tools.evaluate([Candidate(mapping) for mapping in mappings])


@dataclass(frozen=True)
class Policy:
    """A network, the choices that it chooses from, and how many numbers describe a layer to it."""

    network: nn.Module
    catalogue: tuple[Choice, ...]
    inputs: int

    def seeing(self, inputs: int) -> nn.Module:
        """The network; PrunemapError when a layer is now described to it by another count of numbers."""
        if inputs != self.inputs:
            raise PrunemapError(f"the policy was trained on layers described by {self.inputs} numbers, not {inputs}")
        return self.network


class _AllButOne:
    """Tools that hold the last evaluation back."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    @property
    def remaining(self) -> int:
        return max(0, self._tools.remaining - 1)

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        covered = candidates[: self.remaining]
        answers = self._tools.evaluate(covered)
        if len(covered) < len(candidates):
            raise BudgetSpent
        return answers


class _SavedChoice(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: str
    rate: float


class _Description(BaseModel):
    """What ``agent.json`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    agent: str
    options: dict[str, Any]
    catalogue: tuple[_SavedChoice, ...]
    inputs: Annotated[int, Field(ge=1, le=_MOST_INPUTS)]


def _read(path: Path) -> _Description:
    if not path.is_file():
        raise PrunemapError(f"{path}: no such file; a saved policy is a folder with {_DESCRIPTION} and {_WEIGHTS}")
    try:
        return _Description.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        reason = str(spec_error(error, _Description, "policy"))
    except ValueError as error:
        reason = f"not JSON: {error}"
    raise PrunemapError(f"{path}: not a saved policy of format {FORMAT}: {reason}")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
