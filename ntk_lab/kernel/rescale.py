"""Multiplying each example, at each position, by a factor of its own."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from ntk_lab.kernel.covariance import Covariance
from ntk_lab.kernel.layout import Full, Layout, spread1, spread2
from ntk_lab.kernel.state import Features

# From variances (*S, examples) to what multiplies the process there, of shapes that broadcast.
Factor = Callable[[jax.Array], jax.Array]


def rescale(state: Features, factor: Factor) -> Features:
    """State of the process times a factor that depends on its variances alone.

    ``factor`` maps variances of shape ``(*S, k)`` to factors of shape ``(*S, k)``, with ones in
    place of some sizes if it does not depend on those positions. Angles do not change, and the
    gap scales as the covariance does: nothing cancels.
    """

    def rule(k: Covariance) -> Covariance:
        return _multiplied(k, *_scales(k, state.layout, factor))

    scale1, scale2 = _scales(state.cov, state.layout, factor)
    return state.mapped(rule, state.ntk * (scale1 * scale2))


def weigh(state: Features, factors: tuple[jax.Array, jax.Array]) -> Features:
    """State of the process times given factors, ``(n1, *S)`` and ``(n2, *S)``.

    ``q' = f1 f2 q`` and ``t' = f1 f2 t``. With factors zero and one it leaves out positions.
    """
    layout, ndim = state.layout, len(state.layout.shape)
    side1, side2 = (jnp.moveaxis(f.astype(state.ntk.dtype), 0, -1) for f in factors)
    if not isinstance(layout, Full):
        scales = side1[..., :, None], side2[..., None, :]
        cov, ntk = _multiplied(state.cov, *scales), state.ntk * (scales[0] * scales[1])
        return replace(state, cov=cov, ntk=ntk)
    pairs = layout.pairs
    examples = side1 if pairs.symmetric else jnp.concatenate([side1, side2], axis=-1)
    first, second = examples[..., pairs.first], examples[..., pairs.second]
    scales = spread1(first, ndim), spread2(second, ndim)
    cov, ntk = _multiplied(state.cov, *scales), state.ntk * (scales[0] * scales[1])
    if layout.own is not None:
        own = _multiplied(layout.own, spread1(examples, ndim), spread2(examples, ndim))
        layout = replace(layout, own=own)
    return replace(state, cov=cov, ntk=ntk, layout=layout)


def _multiplied(k: Covariance, scale1: jax.Array, scale2: jax.Array) -> Covariance:
    both = scale1 * scale2
    gap = k.gap * jax.lax.stop_gradient(both)
    return Covariance(k.var1 * (scale1 * scale1), k.var2 * (scale2 * scale2), k.cov * both, gap)


def _scales(k: Covariance, layout: Layout, factor: Factor) -> tuple[jax.Array, jax.Array]:
    """Factors of both sides, of shapes that broadcast to that of the covariance."""
    # Both sides go through the same operations on the same shape: equal examples get equal bits.
    side1, side2 = (factor(v.reshape(*layout.shape, -1)) for v in (k.var1, k.var2))
    if isinstance(layout, Full):
        ndim = len(layout.shape)
        return spread1(side1, ndim), spread2(side2, ndim)
    return side1[..., :, None], side2[..., None, :]
