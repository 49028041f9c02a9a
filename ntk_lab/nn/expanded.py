"""Smooth activations whose duals have no closed form."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.kernel.hermite import derivative, gaussian_mean, gaussian_product
from ntk_lab.nn.activation import Activation


class Expanded(Activation):
    """A smooth activation; its dual is found by Hermite expansion (``ntk_lab.kernel.hermite``).

    Diagonals are exact to rounding. Elsewhere terms are added until the error that they leave is
    below rounding, or their number exhausted; a pair for which it may then exceed 1e-6 of
    ``sqrt(k11 k22)`` (1e-4 in float32) is NaN, which ``net.kernel`` reports as NumericalError.
    """

    @property
    def elementwise(self) -> Callable[[jax.Array], jax.Array]:
        """The function, the same object each time it is asked for."""
        raise TypeError(f"{type(self).__name__} does not define elementwise.")

    def function(self, x: jax.Array) -> jax.Array:
        return self.elementwise(x)

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        return expanded_dual(self.elementwise, cov)


def expanded_dual(f: Callable, cov: Covariance) -> tuple[Covariance, jax.Array]:
    """Both duals of a smooth function."""
    args, slope = (cov.var1, cov.var2, cov.cov), derivative(f)
    same = cov.coincident
    product = gaussian_product(f, f, *args, same)
    k11, k22 = (gaussian_mean(f, f, v) for v in (cov.var1, cov.var2))
    # On the diagonal the mean is exact; only its value is taken, so that derivatives in either
    # input stay those of the product.
    diagonal = gaussian_mean(slope, slope, cov.var1)
    slopes = gaussian_product(slope, slope, *args, same)
    slopes += jax.lax.stop_gradient(jnp.where(same, diagonal - slopes, 0))
    return cov.after_smooth_rule(k11, k22, product), slopes
