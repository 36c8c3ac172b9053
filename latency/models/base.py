"""What a latency model is and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...pruning.mapping import Choice, Mapping
from ...pruning.network import Network
from ...pruning.registry import Registry
from .._pricing import Left
from ..probes import Probe
from ..rows import Row, Survey

COVERAGE = 0.9
"""Share of measured latencies that a prediction's band is meant to hold."""


Weigh = Callable[[Mapping], Sequence[Left]]
"""Tells of a mapping what it leaves of every layer, in the network's order, since it knows the weights."""


@dataclass(frozen=True)
class Prediction:
    """Predicted latency of a whole network.

    Attributes:
        ms: The prediction.
        low: Lower end of the 90 % band.
        high: Upper end of the 90 % band.
    """

    ms: float
    low: float
    high: float


class LatencyModel(Protocol):
    """Prices the mappings of one network from what was measured; never packs, compiles or measures.

    Args:
        network: The network.
        survey: What was measured of it.
        weigh: Asked where it depends much on the weights what is left of layers; None: chances are taken.
    """

    def __init__(self, network: Network, survey: Survey, weigh: Weigh | None = None) -> None: ...

    @classmethod
    def probes(cls, network: Network, choices: Sequence[Choice], seed: int) -> list[Probe]:
        """What has to be measured for a catalogue: the dense network first, the narrowest one next."""
        ...

    @classmethod
    def refine(cls, network: Network, choices: Sequence[Choice], rows: Sequence[Row]) -> list[Probe]:
        """What to measure next, given what was; nothing when that is good enough."""
        ...

    def predict(self, mapping: Mapping) -> Prediction:
        """Latency of the whole network under ``mapping``."""
        ...

    def layers_ms(self, mapping: Mapping) -> tuple[float, ...]:
        """Milliseconds of every layer under ``mapping``, in the network's order; what is left is constant."""
        ...

    def layer_ms(self, layer: str, choice: Choice) -> float:
        """Milliseconds of one layer under one choice while all other layers are dense."""
        ...


MODELS: Registry[type[LatencyModel]] = Registry("latency model", __package__ or __name__.rpartition(".")[0])
