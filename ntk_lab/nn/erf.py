"""Gauss error function."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance, native_steps
from ntk_lab.kernel.native_steps import Step
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.module import hyper, module


@module
class Erf(Activation):
    """``a erf(b x) + c``; kernels are differentiable in all three.

    With ``D = (1 + 2 q11)(1 + 2 q22) - 4 q12^2`` (Williams 1997, "Computing with infinite
    networks"), for ``a = b = 1`` and ``c = 0``::

        E[phi phi]   = 2/pi asin(2 q12 / sqrt((1 + 2 q11)(1 + 2 q22))) = 2/pi atan(2 q12 / sqrt(D))
        E[phi' phi'] = 4/pi / sqrt(D)

    In general covariances are first multiplied by ``b^2``; then the first line by ``a^2`` and
    increased by ``c^2``, the second multiplied by ``(a b)^2``. Right to rounding.
    """

    a: float = hyper(default=1.0)
    b: float = hyper(default=1.0)
    c: float = hyper(default=0.0)

    def function(self, x: jax.Array) -> jax.Array:
        return self.a * jax.lax.erf(self.b * x) + self.c

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        return [native_steps.Erf(self.a, self.b, self.c)] if len(shape) == 1 and self.b else None

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        k = cov.scale(self.b**2)
        factor, shift = 2 / jnp.pi * self.a**2, self.c**2
        root = jnp.sqrt(1 + 2 * k.var1 + 2 * k.var2 + 4 * k.determinant)
        k12 = factor * jnp.arctan2(2 * k.cov, root) + shift
        k11, k22 = (
            factor * jnp.arctan2(2 * v, jnp.sqrt(1 + 4 * v)) + shift for v in (k.var1, k.var2)
        )
        return cov.after_smooth_rule(k11, k22, k12), 2 * factor * self.b**2 / root
