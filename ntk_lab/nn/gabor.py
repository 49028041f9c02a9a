"""Gabor wavelet."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.nn.closed_form import ClosedForm, difference_of_exponentials
from ntk_lab.nn.module import module


@module
class Gabor(ClosedForm):
    """``exp(-x^2) sin(x)``.

    The factor ``exp(-u^2 - v^2)`` makes of the Gaussian one with covariance ``S`` and weight
    ``1/sqrt(D)``, where ``D = (1 + 2 q11)(1 + 2 q22) - 4 q12^2``, ``S12 = q12 / D`` and
    ``S11 = (q11 + 2 (q11 q22 - q12^2)) / D``; sines of it are as in ``Sin``::

        E[phi phi] = exp(-(S11 + S22) / 2) sinh(S12) / sqrt(D)

    Right to rounding, at small variances too.
    """

    def function(self, x: jax.Array) -> jax.Array:
        return jnp.exp(-(x**2)) * jnp.sin(x)

    def product(self, k: Covariance) -> jax.Array:
        det = k.determinant
        scale = 1 + 2 * (k.var1 + k.var2) + 4 * det
        return difference_of_exponentials(k, 1 / scale, 2 * det) / (2 * jnp.sqrt(scale))
