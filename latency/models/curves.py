"""Interpolation between measured points: over the share of weights kept, and over live channels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """Time of a layer.

    Attributes:
        ms: Milliseconds.
        error: Their standard error.
        staging_ms: The part of ``ms`` that goes into rearranging the input.
    """

    ms: float
    error: float
    staging_ms: float = 0.0


def isotonic(values: Array) -> Array:
    """The closest non-decreasing values, in the sense of least squares."""
    return np.asarray(isotonic_regression(values).x, dtype=np.float64)


class DensityCurve:
    """What a layer costs over the share of its weights that are left under one scheme (ALCS, equations 2 to 6).

    Piecewise linear and non-decreasing through the measured shares, up to the dense layer at share 1.

    Args:
        points: (share, cost); costs at one share are averaged.
        dense: Cost of the dense layer.
    """

    def __init__(self, points: Iterable[tuple[float, Cost]], dense: Cost) -> None:
        at: dict[float, list[Cost]] = {}
        for share, cost in points:
            at.setdefault(round(share, 3), []).append(cost)
        shares = sorted(share for share in at if 0.0 < share < 1.0)
        costs = [mean(at[share]) for share in shares]
        ms = isotonic(np.array([cost.ms for cost in costs])) if shares else np.empty(0)
        # A scheme that is not faster than dense is as slow as measured, and does not become faster towards dense.
        self._ms = np.append(ms, max([dense.ms, *ms[-1:]]))
        self._shares = np.array([*shares, 1.0])
        self._error = np.array([cost.error for cost in (*costs, dense)])
        self._staging = np.array([cost.staging_ms for cost in (*costs, dense)])

    def at(self, share: float) -> Cost:
        """Cost where ``share`` of the weights is left.

        Below the smallest measured share it lies halfway between the straight continuation of the curve and what is
        proportional to the weights left; half of what that takes off is added to the error.
        """
        known = (self._ms, self._error, self._staging)
        ms, error, staging = (float(np.interp(share, self._shares, values)) for values in known)
        least = float(self._shares[0])
        if share >= least:
            return Cost(ms, error, staging)
        slope = (float(np.interp(2 * least, self._shares, self._ms)) - ms) / least
        straight = max(0.0, ms - slope * (least - share))
        proportional = staging + (ms - staging) * share / least
        beyond = (straight + proportional) / 2
        return Cost(beyond, math.hypot(error, (ms - beyond) / 2), staging)


def misses(points: list[tuple[float, Cost]], dense: Cost) -> Array:
    """How far each point lies from the curve through the others, in ms: shape (points, 2), the miss and the cost.

    Points below all others' shares are left out: a curve is not asked to tell them.
    """
    found = []
    for index, (share, cost) in enumerate(points):
        others = points[:index] + points[index + 1 :]
        if others and share >= min(other for other, _ in others):
            found.append((DensityCurve(others, dense).at(share).ms - cost.ms, cost.ms))
    return np.array(found).reshape(-1, 2)


def mean(costs: list[Cost]) -> Cost:
    """The average of independent measurements of the same cost."""
    return Cost(
        ms=sum(cost.ms for cost in costs) / len(costs),
        error=math.hypot(*(cost.error for cost in costs)) / len(costs),
        staging_ms=sum(cost.staging_ms for cost in costs) / len(costs),
    )


class WidthSurface:
    """Milliseconds of a layer, without zeros, over its live input and output channels (CompactNet, section 3.1).

    Bilinear on the grid of measured widths. A grid point that could not be measured, because both sides of the layer
    belong to groups that shrink together, is read off the layer's other points by the share of work left.
    """

    def __init__(self, points: AbstractMapping[tuple[int, int], float], full: tuple[int, int]) -> None:
        self._full = full
        self._inputs = np.array(sorted({live_in for live_in, _ in points}), dtype=np.float64)
        self._outputs = np.array(sorted({live_out for _, live_out in points}), dtype=np.float64)
        by_work = sorted((self._work(*widths), ms) for widths, ms in points.items())
        work, ms = (np.array(column) for column in zip(*by_work, strict=True))
        smooth = isotonic(ms)
        self._grid = np.array(
            [
                [points.get((int(i), int(o)), float(np.interp(self._work(i, o), work, smooth))) for o in self._outputs]
                for i in self._inputs
            ]
        )

    def at(self, live_in: float, live_out: float) -> float:
        """Milliseconds; below the smallest measured widths, what it is there."""
        column = [np.interp(live_out, self._outputs, row) for row in self._grid]
        return float(np.interp(live_in, self._inputs, column))

    def share(self, live_in: float, live_out: float) -> float:
        """Cost at these widths over the cost at full width."""
        return self.at(live_in, live_out) / max(self.at(*self._full), 1e-9)

    def _work(self, live_in: float, live_out: float) -> float:
        return live_in * live_out / (self._full[0] * self._full[1])
