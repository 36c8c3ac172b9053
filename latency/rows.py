"""The rows of a profile: what one layer cost in one compiled variant of a network, and what was left of it there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..pruning import Live, kept_weights, parse_scheme
from ..pruning.mapping import Choice
from ..pruning.network import LayerSpec
from .batches import Samples, median_and_mad


@dataclass(frozen=True)
class Row:
    """What one layer cost in one probe.

    Attributes:
        probe: Number of the probe; 0 is the dense network.
        mixed: Whether layers had choices of their own in it; otherwise whole channel groups were narrowed, or nothing.
        layer: Qualified name.
        choice: The layer's choice, canonical.
        given: Input channels that the layers before left: not always zero, read or not.
        live_in: Input channels that were live: given, and read.
        live_out: Filters that were live: not removed, and read by the layers after.
        stored: Outputs that had a place in memory; more than are live where other summands of an addition need them.
        kept: Share of the layer's weights that are not zero and meet live channels.
        ms: Median over rounds of the time that the layer's steps took inside whole-network runs.
        staging_ms: The part of ``ms`` that went into rearranging its input; none where another layer had done so.
        staged: Whether it read what a step before it had rearranged.
        planes: Planes that this step made: channels times phases; 0 where there was none or another layer's.
        together: Filters that are computed together; fewer take about as long.
        mad_ms: Median absolute deviation over rounds.
        samples_ms: One value per round that counts: on a quiet machine, where there are some.
        unstable: Whether the deviation stayed above 1 % of ``ms`` and above 0.1 % of the dense network.
    """

    probe: int
    mixed: bool
    layer: str
    choice: Choice
    given: int
    live_in: int
    live_out: int
    stored: int
    kept: float
    ms: float
    staging_ms: float
    staged: bool
    planes: int
    together: int
    mad_ms: float
    samples_ms: tuple[float, ...]
    unstable: bool


class Step(Protocol):
    """What is asked of a compiled network's step."""

    @property
    def layer(self) -> str | None:
        """The layer it belongs to."""
        ...


@dataclass(frozen=True)
class Timing:
    """Median and median absolute deviation of some rounds, and the rounds."""

    ms: float
    mad_ms: float
    samples_ms: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Samples) -> Timing:
        """Summarise rounds given in ms."""
        median, mad = median_and_mad(rounds)
        return cls(float(median), float(mad), tuple(rounds.tolist()))

    @classmethod
    def total(cls, timings: Iterable[Timing]) -> Timing:
        """What independent timings come to together."""
        timings = list(timings)
        ms, mad_ms = sum(one.ms for one in timings), math.hypot(*(one.mad_ms for one in timings))
        return cls(ms, mad_ms, (ms,))


def standard_error(timing: Timing | Row) -> float:
    """Standard error of the median, in ms, if the samples are normal."""
    return 1.4826 * timing.mad_ms * math.sqrt(math.pi / 2 / max(len(timing.samples_ms), 1))


ELSEWHERE = ""
"""The part of a run that belongs to no layer."""


def step_owners(steps: Sequence[Step]) -> NDArray[np.str_]:
    """The layer that each step of a compiled network belongs to, or ``ELSEWHERE``."""
    return np.array([step.layer or ELSEWHERE for step in steps])


@dataclass(frozen=True)
class Survey:
    """All that is measured of a network.

    Attributes:
        rows: One per layer and probe.
        dense: Whole runs of the dense network.
        constant: What of them belongs to no layer.
    """

    rows: tuple[Row, ...]
    dense: Timing
    constant: Timing


@dataclass(frozen=True)
class Remainder:
    """What is left of a layer's weights; see ``Row``."""

    given: int
    live_in: int
    live_out: int
    kept: float

    @classmethod
    def of(cls, layer: LayerSpec, weight: Tensor, live: Live) -> Remainder:
        """Count what is left of ``weight`` (the layer's, pruned) where channels and filters are live."""
        met = live.outputs.reshape(layer.groups, -1, 1) & live.inputs.reshape(layer.groups, 1, -1)
        computed = (weight.reshape(-1) != 0).cpu().numpy() & np.repeat(met, math.prod(layer.kernel))
        kept = np.count_nonzero(computed) / layer.weights
        return cls(int(live.given.sum()), int(live.inputs.sum()), int(live.outputs.sum()), kept)


def kept_share(layer: LayerSpec, choice: Choice) -> float:
    """Share of a layer's weights that a choice keeps when all channels are live."""
    return kept_weights(parse_scheme(choice.scheme), choice.rate, layer.weight_shape, layer.groups) / layer.weights
