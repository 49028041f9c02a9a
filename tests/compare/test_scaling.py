"""Width exponents and required widths: planted power laws are found, with honest intervals."""

import numpy as np
import pytest

from ntk_lab.compare.scaling import fit_exponent, required_width

WIDTHS = np.array([32, 128, 512])
NONE = np.zeros((3, 4))


def planted(power, noise, seeds=4, at_32=0.4, rng=None):
    """Gaps ``at_32 (width / 32)^power`` with log-normal noise, shape ``(3, seeds)``."""
    rng = np.random.default_rng(0) if rng is None else rng
    exact = at_32 * (WIDTHS / 32.0) ** power
    return exact[:, None] * np.exp(noise * rng.normal(size=(3, seeds)))


def required(total, discretization=NONE, tolerance=0.1, limit=True, widths=WIDTHS):
    return required_width(widths, total, discretization, tolerance, 0.95, limit)


def within_binomial_error(share, level, count):
    return abs(share - level) < 4 * (level * (1 - level) / count) ** 0.5


def test_an_exact_power_law_is_recovered_with_no_width_of_interval():
    e = fit_exponent(WIDTHS, planted(-0.5, 0.0), 0.95, -0.5)
    np.testing.assert_allclose(e, -0.5, atol=1e-7)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_exponent_intervals_cover_the_planted_power(confidence):
    rng, count = np.random.default_rng(1), 800
    fits = [
        fit_exponent(WIDTHS, planted(-0.5, 0.2, rng=rng), confidence, None) for _ in range(count)
    ]
    assert within_binomial_error(
        np.mean([e.lower < -0.5 < e.upper for e in fits]), confidence, count
    )
    assert abs(np.mean([e.value for e in fits]) + 0.5) < 0.01


@pytest.mark.parametrize(
    ("widths", "gaps"),
    [
        ([32], [[0.1, 0.2, 0.3]]),  # one width
        ([32, 64], [[0.1], [0.2]]),  # no degree of freedom left
        ([32, 64], [[0.1, 0.2], [0.0, 0.1]]),  # no logarithm
        ([32, 64], [[0.1, 0.2], [np.nan, 0.1]]),
    ],
)
def test_without_a_power_law_there_is_no_exponent_and_no_width(widths, gaps):
    assert fit_exponent(np.array(widths), np.array(gaps), 0.95, -0.5) is None
    r = required(np.array(gaps), np.zeros((1, 1)), tolerance=0.01, widths=np.array(widths))
    assert np.isnan([r.value, r.lower, r.upper]).all()
    assert r.reason == "no power law can be fitted"


def test_rounding_noise_has_no_exponent():
    gaps = planted(-0.5, 0.3, at_32=1e-7)
    assert fit_exponent(WIDTHS, gaps, 0.95, None, 1e-4) is None
    assert fit_exponent(WIDTHS, gaps, 0.95, None) is not None


def test_the_planted_width_is_recovered():
    r = required(planted(-0.5, 0.0))  # 0.4 at width 32, so 0.1 at 32 * 16
    np.testing.assert_allclose(r[:3], 512, rtol=1e-5)
    assert r.reason == ""


def test_width_intervals_cover_the_planted_width():
    rng, count = np.random.default_rng(2), 300
    found = [required(planted(-0.5, 0.15, rng=rng)) for _ in range(count)]
    assert within_binomial_error(np.mean([r.lower < 512 < r.upper for r in found]), 0.95, count)
    assert np.median([r.value for r in found]) == pytest.approx(512, rel=0.1)


def test_a_looser_tolerance_needs_less_width_but_never_less_than_one():
    total = planted(-0.5, 0.05)
    values = [required(total, tolerance=t).value for t in (0.05, 0.1, 0.2, 0.39)]
    assert values == sorted(values, reverse=True)
    met_at_once = required(planted(-1.0, 0.05, at_32=1e-3), tolerance=0.9)
    assert met_at_once[:3] == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("total", "options", "reason"),
    [
        (planted(+0.3, 0.0), {}, "does not fall with width"),
        (planted(-1e-5, 0.0), {}, "does not fall with width"),  # only beyond every number
        (planted(-0.5, 0.0), {"limit": False}, "no kernel limit"),
        (planted(-0.5, 0.1), {"discretization": np.full((3, 4), 0.2)}, "which no width cures"),
    ],
)
def test_never(total, options, reason):
    r = required(total, **options)
    assert r.value == np.inf
    assert reason in r.reason


@pytest.mark.parametrize(
    ("power", "options"),
    [(+0.1, {}), (0.0, {}), (-1e-5, {}), (+0.1, {"limit": False}), (-0.5, {"limit": False})],
)
def test_a_gap_within_tolerance_at_every_width_is_not_called_unreachable(power, options):
    r = required(planted(power, 0.05, at_32=0.05), **options)
    assert r.value == 32
    assert "within it at every width" in r.reason


def test_a_total_that_is_half_incurable_is_not_extrapolated():
    r = required(planted(-0.5, 0.1), discretization=np.full((3, 4), 0.06))
    assert np.isnan(r.value)
    assert "over half of the tolerance" in r.reason


def test_noisy_slopes_leave_the_upper_end_open():
    rng = np.random.default_rng(4)
    found = [required(planted(-0.1, 0.6, rng=rng)) for _ in range(20)]
    assert any(np.isfinite(r.value) and np.isinf(r.upper) for r in found)
    assert all(r.lower <= r.value <= r.upper for r in found)
