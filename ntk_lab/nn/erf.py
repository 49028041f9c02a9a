"""Gauss error function."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.module import module


@module
class Erf(Activation):
    """``erf(x)``.

    With ``D = (1 + 2 q11)(1 + 2 q22) - 4 q12^2`` (Williams 1997, "Computing with infinite
    networks")::

        E[phi phi]   = 2/pi asin(2 q12 / sqrt((1 + 2 q11)(1 + 2 q22))) = 2/pi atan(2 q12 / sqrt(D))
        E[phi' phi'] = 4/pi / sqrt(D)
    """

    def function(self, x: jax.Array) -> jax.Array:
        return jax.lax.erf(x)

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        root = jnp.sqrt(1 + 2 * cov.var1 + 2 * cov.var2 + 4 * cov.determinant)
        k12 = 2 / jnp.pi * jnp.arctan2(2 * cov.cov, root)
        k11, k22 = (
            2 / jnp.pi * jnp.arctan2(2 * v, jnp.sqrt(1 + 4 * v)) for v in (cov.var1, cov.var2)
        )
        return cov.after_smooth_rule(k11, k22, k12), 4 / jnp.pi / root
