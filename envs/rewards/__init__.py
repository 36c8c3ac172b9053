"""Rewards: one number from accuracy and latency. Each is one file here, found by its name in ``REWARDS``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ...pruning.registry import Registry


class Reward(BaseModel, ABC):
    """What a search maximises.

    The latency it sees is in ``unit``: the fraction of the dense network's latency, so that one weight or budget means
    the same on every machine, or milliseconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    unit: Literal["fraction", "ms"] = "fraction"
    """Unit of latencies in this reward: ``fraction`` of the dense network's latency, or ``ms``."""

    @abstractmethod
    def value(self, accuracy: float, latency: float) -> float:
        """The reward of an accuracy (fraction, 0 to 1) at a latency (in ``unit``)."""

    def refusal(self, latency: float) -> float | None:
        """The reward of a latency that no accuracy can make good, or None: then the accuracy must be found out.

        Whatever is refused is not trained, but counted as an evaluation.
        """
        return None

    def latency(self, ms: float, dense_ms: float) -> float:
        """A latency in ms, brought to ``unit``."""
        return ms / dense_ms if self.unit == "fraction" else ms

    def budget_fraction(self, dense_ms: float) -> float:
        """The latency budget as a fraction of the dense network's latency; 1 for rewards without a budget."""
        return 1.0


REWARDS: Registry[type[Reward]] = Registry("reward", __name__)
