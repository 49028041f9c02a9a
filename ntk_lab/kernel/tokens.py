"""Second moments of tokens: one if they are equal, zero if not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError
from ntk_lab.kernel.covariance import Covariance
from ntk_lab.kernel.layout import Carry, Diagonal, Full, Layout, spread1, spread2
from ntk_lab.kernel.state import Features, Inputs


def check_tokens(x: Any, vocabulary: int) -> jax.Array:
    """Tokens as an array; InputError for other types, shapes, and tokens out of range."""
    x = x if isinstance(x, jax.Array) else jnp.asarray(np.asarray(x))
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise InputError(
            f"ntk.nn.Embedding needs integer tokens, but they are {x.dtype}: convert them, e.g. "
            "x.astype(int)."
        )
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(
            f"tokens have shape {x.shape}; expected (n, *shape), as (n, time) for sequences."
        )
    if is_concrete(x):
        with jax.ensure_compile_time_eval():
            low, high = int(x.min()), int(x.max())
        if low < 0 or high >= vocabulary:
            raise InputError(
                f"tokens run from {low} to {high}, but ntk.nn.Embedding has a vocabulary of "
                f"{vocabulary}: 0 to {vocabulary - 1}."
            )
    return x


def token_moments(state: Inputs) -> Features:
    """Moments of one-hot vectors of tokens ``(n, *S)``, per vector instead of per channel."""
    same, pairs, ndim = state.identical(), state.pairs, len(state.shape)
    if state.carry == Carry.DIAGONAL:
        a, b = (jnp.moveaxis(x, 0, -1) for x in (state.x1, state.x2))
        layout: Layout = Diagonal(state.shape)
        cov = _of_equal(a[..., :, None], b[..., None, :])
    else:
        x = state.x1 if pairs.symmetric else jnp.concatenate([state.x1, state.x2])
        x = jnp.moveaxis(x, 0, -1)
        own = _of_equal(spread1(x, ndim), spread2(x, ndim)) if state.carry == Carry.OWN else None
        layout = Full(state.shape, pairs, own)
        cov = _of_equal(spread1(x[..., pairs.first], ndim), spread2(x[..., pairs.second], ndim))
        same = same[pairs.rows, pairs.columns]
    return Features(cov, jnp.zeros_like(cov.cov), 1, layout, same, state.patterns, state.masks)


def _of_equal(a: jax.Array, b: jax.Array) -> Covariance:
    dtype = jnp.result_type(float)
    cov = (a == b).astype(dtype)
    return Covariance(jnp.ones(a.shape, dtype), jnp.ones(b.shape, dtype), cov, 1 - cov)
