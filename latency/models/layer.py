"""What is known of one layer: its cost under every choice at full width, and how that shrinks with live channels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from ...pruning import parse_scheme
from ...pruning.errors import PrunemapError
from ...pruning.mapping import DENSE, Choice
from ...pruning.network import LayerSpec
from ..measure import STABLE
from ..rows import Row, kept_share, standard_error
from .curves import Cost, DensityCurve, WidthSurface, mean, misses
from .widths import Effect, Widths

K = TypeVar("K")


class LayerCosts:
    """Everything measured of one layer.

    What neighbours do not produce or do not read is not computed, so that under one scheme a layer's cost is taken as
    a curve over the share of its weights that are left, whoever removed the others. Rearranging the input depends on
    the channels that are produced alone.

    Args:
        layer: The layer.
        rows: Its rows.
    """

    def __init__(self, layer: LayerSpec, rows: list[Row]) -> None:
        self._layer = layer
        self._full = (layer.in_channels, layer.out_channels)
        narrow = by(lambda row: (row.live_in, row.live_out), (row for row in rows if not row.mixed))
        self._surface = WidthSurface({live: steady_mean(same).ms for live, same in narrow.items()}, self._full)
        mixed = [row for row in rows if row.mixed and row.kept]
        whole = [row for row in mixed if row.choice == DENSE and (row.live_in, row.live_out) == self._full]
        self._dense = steady_mean([*narrow[self._full], *whole])
        sparse = by(lambda row: row.choice.scheme, (row for row in mixed if row.choice != DENSE))
        points = {
            scheme: [(row.kept, self._all_produced(row)) for row in steadiest(own)] for scheme, own in sparse.items()
        }
        self._curves = {scheme: DensityCurve(own, self._dense) for scheme, own in points.items()}
        self.misses = np.concatenate([np.empty((0, 2)), *(misses(own, self._dense) for own in points.values())])
        self._read = {choice: float(np.mean([row.read for row in same])) for choice, same in by(_choice, mixed).items()}

    def cost(self, choice: Choice, widths: Widths) -> Cost:
        """What a canonical ``choice`` costs where neighbours leave the widths given.

        Raises:
            PrunemapError: When its scheme was not measured.
        """
        if choice == DENSE:
            return self.cost_narrowed(widths)
        inputs, outputs = widths[0] / self._full[0], widths[1] / self._full[1]
        work = inputs if self._layer.follows else inputs * outputs
        cost = self._curve(choice).at(kept_share(self._layer, choice) * work)
        ms = cost.ms - cost.staging_ms * (1.0 - inputs)
        return Cost(ms, cost.error)

    def cost_narrowed(self, widths: Widths) -> Cost:
        """What the layer costs without zeros at the widths that are left, its own removal included."""
        share = self._surface.share(*widths)
        return Cost(self._dense.ms * share, self._dense.error * share)

    def effect(self, choice: Choice) -> Effect:
        """What a canonical choice does to channels: removed ones are known, those left unread were measured.

        Raises:
            PrunemapError: As ``cost``.
        """
        removes = parse_scheme(choice.scheme).removes
        kept = kept_share(self._layer, choice)
        if removes != "weights":
            return Effect(written=kept, read=1.0) if removes == "filters" else Effect(written=1.0, read=kept)
        if choice != DENSE:
            self._curve(choice)
        points = sorted(
            (kept_share(self._layer, c), read) for c, read in self._read.items() if c.scheme == choice.scheme
        )
        shares, reads = zip(*points, (1.0, 1.0), strict=True)
        return Effect(read=float(np.interp(kept, shares, reads)))

    def _curve(self, choice: Choice) -> DensityCurve:
        if choice.scheme not in self._curves:
            known = ", ".join(sorted(self._curves))
            raise PrunemapError(
                f"layer {self._layer.name!r}: scheme {choice.scheme} is not in this profile (it has {known}); "
                "build a profile with that scheme"
            )
        return self._curves[choice.scheme]

    def _all_produced(self, row: Row) -> Cost:
        """A row's cost if neighbours produced all of the layer's inputs."""
        inputs = min(1.0, row.live_in / (self._layer.in_channels * row.read))
        staging = row.staging_ms / inputs
        return Cost(row.ms - row.staging_ms + staging, standard_error(row), staging)


def steadiest(rows: list[Row]) -> list[Row]:
    """Without the unstable rows, where any other is left."""
    return [row for row in rows if not row.unstable] or rows


def steady_mean(rows: list[Row]) -> Cost:
    """Average over probes that show the same thing: neighbours differ, and none is more typical than another."""
    return mean([Cost(row.ms, standard_error(row), row.staging_ms) for row in steadiest(rows)])


def _choice(row: Row) -> Choice:
    return row.choice


def context_spread(layers: Iterable[LayerCosts]) -> float:
    """Relative standard deviation of a layer's cost from what the other measurements of it say.

    Other neighbours, another kernel chosen, the bend of a curve between two points: all that a sum of layers does not
    know. Pooled over all layers, larger times counting more; at least the 1 % to which a time is known at all.
    """
    missed = np.concatenate([np.empty((0, 2)), *(layer.misses for layer in layers)])
    return max(STABLE, float(np.sqrt((missed[:, 0] ** 2).sum() / max((missed[:, 1] ** 2).sum(), 1e-18))))


def by(key: Callable[[Row], K], rows: Iterable[Row]) -> dict[K, list[Row]]:
    """Rows grouped by a key."""
    groups: dict[K, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups
