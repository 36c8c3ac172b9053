"""A profile as a table for people: what each layer costs under each choice, and what pruning it buys."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..pruning.mapping import DENSE, Choice
from .probes import choices_of
from .profile import Profile


@dataclass(frozen=True)
class LayerCost:
    """One layer under one choice, all other layers dense.

    Attributes:
        layer: Qualified name.
        choice: The choice.
        ms: Milliseconds.
        speed_up: The dense layer's milliseconds over these.
        ppr: Pruning-to-performance ratio (ADMM-NN-S, section I): rate over speed-up; 1 where all pruned work is saved,
            more where a scheme's irregularity costs time.
    """

    layer: str
    choice: Choice
    ms: float
    speed_up: float
    ppr: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"choice": str(self.choice)}


def cost_table(profile: Profile) -> list[LayerCost]:
    """Rows for every layer and every choice that fits it, in the order of layers, dense first."""
    return [
        _cost(profile, layer.name, choice)
        for layer in profile.network.layers
        for choice in sorted(choices_of(layer, profile.choices), key=lambda choice: choice != DENSE)
    ]


def _cost(profile: Profile, layer: str, choice: Choice) -> LayerCost:
    ms = profile.layer_ms(layer, choice)
    speed_up = profile.layer_ms(layer, DENSE) / max(ms, 1e-9)
    return LayerCost(layer, choice, ms, speed_up, choice.rate / max(speed_up, 1e-9))
