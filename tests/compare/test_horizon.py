"""Horizons: where planted gaps cross the tolerance, and how they scale with width."""

import numpy as np
import pytest

from ntk_lab.compare.horizon import horizon, horizon_exponent

TIMES = np.geomspace(0.1, 100, 31)
INF = float("inf")


def gaps(ends, seeds=6, noise=0.05):
    """Gaps ``0.1 t / end`` with a factor of its own for each seed."""
    factors = 1 + noise * np.random.default_rng(0).standard_normal(seeds)
    return 0.1 * factors[:, None] * TIMES / ends


def test_a_gap_that_grows_with_time_crosses_at_its_horizon():
    h = horizon(TIMES, gaps(7.0), 0.1, 0.95)
    assert h.value == pytest.approx(7.0, rel=0.05)
    assert h.lower < h.value < h.upper
    assert len(h.seeds) == 6


def test_horizons_before_and_beyond_the_run_are_zero_and_infinity():
    assert horizon(TIMES, gaps(0.01), 0.1, 0.95)[:3] == (0.0, 0.0, 0.0)
    assert horizon(TIMES, gaps(1e4), 0.1, 0.95)[:3] == (INF, INF, INF)


def test_one_seed_has_no_interval():
    h = horizon(TIMES, gaps(7.0, seeds=1), 0.1, 0.95)
    assert (h.lower, h.upper) == (0.0, INF)
    assert 0 < h.value < INF


def test_the_interval_covers_the_true_horizon_as_often_as_it_says():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(300):
        factors = 1 + 0.2 * rng.standard_normal(6)
        h = horizon(TIMES, 0.1 * factors[:, None] * TIMES / 7.0, 0.1, 0.95)
        hits += h.lower <= 7.0 <= h.upper
    assert 0.85 < hits / 300 < 0.95  # two one-sided bounds of 95%: 90% together


def test_the_exponent_of_planted_horizons_is_found_and_censored_ones_are_left_out():
    widths = np.asarray([16, 64, 256, 4096])
    found = [horizon(TIMES, gaps(2.0 * (w / 16) ** 0.5), 0.1, 0.95) for w in widths]
    assert np.isfinite(found[2].value)
    e = horizon_exponent(widths[:3], found[:3], 0.95, 0.5)
    assert e.lower < 0.5 < e.upper
    assert e.theory == 0.5
    beyond = horizon(TIMES, gaps(1e4), 0.1, 0.95)
    assert horizon_exponent(widths, [*found[:3], beyond], 0.95, 0.5) == e
    assert horizon_exponent(widths[:2], [found[0], beyond], 0.95, 0.5) is None
