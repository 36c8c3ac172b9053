"""Accuracy within a latency budget."""

from __future__ import annotations

from pydantic import Field

from . import REWARDS, Reward


@REWARDS.register("budget")
class Budget(Reward):
    """The accuracy; over the budget ``max(-1, 1 - latency / budget)``, without training."""

    budget: float = Field(gt=0.0, allow_inf_nan=False)
    """Largest latency, in ``unit``, that is accepted."""

    def value(self, accuracy: float, latency: float) -> float:
        """See the class."""
        refused = self.refusal(latency)
        return accuracy if refused is None else refused

    def refusal(self, latency: float) -> float | None:
        """A negative reward for a latency over the budget, None for one within it."""
        return max(-1.0, 1.0 - latency / self.budget) if latency > self.budget else None

    def budget_fraction(self, dense_ms: float) -> float:
        """See ``Reward.budget_fraction``."""
        return self.budget / self.latency(dense_ms, dense_ms)
