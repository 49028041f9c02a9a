"""Largest eigenvalues of a matrix that is known by its products only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.errors import ConvergenceError, NumericalError

Product = Callable[[jax.Array], jax.Array]


class Eigenpairs(NamedTuple):
    """Largest eigenvalues with their eigenvectors, and how well they are known.

    Attributes
    ----------
    eigenvalues
        In descending order, shape ``(top,)``.
    eigenvectors
        Orthonormal, one for each eigenvalue, along the last axis.
    residual_norms
        ``|A v - value v|`` of each, shape ``(top,)``: within this distance of the value there is
        an eigenvalue.
    products
        Products of the matrix with one vector.
    """

    eigenvalues: jax.Array
    eigenvectors: jax.Array
    residual_norms: jax.Array
    products: int


class _Space(NamedTuple):
    """Orthonormal basis ``(n, size)``, zero from column ``used`` on, and its products."""

    basis: jax.Array
    products: jax.Array
    used: int


def top_eigenpairs(
    apply: Product,
    n: int,
    top: int,
    *,
    key: jax.Array,
    dtype: Any,
    block: int,
    tol: float,
    max_products: int,
) -> Eigenpairs:
    """The ``top`` largest eigenvalues of a symmetric positive semi-definite matrix.

    Parameters
    ----------
    apply
        ``A @ v`` for ``v`` of shape ``(n, m)``.
    n, top
        Size of the matrix, and number of eigenvalues.
    key
        Decides the vectors to start from.
    dtype
        Of the vectors.
    block
        Vectors at a time. An eigenvalue of higher multiplicity than that may be found fewer times
        than it occurs.
    tol
        Bound on residual norms, relative to the largest eigenvalue.
    max_products
        Bound on products with single vectors.

    Returns
    -------
    Eigenpairs
        ``eigenvectors`` of shape ``(n, top)``.

    Raises
    ------
    ConvergenceError
        Residuals above the tolerance once the products are used up; its ``result`` holds the pairs
        so far.
    NumericalError
        Products that are not finite.

    Notes
    -----
    Block Lanczos iteration with full reorthogonalization: the space grows by the residuals of the
    pairs that are not yet found, is reduced to the best vectors when full (thick restart), and
    the pairs are those of the matrix restricted to it. Small matrices are formed and decomposed.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_lab.solve import top_eigenpairs
    >>> diagonal = jnp.arange(100.0)[:, None]
    >>> found = top_eigenpairs(
    ...     lambda v: diagonal * v, 100, 2, key=jax.random.key(0), dtype=float, block=4,
    ...     tol=1e-5, max_products=200,
    ... )
    >>> print(found.eigenvalues.round(2))
    [99. 98.]
    """
    kept = top + block
    size = kept + max(5 * block, top)
    if size >= n:
        return _dense(apply, n, top, dtype)
    space = _Space(jnp.zeros((n, size), dtype), jnp.zeros((n, size), dtype), 0)
    candidates, count = jnp.zeros((n, block), dtype), 0
    while True:
        key, fresh = jax.random.split(key)
        new = _orthonormal(space.basis, candidates, fresh)
        space = _grown(space, new, apply(new))
        count += block
        values, vectors, residuals, norms = _ritz(space.basis, space.products, space.used, top)
        if not bool(jnp.isfinite(norms).all()):
            raise NumericalError("products with the matrix are not finite.")
        known = min(top, space.used)
        found = Eigenpairs(values[:known], vectors[:, :known], norms[:known], count)
        missing = np.asarray(norms > tol * jnp.abs(values[0]))
        if space.used >= top and not missing.any():
            return found
        if count + block > max_products:
            _refuse(found, tol)
        candidates = _chosen(residuals, missing, block)
        if space.used + block > size:
            space = _reduced(space, kept)


def _dense(apply: Product, n: int, top: int, dtype: Any) -> Eigenpairs:
    matrix = apply(jnp.eye(n, dtype=dtype))
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    values, vectors = values[::-1][:top], vectors[:, ::-1][:, :top]
    residuals = jnp.matmul(matrix, vectors, precision="highest") - vectors * values[None]
    return Eigenpairs(values, vectors, jnp.linalg.norm(residuals, axis=0), n)


@compiled
def _orthonormal(basis: jax.Array, candidates: jax.Array, key: jax.Array) -> jax.Array:
    """Orthonormal columns, orthogonal to the basis; random where candidates lie within it."""
    rest = _outside(basis, candidates)
    q, r = jnp.linalg.qr(rest)
    eps = jnp.finfo(q.dtype).eps
    sizes = jnp.linalg.norm(candidates, axis=0)
    lost = jnp.abs(jnp.diagonal(r)) <= 100 * eps * sizes
    random = jax.random.normal(key, q.shape, q.dtype)
    q, _ = jnp.linalg.qr(_outside(basis, jnp.where(lost[None], random, q)))
    # The first pass takes off what is large, the second what rounding left of it.
    q, _ = jnp.linalg.qr(_outside(basis, q))
    return q


def _outside(basis: jax.Array, v: jax.Array) -> jax.Array:
    for _ in range(2):
        inside = jnp.matmul(basis.T, v, precision="highest")
        v = v - jnp.matmul(basis, inside, precision="highest")
    return v


def _grown(space: _Space, new: jax.Array, products: jax.Array) -> _Space:
    start = jnp.int32(space.used)
    return _Space(
        _put(space.basis, new, start),
        _put(space.products, products, start),
        space.used + new.shape[1],
    )


@compiled
def _put(whole: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(whole, part, (jnp.zeros_like(start), start))


def _ritz(basis: jax.Array, products: jax.Array, used: int, top: int) -> tuple[Any, ...]:
    values, coefficients = _eigh(basis, products, jnp.int32(used))
    vectors, residuals, norms = _residuals(basis, products, values[:top], coefficients[:, :top])
    return values, vectors, residuals, norms


@compiled
def _eigh(basis: jax.Array, products: jax.Array, used: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of the matrix restricted to the basis, largest first; columns not in use come last."""
    small = jnp.matmul(basis.T, products, precision="highest")
    small = (small + small.T) / 2
    unused = jnp.arange(len(small), dtype=used.dtype) >= used
    last = -1 - 2 * jnp.linalg.norm(small)
    values, coefficients = jnp.linalg.eigh(small + jnp.diag(jnp.where(unused, last, 0)))
    return values[::-1], coefficients[:, ::-1]


