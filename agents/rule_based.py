"""Rule-based: the training-free mapping of Gong et al., section 5.2 and figure 8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from ..envs import Problem
from ..pruning import DENSE, Choice, LayerSpec, Mapping, parse_scheme
from ..pruning.schemes.base import Removes
from ..pruning.schemes.pattern import Pattern
from .base import AGENTS, Agent, AgentOptions, Candidate, Tools, may_get

Rate = Annotated[float, Field(gt=1.0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class RuleBasedOptions(AgentOptions):
    """Options of ``rule-based``."""

    beta: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.2
    """How much slower than structured pruning at the same rate a block may be, as a fraction (section 5.2.2)."""

    rate: Rate | tuple[Rate, ...] | None = 4.0
    """Rate of every pruned layer, moved to the nearest of the problem's; a list makes a mapping per rate, null one for
    each of the problem's rates."""

    easy: Fraction = 0.9
    """Dense accuracy from which a task counts as easy, so that 3x3 layers are block-punched (remark 1)."""

    hard: Fraction = 0.8
    """Dense accuracy below which a task counts as hard, so that 3x3 layers get patterns (remark 1)."""


@AGENTS.register("rule-based")
class RuleBased(Agent):
    """Maps layer by layer from the profile and the dense accuracy; nothing is trained to decide.

    Depthwise layers stay dense (5.2.4). The other layers get the finest block whose latency is within (1 + beta) of
    structured pruning at the same rate (5.2.2). For 3x3 layers the task's difficulty decides between that block and a
    pattern (remark 1); between easy and hard the profile does, latency being the secondary criterion (5.2.3).

    Only choices that the problem allows are made: a layer without one stays dense, and where a hard task's problem
    offers no pattern at the rate, the block is taken.
    """

    name = "rule-based"
    options_type = RuleBasedOptions
    options: RuleBasedOptions

    def search(self, problem: Problem, tools: Tools, rng: np.random.Generator) -> None:
        """See ``Agent.search``; nothing is random, and all mappings are asked at once."""
        tools.evaluate([Candidate(self.mapping(problem, rate)) for rate in self._rates(problem)])

    def mapping(self, problem: Problem, rate: float) -> Mapping:
        """The mapping at one rate of the problem's."""
        return Mapping({layer.name: self._choice(problem, layer, rate) for layer in problem.network.layers})

    def _rates(self, problem: Problem) -> Sequence[float]:
        grid = sorted({choice.rate for choice in problem.catalogue} - {1.0})
        given = self.options.rate
        if given is None:
            return grid
        rates = given if isinstance(given, tuple) else (given,)
        nearest = (min(grid, key=lambda known: abs(1 / known - 1 / rate)) for rate in rates)
        return tuple(dict.fromkeys(nearest)) if grid else ()

    def _choice(self, problem: Problem, layer: LayerSpec, rate: float) -> Choice:
        if layer.kind == "depthwise":
            return DENSE
        offers = [
            _Offer.of(problem, layer, choice)
            for choice in problem.catalogue
            if choice.rate == rate and may_get(problem, layer, choice)
        ]
        block = self._block([offer for offer in offers if not offer.pattern])
        pattern = _fastest(offer for offer in offers if offer.pattern)
        accuracy = problem.dense_accuracy
        if accuracy >= self.options.easy:
            chosen = block
        elif accuracy < self.options.hard:
            chosen = pattern or block
        else:
            chosen = _fastest(offer for offer in (block, pattern) if offer)
        return chosen.choice if chosen else DENSE

    def _block(self, offers: Sequence[_Offer]) -> _Offer | None:
        """The finest block that is fast enough (section 5.2.2); of blocks of one size the fastest that is.

        Structured pruning, the block of the whole tensor, is ``filter``. Where a layer may not lose filters it is the
        coarsest offer that there is. It is the largest candidate, too: it is taken when no finer block is fast enough.
        """
        if not offers:
            return None
        structured = max(offers, key=lambda offer: (offer.size, offer.removes == "filters"))
        limit = (1.0 + self.options.beta) * structured.cost
        finest_first = sorted(offers, key=lambda offer: (offer.size, offer.cost))
        fast_enough = (offer for offer in finest_first if offer.removes == "weights" and offer.cost <= limit)
        return next(fast_enough, structured)


@dataclass(frozen=True)
class _Offer:
    """A choice that a layer may get.

    Attributes:
        choice: The choice.
        cost: Latency over the layer's MACs, in ms, as section 5.2.2 normalises it.
        size: Filters x input channels of its blocks, those of the whole layer when it removes filters or channels.
        removes: As its scheme's.
        pattern: Whether it is pattern pruning.
    """

    choice: Choice
    cost: float
    size: int
    removes: Removes
    pattern: bool

    @classmethod
    def of(cls, problem: Problem, layer: LayerSpec, choice: Choice) -> _Offer:
        """Look the choice up.

        Unstructured pruning is the block of 1x1 (section 4.4), a SIMD group a block one channel wide, a column a block
        of all filters: each is punched at one kernel position (section 4.1.2).
        """
        scheme = parse_scheme(choice.scheme)
        filters, channels = layer.out_channels // layer.groups, layer.in_channels // layer.groups
        size = filters * channels
        if scheme.removes == "weights":
            (rows, columns), (down, across) = scheme.block(filters, channels), scheme.pool or (1, 1)
            size = min(rows * down, filters) * min(columns * across, channels)
        cost = problem.profile.layer_ms(layer.name, choice) / layer.macs
        return cls(choice, cost, size, scheme.removes, isinstance(scheme, Pattern))


def _fastest(offers: Iterable[_Offer]) -> _Offer | None:
    """The fastest, the earliest of equals; None of none."""
    return min(offers, key=lambda offer: offer.cost, default=None)
