"""Intermediate results that the compiler must not compute more than once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def apart(function: Callable[[jax.Array], jax.Array], values: jax.Array) -> jax.Array:
    """``function(values)`` with its argument computed once, in a compiled piece of its own.

    Left to itself the compiler recomputes all that leads to ``values``, activations included, for
    every tap of every filter that reads them. It does not look across a conditional, and does not
    know that this one, on a first entry that is NaN or not, has only one outcome.
    """
    first = jax.lax.stop_gradient(values[(0,) * values.ndim])
    shape = jax.eval_shape(function, values).shape
    known = (first >= 0) | (first < 0)
    return jax.lax.cond(known, function, lambda v: jnp.full(shape, jnp.nan, v.dtype), values)
