"""What single rows tell of a layer, on an engine whose times are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from prunemap.latency import Profile
from prunemap.latency._pricing import Graph, Kind, Left, Predictor
from prunemap.latency.models.layer import LayerCosts, Point
from prunemap.latency.rows import Row
from prunemap.pruning import Choice, Network

HALF = Choice("filter", 2.0)
CHAIN = [(0, 2, 2, Kind.layer, 0), (1, 0, 0, Kind.layer, 1)]  # value 2, the input, to layer 0, to layer 1

pytestmark = pytest.mark.usefixtures("quiet_engine")


@pytest.fixture(scope="module")
def known(wide: Network, quiet_engine: None) -> list[Row]:
    """Of conv1, 64 inputs and 128 filters: dense, and at several widths."""
    rows = Profile.build(wide, ["filter"], [2.0, 4.0]).survey.rows
    return [row for row in rows if row.layer == "conv1" and not row.mixed]


def told(wide: Network, known: list[Row], *rows: Row) -> LayerCosts:
    return LayerCosts(wide.layer("conv1"), [*known, *rows], 1, 1e-6)


def half_row(known: list[Row], stored: int, ms: float) -> Row:
    """64 of 128 filters stay, ``stored`` have a place."""
    return replace(
        known[0], choice=HALF, mixed=True, given=64, live_in=64, live_out=64, stored=stored, kept=0.5, ms=ms,
        staging_ms=0.0, staged=False, unstable=False, together=1,
    )  # fmt: skip


def ends(wide: Network, known: list[Row]) -> tuple[float, float]:
    """What 64 filters take, and all."""
    few = next(row for row in known if (row.live_in, row.stored) == (64, 64))
    return few.ms - few.staging_ms, told(wide, known).dense.cost.ms


def price(layer: LayerCosts, stored: float) -> float:
    predictor = Predictor(["a", "b"], [layer.pricing] * 2, Graph([128] * 2, 2, 1, CHAIN, [2, 1], []), [0, 1], [], [])
    left = [Left(0.5, 1.0, stored, 1.0, True), Left(1.0, 1.0, 1.0, 1.0, True)]
    return predictor.layers_ms({"a": HALF}.items(), lambda name, choice: layer.option(choice), left)[0]


@pytest.mark.parametrize("stored", [96, 112, 128])
def test_what_a_row_of_removed_filters_took_is_told_of_places_like_its_own(
    wide: Network, known: list[Row], stored: int
) -> None:
    few, dense = ends(wide, known)
    ms = few + 0.3 * (dense - few)
    layer = told(wide, known, half_row(known, stored, ms))
    assert price(layer, stored / 128) == pytest.approx(ms, rel=0.01)
    assert price(layer, 0.5) == pytest.approx(few, rel=0.01)


def test_removed_filters_that_keep_no_place_tell_what_they_took(wide: Network, known: list[Row]) -> None:
    few, dense = ends(wide, known)
    ms = few + 0.3 * (dense - few)
    (point,) = told(wide, known, half_row(known, 64, ms), half_row(known, 64, ms)).points["filter"]
    assert point == Point(0.5, replace(point.cost, ms=pytest.approx(ms)), 0.0)
    assert math.isfinite(point.cost.error)


def test_a_few_places_do_not_tell_more_than_the_dense_layer_takes(wide: Network, known: list[Row]) -> None:
    few, dense = ends(wide, known)
    (point,) = told(wide, known, half_row(known, 68, few + 0.5 * (dense - few))).points["filter"]
    assert point.cost.ms == pytest.approx(dense)


def test_what_few_places_tell_of_fewer_filters_is_no_more_than_what_is_known_of_more(
    wide: Network, known: list[Row]
) -> None:
    few, dense = ends(wide, known)
    good = half_row(known, 128, few + 0.3 * (dense - few))
    wrong = replace(half_row(known, 40, dense), choice=Choice("filter", 4.0), live_out=32, kept=0.25)
    small, large = told(wide, known, good, wrong).points["filter"]
    assert (small.share, large.share) == (0.25, 0.5)
    assert small.cost.ms == large.cost.ms == pytest.approx(good.ms)
