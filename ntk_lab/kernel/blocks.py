"""Positions that are independent of each other, axes of one position, maps of all positions."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from ntk_lab.kernel.covariance import Covariance
from ntk_lab.kernel.layout import Full, same_position
from ntk_lab.kernel.positions import flatten, mixed
from ntk_lab.kernel.state import Features, State, moments


def decouple(state: State) -> Features:
    """The same moments at equal positions, and independence between different ones."""
    state = moments(state)
    if not isinstance(state.layout, Full):
        return state
    same = same_position(state.layout.shape, state.ntk) > 0

    def rule(k: Covariance) -> Covariance:
        return Covariance(k.var1, k.var2, jnp.where(same, k.cov, 0), jnp.where(same, k.gap, k.norm))

    return state.mapped(rule, jnp.where(same, state.ntk, 0))


def drop_axes(state: Features, axes: tuple[int, ...]) -> Features:
    """State without some spatial axes, along which there is one position."""
    layout, ndim = state.layout, len(state.layout.shape)
    sides = (0, ndim) if isinstance(layout, Full) else (0,)
    squeezed = tuple(side + axis for side in sides for axis in axes)

    def rule(k: Covariance) -> Covariance:
        return jax.tree.map(lambda v: jnp.squeeze(v, squeezed), k)

    state = state.mapped(rule, jnp.squeeze(state.ntk, squeezed))
    shape = tuple(size for axis, size in enumerate(layout.shape) if axis not in axes)
    return replace(state, layout=replace(state.layout, shape=shape))


def along_positions(state: Features, matrix: jax.Array, shape: tuple[int, ...]) -> Features:
    """State after a linear map of all positions at once; ``matrix`` is ``(outputs, inputs)``.

    ``shape`` are the sizes of the outputs; without any, the state of a vector.
    """
    size = matrix.shape[1]

    def apply(values: jax.Array) -> jax.Array:
        flat = values.reshape(size, size, -1)
        precision = jax.lax.Precision.HIGHEST
        rows = jnp.einsum("pq,qrk->prk", matrix, flat, precision=precision)
        both = jnp.einsum("pq,rqk->rpk", matrix, rows, precision=precision)
        return both.reshape(*(shape or (1,)), *(shape or (1,)), -1)

    after = mixed(state, apply, apply, shape or (1,))
    return after if shape else flatten(after)
