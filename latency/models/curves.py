"""Interpolation between measured points: over the share of weights kept, and over live channels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from .._pricing import Curve, Surface

Array = NDArray[np.float64]
Priced = tuple[float, float, float]
"""Milliseconds without staging the input, their standard error, and how often, from 0 to 1, the input is staged."""

AS_DENSE = 0.97
"""Share of the dense layer's time from which a layer is taken to be computed as if it were dense."""
_CELLS = 256
"""Equal parts into which a curve is cut, so that it can be read without a search."""


@dataclass(frozen=True)
class Cost:
    """Time of a layer.

    Attributes:
        ms: Milliseconds, without rearranging the input.
        error: Their standard error.
        staged: How often, from 0 to 1, its input was rearranged first.
    """

    ms: float
    error: float
    staged: float = 0.0


def isotonic(values: Array) -> Array:
    """The closest non-decreasing values, in the sense of least squares."""
    return np.asarray(isotonic_regression(values).x, dtype=np.float64)


class DensityCurve(Curve):
    """What a layer costs over the share of its weights that are left under one scheme (ALCS, equations 2 to 6).

    Piecewise linear and non-decreasing through the measured shares, up to the dense layer at share 1. Below the
    smallest measured share the curve goes straight on; half of what that takes off is added to the error. ``at(share)``
    reads it.

    Args:
        points: (share, cost); costs at one share are averaged.
        dense: Cost of the dense layer.
        least: What the layer takes at least.
        bends: Whether the layer is computed as if it were dense where that is faster: a line through two points goes
            on until it is as slow as that, and the curve is level up to the first point that is.
    """

    def __init__(
        self, points: Iterable[tuple[float, Cost]], dense: Cost, least: float = 0.0, bends: bool = False
    ) -> None:
        at: dict[float, list[Cost]] = {}
        for share, cost in points:
            at.setdefault(round(share, 3), []).append(cost)
        shares = sorted(share for share in at if 0.0 < share < 1.0)
        costs = [*(mean(at[share]) for share in shares), dense]
        super().__init__(_cut(np.array([*shares, 1.0]), costs, least, bends))


def _cut(shares: Array, costs: list[Cost], least: float, bends: bool) -> Array:
    """Per cell ms at its start, ms over its length, error, and how often the input is staged: shape (cells + 1, 4).

    Args:
        shares: Ascending, up to 1.
        costs: One per share.
        least: As in ``DensityCurve``.
        bends: As there.
    """
    # A scheme that is not faster than dense is as slow as measured, and does not become faster towards dense.
    known = isotonic(np.array([cost.ms for cost in costs[:-1]])) if costs[:-1] else np.empty(0)
    known = np.append(known, max([costs[-1].ms, *known[-1:]]))
    errors, stagings = np.array([cost.error for cost in costs]), np.array([cost.staged for cost in costs])
    if bends and (bend := _bend(shares, known, costs[-1].ms)):
        place, at = bend
        errors = np.insert(errors, place, np.interp(at, shares, errors))
        stagings = np.insert(stagings, place, np.interp(at, shares, stagings))
        shares, known = np.insert(shares, place, at), np.insert(known, place, known[place])
    grid = np.arange(_CELLS + 2) / _CELLS
    ms = np.interp(grid, shares, known)
    error, staged = np.interp(grid, shares, errors), np.interp(grid, shares, stagings)
    first = float(shares[0])
    if first < 1.0:
        beyond = grid < first
        slope = float(np.interp(2 * first, shares, known) - known[0]) / first
        straight = np.maximum(min(least, known[0]), known[0] - slope * (first - grid[beyond]))
        error[beyond] = np.hypot(error[beyond], (known[0] - straight) / 2)
        ms[beyond] = straight
    return np.stack([ms[:-1], np.diff(ms), error[:-1], staged[:-1]], axis=1)


def _bend(shares: Array, known: Array, dense: float) -> tuple[int, float] | None:
    """Where a layer becomes as slow as if it were dense, and is computed so: before which point, and at what share.

    Until there the line through the two measured points before goes on.
    """
    place = int(np.argmax(known >= AS_DENSE * dense))
    if place < 2:
        return None
    rise, run = known[place - 1] - known[place - 2], shares[place - 1] - shares[place - 2]
    if rise <= 0.0:
        return None
    at = float(shares[place - 1] + (known[place] - known[place - 1]) * run / rise)
    return (place, at) if at < shares[place] else None


def mean(costs: list[Cost]) -> Cost:
    """The average of independent measurements of the same cost."""
    return Cost(
        ms=sum(cost.ms for cost in costs) / len(costs),
        error=math.hypot(*(cost.error for cost in costs)) / len(costs),
        staged=sum(cost.staged for cost in costs) / len(costs),
    )


