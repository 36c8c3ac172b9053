"""What is known of one mapping after it was tried."""

from __future__ import annotations

import json
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..pruning.errors import PrunemapError
from ..pruning.mapping import Mapping


@dataclass(frozen=True)
class Evaluation:
    """A mapping with its accuracy, its cost on the machine and what it cost to find out.

    Two evaluations are equal when everything but ``seconds`` is: wall time is the one field that is not a function of
    the problem, the mapping and the replicate.

    Attributes:
        mapping: The mapping, equal choices made one, in the words of the problem's catalogue.
        accuracy: Fraction of validation images classified right after fast retraining; None when the reward refused
            the mapping before training, or when training failed.
        latency_ms: Latency of one inference in ms: predicted by the problem's profile, or measured at the end of a
            live episode.
        latency_fraction: That latency / the dense network's.
        macs, kept_weights, rate, stored_bytes: See ``Size``.
        reward: Value of the problem's reward.
        epochs: Training epochs spent.
        seconds: Wall time spent.
        key: ``Problem.evaluation_key`` of the mapping.
        replicate: Number of the repetition: each trains from another seed.
        failed: Why training failed, or None.
    """

    mapping: Mapping
    accuracy: float | None
    latency_ms: float
    latency_fraction: float
    macs: int
    kept_weights: int
    rate: float
    stored_bytes: int
    reward: float
    epochs: int
    key: str
    replicate: int = 0
    failed: str | None = None
    seconds: float = field(default=0.0, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, built anew at each call; ``mapping`` is layer -> {"scheme", "rate"}."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return values | {"mapping": json.loads(self.mapping.to_json())}

    @classmethod
    def from_dict(cls, data: AbstractMapping[str, Any]) -> Evaluation:
        """Read what ``to_dict`` made; ``seconds`` may be left out.

        Raises:
            PrunemapError: When a field is missing or unknown, or the mapping is not valid.
        """
        wanted = {entry.name for entry in fields(cls)}
        if odd := sorted((wanted ^ set(data)) - {"seconds"}):
            raise PrunemapError(f"evaluation: missing or unknown fields {', '.join(odd)}")
        return cls(**{**data, "mapping": Mapping.from_json(json.dumps(data["mapping"]))})
