"""Duals of activations, ``E[phi(u) phi(v)]`` and ``E[phi'(u) phi'(v)]``, by direct integration.

``u = a z`` and ``v = b (rho z + sqrt(1 - rho^2) w)`` with independent ``z, w``: the inner integral
over ``w`` and the outer over ``z`` are adaptive, split at the kinks, to 1e-12.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

import ntk_lab as ntk
from ntk_lab.kernel import Covariance

pytestmark = pytest.mark.x64

# Standard deviations and correlation: small, large, unequal, nearly and fully (anti)correlated.
PAIRS = [
    (1.0, 1.0, 0.3),
    (0.1, 0.2, -0.5),
    (3.0, 0.5, 0.9),
    (1.3, 0.7, 0.0),
    (1.0, 2.0, 0.999),
    (1.1, 0.9, -0.97),
    (1.4, 1.4, 1.0),
    (0.8, 1.6, -1.0),
]
PHI = {
    "relu": (ntk.nn.Relu(), lambda x: max(x, 0.0), lambda x: float(x > 0)),
    "erf": (ntk.nn.Erf(), special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2))),
    "gelu": (
        ntk.nn.Gelu(),
        lambda x: x * special.ndtr(x),
        lambda x: special.ndtr(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),
    ),
    "tanh": (ntk.nn.Tanh(), np.tanh, lambda x: 1 / np.cosh(x) ** 2),
}


def density(z):
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def integral(f, *kinks):
    edges = [-10.0, *sorted(k for k in kinks if -10 < k < 10), 10.0]
    return sum(
        integrate.quad(f, *edge, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
        for edge in itertools.pairwise(edges)
    )


def expectation(phi, a, b, rho):
    if abs(rho) == 1:
        return integral(lambda z: density(z) * phi(a * z) * phi(b * rho * z), 0.0)
    beta = np.sqrt(1 - rho**2)

    def inner(z):
        return integral(lambda w: density(w) * phi(b * (rho * z + beta * w)), -rho * z / beta)

    return integral(lambda z: density(z) * phi(a * z) * inner(z), 0.0)


@pytest.mark.parametrize("name", PHI)
def test_duals_equal_two_dimensional_integrals(name):
    activation, phi, slope = PHI[name]
    a, b, rho = np.transpose(PAIRS)
    # Only the diagonal pairs up the three.
    norm, rho = np.outer(a, b), rho[:, None]
    entries = a[:, None] ** 2, b[None, :] ** 2, norm * rho, norm * (1 - np.abs(rho))
    cov = Covariance(*map(jnp.asarray, entries))
    product, derivative = activation.dual(cov)
    expected = np.array([expectation(phi, *pair) for pair in PAIRS])
    np.testing.assert_allclose(np.diag(product.cov), expected, rtol=0, atol=2e-11)
    # The expansion of tanh is worst at correlation one; all others are closed forms.
    slack = 5e-8 if name == "tanh" else 2e-11
    expected = np.array([expectation(slope, *pair) for pair in PAIRS])
    np.testing.assert_allclose(np.diag(derivative), expected, rtol=0, atol=slack)


@pytest.mark.parametrize("name", PHI)
def test_variances_equal_one_dimensional_integrals(name):
    activation, phi, _ = PHI[name]
    deviations = np.array([0.01, 0.3, 1.0, 2.0])
    variances = jnp.asarray(deviations**2)
    zero = jnp.zeros((4, 4))
    gap = jnp.asarray(np.outer(deviations, deviations))
    cov = Covariance(variances[:, None], variances[None, :], zero, gap)
    product, _ = activation.dual(cov)
    expected = [expectation(phi, s, s, 1.0) for s in deviations]
    np.testing.assert_allclose(product.var1[:, 0], expected, rtol=1e-12)
    np.testing.assert_array_equal(product.var1[:, 0], product.var2[0])


@pytest.mark.parametrize("name", PHI)
def test_functions_are_the_activations_themselves(name):
    activation, phi, slope = PHI[name]
    x = np.linspace(-4, 4, 33)
    np.testing.assert_allclose(
        activation.function(jnp.asarray(x)), [phi(v) for v in x], rtol=1e-14, atol=1e-16
    )
    gradient = jax.vmap(jax.grad(activation.function))(jnp.asarray(x))
    np.testing.assert_allclose(gradient, [slope(v) for v in x], rtol=1e-13, atol=1e-15)


def test_relu_duals_keep_relative_precision_near_antipodal_inputs():
    """``E[phi phi] ~ angle^3``: 24 digits below the variances, and still right to 13."""
    phi = 10.0 ** -np.arange(1, 9)
    gap = jnp.asarray(2 * np.sin(phi / 2) ** 2)
    ones = jnp.ones(8)
    cov = Covariance(ones[None, :1], ones[None], gap[None] - 1, gap[None])
    product, derivative = ntk.nn.Relu().dual(cov)
    series = phi**3 / 3 - phi**5 / 30 + phi**7 / 840 - phi**9 / 45360
    np.testing.assert_allclose(product.cov[0], series / (2 * np.pi), rtol=1e-12)
    np.testing.assert_allclose(derivative[0], phi / (2 * np.pi), rtol=1e-7)
