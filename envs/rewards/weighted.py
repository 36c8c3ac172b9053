"""Accuracy minus weighted latency."""

from __future__ import annotations

from pydantic import Field

from . import REWARDS, Reward


@REWARDS.register("weighted")
class Weighted(Reward):
    """``accuracy - weight * latency``: the weighted sum of Gong et al., section 5.1."""

    weight: float = Field(default=0.5, ge=0.0, allow_inf_nan=False)
    """Accuracy (as a fraction) that one unit of latency is worth."""

    def value(self, accuracy: float, latency: float) -> float:
        """See the class."""
        return accuracy - self.weight * latency
