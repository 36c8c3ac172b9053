"""Interpolation over density and widths."""

from __future__ import annotations

import numpy as np
import pytest

from prunemap.latency.models.curves import Cost, DensityCurve, WidthSurface, isotonic

CURVE = DensityCurve([(0.25, Cost(1.0, 0.1)), (0.5, Cost(3.0, 0.1))], Cost(4.0, 0.1))


@pytest.mark.parametrize(("share", "ms"), [(0.25, 1.0), (0.375, 2.0), (0.5, 3.0), (0.75, 3.5), (1.0, 4.0)])
def test_a_curve_is_linear_between_measured_points(share: float, ms: float) -> None:
    assert CURVE.at(share)[0] == pytest.approx(ms)
    assert CURVE.at(share)[1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("share", "ms"), [(0.125, 1.0), (0.25, 2.0), (0.375, 3.0), (0.5, 4.0), (0.625, 4.0), (1.0, 4.0)]
)
def test_a_layer_is_as_slow_as_if_dense_at_most(share: float, ms: float) -> None:
    points = [(0.125, Cost(1.0, 0.1)), (0.25, Cost(2.0, 0.1)), (0.75, Cost(3.95, 0.1))]
    assert DensityCurve(points, Cost(4.0, 0.1), bends=True).at(share)[0] == pytest.approx(ms, rel=0.02)


def test_a_scheme_that_is_slower_than_dense_does_not_hide_where_that_begins() -> None:
    points = [(0.125, Cost(1.0, 0.1)), (0.25, Cost(2.0, 0.1)), (0.75, Cost(3.9, 0.1)), (0.9, Cost(4.1, 0.1))]
    assert DensityCurve(points, Cost(4.0, 0.1), bends=True).at(0.5)[0] == pytest.approx(3.9, rel=0.02)


def test_a_curve_that_does_not_reach_dense_sooner_stays_as_it_is() -> None:
    points = [(0.25, Cost(1.0, 0.1)), (0.5, Cost(1.5, 0.1))]
    for share in np.linspace(0.0, 1.0, 50):
        curves = [DensityCurve(points, Cost(4.0, 0.1), bends=bends).at(share) for bends in (False, True)]
        assert curves[0] == curves[1]


def test_costs_at_one_share_are_averaged() -> None:
    curve = DensityCurve([(0.5, Cost(1.0, 0.3, 0.2)), (0.5, Cost(3.0, 0.4, 0.4))], Cost(4.0, 0.1))
    found = curve.at(0.5)
    assert found == pytest.approx((2.0, 0.25, 0.3))


def test_below_the_sparsest_point_a_curve_goes_straight_on_and_its_error_grows() -> None:
    steady = DensityCurve([(0.25, Cost(1.0, 0.1)), (0.5, Cost(1.2, 0.1))], Cost(4.0, 0.1))
    ms, error, _ = steady.at(0.125)
    assert ms == pytest.approx(0.9)
    assert error == pytest.approx(np.hypot(0.1, 0.05))
    assert 0.0 <= CURVE.at(0.0)[0] <= CURVE.at(0.1)[0] <= CURVE.at(0.2)[0] <= CURVE.at(0.25)[0]


def test_a_curve_does_not_fall_below_what_a_layer_takes_at_least() -> None:
    steep = DensityCurve([(0.25, Cost(1.0, 0.1)), (0.5, Cost(3.0, 0.1))], Cost(4.0, 0.1), least=0.4)
    assert steep.at(0.0)[0] == pytest.approx(0.4)


def test_a_curve_never_falls() -> None:
    points = [(0.1, 1.0), (0.2, 1.4), (0.4, 1.2), (0.8, 3.0)]
    noisy = DensityCurve([(share, Cost(ms, 0.0)) for share, ms in points], Cost(2.5, 0.0))
    values = [noisy.at(share)[0] for share in np.linspace(0.01, 1.0, 50)]
    assert np.all(np.diff(values) >= -1e-12)


def test_a_curve_without_points_is_the_dense_cost() -> None:
    assert DensityCurve([], Cost(2.0, 0.1)).at(1.0) == (2.0, 0.1, 0.0)


def test_isotonic_averages_what_is_out_of_order() -> None:
    assert isotonic(np.array([1.0, 3.0, 2.0, 4.0])).tolist() == [1.0, 2.5, 2.5, 4.0]


