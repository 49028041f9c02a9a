"""Exponential of the correlation."""

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Covariance
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.module import Params, hyper, module


@module
class ExpNormalized(Activation):
    """Kernel rule ``q' = s exp(gamma (q12 / s + shift))`` with ``s = sqrt(q11 q22)``.

    The normalized Gaussian kernel of arXiv:2003.02237, whose derivative half is
    ``gamma exp(...)``; no elementwise function of a finite network has it, so that ``init`` and
    ``apply`` raise InputError. Right to rounding at every angle; finite derivatives, at zero
    inputs too. ``do_clip`` keeps correlations within [-1, 1] where rounding takes them out.
    Kernels are differentiable in ``gamma`` and ``shift``.
    """

    gamma: float = hyper(default=1.0)
    shift: float = hyper(default=-1.0)
    do_clip: bool = False

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        raise _no_network()

    def function(self, x: jax.Array) -> jax.Array:
        raise _no_network()

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        root1, root2 = (
            jnp.where(v > 0, jnp.sqrt(jnp.where(v > 0, v, 1)), 0) for v in (cov.var1, cov.var2)
        )
        norm = root1 * root2
        alive = norm > 0
        rho = jnp.where(alive, cov.cov / jnp.where(alive, norm, 1), 0)
        if self.do_clip:
            rho = rho + jax.lax.stop_gradient(jnp.clip(rho, -1, 1) - rho)
        level, peak = (
            jnp.exp(self.gamma * (rho + self.shift)),
            jnp.exp(self.gamma * (1 + self.shift)),
        )
        lacking = jnp.where(alive, cov.gap / jnp.where(alive, cov.norm, 1), 0)
        lacking = jnp.where(cov.cov >= 0, lacking, 2 - lacking)
        gap = jax.lax.stop_gradient(-cov.norm * peak * jnp.expm1(-self.gamma * lacking))
        product = Covariance(cov.var1 * peak, cov.var2 * peak, norm * level, jnp.maximum(gap, 0))
        return product, self.gamma * level


def _no_network() -> InputError:
    return InputError(
        "ExpNormalized is a rule for kernels alone: no elementwise function has it. Use "
        "net.kernel(x), or another activation for a finite network."
    )
