"""What is known of one layer: its cost under every choice at full width, and how that shrinks with live channels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ...pruning import parse_scheme
from ...pruning.errors import PrunemapError
from ...pruning.mapping import DENSE, Choice
from ...pruning.network import LayerSpec
from ...pruning.schemes import Scheme
from ..measure import STABLE
from ..rows import Row, kept_share, standard_error
from .curves import Cost, DensityCurve, Priced, WidthSurface, mean, misses

_FULL = 0.75
_NEVER = 1e-9
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Option:
    """A choice of a layer, prepared for pricing.

    Attributes:
        choice: Canonical.
        written: Share of the layer's filters that stay.
        unread: Share of its input channels that it does not read when all of its filters are needed.
        density: Share of the weights that it keeps.
        rows: Filters of a block that reads channels of its own; 0 where all filters read the same ones.
        whole: Whether what the layer keeps is without zeros, whatever other layers choose.
        curve: Its scheme's; None when dense, or where no layer chooses it by itself.
        alone: What the layer costs where neighbours leave it whole.
    """

    choice: Choice
    written: float
    unread: float
    density: float
    rows: int
    whole: bool
    curve: DensityCurve | None
    alone: Priced


class LayerCosts:
    """Everything measured of one layer.

    Of ``stored`` outputs each costs something, and so does each weight that meets live channels on both sides. So under
    one scheme a layer's cost per stored output is a curve over the weights left per stored output, whoever removed the
    others; without zeros it is a surface over weights per stored output and stored outputs. Rearranging the input is
    kept apart: layers that read one value with equal strides share it, and the first one pays.

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
        self._follows = layer.follows
        full = (layer.in_channels, layer.out_channels)
        narrow = by(lambda row: (row.live_in, row.stored), (row for row in rows if not row.mixed))
        means = {live: steady_mean(same) for live, same in narrow.items()}
        self._surface = WidthSurface({live: cost.ms for live, cost in means.items()}, full, least)
        self._surface_full = max(self._surface.at(1.0, 1.0), 1e-9)
        staging = any(row.staged for row in rows)
        self._staged = WidthSurface({live: cost.staged for live, cost in means.items()}, full) if staging else None
        mixed = [row for row in rows if row.mixed and row.kept]
        whole = [row for row in mixed if row.choice == DENSE and (row.live_in, row.live_out) == full]
        self._dense = steady_mean([*narrow[full], *whole])
        self.whole: Priced = (self._dense.ms, self._dense.error, self._dense.staged)
        sparse = by(lambda row: row.choice.scheme, (row for row in mixed if row.choice != DENSE))
        points = {
            scheme: [self._point(row) for row in _fullest(_steadiest_of_each(lambda row: row.choice, own))]
            for scheme, own in sparse.items()
        }
        self._curves = {scheme: DensityCurve(own, self._dense, least) for scheme, own in points.items()}
        self.misses = np.concatenate([np.empty((0, 2)), *(misses(own, self._dense, least) for own in points.values())])
        self.staging = _staging([row for row in rows if row.planes])

    def option(self, choice: Choice, reads_alone: bool = False) -> Option:
        """A canonical choice, prepared.

        Args:
            choice: The choice.
            reads_alone: Whether channels that the layer does not read are not computed by anyone.

        Raises:
            PrunemapError: When its scheme was not measured.
        """
        if choice == DENSE:
            return Option(choice, 1.0, 0.0, 1.0, 0, True, None, self.whole)
        scheme = parse_scheme(choice.scheme)
        density = kept_share(self._layer, choice)
        written, unread, rows = 1.0, 0.0, 0
        if scheme.removes == "filters":
            written = density
        elif scheme.removes == "channels":
            unread = 1.0 - density
        else:
            unread, rows = self._left_out(scheme, density)
        needs_curve = scheme.removes == "weights" or choice.scheme in self._curves
        curve = self._curve(choice) if needs_curve else None
        whole = scheme.removes == "channels" and reads_alone
        option = Option(choice, written, unread, density, rows, whole, curve, self.whole)
        if whole:
            return replace(option, alone=self.narrowed(density, 1.0))
        return replace(option, alone=self.sparse(option, 1.0, 1.0)) if curve else option

    def _left_out(self, scheme: Scheme, density: float) -> tuple[float, int]:
        """Share of input channels of which no unit is kept, by chance, and filters per unit."""
        filters, inputs, *kernel = self._layer.weight_shape
        rows, _ = scheme.block(filters // self._layer.groups, inputs)
        units = -(-filters // self._layer.groups // min(rows, filters)) * scheme.contenders_per_block(math.prod(kernel))
        kept = min(1.0, density * scheme.smallest_rate)
        unread = (1.0 - kept) ** (units * self._features)
        return (unread if unread > _NEVER else 0.0), min(rows, filters)

    def sparse(self, option: Option, kept: float, stored: float) -> Priced:
        """Cost of an option that saves its own work alone.

        Args:
            option: From ``option``.
            kept: Share of the weights that neighbours leave.
            stored: Share of the outputs that have a place in memory.

        Raises:
            PrunemapError: When its scheme was not measured.
        """
        ms, error, staged = (option.curve or self._curve(option.choice)).at(kept / stored * option.density)
        least = self._least
        return least + stored * (ms - least), error * stored, staged

    def narrowed(self, kept: float, stored: float) -> Priced:
        """What the layer costs without zeros in what is left of it; arguments as ``sparse``."""
        if kept == stored == 1.0:
            return self.whole
        inputs = stored if self._follows else kept / stored
        share = self._surface.at(inputs, stored) / self._surface_full
        ms, error, staged = self.whole
        if self._staged is not None:
            staged = self._staged.at(inputs, stored)
        return ms * share, error * share, staged

    def _curve(self, choice: Choice) -> DensityCurve:
        if choice.scheme not in self._curves:
            known = ", ".join(sorted(self._curves))
            raise PrunemapError(
                f"layer {self._layer.name!r}: scheme {choice.scheme} is not in this profile (it has {known}); "
                "build a profile with that scheme"
            )
        return self._curves[choice.scheme]

    def _point(self, row: Row) -> tuple[float, Cost]:
        """Weights per stored output, and what the layer would cost if all outputs were stored."""
        stored = max(row.stored, 1) / self._layer.out_channels
        ms = self._least + max(0.0, row.ms - row.staging_ms - self._least) / stored
        return min(1.0, row.kept / stored), Cost(ms, standard_error(row) / stored, float(row.staged))


def _staging(paid: list[Row]) -> DensityCurve | None:
    """What rearranging the input costs over the share of its planes that is there; None where no row shows it.

    Not in proportion: few channels are still in the cache that many have been driven out of.
    """
    if not paid:
        return None
    most = max(row.planes for row in paid)
    rows = _steadiest_of_each(lambda row: row.planes, paid)
    points = [(row.planes / most, Cost(row.staging_ms, standard_error(row))) for row in rows]
    return DensityCurve(points, mean([cost for share, cost in points if share == 1.0]))


def steadiest(rows: list[Row]) -> list[Row]:
    """Without the unstable rows, where any other is left."""
    return [row for row in rows if not row.unstable] or rows


def _steadiest_of_each(key: Callable[[Row], object], rows: list[Row]) -> list[Row]:
    """The steadiest of those with equal keys: what was never steady is still better known than guessed from others."""
    return [row for same in by(key, rows).values() for row in steadiest(same)]


def _fullest(rows: list[Row]) -> list[Row]:
    """Those with at least three quarters of the most stored outputs: what would be with more is told from little."""
    most = max(row.stored for row in rows)
    return [row for row in rows if row.stored >= _FULL * most]


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
