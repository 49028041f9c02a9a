"""Gaussian error linear unit."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.module import module


@module
class Gelu(Activation):
    """``x Phi(x)``, ``Phi`` the standard normal distribution function (no tanh approximation).

    With ``a = 1 + q11``, ``b = 1 + q22``, ``D = a b - q12^2``, ``p = 1 / (2 pi sqrt(D))`` and
    ``F = E[Phi(u) Phi(v)] = 1/4 + atan(q12 / sqrt(D)) / (2 pi)``, integration by parts gives::

        E[phi phi]   = q12 F + p (q11 q22 - q12^2 + q12^2 / a + q12^2 / b)
        E[phi' phi'] = F + p q12 (1/a + 1/b + 1/D)
    """

    def function(self, x: jax.Array) -> jax.Array:
        return jax.nn.gelu(x, approximate=False)

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        q12, det = cov.cov, cov.determinant
        a, b = 1 + cov.var1, 1 + cov.var2
        inverse = 1 / a + 1 / b
        product, derivative = _dual(q12, det, a + b - 1 + det, inverse)
        k11, k22 = (
            _dual(v, jnp.zeros_like(v), 1 + 2 * v, 2 / (1 + v))[0] for v in (cov.var1, cov.var2)
        )
        return cov.after_smooth_rule(k11, k22, product), derivative


def _dual(q12, det, big, inverse):
    """Both duals; ``det = q11 q22 - q12^2`` and ``big = (1 + q11)(1 + q22) - q12^2``."""
    root = jnp.sqrt(big)
    both = 0.25 + jnp.arctan2(q12, root) / (2 * jnp.pi)
    density = 1 / (2 * jnp.pi * root)
    # q12^2 density is kept a product of two moderate numbers: q12 alone may be huge.
    product = q12 * both + density * det + (q12 * density) * (q12 * inverse)
    return product, both + q12 * density * (inverse + 1 / big)
