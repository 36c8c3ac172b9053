"""What an agent is, what it may ask for, and how its options are checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ..envs import Evaluation, Problem, spec_error
from ..pruning import Choice, LayerSpec, Mapping, PrunemapError, Registry, canonical_choice, misfit, unknown_name


class BudgetSpent(Exception):
    """The agent has used up what it may spend: its search ends as planned. Whoever started it catches this."""


@dataclass(frozen=True)
class Candidate:
    """A mapping that an agent wants to know about; it is retrained from the dense weights."""

    mapping: Mapping


class Tools(Protocol):
    """What an agent may do that costs something. Nothing else that it does may."""

    @property
    def remaining(self) -> int:
        """Evaluations that the agent may still ask for."""
        ...

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """Try candidates, in parallel where there are workers.

        Everything asked for counts, repeats included. Of a list that is longer than ``remaining``, as many as remain
        are evaluated and recorded before the exception is raised.

        Returns:
            One evaluation per candidate, in order.

        Raises:
            BudgetSpent: When the budget does not cover the list.
        """
        ...


class AgentOptions(BaseModel):
    """Options of an agent: frozen, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Agent(ABC):
    """Anything that proposes mappings for a problem.

    Attributes:
        name: The name it is registered under.
        learned: Whether it learns a policy that can be saved (then it is a ``LearnedAgent``).
        options_type: What its options are.
        options: The options it was made with.
    """

    name: ClassVar[str]
    learned: ClassVar[bool] = False
    options_type: ClassVar[type[AgentOptions]] = AgentOptions
    options: AgentOptions

    def __init__(self, **options: Any) -> None:
        """Make the agent.

        Args:
            **options: Fields of ``options_type``; what is left out has its default.

        Raises:
            PrunemapError: For an unknown option, with the nearest names, or a value out of range.
        """
        self.options = _checked(self.name, self.options_type, options)

    @abstractmethod
    def search(self, problem: Problem, tools: Tools, rng: np.random.Generator) -> None:
        """Ask ``tools`` about mappings until the budget is spent or there is nothing left to ask.

        The same problem, answers and state of ``rng`` make the same questions, to the bit, whatever the state of the
        global random generators, which are left as they were.

        Args:
            problem: What is searched; only its facts are used, never ``evaluate``.
            tools: Answers questions and counts their cost.
            rng: Where all randomness comes from.

        Raises:
            BudgetSpent: When ``tools`` raises it.
        """


AGENTS: Registry[type[Agent]] = Registry("agent", __package__ or __name__.rpartition(".")[0])


def may_get(problem: Problem, layer: LayerSpec, choice: Choice) -> bool:
    """Whether the layer may get the choice: one of the allowed ones prunes the layer in the same way."""
    if misfit(layer, choice) is not None:
        return False
    return canonical_choice(layer, choice) in {canonical_choice(layer, other) for other in problem.allowed[layer.name]}


def _checked(name: str, kind: type[AgentOptions], given: dict[str, Any]) -> AgentOptions:
    known = kind.model_fields
    for option in given:
        if option not in known and not known:
            raise PrunemapError(f"unknown option of agent {name} {option!r}; it takes none")
        if option not in known:
            raise unknown_name(f"option of agent {name}", option, known)
    try:
        return kind(**given)
    except ValidationError as error:
        raise PrunemapError(f"agent {name}, {spec_error(error, kind, 'options')}") from None
