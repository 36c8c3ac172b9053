"""Random: legal mappings drawn without learning, the baseline of every learner."""

from __future__ import annotations

import itertools
import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..envs import Problem
from ..pruning import Choice, Mapping
from .base import AGENTS, Agent, AgentOptions, Candidate, Tools


class RandomOptions(AgentOptions):
    """Options of ``random``."""

    batch: Annotated[int, Field(ge=1)] = 16
    """Mappings asked for at once."""

    focus: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.5
    """Width, in doublings of the rate, of the rates around a mapping's aggressiveness: small makes its layers alike."""


@AGENTS.register("random")
class RandomSearch(Agent):
    """Draws mappings until the budget is spent.

    Every other mapping draws each layer's choice alone, uniformly. Such mappings are all about equally fast, so the
    others first draw an aggressiveness between dense and the largest rate, evenly in doublings, and prefer choices of
    about that rate in every layer: their latencies spread over the whole range.
    """

    name = "random"
    options_type = RandomOptions
    options: RandomOptions

    def search(self, problem: Problem, tools: Tools, rng: np.random.Generator) -> None:
        """See ``Agent.search``; ends only with BudgetSpent."""
        mappings = (self._draw(problem, rng, alike) for alike in itertools.cycle((False, True)))
        while True:
            tools.evaluate([Candidate(mapping) for mapping in itertools.islice(mappings, self.options.batch)])

    def _draw(self, problem: Problem, rng: np.random.Generator, alike: bool) -> Mapping:
        doublings = max(_doublings(problem.catalogue))
        centre = rng.uniform(0.0, doublings) if alike else None
        return Mapping({layer: self._choice(allowed, centre, rng) for layer, allowed in problem.allowed.items()})

    def _choice(self, allowed: tuple[Choice, ...], centre: float | None, rng: np.random.Generator) -> Choice:
        if centre is None:
            return allowed[rng.integers(len(allowed))]
        distance = np.abs(_doublings(allowed) - centre)
        # Measured from the nearest, so that a layer without any choice near the centre still has positive weights.
        weights = np.exp(-0.5 * ((distance - distance.min()) / self.options.focus) ** 2)
        return allowed[rng.choice(len(allowed), p=weights / weights.sum())]


def _doublings(choices: tuple[Choice, ...]) -> NDArray[np.float64]:
    return np.array([math.log2(choice.rate) for choice in choices])
