"""Gaussian expectations by Hermite expansion, against quadrature and their own error bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab.kernel.hermite import (
    derivative,
    gaussian_mean,
    gaussian_product,
    truncation_error,
)
from tests.tolerance import assert_close

RHO = np.array([-1.0, -0.99, -0.5, 0.0, 0.3, 0.9, 0.999, 1.0])
NODES = np.linspace(-12, 12, 2401)
WEIGHTS = np.exp(-(NODES**2) / 2) / np.sqrt(2 * np.pi) * (NODES[1] - NODES[0])


def quadrature(f, g, var1, var2, rho):
    """By the trapezoid rule in two dimensions: exponentially accurate for analytic functions."""
    z, w = NODES[:, None], NODES[None, ::4]
    u = np.sqrt(var1) * z
    v = np.sqrt(var2) * (rho * z + np.sqrt(1 - rho**2) * w)
    return np.sum(WEIGHTS[:, None] * 4 * WEIGHTS[None, ::4] * f(u) * g(v))


def products(f, g, var1, var2):
    """For all correlations at once, shape ``(8,)``."""
    args = np.array([[var1]]), np.full((1, 8), var2), np.sqrt(var1 * var2) * RHO[None]
    return gaussian_product(f, g, *(jnp.asarray(a, jnp.result_type(float)) for a in args))[0]


@pytest.mark.x64
@pytest.mark.parametrize("var", [0.01, 1.0, 4.0, 10.0, 25.0])
def test_tanh_is_within_its_truncation_error_at_every_correlation(var):
    bound = float(truncation_error(jnp.tanh, jnp.asarray([var]))[0])
    expected = np.array([quadrature(np.tanh, np.tanh, var, var, rho) for rho in RHO])
    got = np.asarray(products(jnp.tanh, jnp.tanh, var, var))
    assert np.abs(got - expected).max() <= bound + 1e-13
    assert bound < (1e-13 if var <= 10 else 1e-10)


@pytest.mark.x64
def test_what_may_be_wrong_is_refused():
    """Pairs of very large variance, functions with a kink that was not named."""
    slope = derivative(derivative(jnp.tanh))
    refused = np.isnan(np.asarray(products(slope, slope, 60.0, 60.0)))
    assert refused[np.abs(RHO) == 1].all()
    assert np.isnan(products(jax.nn.relu, jax.nn.relu, 1.0, 1.0)[-1])


def test_pairs_known_otherwise_are_neither_awaited_nor_refused():
    one, cov = jnp.ones((2, 1)), jnp.asarray([[1.0, 0.1], [0.1, 1.0]], jnp.result_type(float))
    known = jnp.eye(2, dtype=bool)
    got = gaussian_product(jnp.cos, jnp.cos, one, one.T, cov, known)
    assert_close(got[0, 1], np.exp(-1) * np.cosh(0.1))
    assert jnp.isfinite(gaussian_product(jax.nn.relu, jax.nn.relu, one, one.T, cov, known)[0, 0])


@pytest.mark.x64
def test_functions_without_parity_and_unequal_variances_are_expanded_too():
    got = products(jax.nn.softplus, jnp.tanh, 1.5, 0.6)
    expected = [quadrature(lambda x: np.logaddexp(x, 0), np.tanh, 1.5, 0.6, rho) for rho in RHO]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)


def test_an_even_and_an_odd_function_are_uncorrelated():
    np.testing.assert_array_equal(products(jnp.tanh, jnp.cos, 1.0, 1.0), np.zeros(8))


def test_the_cosine_has_its_closed_form():
    """``E[cos u cos v] = exp(-(q11 + q22)/2) cosh(q12)``."""
    expected = np.exp(-(1.3 + 0.4) / 2) * np.cosh(np.sqrt(1.3 * 0.4) * RHO)
    assert_close(products(jnp.cos, jnp.cos, 1.3, 0.4), expected, factor=0.1)


def test_zero_variance_gives_the_value_at_zero():
    zero, one = jnp.zeros((1, 1)), jnp.ones((1, 1))
    got = gaussian_product(jnp.cos, jnp.cos, zero, one, zero)
    assert_close(got, np.exp([[-0.5]]))
    assert_close(gaussian_mean(jnp.cos, jnp.cos, zero), one)


def test_derivatives_follow_prices_theorem():
    """``d/dq12 E[f g] = E[f' g']``, and along the diagonal those of the mean."""
    args = [jnp.asarray(v, jnp.result_type(float)) for v in ([[0.8]], [[1.1]], [[0.4]])]

    def f(*args):
        return gaussian_product(jnp.cos, jnp.cos, *args)[0, 0]

    g1, g2, g12 = jax.grad(f, (0, 1, 2))(*args)
    level, slope = np.exp(-0.95) * np.cosh(0.4), np.exp(-0.95) * np.sinh(0.4)
    assert_close(g12, np.array([[slope]]))
    assert_close(g1, np.array([[-level / 2]]))
    assert_close(g2, np.array([[-level / 2]]))
    second = jax.grad(lambda c: jax.grad(f, 2)(args[0], args[1], c)[0, 0])(args[2])
    assert_close(second, np.array([[level]]))
    mean = jax.grad(lambda v: gaussian_mean(jnp.cos, jnp.cos, v)[0, 0])(args[0])
    assert_close(mean, np.array([[-np.exp(-2 * 0.8)]]))


def test_a_derivative_is_one_object_however_often_it_is_asked_for():
    assert derivative(jnp.tanh) is derivative(jnp.tanh)
