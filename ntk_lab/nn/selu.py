"""Scaled exponential linear unit."""

import jax

from ntk_lab.kernel import Covariance
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.elementwise import kinked_dual
from ntk_lab.nn.module import module


@module
class Selu(Activation):
    """``1.0507 Elu(1.6733)``: at unit variance features have unit variance (arXiv:1706.02515).

    Its dual is integrated as that of :class:`Elu`, with the same accuracy.
    """

    def function(self, x: jax.Array) -> jax.Array:
        return jax.nn.selu(x)

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        return kinked_dual(jax.nn.selu, (0.0,), cov)
