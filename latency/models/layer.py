"""What is known of one layer: its cost under every choice at full width, and how that shrinks with live channels."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ...pruning import parse_scheme
from ...pruning.errors import PrunemapError
from ...pruning.mapping import DENSE, Choice
from ...pruning.network import LayerSpec
from ...pruning.schemes import Scheme
from .._pricing import ChannelLayer, Effect, Layer, Option, computed_share
from ..measure import STABLE
from ..rows import Row, kept_share, standard_error
from .curves import Cost, DensityCurve, Priced, WidthSurface, mean

ENOUGH = 0.5
"""Share of a layer that was there, from which what it took tells what the whole layer takes."""
_LEAST_EXTENT = 1e-3
"""Extent up to which nothing is told of the rest of a layer."""
_NEVER = 1e-9
K = TypeVar("K")


@dataclass(frozen=True)
class Point:
    """What one choice of a layer costs, or one row of it.

    Attributes:
        share: Weights that are kept, of those of the inputs and outputs that were there; of what removes filters, those
            that are computed.
        cost: What the layer would cost if all its inputs and outputs were there; of what removes filters, if all of
            these kept their places.
        extent: Which share of the layer was there; of what removes filters, of the places of these.
    """

    share: float
    cost: Cost
    extent: float

    @classmethod
    def joined(cls, points: Sequence[Point]) -> Point:
        """The average; what was told from a small part of the layer counts little."""
        weights = np.array([max(point.extent, _LEAST_EXTENT) ** 2 for point in points])
        weights /= weights.sum()

        def average(values: Iterable[float]) -> float:
            return float(weights @ np.array(list(values)))

        error = float(np.linalg.norm(weights * np.array([point.cost.error for point in points])))
        cost = Cost(average(p.cost.ms for p in points), error, average(p.cost.staged for p in points))
        return cls(average(point.share for point in points), cost, max(point.extent for point in points))


class LayerCosts:
    """Everything measured of one layer.

    Of the computed outputs each costs something, and so does each of their inputs that neighbours leave. Computed are
    the stored outputs, rounded up to what a kernel computes together. What inputs cost is, under one scheme, a curve
    over the share of their weights that the choice keeps, whoever removed the others; no straight line, since lists
    that filters share soon hold every position. Of a layer that removes filters while others keep their places the
    cost is a curve over the filters that stay; it lies below, down to what so few filters cost, where fewer places are
    kept. Without zeros it is a surface over weights per stored output and stored outputs. Rearranging the input is kept
    apart: layers that read one value with equal strides share it, and the first one pays.

    Attributes:
        dense: The layer as it is.
        points: Scheme -> its measured choices, by the share of weights that they keep.
        paid: Rows in which this layer rearranged its input.
        pricing: What prices it.

    Args:
        layer: The layer.
        rows: Its rows.
        features: Inputs that come from one channel: more than one after flattening.
        least: What a step takes that computes next to nothing, in ms.
    """

    def __init__(self, layer: LayerSpec, rows: list[Row], features: int, least: float) -> None:
        self._layer = layer
        self._features = features
        self._least = least
        full = (layer.in_channels, layer.out_channels)
        narrow = by(lambda row: (row.live_in, row.stored), (row for row in rows if not row.mixed))
        means = {live: steady_mean(same) for live, same in narrow.items()}
        together = computed_together((row for row in rows if not row.mixed), stored_outputs)
        surface = WidthSurface({live: cost.ms for live, cost in means.items()}, full, least, together)
        staging = any(row.staged for row in rows)
        staged = WidthSurface({live: cost.staged for live, cost in means.items()}, full) if staging else None
        self._surface = surface
        self._empty = surface.at(0.0, 1.0)
        mixed = [row for row in rows if row.mixed and row.kept]
        whole = [row for row in mixed if row.choice == DENSE and (row.live_in, row.live_out) == full]
        self._dense = steady_mean([*narrow[full], *whole])
        self.dense = Point(1.0, self._dense, 1.0)
        self._whole: Priced = (self._dense.ms, self._dense.error, self._dense.staged)
        chosen = by(lambda row: row.choice.scheme, (row for row in mixed if row.choice != DENSE))
        self._together = {scheme: computed_together(own, _rate) for scheme, own in chosen.items()}
        self.points = {scheme: self._points(own) for scheme, own in chosen.items()}
        self._curves = {scheme: self._curve(points) for scheme, points in self.points.items()}
        self.misses = np.array([miss for own in chosen.values() for miss in self._misses(own)]).reshape(-1, 2)
        self.paid = [row for row in rows if row.planes]
        self.pricing: Layer = ChannelLayer(self._whole, layer.out_channels, least, layer.follows, surface, staged)

    def option(self, choice: Choice, reads_alone: bool = False) -> Option:
        """A canonical choice, prepared.

        Args:
            choice: The choice.
            reads_alone: Whether channels that the layer does not read are not computed by anyone.

        Raises:
            PrunemapError: When its scheme was not measured.
        """
        if choice == DENSE:
            return self.pricing.dense()
        scheme, curve = parse_scheme(choice.scheme), self._curves.get(choice.scheme)
        density = kept_share(self._layer, choice)
        # Removed filters and channels can mostly be priced without a curve.
        unmeasured = "" if curve else self._unmeasured(choice)
        if scheme.removes == "filters":
            effect = Effect(written=density)
        elif scheme.removes == "channels":
            effect = Effect(unread=1.0 - density)
        elif curve:
            effect = self._left_out(scheme, density)
        else:
            raise PrunemapError(unmeasured)
        whole = reads_alone and scheme.removes == "channels"
        together = self._computed_together(choice)
        return self.pricing.option(choice.scheme, choice.rate, effect, density, together, whole, curve, unmeasured)

    def _left_out(self, scheme: Scheme, density: float) -> Effect:
        """The input channels of which no unit is kept, by chance."""
        filters, _, *kernel = self._layer.weight_shape
        rows = self._block_rows(scheme)
        units = -(-filters // self._layer.groups // rows) * scheme.contenders_per_block(math.prod(kernel))
        kept = min(1.0, density * scheme.smallest_rate)
        unread = (1.0 - kept) ** (units * self._features)
        return Effect(unread=unread if unread > _NEVER else 0.0, rows=rows)

    def _block_rows(self, scheme: Scheme) -> int:
        """Filters of a block of the scheme."""
        filters, inputs, *_ = self._layer.weight_shape
        return min(scheme.block(filters // self._layer.groups, inputs)[0], filters)

    def _unmeasured(self, choice: Choice) -> str:
        known = ", ".join(sorted(self._curves))
        return (
            f"layer {self._layer.name!r}: scheme {choice.scheme} is not in this profile (it has {known}); "
            "build a profile with that scheme"
        )

    def _curve(self, points: Iterable[Point]) -> DensityCurve:
        told = [(point.share, point.cost) for point in points]
        return DensityCurve(told, self._dense, self._least, bends=True)

    def _points(self, rows: Sequence[Row]) -> list[Point]:
        """One for each choice under a scheme, by the share of weights that it keeps.

        Of what removes filters, one for each share that is left: neighbours take some too.
        """
        same = by(lambda row: (row.choice, self._point(row).share if _removes_filters(row) else None), rows).values()
        found = [Point.joined([self._point(row) for row in steadiest(some)]) for some in same]
        return sorted(_well_told(found), key=lambda point: point.share)

    def _point(self, row: Row) -> Point:
        """What one row tells.

        Of a part of a layer no more than what the dense one costs: all of it would be computed as that is.
        """
        if _removes_filters(row):
            return self._removed_point(row)
        layer, above = self._layer, max(0.0, row.ms - row.staging_ms - self._least)
        stored, inputs = max(row.stored, 1) / layer.out_channels, self._inputs(row)
        computed = computed_share(
            stored, layer.out_channels, row.together, self._block_rows(parse_scheme(row.choice.scheme))
        )
        ms, extent = self._least + above / computed, inputs * stored
        if extent < 1.0:
            empty = min(self._empty, ms)
            ms = min(empty + (ms - empty) / inputs, self._dense.ms)
        error = standard_error(row) / (inputs * computed)
        return Point(min(1.0, row.kept / extent), Cost(ms, error, float(row.staged)), extent)

    def _removed_point(self, row: Row) -> Point:
        """What a row tells in which the layer removes filters: what it would take if all of these kept their places.

        Of places there are as many as neighbours keep. Without any, the layer would be one of fewer filters.
        """
        layer = self._layer
        ms, own = max(self._least, row.ms - row.staging_ms), max(row.live_out, 1) / layer.out_channels
        extent = (max(row.stored, 1) / layer.out_channels - own) / (1.0 - own) if own < 1.0 else 1.0
        few = min(ms, self._dense.ms * self._surface.at(self._inputs(row), own) / self._surface.at(1.0, 1.0))
        # Where none keeps its place that is all there is to tell; of few, not more than the dense layer takes.
        told = min(few + (ms - few) / extent, max(ms, self._dense.ms)) if extent > _LEAST_EXTENT else ms
        share = row.kept / own * computed_share(own, layer.out_channels, row.together, 0)
        cost = Cost(told, standard_error(row) / max(extent, ENOUGH), float(row.staged))
        return Point(min(1.0, share), cost, max(0.0, extent))

    def _inputs(self, row: Row) -> float:
        """The share of its inputs that neighbours leave a layer."""
        return max(row.given, 1) / self._layer.in_channels if self._layer.groups == 1 else 1.0

    def _misses(self, rows: Sequence[Row]) -> Iterator[tuple[float, float]]:
        """How far each row lies from the curve through the others, and what it took, in ms.

        Not rows whose share is below all others': a curve is not asked to tell them.
        """
        for index, row in enumerate(rows):
            others, own = self._points([*rows[:index], *rows[index + 1 :]]), self._point(row)
            if others and own.share >= others[0].share:
                missed = self._curve(others).at(own.share)[0] - own.cost.ms
                yield own.extent * missed, own.extent * own.cost.ms

    def _computed_together(self, choice: Choice) -> int:
        """Filters that are computed together at the nearest measured rate; 0 where none was measured."""
        known = self._together.get(choice.scheme, {})
        return known[min(known, key=lambda rate: abs(math.log(rate / choice.rate)))] if known else 0


def _well_told(points: Sequence[Point]) -> list[Point]:
    """Without what a small part of the layer told, but below the shares that larger parts tell: no more than these."""
    enough = [point for point in points if point.extent >= ENOUGH]
    if not enough:
        return list(points)
    lowest = min(enough, key=lambda point: point.share)
    below = [point for point in points if point.extent < ENOUGH and point.share < lowest.share]
    return [
        *(replace(p, cost=replace(p.cost, ms=min(p.cost.ms, lowest.cost.ms))) for p in below),
        *enough,
    ]


def _removes_filters(row: Row) -> bool:
    return parse_scheme(row.choice.scheme).removes == "filters"


def staging_curve(paid: list[Row], amount: Callable[[Row], float]) -> DensityCurve:
    """What rearranging an input costs over an amount, as a share of the largest.

    Args:
        paid: Rows of probes in which it was done.
        amount: Of planes that are rearranged, or of what else is touched between two runs. Time is not in proportion
            to either: little is still in the cache that much has been driven out of.
    """
    most = max(map(amount, paid))
    # What was never steady is still better known than guessed from others.
    rows = [row for same in by(amount, paid).values() for row in steadiest(same)]
    points = [(amount(row) / most, Cost(row.staging_ms, standard_error(row))) for row in rows]
    return DensityCurve(points, mean([cost for share, cost in points if share == 1.0]))


def computed_together(rows: Iterable[Row], key: Callable[[Row], K]) -> dict[K, int]:
    """Key of rows, such as stored outputs -> how many filters are computed together in most that these rows compute."""
    found: dict[K, Counter[int]] = defaultdict(Counter)
    for row in rows:
        found[key(row)][row.together] += row.live_out
    return {own: counts.most_common(1)[0][0] for own, counts in found.items()}


def stored_outputs(row: Row) -> int:
    """Outputs that have a place in memory."""
    return row.stored


def _rate(row: Row) -> float:
    return row.choice.rate


def steadiest(rows: list[Row]) -> list[Row]:
    """Without the unstable rows, where any other is left."""
    return [row for row in rows if not row.unstable] or rows


def steady_mean(rows: list[Row]) -> Cost:
    """Average over probes that show the same thing: neighbours differ, and none is more typical than another."""
    return mean([Cost(row.ms - row.staging_ms, standard_error(row), float(row.staged)) for row in steadiest(rows)])


def context_spread(layers: Iterable[LayerCosts]) -> float:
    """Relative standard deviation of a layer's cost from what the other measurements of it say.

    Other neighbours, another kernel chosen, the bend of a curve between two points: all that a sum of layers does not
    know. Pooled over all layers, larger times counting more; at least the 1 % to which a time is known at all.
    """
    missed = np.concatenate([np.empty((0, 2)), *(layer.misses for layer in layers)])
    return max(STABLE, math.sqrt(float((missed[:, 0] ** 2).sum()) / max(float((missed[:, 1] ** 2).sum()), 1e-18)))


def by(key: Callable[[Row], K], rows: Iterable[Row]) -> dict[K, list[Row]]:
    """Rows grouped by a key."""
    groups: dict[K, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups
