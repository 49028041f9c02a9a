"""Gaussian bump."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.nn.closed_form import ClosedForm
from ntk_lab.nn.module import hyper, module


@module
class Gaussian(ClosedForm):
    """``a exp(b x^2)``; kernels are differentiable in both.

    From Williams 1997, "Computing with infinite networks"::

        E[phi phi] = a^2 / sqrt((1 - 2 b q11)(1 - 2 b q22) - 4 b^2 q12^2)

    Right to rounding. With ``b > 0`` moments are infinite from a variance of ``1 / (4 b)`` on:
    kernels are NaN there, which ``net.kernel`` reports as NumericalError.
    """

    a: float = hyper(default=1.0)
    b: float = hyper(default=-1.0)

    def function(self, x: jax.Array) -> jax.Array:
        return self.a * jnp.exp(self.b * x**2)

    def product(self, k: Covariance) -> jax.Array:
        b = 2 * self.b
        scale = 1 - b * (k.var1 + k.var2) + b**2 * k.determinant
        # Beyond the pole the determinant turns positive again.
        exists = (1 - b * k.var1 > 0) & (1 - b * k.var2 > 0)
        return self.a**2 / jnp.sqrt(jnp.where(exists, scale, jnp.nan))
