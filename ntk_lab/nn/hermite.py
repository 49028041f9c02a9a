"""Hermite polynomials."""

import math

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.nn.closed_form import ClosedForm
from ntk_lab.nn.module import module
from ntk_lab.nn.polynomial import check_degree, diagonal_series


@module
class Hermite(ClosedForm):
    """Probabilists' Hermite polynomial of unit norm, ``He_n(x) / sqrt(n!)``.

    At unit variances ``E[phi phi] = q12^n``. At others, by Mehler's formula with
    ``E[He_(2m)(u)] = (2m)! / (2^m m!) (q11 - 1)^m``; right to rounding at any. A degree that is
    not a whole number from 0 to 80 raises InputError.
    """

    degree: int

    def __post_init__(self):
        check_degree(self.degree, "Hermite")

    def function(self, x: jax.Array) -> jax.Array:
        before, value = jnp.zeros_like(x), jnp.ones_like(x)
        for k in range(self.degree):
            before, value = value, (x * value - k**0.5 * before) / (k + 1) ** 0.5
        return value

    def product(self, k: Covariance) -> jax.Array:
        first, second = (self._mean_derivatives(v) for v in (k.var1, k.var2))
        return diagonal_series(first, second, k.cov)

    def _mean_derivatives(self, var: jax.Array) -> list:
        means: list = [0] * (self.degree + 1)
        for m in range(self.degree // 2 + 1):
            factor = math.sqrt(math.factorial(self.degree)) / (math.factorial(m) * 2**m)
            means[self.degree - 2 * m] = factor * (var - 1) ** m
        return means
