"""Multiplying each example, at each position, by a factor of its own."""

from collections.abc import Callable

import jax

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
        scale1, scale2 = _scales(k, state.layout, factor)
        both = scale1 * scale2
        gap = k.gap * jax.lax.stop_gradient(both)
        return Covariance(k.var1 * (scale1 * scale1), k.var2 * (scale2 * scale2), k.cov * both, gap)

    scale1, scale2 = _scales(state.cov, state.layout, factor)
    return state.mapped(rule, state.ntk * (scale1 * scale2))


def _scales(k: Covariance, layout: Layout, factor: Factor) -> tuple[jax.Array, jax.Array]:
    """Factors of both sides, of shapes that broadcast to that of the covariance."""
    # Both sides go through the same operations on the same shape: equal examples get equal bits.
    side1, side2 = (factor(v.reshape(*layout.shape, -1)) for v in (k.var1, k.var2))
    if isinstance(layout, Full):
        ndim = len(layout.shape)
        return spread1(side1, ndim), spread2(side2, ndim)
    return side1[..., :, None], side2[..., None, :]
