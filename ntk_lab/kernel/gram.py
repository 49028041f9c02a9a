"""Second moments of data: ``<x1, x2> / d`` and how far two inputs are from being colinear."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel.apart import apart
from ntk_lab.kernel.covariance import Covariance, balance
from ntk_lab.kernel.layout import Pairs

# Rows, and pairs of each, corrected in one go. Most data have few pairs so close that a Gram
# matrix cannot tell them apart; where there are none, no round is run.
_PER_ROUND = (32, 32)
_UNROLLED_CHANNELS = 16


def gram(x1: jax.Array, x2: jax.Array, overlap: int = 0) -> Covariance:
    """Covariance of linear features with unit weights: ``cov = x1 x2^T / d``.

    Parameters
    ----------
    x1, x2
        Data of shapes ``(n1, d)`` and ``(n2, d)``.
    overlap
        The first ``overlap`` rows of ``x2`` are those of ``x1``; there the gap is zero.

    Notes
    -----
    The gap of nearly colinear pairs, which a matrix product cannot resolve, is recomputed as
    ``norm |u1 -+ u2|^2 / 2`` from the difference (or sum) of the unit vectors.
    """
    d = x1.shape[1]
    var1, var2 = (jnp.einsum("nd,nd->n", x, x) / d for x in (x1, x2))
    cov = jnp.matmul(x1, x2.T, precision=jax.lax.Precision.HIGHEST) / d
    constant = jax.lax.stop_gradient
    gap = _gap(*(constant(a) for a in (x1, x2, var1, var2, cov)), overlap=overlap)
    if overlap:
        same = _same(cov.shape, overlap)
        cov = jnp.where(same, var1[:, None], cov)
    return Covariance(var1[:, None], var2[None, :], cov, gap)


def _same(shape: tuple[int, ...], overlap: int) -> jax.Array:
    """Mask of the entries that pair an example with itself."""
    row = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    column = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    return (row == column) & (row < overlap)


def _gap(x1, x2, var1, var2, cov, overlap: int) -> jax.Array:
    root1, root2 = jnp.sqrt(var1), jnp.sqrt(var2)
    norm = root1[:, None] * root2[None, :]
    gap = jnp.maximum(norm - jnp.abs(cov), 0)
    if overlap:
        gap = jnp.where(_same(gap.shape, overlap), 0, gap)
    unit1 = x1 / jnp.where(root1 > 0, root1, 1)[:, None]
    unit2 = x2 / jnp.where(root2 > 0, root2, 1)[:, None]
    rows, columns = (min(size, limit) for size, limit in zip(gap.shape, _PER_ROUND, strict=True))

    def correct(carry):
        """Correct the first doubtful pairs, in column order, of some rows that have any left."""
        gap, first, left = carry
        i = jax.lax.top_k(left, rows)[1].astype(left.dtype)
        doubtful = _doubtful(gap[i], root1[i], root2, i, overlap)
        doubtful &= jnp.arange(len(x2))[None, :] >= first[i][:, None]
        found, j = jax.lax.top_k(doubtful.astype(gap.dtype), columns)
        j = j.astype(i.dtype)
        a, b = unit1[i][:, None, :], unit2[j]
        sign = jnp.where(jnp.sum(a * b, axis=2, keepdims=True) >= 0, 1, -1).astype(gap.dtype)
        exact = jnp.mean((a - sign * b) ** 2, axis=2) * root1[i][:, None] * root2[j] / 2
        # What was not found is written to a row past the end, that is, nowhere.
        target = jnp.where(found > 0, i[:, None], len(left))
        gap = gap.at[target, j].set(exact, mode="drop")
        last = jnp.max(jnp.where(found > 0, j, -1), axis=1)
        more = jnp.sum(doubtful, axis=1) - jnp.sum(found > 0, axis=1)
        first = first.at[i].max(last + 1)
        return gap, first, left.at[i].set(more)

    left = jnp.sum(_doubtful(gap, root1, root2, jnp.arange(len(x1)), overlap), axis=1)
    start = (gap, jnp.zeros(len(x1), left.dtype), left)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[2] > 0), correct, start)[0]


def _doubtful(gap, root1, root2, rows, overlap: int) -> jax.Array:
    """Pairs so nearly colinear that a matrix product says too little of their angle."""
    norm = root1[:, None] * root2[None, :]
    share = 1e-3 if gap.dtype == jnp.float32 else 1e-5
    same = (rows[:, None] == jnp.arange(len(root2))[None, :]) & (rows[:, None] < overlap)
    return (gap <= share * norm) & (norm > 0) & ~same


def diagonal_gram(x1: jax.Array, x2: jax.Array) -> Covariance:
    """Covariance at equal positions of data ``(n, *S, channels)``: ``cov`` is ``(*S, n1, n2)``."""
    a, b = (jnp.moveaxis(x, 0, -2) for x in (x1, x2))
    return _from_differences(a[..., :, None, :], b[..., None, :, :], pair_axes=2)


def full_gram(x1: jax.Array, x2: jax.Array, pairs: Pairs) -> Covariance:
    """Covariance between all positions of data: ``cov`` is ``(*S, *S, pairs)``."""
    x = x1 if pairs.symmetric else jnp.concatenate([x1, x2])
    return _between_positions(x[pairs.first], x[pairs.second])


def own_gram(x1: jax.Array, x2: jax.Array, pairs: Pairs) -> Covariance:
    """Covariance between all positions of each distinct example: ``(*S, *S, examples)``."""
    x = x1 if pairs.symmetric else jnp.concatenate([x1, x2])
    return _between_positions(x, x)


def _between_positions(x1: jax.Array, x2: jax.Array) -> Covariance:
    ndim = x1.ndim - 2
    a, b = (jnp.moveaxis(x, 0, -2) for x in (x1, x2))
    ones, rest = (1,) * ndim, a.shape[ndim:]
    return _from_differences(
        a.reshape(*a.shape[:ndim], *ones, *rest),
        b.reshape(*ones, *b.shape[:ndim], *rest),
        pair_axes=1,
    )


def _from_differences(a: jax.Array, b: jax.Array, pair_axes: int) -> Covariance:
    """Covariance over the last axis, distances being formed before anything is summed."""
    var1, var2 = (jnp.mean(x * x, axis=-1) for x in (a, b))
    weight = balance(var1, var2, pair_axes)
    root = jnp.sqrt(weight)
    # A sum over few channels, unrolled, is one elementwise pass over the pairs.
    channels = a.shape[-1]
    if channels <= _UNROLLED_CHANNELS:
        squares = ((root * a[..., c] - b[..., c] / root) ** 2 for c in range(channels))
        distance = sum(squares, start=jnp.zeros((), a.dtype)) / (2 * channels)
        if pair_axes == 1:
            distance = apart(lambda v: v, distance)
    else:
        distance = jnp.mean((root[..., None] * a - b / root[..., None]) ** 2, axis=-1) / 2
    return Covariance.from_distance(var1, var2, distance, weight)
