"""The piecewise-linear model: a layer's time is linear between 11 measured numbers of non-zero weights.

ALCS, section III-C: T(W) = tau + sum of T_l(||W_l||_0) (equations 2 and 3), and T_l is interpolated between densities
0, 0.1, ..., 1 (equations 4 to 6). The paper has one scheme; here every scheme has its own 11 points, since a weight
costs more where zeros are irregular. Weights that meet no live channel do not count: they are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...pruning.mapping import DENSE, Choice
from ...pruning.network import LayerSpec, Network
from .._pricing import WeightLayer
from ..probes import Probe, catalogue, probes
from ..rows import Row, standard_error
from .base import MODELS
from .curves import Cost, DensityCurve
from .layer import LayerCosts, Point, by, steadiest
from .table import TableModel

RATES = (*(10.0 / tenths for tenths in range(1, 10)), 40.0)
"""Densities 0.1 to 0.9, and 0.025 for density 0: a layer of which nothing is kept is not computed; 1 is dense."""


class _Layer(LayerCosts):
    """One layer's time over its non-zero weights alone (equation 4)."""

    def __init__(self, layer: LayerSpec, rows: list[Row], features: int, least: float) -> None:
        super().__init__(layer, rows, features, least)
        narrow = by(lambda row: row.kept, (row for row in rows if not row.mixed))
        points = [self._point(row) for own in narrow.values() for row in steadiest(own)]
        self.pricing = WeightLayer(self._whole, DensityCurve([(p.share, p.cost) for p in points], self._dense, least))

    def _points(self, rows: Sequence[Row]) -> list[Point]:
        steady = [row for same in by(lambda row: row.choice, rows).values() for row in steadiest(same)]
        return sorted((self._point(row) for row in steady), key=lambda point: point.share)

    def _point(self, row: Row) -> Point:
        return Point(row.kept, Cost(row.ms - row.staging_ms, standard_error(row), float(row.staged)), 1.0)


@MODELS.register("piecewise-linear")
class PiecewiseLinearModel(TableModel):
    """Sums layers that are interpolated between 11 densities; band and constant part as in ``TableModel``."""

    layer_costs = _Layer

    @classmethod
    def probes(cls, network: Network, choices: Sequence[Choice], seed: int) -> list[Probe]:
        """Every scheme of the catalogue at the 11 densities, in mixed company, once for layers that cost alike."""
        return probes(network, catalogue(sorted({c.scheme for c in choices if c != DENSE}), RATES), seed)

    @classmethod
    def refine(cls, network: Network, choices: Sequence[Choice], rows: Sequence[Row]) -> list[Probe]:
        """Nothing: the points are given."""
        return []
