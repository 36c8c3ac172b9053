"""Accuracy scaled by a power of latency over budget."""

from __future__ import annotations

from pydantic import Field

from . import REWARDS, Reward


@REWARDS.register("soft")
class Soft(Reward):
    """``accuracy * (latency / budget) ** exponent``: a soft constraint, traded on both sides of the budget."""

    budget: float = Field(gt=0.0, allow_inf_nan=False)
    """Latency, in ``unit``, at which the reward is the accuracy itself."""

    exponent: float = Field(default=-0.07, le=0.0, allow_inf_nan=False)
    """Power of latency / budget; the further below zero, the more latency counts."""

    def value(self, accuracy: float, latency: float) -> float:
        """See the class; ``latency`` must be positive."""
        return float(accuracy * (latency / self.budget) ** self.exponent)

    def budget_fraction(self, dense_ms: float) -> float:
        """See ``Reward.budget_fraction``."""
        return self.budget / self.latency(dense_ms, dense_ms)
