"""What is known of one layer: its cost under every choice at full width, and how that shrinks with live channels."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from ...pruning import parse_scheme
from ...pruning.errors import PrunemapError
from ...pruning.mapping import DENSE, Choice
from ...pruning.network import LayerSpec
from ...pruning.schemes import Scheme
from .._pricing import ChannelLayer, Effect, Layer, Option
from ..measure import STABLE
from ..rows import Row, kept_share, standard_error
from .curves import Cost, DensityCurve, Priced, WidthSurface, mean, misses

_FULL = 0.75
_WHOLE = 0.97
"""Share of the weights that a choice keeps by itself: where so many are left, neighbours take next to none."""
_NEVER = 1e-9
K = TypeVar("K")


class LayerCosts:
    """Everything measured of one layer.

    Of the computed outputs each costs something, and so does each weight that meets live channels on both sides: these
    are the stored ones, rounded up to what a kernel computes together. So under one scheme a layer's cost per computed
    output is a curve over the weights left per computed output, whoever removed the others; of a layer that removes
    filters while others keep their places, over the filters that stay. Without zeros it is a surface over weights per
    stored output and stored outputs. Rearranging the input is kept apart: layers that read one value with equal strides
    share it, and the first one pays (``paid``: rows in which this one did).

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
        mixed = [row for row in rows if row.mixed and row.kept]
        whole = [row for row in mixed if row.choice == DENSE and (row.live_in, row.live_out) == full]
        self._dense = steady_mean([*narrow[full], *whole])
        self._whole: Priced = (self._dense.ms, self._dense.error, self._dense.staged)
        chosen = by(lambda row: row.choice.scheme, (row for row in mixed if row.choice != DENSE))
        sparse = {scheme: list(filter(self._tells, own)) or own for scheme, own in chosen.items()}
        self._together = {scheme: computed_together(own, _rate) for scheme, own in sparse.items()}
        points = {
            scheme: [self._point(row) for row in _fullest(_steadiest_of_each(lambda row: row.choice, own))]
            for scheme, own in sparse.items()
        }
        self._curves = {scheme: DensityCurve(own, self._dense, least, bends=True) for scheme, own in points.items()}
        self.misses = np.concatenate([np.empty((0, 2)), *(misses(own, self._dense, least) for own in points.values())])
        self.paid = [row for row in rows if row.planes]
        self.pricing: Layer = ChannelLayer(self._whole, least, layer.follows, surface, staged)

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
        together = self._computed_together(choice) / self._layer.out_channels
        return self.pricing.option(choice.scheme, choice.rate, effect, density, together, whole, curve, unmeasured)

    def _tells(self, row: Row) -> bool:
        """Whether a row tells what its scheme costs.

        Where neighbours take inputs and what is left is computed as if it were dense, it tells what that costs. Outputs
        that nobody reads take their weights along, and no more: points are per computed output.
        """
        stored = 1.0 if _removes_filters(row) else max(row.stored, 1) / self._layer.out_channels
        return not row.as_dense or row.kept >= _WHOLE * stored * kept_share(self._layer, row.choice)

    def _left_out(self, scheme: Scheme, density: float) -> Effect:
        """The input channels of which no unit is kept, by chance."""
        filters, inputs, *kernel = self._layer.weight_shape
        rows, _ = scheme.block(filters // self._layer.groups, inputs)
        units = -(-filters // self._layer.groups // min(rows, filters)) * scheme.contenders_per_block(math.prod(kernel))
        kept = min(1.0, density * scheme.smallest_rate)
        unread = (1.0 - kept) ** (units * self._features)
        return Effect(unread=unread if unread > _NEVER else 0.0, rows=min(rows, filters))

    def _unmeasured(self, choice: Choice) -> str:
        known = ", ".join(sorted(self._curves))
        return (
            f"layer {self._layer.name!r}: scheme {choice.scheme} is not in this profile (it has {known}); "
            "build a profile with that scheme"
        )

    def _point(self, row: Row) -> tuple[float, Cost]:
        """Weights per computed output, and what the layer would cost if all outputs were computed."""
        kept, computed = row.kept, 1.0
        if _removes_filters(row):
            kept *= self._in_steps(row.live_out, row.together) / max(row.live_out, 1)
        else:
            computed = self._in_steps(max(row.stored, 1), row.together) / self._layer.out_channels
        ms = self._least + max(0.0, row.ms - row.staging_ms - self._least) / computed
        return min(1.0, kept / computed), Cost(ms, standard_error(row) / computed, float(row.staged))

    def _in_steps(self, filters: int, together: int) -> int:
        """Filters that take as long as so many: rounded up to what is computed together."""
        return min(-(-filters // together) * together, self._layer.out_channels)

    def _computed_together(self, choice: Choice) -> int:
        """Filters that are computed together at the nearest measured rate; 0 where none was measured."""
        known = self._together.get(choice.scheme, {})
        return known[min(known, key=lambda rate: abs(math.log(rate / choice.rate)))] if known else 0


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
    rows = _steadiest_of_each(amount, paid)
    points = [(amount(row) / most, Cost(row.staging_ms, standard_error(row))) for row in rows]
    return DensityCurve(points, mean([cost for share, cost in points if share == 1.0]))


def computed_together(rows: Iterable[Row], key: Callable[[Row], K]) -> dict[K, int]:
    """Key of rows, such as stored outputs -> how many filters most of these rows compute together."""
    same = by(key, rows)
    return {own: Counter(row.together for row in some).most_common(1)[0][0] for own, some in same.items()}


def stored_outputs(row: Row) -> int:
    """Outputs that have a place in memory."""
    return row.stored


def _rate(row: Row) -> float:
    return row.choice.rate


def steadiest(rows: list[Row]) -> list[Row]:
    """Without the unstable rows, where any other is left."""
    return [row for row in rows if not row.unstable] or rows


def _steadiest_of_each(key: Callable[[Row], object], rows: list[Row]) -> list[Row]:
    """The steadiest of those with equal keys: what was never steady is still better known than guessed from others."""
    return [row for same in by(key, rows).values() for row in steadiest(same)]


def _fullest(rows: list[Row]) -> list[Row]:
    """Those with at least three quarters of the most stored outputs: what would be with more is told from little.

    All where filters are removed, since it does not matter then.
    """
    most = max(row.stored for row in rows)
    return [row for row in rows if _removes_filters(row) or row.stored >= _FULL * most]


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
