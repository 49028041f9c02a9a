"""A closed-form stand-in for the logistic function."""

import jax

from ntk_lab.kernel import Covariance
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.erf import Erf
from ntk_lab.nn.module import module

_ERF = Erf(0.5, 1 / 2.4020563531719796, 0.5)


@module
class SigmoidLike(Activation):
    """``(1 + erf(x / 2.4020563531719796)) / 2``, within 0.02 of the logistic function.

    :class:`Erf` with constants, so that its dual has a closed form; :class:`Sigmoid` is the
    logistic function itself.
    """

    def function(self, x: jax.Array) -> jax.Array:
        return _ERF.function(x)

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        return _ERF.dual(cov)
