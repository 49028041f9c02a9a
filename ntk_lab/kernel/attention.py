"""Moments after self-attention over all positions, in the limit of many heads (arXiv:2006.10540).

Every array is a stack of matrices over flattened positions: ``(pairs, s, s)`` between two
examples, ``(examples, s, s)`` for an example and itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel.layout import Full
from ntk_lab.kernel.positions import mixed
from ntk_lab.kernel.state import Features, Gaussian

# From logits ``(k, s, s)`` and which positions are present, ``(k, 1, s)`` or None for all.
Weights = Callable[[jax.Array, jax.Array | None], jax.Array]


@dataclass(frozen=True)
class Moments:
    """Covariance and NTK of pairs of examples, and covariance of each example with itself."""

    cov: jax.Array
    ntk: jax.Array
    own: jax.Array

    def affine(self, weight, constant: jax.Array, tangent: jax.Array) -> "Moments":
        """``weight`` times each, plus ``(s, s)`` to covariances and to the NTK."""
        cov, own = (weight * v + constant[None] for v in (self.cov, self.own))
        return Moments(cov, weight * self.ntk + tangent[None], own)

    def weighted(self, signal, share) -> "Moments":
        """After maps of random weights: ``signal`` passes, ``share`` of it is their own NTK."""
        ntk = signal * self.ntk + share * self.cov
        return Moments(signal * self.cov, ntk, signal * self.own)

    def without_absent(self, present: jax.Array | None, layout: Full) -> "Moments":
        """Zero where either position is absent, so that elementwise weights vanish there.

        ``present`` is ``(examples, 1, s)``, or None: all are.
        """
        if present is None:
            return self
        pairs, columns = layout.pairs, jnp.swapaxes(present, 1, 2)
        between = columns[pairs.first] & present[pairs.second]
        cov, ntk = (jnp.where(between, v, 0) for v in (self.cov, self.ntk))
        return Moments(cov, ntk, jnp.where(columns & present, self.own, 0))


def present_positions(state: Features, layout: Full) -> jax.Array | None:
    """Masks of all distinct examples over flattened positions, ``(examples, 1, s)``."""
    if state.masks is None:
        return None
    both = state.masks[0] if layout.pairs.symmetric else jnp.concatenate(state.masks)
    return both.reshape(len(both), 1, -1)


def matrices(state: Features) -> tuple[Moments, Full]:
    """Moments of a state as stacks of matrices, and its layout."""
    layout = state.layout
    if not isinstance(layout, Full) or layout.own is None:
        raise InputError(
            "attention needs the covariance between all positions of each example, which is not "
            f"carried (layout {type(layout).__name__}). Layers that follow each other must pass on "
            "what is needed: see Module.need. Inputs need at least one spatial axis."
        )
    size = math.prod(layout.shape)

    def stack(values: jax.Array) -> jax.Array:
        return jnp.moveaxis(values.reshape(size, size, -1), -1, 0)

    return Moments(stack(state.cov.cov), stack(state.ntk), stack(layout.own.cov)), layout


def readout(state: Features, heads: Moments, channels: int, bias: tuple | None) -> Gaussian:
    """State after a bias is added to sums of heads: its variance, its NTK; None without one."""
    shape = state.layout.shape

    def unstack(values: jax.Array) -> jax.Array:
        return jnp.moveaxis(values, 0, -1).reshape(*shape, *shape, -1)

    cov, ntk, own = (unstack(v) for v in (heads.cov, heads.ntk, heads.own))
    after = replace(mixed(state, lambda _: cov, lambda _: own, shape), ntk=ntk)
    if bias is not None:
        after = after.mapped(lambda k: k.add_constant(bias[0]), ntk + bias[1])
    return after.gaussian(channels)


def fixed_weights(
    scores: Moments,
    values: Moments,
    layout: Full,
    query_key,
    weights: Weights,
    present: jax.Array | None,
) -> Moments:
    """Heads whose attention is a number in the limit: scaling ``1/d``, keys tied to queries.

    ``G = weights(query_key qi(x, x))``, ``q' = G1 qv G2^T``, ``t' = G1 tv G2^T``.
    """
    attention = weights(query_key * scores.own, present)
    first, second = (attention[i] for i in (layout.pairs.first, layout.pairs.second))
    cov = sandwich(first, values.cov, second)
    ntk = sandwich(first, values.ntk, second)
    return Moments(cov, ntk, sandwich(attention, values.own, attention))


def linear_attention(scores: Moments, values: Moments, query_key, share, causal: bool) -> Moments:
    """Heads without a nonlinearity, scaling ``1/sqrt(d)``.

    With ``<u, v>`` the sum over all pairs of positions (``causal``: up to the two that attend) and
    ``share`` that of the maps to queries and keys::

        q' = query_key^2 <qi, qv> qi
        t' = query_key^2 ((<qi, tv> + <qv, ti>) qi + <qi, qv> ti) + share <qi, qv> qi
    """

    def inner(u: jax.Array, v: jax.Array) -> jax.Array:
        if causal:
            return jnp.cumsum(jnp.cumsum(u * v, axis=1), axis=2)
        return jnp.sum(u * v, axis=(1, 2), keepdims=True)

    square = query_key**2
    q, t, both = scores.cov, scores.ntk, inner(scores.cov, values.cov)
    mixed_terms = inner(q, values.ntk) + inner(values.cov, t)
    ntk = square * (mixed_terms * q + both * t) + share * both * q
    own = inner(scores.own, values.own) * scores.own
    return Moments(square * both * q, ntk, square * own)


def sandwich(left: jax.Array, middle: jax.Array, right: jax.Array) -> jax.Array:
    """``left middle right^T`` of each stack."""
    return product(product(left, middle), jnp.swapaxes(right, -1, -2))


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product in full precision."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