def test_a_surface_is_bilinear_on_its_grid() -> None:
    points = {(4, 8): 1.0, (8, 8): 2.0, (4, 16): 3.0, (8, 16): 6.0}
    surface = WidthSurface(points, (8, 16))
    for (inputs, outputs), ms in points.items():
        assert surface.at(inputs / 8, outputs / 16) == pytest.approx(ms)
    assert surface.at(6 / 8, 12 / 16) == pytest.approx(3.0)
    assert surface.at(4 / 8, 4 / 16) == pytest.approx(0.5)  # straight on, but not below the least
    assert surface.at(4 / 8, 0.0) == pytest.approx(0.0)
    assert WidthSurface(points, (8, 16), least=0.3).at(4 / 8, 0.0) == pytest.approx(0.3)


def test_missing_grid_points_are_read_off_the_share_of_work() -> None:
    surface = WidthSurface({(4, 4): 1.0, (8, 8): 4.0}, (8, 8))
    assert surface.at(0.5, 1.0) == pytest.approx(1.0 + 3.0 * (0.5 - 0.25) / 0.75)


@pytest.mark.parametrize("full", [64, 65])
def test_time_over_filters_that_are_computed_together_is_a_staircase(full: int) -> None:
    """What was measured between two steps tells of the whole step."""
    steps = {outputs: 1.0 + -(-outputs // 16) for outputs in range(1, full + 1)}
    points = {(4, outputs): steps[outputs] for outputs in (3, 16, 20, 32, full)}
    surface = WidthSurface(points, (4, full), together=dict.fromkeys((3, 16, 20, 32, full), 16))
    for outputs, ms in steps.items():
        assert surface.at(1.0, outputs / full) == pytest.approx(ms), outputs
    assert surface.at(1.0, 0.0) == pytest.approx(1.0)


def test_few_filters_may_be_computed_one_by_one_and_many_together() -> None:
    points = {(4, 2): 2.0, (4, 8): 3.0, (4, 16): 5.0}
    surface = WidthSurface(points, (4, 16), together={2: 1, 8: 8, 16: 8})
    told = {0: 1.0 + 2.0 / 3.0, 1: 1.0 + 5.0 / 6.0, 2: 2.0, 3: 3.0, 8: 3.0, 9: 5.0, 16: 5.0}
    for outputs, ms in told.items():
        assert surface.at(1.0, outputs / 16) == pytest.approx(ms), outputs


def test_between_two_ways_of_computing_filters_the_finer_one_may_be_chosen() -> None:
    surface = WidthSurface({(4, 8): 2.0, (4, 16): 4.0}, (4, 16), together={8: 4, 16: 8})
    told = {7: 2.0, 8: 2.0, 9: 3.0, 12: 3.0, 13: 4.0}
    for outputs, ms in told.items():
        assert surface.at(1.0, outputs / 16) == pytest.approx(ms), outputs


def test_more_filters_may_be_computed_as_those_measured_before_were() -> None:
    """Twelve filters as three times four, where sixteen are computed together and eight as two times four."""
    surface = WidthSurface({(4, 8): 2.0, (4, 16): 4.0}, (4, 16), together={8: 4, 16: 16})
    told = {7: 2.0, 8: 2.0, 9: 3.0, 12: 3.0, 13: 4.0, 16: 4.0}
    for outputs, ms in told.items():
        assert surface.at(1.0, outputs / 16) == pytest.approx(ms), outputs


def test_what_was_measured_is_not_undercut_by_smaller_widths() -> None:
    surface = WidthSurface({(4, 8): 2.0, (4, 16): 5.0}, (4, 16), together={8: 4, 16: 16})
    assert surface.at(1.0, 1.0) == pytest.approx(5.0)
    assert surface.at(1.0, 0.75) == pytest.approx(3.0)
    least = WidthSurface({(4, 8): 2.0, (4, 16): 5.0}, (4, 16), least=1.0, together={8: 4, 16: 16})
    assert least.at(1.0, 0.75) == pytest.approx(2.5)


def test_a_single_point_is_flat() -> None:
    assert WidthSurface({(8, 8): 4.0}, (8, 8)).at(0.25, 0.25) == 4.0
