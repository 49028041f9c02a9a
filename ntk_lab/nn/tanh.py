"""Hyperbolic tangent."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.kernel.hermite import derivative, gaussian_mean, gaussian_product
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.module import module


@module
class Tanh(Activation):
    """``tanh(x)``; its dual has no closed form and is found by Hermite expansion.

    In float64 the NNGP and the derivative are right to 1e-10 up to a pre-activation variance of 2
    and 1e-7 up to 4, at worst near correlation one; diagonals are exact to rounding. At larger
    variances the expansion converges slowly: pairs for which it leaves out more than 1e-6 (1e-4 in
    float32) are NaN, which ``net.kernel`` refuses. Scale inputs to order one.
    """

    def function(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(x)

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        args = cov.var1, cov.var2, cov.cov
        slope = derivative(jnp.tanh)
        product = gaussian_product(jnp.tanh, jnp.tanh, *args)
        k11, k22 = (gaussian_mean(jnp.tanh, jnp.tanh, v) for v in (cov.var1, cov.var2))
        # On the diagonal the mean is exact; only its value is taken, so that derivatives in either
        # input stay those of the product.
        diagonal = gaussian_mean(slope, slope, cov.var1)
        slopes = gaussian_product(slope, slope, *args)
        slopes += jax.lax.stop_gradient(jnp.where(cov.coincident, diagonal - slopes, 0))
        return cov.after_smooth_rule(k11, k22, product), slopes
