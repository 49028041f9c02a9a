"""Means over many positions that keep their digits."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from ntk_lab.kernel.apart import apart


def mean(values: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Mean over some axes, which are kept with size one.

    One axis at a time: XLA on CPUs adds up one entry after the other, and of a sum of thousands
    in float32 the last two digits are rounding. It would also merge the sums, if they were not
    kept apart.
    """
    for axis in axes:
        if values.shape[axis] > 1:
            values = apart(partial(jnp.mean, axis=axis, keepdims=True), values)
    return values
