"""Root of an increasing concave function, differentiable in what the function depends on."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

_MOST_STEPS = 200


def rising_root(function: Callable[[Array], Array], start: Array) -> Array:
    """Where an increasing concave ``function`` is zero, from a ``start`` on the left of it.

    Newton's steps from the left never overshoot, so they end when they no longer move.
    """

    def solve(function, start: Array) -> Array:
        def step(state):
            count, u, _ = state
            value, slope = jax.jvp(function, (u,), (jnp.ones_like(u),))
            return count + 1, u - value / slope, u

        def goes_on(state):
            count, u, before = state
            return (count < _MOST_STEPS) & (u > before * (1 + 2 * jnp.finfo(u.dtype).eps))

        return jax.lax.while_loop(goes_on, step, (0, start, jnp.zeros_like(start)))[1]

    return jax.lax.custom_root(function, start, solve, lambda g, y: y / g(jnp.ones_like(y)))