class WidthSurface(Surface):
    """Milliseconds of a layer, without zeros, over its live input and output channels (CompactNet, section 3.1).

    Bilinear on the grid of measured widths. A grid point that could not be measured, because both sides of the layer
    belong to groups that shrink together, is read off the layer's other points by the share of work left. Where filters
    are computed together, time over them is a staircase: between two steps it does not grow.
    ``at(inputs, outputs)`` reads it at shares of channels.

    Args:
        points: (live inputs, live outputs) -> milliseconds.
        full: All inputs and outputs.
        least: What the layer takes at least: below the smallest measured widths lines go on, not below this.
        together: Measured outputs -> how many of them are computed together: fewer take about as long. One by one where
            nothing is said.
    """

    def __init__(
        self,
        points: AbstractMapping[tuple[int, int], float],
        full: tuple[int, int],
        least: float = 0.0,
        together: AbstractMapping[int, int] = MappingProxyType({}),
    ) -> None:
        points, steps = _at_steps(points, together)
        inputs, outputs = (sorted({widths[side] for widths in points}) for side in (0, 1))
        by_work = sorted((i * o / (full[0] * full[1]), ms) for (i, o), ms in points.items())
        work, ms = (np.array(column) for column in zip(*by_work, strict=True))
        smooth = isotonic(ms)

        def known(i: int, o: int) -> float:
            return points.get((i, o), float(np.interp(i * o / (full[0] * full[1]), work, smooth)))

        heights, widths = [width / full[0] for width in inputs], [width / full[1] for width in outputs]
        rows = [_from_nothing(widths, [known(i, o) for o in outputs], least) for i in inputs]
        columns = [_from_nothing(heights, list(column), least) for column in zip(*rows, strict=True)]
        grid, widths = np.array(columns).T, _with_nothing(widths)
        if max(steps.values()) > 1 and len(widths) > 1:
            grid, widths = _staircase(grid, widths, full[1], steps, least)
        super().__init__(_with_nothing(heights), widths, grid)


def _at_steps(
    points: AbstractMapping[tuple[int, int], float], together: AbstractMapping[int, int]
) -> tuple[AbstractMapping[tuple[int, int], float], dict[int, int]]:
    """The points with outputs rounded up to what is computed, and those outputs with how many are computed together.

    Where several points come to one, their average.
    """
    at: dict[tuple[int, int], list[float]] = {}
    steps: dict[int, int] = {}
    for (i, o), ms in points.items():
        step = together.get(o, 1)
        computed = -(-o // step) * step
        at.setdefault((i, computed), []).append(ms)
        steps[computed] = max(step, steps.get(computed, 1))
    return {live: sum(same) / len(same) for live, same in at.items()}, steps


def _staircase(
    grid: Array, widths: list[float], full: int, steps: AbstractMapping[int, int], least: float
) -> tuple[Array, list[float]]:
    """The grid at every number of outputs.

    Up to a measured one they are computed together as they are there, or as at the one before where that has as many as
    are computed together, or all as those before, each at the same cost above the least: of several ways the fastest
    one is chosen.
    """
    measured, outputs = np.array(sorted(steps)), np.arange(full + 1)
    at = np.array([steps[o] for o in measured.tolist()])
    fewer = np.where(measured[:-1] >= at[1:], np.minimum(at[:-1], at[1:]), at[1:])
    places = np.searchsorted(measured, outputs)
    last = np.array([0, *measured])[places]  # measured before; 0 where nothing is
    as_next, as_last = (
        np.minimum(-(-outputs // step) * step, measured[places])
        for step in (np.concatenate([at[:1], fewer])[places], at[np.maximum(places - 1, 0)])
    )
    goes_on = (last > 0) & (as_last < measured[places])
    found = []
    for row in grid:
        ms, before = np.interp(as_next / full, widths, row), np.interp(last / full, widths, row)
        further = least + (before - least) * as_last / np.maximum(last, 1)
        found.append(np.where(goes_on, np.minimum(ms, further), ms))
    return np.stack(found), (outputs / full).tolist()


def _with_nothing(knots: list[float]) -> list[float]:
    """The knots and 0 before them; just the knot where there is one."""
    return [0.0, *knots] if len(knots) > 1 else knots


def _from_nothing(knots: list[float], values: list[float], least: float) -> list[float]:
    """The values with what a line through the first two says at 0 before them; just the values where there is one."""
    if len(knots) == 1:
        return values
    slope = (values[1] - values[0]) / (knots[1] - knots[0])
    return [max(min(least, values[0]), values[0] - max(slope, 0.0) * knots[0]), *values]
