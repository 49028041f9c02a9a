"""Moments after attention whose logits stay random: scaling ``1/sqrt(d)``, by Monte Carlo.

In the limit of many heads the logits of a head, ``L(x)_ac`` for query position ``a`` and key
position ``c``, are a Gaussian process with covariance (arXiv:2006.10540, theorem 3)::

    Cov(L(x)_ac, L(y)_bd) = query_key^2 qi(x, y)_ab qi(x, y)_cd

If ``R R^T`` is the covariance ``qi`` of all positions of ``x`` and ``y`` together, then
``query_key R W R^T`` with a matrix ``W`` of standard normal numbers has that covariance: its
diagonal blocks are logits of ``x`` and of ``y``. With ``Z`` the attention weights of those logits,
``q' = E[Z(x) qv Z(y)^T]``, and the NTK has a term for the logits' own motion.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ntk_lab.kernel.attention import Moments, Weights, product, sandwich
from ntk_lab.kernel.layout import Full

# Covariances are singular for equal inputs; this many units of rounding make them regular.
_JITTER = 10


@dataclass(frozen=True)
class Mechanism:
    """What turns logits into attention weights.

    ``weights`` maps logits ``(k, s, s)`` to weights over the last axis; ``slope`` is the
    elementwise derivative, or None for the softmax.
    """

    weights: Weights
    slope: Callable[[jax.Array], jax.Array] | None


def random_weights(
    scores: Moments,
    values: Moments,
    layout: Full,
    query_key,
    share,
    mechanism: Mechanism,
    present: jax.Array | None,
    samples: int,
    key: jax.Array,
) -> Moments:
    """Heads with random attention: means over ``samples`` draws of the logits.

    The same draws serve every pair, so that each example's own covariance is the same number in
    every tile of a kernel. Covariances between examples are rescaled to those variances, which
    keeps correlations within one. ``share`` is that of the maps to queries and keys in the NTK of
    logits. Cost: about ``20 s^3`` multiply-adds a sample and pair.
    """
    first, second = layout.pairs.first, layout.pairs.second
    size = scores.own.shape[-1]
    root_own = _root(scores.own, scores.own)
    root = _root_of_two(root_own[first], scores.cov, scores.own[second])
    own_second = values.own[second]
    present1, present2 = (None if present is None else present[i] for i in (first, second))

    def logits(r: jax.Array, w: jax.Array) -> jax.Array:
        return query_key * product(product(r, w[None]), jnp.swapaxes(r, 1, 2))

    def one(total, sample):
        # Every draw is used with both signs: errors linear in the logits cancel.
        w = jax.random.normal(jax.random.fold_in(key, sample // 2), (2 * size,) * 2, root.dtype)
        w = jnp.where(sample % 2 == 0, w, -w)
        own = mechanism.weights(logits(root_own, w[:size, :size]), present)
        raw1, raw2 = logits(root[:, :size], w), logits(root[:, size:], w)
        z1, z2 = mechanism.weights(raw1, present1), mechanism.weights(raw2, present2)
        motion = _motion(mechanism, (raw1, raw2), (z1, z2), scores, values)
        terms = (
            sandwich(z1, values.cov, z2),
            sandwich(z1, values.ntk, z2),
            sandwich(own, values.own, own),
            jnp.sum(product(z2, own_second) * z2, axis=2),
            *motion,
        )
        return tuple(a + b / samples for a, b in zip(total, terms, strict=True)), None

    zeros, row = jnp.zeros_like(scores.cov), jnp.zeros(scores.cov.shape[:2], root.dtype)
    start = (zeros, zeros, jnp.zeros_like(values.own), row, zeros, zeros)
    cov, ntk, own, var2, moved, moved_by_input = jax.lax.scan(one, start, jnp.arange(samples))[0]
    cov = cov * _ratio(jnp.diagonal(own, axis1=1, axis2=2)[second], var2)[:, None, :]
    q, t = scores.cov, scores.ntk
    ntk = ntk + (share * q + query_key**2 * t) * moved + query_key**2 * q * moved_by_input
    return Moments(cov, ntk, own)


def _motion(mechanism, logits, weights, scores: Moments, values: Moments):
    """``sum_cd qv_cd sum_c'd' (dZ_ac/dL_ac') (dZ_bd/dL_bd') n_c'd'`` for ``n = qi`` and ``ti``."""
    if mechanism.slope is not None:
        d1, d2 = (mechanism.slope(x) for x in logits)
        return tuple(sandwich(d1, values.cov * n, d2) for n in (scores.cov, scores.ntk))
    z1, z2 = weights
    return tuple(_softmax_motion(z1, z2, values.cov, n) for n in (scores.cov, scores.ntk))


def _softmax_motion(z1: jax.Array, z2: jax.Array, m: jax.Array, n: jax.Array) -> jax.Array:
    """The sum for ``dZ_c/dL_c' = Z_c (delta_cc' - Z_c')``, multiplied out."""
    flipped = jnp.swapaxes(z2, 1, 2)
    m_right, n_right = product(m, flipped), product(n, flipped)
    m_left, n_left = product(z1, m), product(z1, n)
    inner = product(product(z1, m * n) - m_left * n_left, flipped)
    return inner - product(z1, m_right * n_right) + product(z1, m_right) * product(z1, n_right)


def _root_of_two(root_first: jax.Array, cov: jax.Array, own_second: jax.Array) -> jax.Array:
    """Triangular root of the covariance of both sequences, whose first block is known."""
    left = jax.lax.linalg.triangular_solve(root_first, cov, left_side=True, lower=True)
    turned = jnp.swapaxes(left, 1, 2)
    rest = _root(own_second - product(turned, left), own_second)
    top = jnp.concatenate([root_first, jnp.zeros_like(cov)], axis=2)
    return jnp.concatenate([top, jnp.concatenate([turned, rest], axis=2)], axis=1)


def _root(covariance: jax.Array, whole: jax.Array) -> jax.Array:
    """Triangular root of a stack of covariances, made regular, that are part of ``whole``.

    After earlier sampled layers those of two sequences and of each one come from draws that are
    not quite the same, so that their sum may be short of a covariance by more than rounding.
    """
    size, precision = covariance.shape[-1], jnp.finfo(covariance.dtype)
    mean = jnp.trace(whole, axis1=1, axis2=2) / size
    share = _JITTER * size * float(precision.eps)
    lowest = jnp.linalg.eigvalsh(jax.lax.stop_gradient(covariance))[:, 0]
    shift = jnp.maximum(share * mean, 1e-30) + jnp.maximum(-lowest, 0)
    eye = jnp.eye(size, dtype=covariance.dtype)
    return jnp.linalg.cholesky(covariance + shift[:, None, None] * eye[None])


def _ratio(wanted: jax.Array, found: jax.Array) -> jax.Array:
    positive = (wanted > 0) & (found > 0)
    return jnp.where(
        positive,
        jnp.sqrt(jnp.where(positive, wanted, 1)) / jnp.sqrt(jnp.where(positive, found, 1)),
        1,
    )
