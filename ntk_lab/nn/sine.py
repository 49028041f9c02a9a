"""Sinusoids."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.nn.closed_form import ClosedForm, difference_of_exponentials
from ntk_lab.nn.module import hyper, module


def _waves(k: Covariance, a, b, square) -> jax.Array:
    """``a^2/2 (exp(-b^2 d(u, v)) - (1 - 2 square) exp(-b^2 d(u, -v)))``, accurate if small."""
    level = jnp.exp(-(b**2) * k.distance(1.0))
    return a**2 * (square * level + (0.5 - square) * difference_of_exponentials(k, b**2))


@module
class Sin(ClosedForm):
    """``a sin(b x + c)``; kernels are differentiable in all three.

    By the product formula of sines and the characteristic function of a Gaussian, as in random
    Fourier features (Rahimi & Recht 2007)::

        E[phi phi] = a^2/2 (exp(-b^2 Var(u - v) / 2) - cos(2 c) exp(-b^2 Var(u + v) / 2))

    Right to rounding, at small variances too.
    """

    a: float = hyper(default=1.0)
    b: float = hyper(default=1.0)
    c: float = hyper(default=0.0)

    def function(self, x: jax.Array) -> jax.Array:
        return self.a * jnp.sin(self.b * x + self.c)

    def product(self, k: Covariance) -> jax.Array:
        return _waves(k, self.a, self.b, jnp.sin(self.c) ** 2)


@module
class Cos(ClosedForm):
    """``a cos(b x + c)``: :class:`Sin` with a quarter period more in ``c``."""

    a: float = hyper(default=1.0)
    b: float = hyper(default=1.0)
    c: float = hyper(default=0.0)

    def function(self, x: jax.Array) -> jax.Array:
        return self.a * jnp.cos(self.b * x + self.c)

    def product(self, k: Covariance) -> jax.Array:
        return _waves(k, self.a, self.b, jnp.cos(self.c) ** 2)
