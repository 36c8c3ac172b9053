"""What an agent sees before it decides on a layer: float32 numbers in [0, 1], scaled by constants of no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..pruning.mapping import DENSE, Choice
from ..pruning.network import LayerSpec
from .problem import Problem

Vector = NDArray[np.float32]

KINDS = ("conv", "depthwise", "linear")
LARGEST_CHANNELS = 4096
LARGEST_KERNEL = 11
LARGEST_MAP = 512
LARGEST_LATENCY = 2.0
"""Multiple of the dense network's latency: a sparse layer can be slower than a dense one."""


@dataclass(frozen=True)
class Moment:
    """Where an episode stands.

    Attributes:
        step: Layers decided so far, counting only those that an agent decides on.
        previous: The choice made last; dense before the first.
        latency_fraction: Latency of the choices made so far, all other layers dense / that of the dense network.
    """

    step: int
    previous: Choice = DENSE
    latency_fraction: float = 1.0


class Observation(Protocol):
    """Turns the state of an episode into a vector; made from a problem and the layers that are decided on."""

    size: int

    def __call__(self, moment: Moment) -> Vector:
        """A new vector (size,) for the layer that comes next; its part on the layer is zero when none does."""
        ...


class PaperObservation:
    """The state of Gong et al., section 5.1: {layer type, kernel size, input channels, output channels}."""

    def __init__(self, problem: Problem, layers: Sequence[LayerSpec]) -> None:
        self._rows = [paper_state(layer) for layer in layers]
        self.size = 4

    def __call__(self, moment: Moment) -> Vector:
        """See ``Observation``."""
        return _vector(self._rows[moment.step] if moment.step < len(self._rows) else [0.0] * self.size)


class FullObservation:
    """Position; the layer's kind, channels, kernel, map and shares; the previous choice; latency so far; budget."""

    def __init__(self, problem: Problem, layers: Sequence[LayerSpec]) -> None:
        self._rows = [_layer_state(problem, layer) for layer in layers]
        self._schemes = problem.choices.schemes
        self._budget = problem.reward.budget_fraction(problem.dense_ms) / LARGEST_LATENCY
        self._width = len(_layer_state(problem, problem.network.layers[0]))
        self.size = 1 + self._width + len(self._schemes) + 3

    def __call__(self, moment: Moment) -> Vector:
        """See ``Observation``."""
        row = self._rows[moment.step] if moment.step < len(self._rows) else [0.0] * self._width
        previous = [float(moment.previous.scheme == scheme) for scheme in self._schemes]
        density = 1.0 / moment.previous.rate
        latency = moment.latency_fraction / LARGEST_LATENCY
        return _vector([moment.step / len(self._rows), *row, *previous, density, latency, self._budget])


OBSERVATIONS: dict[str, Callable[[Problem, Sequence[LayerSpec]], Observation]] = {
    "full": FullObservation,
    "paper": PaperObservation,
}


def paper_state(layer: LayerSpec) -> list[float]:
    """The paper's four numbers of a layer, each in [0, 1]: type, kernel size, input and output channels (log)."""
    kind = KINDS.index(layer.kind) / (len(KINDS) - 1)
    channels = (_log_share(count, LARGEST_CHANNELS) for count in (layer.in_channels, layer.out_channels))
    return [kind, max(layer.kernel) / LARGEST_KERNEL, *channels]


def _layer_state(problem: Problem, layer: LayerSpec) -> list[float]:
    group = problem.network.groups[problem.network.writes[layer.name]]
    return [
        *(float(layer.kind == kind) for kind in KINDS),
        *paper_state(layer)[1:],
        _log_share(max(layer.out_shape[1:]), LARGEST_MAP),
        layer.macs / problem.network.macs,
        problem.profile.layer_ms(layer.name, DENSE) / problem.dense_ms,
        float(len(group.producers) > 1),
    ]


def _log_share(value: int, largest: int) -> float:
    return math.log2(1 + value) / math.log2(1 + largest)


def _vector(values: Sequence[float]) -> Vector:
    return np.clip(np.array(values, np.float32), 0.0, 1.0)
