from __future__ import annotations

import numpy as np
import pytest

from prunemap.pruning import Mapping
from prunemap.search_runs.bench_signal import Tried, agreement, seed_noise


def tried(fast: np.ndarray, full: np.ndarray) -> list[Tried]:
    return [Tried(Mapping(), tuple(map(float, np.atleast_1d(f))), float(g)) for f, g in zip(fast, full, strict=True)]


def test_agreement_of_equal_and_reversed_orders() -> None:
    order = np.linspace(0.1, 0.9, 60)
    assert agreement(tried(order, order**2)) == pytest.approx((1.0, 1.0, 1.0))
    assert agreement(tried(order, -order)) == pytest.approx((-1.0, -1.0, -1.0))


def test_interval_holds_the_truth_and_narrows_with_more_mappings() -> None:
    """For a bivariate normal with correlation r, tau is 2 / pi * arcsin(r)."""
    rng = np.random.default_rng(1)
    truth = 2.0 / np.pi * np.arcsin(0.8)
    widths = []
    for count in (60, 240):
        one = rng.standard_normal(count)
        other = 0.8 * one + 0.6 * rng.standard_normal(count)
        tau, low, high = agreement(tried(one, other))
        assert low < tau < high
        assert low < truth < high
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_no_order_has_no_agreement() -> None:
    rng = np.random.default_rng(0)
    _, low, high = agreement(tried(rng.uniform(size=80), rng.uniform(size=80)))
    assert low < 0.0 < high


def test_seed_noise_is_pooled_within_mappings() -> None:
    rng = np.random.default_rng(0)
    fast = rng.uniform(size=(400, 1)) + 0.02 * rng.standard_normal((400, 4))
    assert seed_noise(tried(fast, fast[:, 0])) == pytest.approx(0.02, rel=0.1)
