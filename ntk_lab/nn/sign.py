"""Sign function."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.kernel.arccosine import angle, half_plane
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.module import module


@module
class Sign(Activation):
    """``sign(x)``: ``E[phi phi] = 1 - 2 theta / pi``, ``theta`` the angle (arXiv:1112.3712).

    Its derivative is zero but at the jump, so gradient descent trains nothing before it: the
    second half of the dual is zero. Right to rounding at every angle; zero inputs stay zero.
    """

    def function(self, x: jax.Array) -> jax.Array:
        return jnp.sign(x)

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        k11, k22 = (jnp.where(v > 0, jnp.ones_like(v), 0) for v in (cov.var1, cov.var2))
        alive, theta = k11 * k22, jax.lax.stop_gradient(angle(cov))
        gap = alive * 2 * jnp.minimum(theta, jnp.pi - theta) / jnp.pi
        product = alive * (4 * half_plane(cov) - 1)
        return Covariance(k11, k22, product, gap), jnp.zeros_like(product)