@compiled
def _residuals(basis, products, values, coefficients) -> tuple[jax.Array, jax.Array, jax.Array]:
    vectors = jnp.matmul(basis, coefficients, precision="highest")
    residuals = jnp.matmul(products, coefficients, precision="highest") - vectors * values[None]
    return vectors, residuals, jnp.linalg.norm(residuals, axis=0)


def _chosen(residuals: jax.Array, missing: np.ndarray, block: int) -> jax.Array:
    """Residuals of the first pairs that are not yet found, zeros where there are too few."""
    numbers = np.flatnonzero(missing)[:block]
    picked = residuals[:, numbers]
    return jnp.pad(picked, ((0, 0), (0, block - len(numbers))))


def _reduced(space: _Space, kept: int) -> _Space:
    _, coefficients = _eigh(space.basis, space.products, jnp.int32(space.used))
    width = ((0, 0), (0, space.basis.shape[1] - kept))
    basis, products = (
        jnp.pad(jnp.matmul(v, coefficients[:, :kept], precision="highest"), width)
        for v in (space.basis, space.products)
    )
    return _Space(basis, products, kept)


def _refuse(found: Eigenpairs, tol: float) -> None:
    worst = float((found.residual_norms / jnp.abs(found.eigenvalues[0])).max())
    raise ConvergenceError(
        f"after {found.products} products an eigenpair has a residual of {worst:.2g} of the "
        f"largest eigenvalue, above tol={tol:.1g}. Allow more max_products, ask for fewer pairs "
        "or a higher tol, or compute in float64. This error's `result` holds the pairs so far.",
        found,
    )
