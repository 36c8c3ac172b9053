"""Uniform: one choice everywhere it fits."""

from __future__ import annotations

import numpy as np

from ..envs import Problem
from ..pruning import Choice, Mapping
from .base import AGENTS, Agent, Candidate, Tools, may_get


@AGENTS.register("uniform")
class Uniform(Agent):
    """Gives every layer the same choice; layers that may not get it stay dense.

    Dense comes first. Then the rates, from the middle one outwards (so that a small budget sees the typical rate rather
    than the mildest), each with every scheme in the catalogue's order. Mappings that are the same are asked once. When
    the catalogue is through, the search ends and leaves the rest of the budget unspent.
    """

    name = "uniform"

    def search(self, problem: Problem, tools: Tools, rng: np.random.Generator) -> None:
        """See ``Agent.search``; nothing is random."""
        mappings = (_everywhere(problem, choice) for choice in schedule(problem.catalogue))
        distinct = {problem.evaluation_key(mapping): mapping for mapping in mappings}
        tools.evaluate([Candidate(mapping) for mapping in distinct.values()])


def schedule(catalogue: tuple[Choice, ...]) -> list[Choice]:
    """The catalogue's choices in the order in which they are tried."""
    rates = sorted({choice.rate for choice in catalogue} - {1.0})
    outwards = sorted(rates, key=lambda rate: abs(rates.index(rate) - (len(rates) - 1) / 2))
    return sorted(catalogue, key=lambda choice: [1.0, *outwards].index(choice.rate))


def _everywhere(problem: Problem, choice: Choice) -> Mapping:
    return Mapping({layer.name: choice for layer in problem.network.layers if may_get(problem, layer, choice)})
