"""Exponential function."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.nn.closed_form import ClosedForm
from ntk_lab.nn.module import hyper, module


@module
class Exp(ClosedForm):
    """``a exp(b x)``: ``E[phi phi] = a^2 exp(b^2 Var(u + v) / 2)``.

    The moment of a log-normal variable; it overflows where ``2 b^2 q`` exceeds 88 (float32) or
    709 (float64), which ``net.kernel`` reports. Kernels are differentiable in ``a`` and ``b``.
    """

    a: float = hyper(default=1.0)
    b: float = hyper(default=1.0)

    def function(self, x: jax.Array) -> jax.Array:
        return self.a * jnp.exp(self.b * x)

    def product(self, k: Covariance) -> jax.Array:
        return self.a**2 * jnp.exp(self.b**2 * ((k.var1 + k.var2) / 2 + k.cov))
