"""Functions of a matrix that is known by its products, applied to vectors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ntk_lab.compiled import compiled
from ntk_lab.solve.quadrature import Product, lanczos_step


class KrylovSpace(NamedTuple):
    """Orthonormal bases of the Krylov spaces of several vectors, each its own.

    Attributes
    ----------
    basis
        Shape ``(depth + 1, n, m)``; the last vector leads out of the space.
    diagonal, off_diagonal
        Of the tridiagonal matrices, ``(depth, m)`` each.
    sizes
        Norms of the vectors, ``(m,)``.
    """

    basis: jax.Array
    diagonal: jax.Array
    off_diagonal: jax.Array
    sizes: jax.Array

    @property
    def depth(self) -> int:
        """Number of products taken."""
        return len(self.diagonal)

    def spectra(self, depth: int) -> tuple[jax.Array, jax.Array]:
        """Ritz values ``(m, depth)`` and their vectors in the basis, ``(m, depth, depth)``."""
        return _decomposed(self.diagonal[:depth], self.off_diagonal[: depth - 1])

    def function(self, weights: jax.Array, vectors: jax.Array) -> jax.Array:
        """``f(A) v`` for each vector.

        Parameters
        ----------
        weights
            Values of ``f`` at the Ritz values, ``(m, depth)``.
        vectors
            Of :meth:`spectra`.

        Returns
        -------
        jax.Array
            Shape ``(n, m)``.
        """
        return _combined(self.basis, weights, vectors, self.sizes)


def krylov(apply: Product, vectors: jax.Array, depth: int) -> KrylovSpace:
    """Krylov space of each column of ``vectors``, shape ``(n, m)``; columns may be zero.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_lab.solve import krylov
    >>> diagonal = jnp.arange(1.0, 4.0)[:, None]
    >>> space = krylov(lambda v: diagonal * v, jnp.ones((3, 1)), 3)
    >>> values, basis = space.spectra(3)
    >>> print(space.function(1 / values, basis)[:, 0].round(3))
    [1.    0.5   0.333]
    """
    sizes = jnp.linalg.norm(vectors, axis=0)
    start = vectors / jnp.where(sizes > 0, sizes, 1)[None]
    empty = jnp.zeros((0, len(sizes)), vectors.dtype)
    return extended(apply, KrylovSpace(start[None], empty, empty, sizes), depth)


def extended(apply: Product, space: KrylovSpace, depth: int) -> KrylovSpace:
    """The same space to a greater depth, by the products that are missing."""
    known = space.depth
    if depth <= known:
        return space
    more = ((0, depth - known), (0, 0))
    basis = jnp.pad(space.basis, ((0, depth - known), (0, 0), (0, 0)))
    diagonal, off = jnp.pad(space.diagonal, more), jnp.pad(space.off_diagonal, more)
    vector = space.basis[-1]
    for i in range(known, depth):
        product = apply(vector)
        basis, diagonal, off, vector = lanczos_step(
            basis, diagonal, off, vector, product, jnp.int32(i)
        )
    return KrylovSpace(basis, diagonal, off, space.sizes)


@compiled
def _decomposed(diagonal: jax.Array, off: jax.Array) -> tuple[jax.Array, jax.Array]:
    def one(d, e):
        return jnp.linalg.eigh(jnp.diag(d) + jnp.diag(e, 1) + jnp.diag(e, -1))

    return jax.vmap(one, in_axes=1)(diagonal, off)


@compiled
def _combined(basis, weights, vectors, sizes) -> jax.Array:
    small = jnp.einsum("mik,mk,mk->im", vectors, weights, vectors[:, 0], precision="highest")
    found = jnp.einsum("inm,im->nm", basis[: len(small)], small, precision="highest")
    return found * sizes[None]
