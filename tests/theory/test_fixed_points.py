"""Fixed points, phases and critical scales against closed forms and plain iteration."""

import jax
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError

nn, theory = ntk.nn, ntk.theory
EPS = float(np.finfo(float if jax.config.jax_enable_x64 else np.float32).eps)


def erf_maps(q, c, w, b):
    """``q'`` and ``c'`` of erf by the arcsine formula of C. Williams (1997)."""
    root = 2 * q / (1 + 2 * q)
    new = 2 / np.pi * w**2 * np.arcsin(root) + b**2
    return new, (2 / np.pi * w**2 * np.arcsin(root * c) + b**2) / new


@pytest.mark.parametrize(("w", "b"), [(0.7, 0.3), (1.5, 0.2), (3.0, 0.0), (2.0, 1.0)])
def test_erf_goes_where_plain_iteration_of_the_closed_form_goes(w, b):
    q, c = 1.0, 0.4
    for _ in range(600):
        q, c = erf_maps(q, c, w, b)
    point = theory.signal_fixed_point(nn.Sequential(nn.Erf(), nn.Dense(1, w, b)))
    np.testing.assert_allclose(point.variance, q, rtol=50 * EPS)
    # The correlation is sharp to rounding over 1 - slope.
    np.testing.assert_allclose(point.correlation, c, atol=200 * EPS)
    slope = 4 / np.pi * w**2 / (1 + 2 * q) / np.sqrt(1 - (2 * q / (1 + 2 * q)) ** 2)
    np.testing.assert_allclose(point.chi_1, slope, rtol=100 * EPS)
    assert point.phase == ("chaotic" if slope > 1 else "ordered")


def test_depth_scales_are_the_rates_of_approach():
    w, b = 1.8, 0.3
    point = theory.signal_fixed_point(nn.Sequential(nn.Erf(), nn.Dense(1, w, b)))
    q, c, found = 1.0, 0.2, []
    for _ in range(25):
        q, c = erf_maps(q, c, w, b)
        found.append((q, c))
    q_star, c_star = 1.0, 0.2
    for _ in range(2000):
        q_star, c_star = erf_maps(q_star, c_star, w, b)
    rate_c = np.log((found[-1][1] - c_star) / (found[-2][1] - c_star))
    rate_q = np.log((found[11][0] - q_star) / (found[10][0] - q_star))
    np.testing.assert_allclose(point.correlation_depth, -1 / rate_c, rtol=1e-3)
    np.testing.assert_allclose(point.variance_depth, -1 / rate_q, rtol=1e-3)


def test_relu_dies_explodes_or_stays_as_its_closed_form_says():
    found = theory.phase_diagram(nn.Relu(), np.sqrt([1.0, 2.0, 3.0]), (0.0, 0.3))
    np.testing.assert_allclose(found.variance, [[0, 1, np.inf], [0.18, np.inf, np.inf]], rtol=1e-6)
    np.testing.assert_allclose(found.chi_1, [[0.5, 1, 1.5]] * 2, rtol=4 * EPS)
    np.testing.assert_allclose(found.variance_slope, [[0.5, 1, 1.5]] * 2, rtol=4 * EPS)
    assert (found.correlation == 1).all()
    assert found.phase[0].tolist() == ["ordered", "critical", "chaotic"]
    assert np.isinf(found.nngp_condition(10)).all()


def test_blocks_of_any_kind_have_fixed_points():
    # Behind a normalization the variance is w_std^2 + b_std^2 whatever came before.
    block = nn.Sequential(nn.RMSNorm(eps=0.0), nn.Dense(1, 0.8, 0.6))
    point = theory.signal_fixed_point(block)
    np.testing.assert_allclose(point.variance, 1.0, rtol=4 * EPS)
    np.testing.assert_allclose(point.variance_slope, 0.0, atol=4 * EPS)
    np.testing.assert_allclose(point.chi_1, 0.64, rtol=8 * EPS)
    # A residual block adds its branch: the variance grows for ever.
    residual = nn.Residual(nn.Sequential(nn.Relu(), nn.Dense(1, 0.5)))
    grown = theory.signal_fixed_point(residual)
    assert np.isinf(grown.variance)
    np.testing.assert_allclose(grown.chi_1, 1 + 0.25 / 2, rtol=8 * EPS)
    # Weights first, activation last: the same layers, moments taken elsewhere.
    ends = theory.signal_fixed_point(nn.Sequential(nn.Dense(1, 1.5, 0.2), nn.Erf()))
    starts = theory.signal_fixed_point(nn.Sequential(nn.Erf(), nn.Dense(1, 1.5, 0.2)))
    np.testing.assert_allclose(1.5**2 * ends.variance + 0.04, starts.variance, rtol=100 * EPS)
    np.testing.assert_allclose(ends.chi_1, starts.chi_1, rtol=100 * EPS)


def test_critical_scales_are_those_of_the_literature():
    relu = theory.critical_initialization(nn.Relu())
    np.testing.assert_allclose([relu.w_std**2, relu.variance_slope], [2, 1], rtol=8 * EPS)
    erf = theory.critical_initialization(nn.Erf())
    np.testing.assert_allclose(erf.w_std, np.pi**0.5 / 2, rtol=1e-5 if EPS > 1e-10 else 1e-10)
    assert erf.variance == 0
    # arXiv:2106.10165, section 5.3.2: GELU is half-stable at this bias, with this weight.
    gelu = theory.critical_initialization(nn.Gelu(), 0.17292239**0.5)
    np.testing.assert_allclose(gelu.w_std**2, 1.98305826, rtol=1e-5 if EPS > 1e-10 else 1e-8)
    np.testing.assert_allclose(gelu.variance_slope, 1, atol=1e-2 if EPS > 1e-10 else 1e-8)


def test_the_critical_point_is_a_fixed_point_with_chi_one():
    found = theory.critical_initialization(nn.Erf(), 0.3)
    block = nn.Sequential(nn.Erf(), nn.Dense(1, found.w_std, 0.3))
    point = theory.signal_fixed_point(block)
    tight = 1e-9 if EPS < 1e-10 else 1e-4
    np.testing.assert_allclose(point.chi_1, 1, rtol=tight)
    np.testing.assert_allclose(point.variance, found.variance, rtol=tight)
    w, b = theory.critical_line(nn.Erf(), found.variance)
    np.testing.assert_allclose([w, b], [found.w_std, 0.3], rtol=tight)


def test_what_has_no_fixed_point_is_refused():
    with pytest.raises(InputError, match="no w_std makes"):
        theory.critical_initialization(nn.Relu(), 0.1)
    with pytest.raises(InputError, match="not a Gaussian process"):
        theory.signal_fixed_point(nn.Sequential(nn.Erf(), nn.Dense(1), nn.Erf()))
    with pytest.raises(InputError, match="two vectors"):
        theory.phase_diagram(nn.Erf(), 1.0, (0.1,))
    with pytest.raises(InputError, match="start"):
        theory.signal_fixed_point(nn.Sequential(nn.Erf(), nn.Dense(1)), start=0.0)
