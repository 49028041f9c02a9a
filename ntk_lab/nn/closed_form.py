"""Activations whose ``E[phi(u) phi(v)]`` has a closed form in the covariances."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance
from ntk_lab.nn.activation import Activation


class ClosedForm(Activation):
    """An activation given by its function and its product moment.

    The second half of the dual follows from the first by Price's theorem,
    ``E[phi'(u) phi'(v)] = d E[phi(u) phi(v)] / d q12``.
    """

    def product(self, k: Covariance) -> jax.Array:
        """``E[phi(u) phi(v)]``, in the broadcast shape of ``k``."""
        raise TypeError(f"{type(self).__name__} does not define product(k).")

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        k12, derivative = jax.jvp(
            lambda q12: self.product(replace(cov, cov=q12)), (cov.cov,), (jnp.ones_like(cov.cov),)
        )
        k11, k22 = (
            self.product(Covariance(v, v, v, jnp.zeros_like(v))) for v in (cov.var1, cov.var2)
        )
        return cov.after_smooth_rule(k11, k22, k12), derivative


def opposite(k: Covariance) -> Covariance:
    """Covariance of ``(u, -v)``."""
    return replace(k, cov=-k.cov)


def difference_of_exponentials(k: Covariance, rate, extra: Any = 0.0) -> jax.Array:
    """``exp(-rate (d(u, v) + extra)) - exp(-rate (d(u, -v) + extra))`` without cancellation.

    ``d`` is half the mean squared difference, so that this is
    ``2 exp(-rate ((q11 + q22) / 2 + extra)) sinh(rate q12)``, which over- and underflows.
    """
    positive = k.cov >= 0
    nearer = jnp.where(positive, k.distance(1.0), opposite(k).distance(1.0))
    size = jnp.where(positive, k.cov, -k.cov)
    value = -jnp.exp(-rate * (nearer + extra)) * jnp.expm1(-2 * rate * size)
    return jnp.where(positive, value, -value)
