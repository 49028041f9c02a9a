"""A sinusoid whose kernel is the squared exponential."""

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Covariance
from ntk_lab.nn.closed_form import ClosedForm
from ntk_lab.nn.module import hyper, module


@module
class Rbf(ClosedForm):
    """``sqrt(2) sin(sqrt(2 gamma) x + pi/4)``, whose dual is ``exp(-gamma Var(u - v))``.

    Right to rounding: near-duplicates keep the digits of their distance. ``gamma < 0`` raises
    InputError.
    """

    gamma: float = hyper(default=1.0)

    def __post_init__(self):
        if isinstance(self.gamma, int | float) and not self.gamma >= 0:
            raise InputError(f"Rbf got gamma={self.gamma}; it must not be negative.")

    def function(self, x: jax.Array) -> jax.Array:
        return 2**0.5 * jnp.sin((2 * self.gamma) ** 0.5 * x + jnp.pi / 4)

    def product(self, k: Covariance) -> jax.Array:
        return jnp.exp(-2 * self.gamma * k.distance(1.0))
