"""Randomized Nyström approximation of a positive semi-definite matrix, as a preconditioner."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntk_lab.compiled import compiled


class Nystrom(NamedTuple):
    """Approximation ``U diag(values) U^T`` of a positive semi-definite matrix.

    Attributes
    ----------
    vectors
        ``U``, orthonormal columns ``(n, rank)``.
    values
        In descending order, shape ``(rank,)``.
    """

    vectors: jax.Array
    values: jax.Array

    def inverse(self, ridge: Any, v: jax.Array) -> jax.Array:
        """Preconditioner of ``A + ridge I``, applied to columns ``v`` of shape ``(n, m)``.

        ``(l + ridge) U (values + ridge)^-1 U^T v + (v - U U^T v)`` with ``l`` the smallest of the
        values: the part that is known is inverted, the rest treated as ``l`` (arXiv:2110.02820).
        """
        return _inverse(self, jnp.asarray(ridge, v.dtype), v)


def nystrom(
    apply: Callable[[jax.Array], jax.Array], n: int, rank: int, key: jax.Array, dtype: Any
) -> Nystrom:
    """Randomized Nyström approximation ``(A Q) (Q^T A Q)^+ (A Q)^T``, ``Q`` random.

    Parameters
    ----------
    apply
        ``A @ v`` for ``v`` of shape ``(n, rank)``, ``A`` symmetric positive semi-definite.
    n, rank
        Size of ``A``, and number of random directions, at most ``n``.
    key
        Decides the directions.
    dtype
        Of the vectors.

    Returns
    -------
    Nystrom

    Notes
    -----
    One product with ``rank`` vectors, ``O(n rank^2)`` operations. As in arXiv:2110.02820,
    ``A + shift I`` is approximated and the shift taken off again, as the Gram matrix of rapidly
    decaying eigenvalues is singular to rounding.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_lab.solve import nystrom
    >>> diagonal = jnp.array([9.0, 4.0, 0.0, 0.0])[:, None]
    >>> found = nystrom(lambda v: diagonal * v, 4, 2, jax.random.key(0), float)
    >>> print(found.values.round(3))
    [9. 4.]
    """
    directions, _ = jnp.linalg.qr(jax.random.normal(key, (n, rank), dtype))
    return _factor(directions, apply(directions))


@compiled
def _factor(directions: jax.Array, products: jax.Array) -> Nystrom:
    n, eps = len(directions), jnp.finfo(products.dtype).eps
    shift = n**0.5 * eps * jnp.linalg.norm(products)
    shifted = products + shift * directions
    gram = jnp.matmul(directions.T, shifted, precision="highest")
    values, vectors = jnp.linalg.eigh((gram + gram.T) / 2)
    kept = values > eps * values[-1]
    roots = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, values, 1)), 0)
    factor = jnp.matmul(shifted, vectors * roots[None], precision="highest")
    left, singular, _ = jnp.linalg.svd(factor, full_matrices=False)
    return Nystrom(left, jnp.maximum(singular**2 - shift, 0))


@compiled
def _inverse(found: Nystrom, ridge: jax.Array, v: jax.Array) -> jax.Array:
    inside = jnp.matmul(found.vectors.T, v, precision="highest")
    # With neither ridge nor rank there is nothing to divide by, and nothing that is known.
    total = found.values + ridge
    safe = jnp.where(total > 0, total, 1)
    scale = jnp.where(total > 0, (found.values[-1] + ridge) / safe - 1, 0)
    scale = jnp.where(found.values[-1] + ridge > 0, scale, 0)
    return v + jnp.matmul(found.vectors, scale[:, None] * inside, precision="highest")
