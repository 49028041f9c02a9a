"""Lanczos quadrature: traces of functions of a matrix that is known by its products only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled

Product = Callable[[jax.Array], jax.Array]


class Rules(NamedTuple):
    """Gauss rules for the spectral measures of several probes, and what extends them.

    Attributes
    ----------
    diagonal, off_diagonal
        Jacobi matrices ``(m, depth)`` each; the last of the off-diagonal entries leads out of the
        space, and is zero where the space was exhausted.
    """

    diagonal: jax.Array
    off_diagonal: jax.Array


def probes(key: jax.Array, n: int, samples: range, dtype: Any) -> jax.Array:
    """Random signs ``(n, len(samples))``; column ``i`` depends on the key and ``i`` only."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(samples.start, samples.stop))
    return jax.vmap(lambda k: jax.random.rademacher(k, (n,), dtype))(keys).T


def lanczos(apply: Product, vectors: jax.Array, depth: int) -> Rules:
    """Lanczos iteration from each column of ``vectors``, with full reorthogonalization.

    Parameters
    ----------
    apply
        ``A @ v`` for ``v`` of shape ``(n, m)``, ``A`` symmetric.
    vectors
        Not zero, shape ``(n, m)``; each runs its own iteration.
    depth
        Number of products, at most ``n``.

    Returns
    -------
    Rules

    Notes
    -----
    Holds ``depth`` vectors for each column; ``O(n m depth^2)`` operations beside the products.
    Driven from the host, as convolutions inside compiled loops are tens of times slower on CPU.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_lab.solve import gauss, lanczos
    >>> diagonal = jnp.arange(3.0)[:, None]
    >>> nodes, weights = gauss(lanczos(lambda v: diagonal * v, jnp.ones((3, 1)), 3))
    >>> print(jnp.abs(nodes).round(3), weights.round(3))
    [[0. 1. 2.]] [[0.333 0.333 0.333]]
    """
    n, m = vectors.shape
    basis = jnp.zeros((depth + 1, n, m), vectors.dtype)
    vector = vectors / jnp.linalg.norm(vectors, axis=0)[None]
    basis = basis.at[0].set(vector)
    diagonal = jnp.zeros((depth, m), vectors.dtype)
    off = jnp.zeros((depth, m), vectors.dtype)
    for i in range(depth):
        product = apply(vector)
        basis, diagonal, off, vector = lanczos_step(
            basis, diagonal, off, vector, product, jnp.int32(i)
        )
    return Rules(diagonal.T, off.T)


@compiled
def lanczos_step(basis, diagonal, off, vector, product, i) -> tuple[jax.Array, ...]:
    """One more vector of each basis ``(depth + 1, n, m)``, number ``i + 1``, from a product."""
    n = len(product)
    alpha = (vector * product).sum(axis=0)
    rest = product
    for _ in range(2):
        inside = jnp.einsum("knm,nm->km", basis, rest, precision="highest")
        rest = rest - jnp.einsum("knm,km->nm", basis, inside, precision="highest")
    beta = jnp.linalg.norm(rest, axis=0)
    # What is left of an exhausted space is rounding, and its direction means nothing.
    scale = jnp.maximum(jnp.abs(diagonal).max(axis=0), jnp.linalg.norm(product, axis=0))
    gone = beta <= 10 * n**0.5 * jnp.finfo(beta.dtype).eps * scale
    beta = jnp.where(gone, 0, beta)
    following = jnp.where(gone[None], 0, rest / jnp.where(gone, 1, beta)[None])
    basis = basis.at[i + 1].set(following)
    return basis, diagonal.at[i].set(alpha), off.at[i].set(beta), following


def gauss(rules: Rules) -> tuple[jax.Array, jax.Array]:
    """Nodes and weights ``(m, depth)``; the weights of a probe add up to one."""
    return _decomposed(rules.diagonal, rules.off_diagonal[:, :-1])


def radau(rules: Rules, bound: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nodes and weights ``(m, depth + 1)`` of the Gauss-Radau rules with a node at ``bound``.

    ``bound`` must lie below the spectrum. For a function whose odd derivatives are positive and
    whose even ones are negative, such as the logarithm, the result is a lower bound, as that of
    the Gauss rule is an upper one.
    """
    nodes, vectors = jnp.linalg.eigh(_jacobi(rules.diagonal - bound, rules.off_diagonal[:, :-1]))
    last = rules.off_diagonal[:, -1]
    least = jnp.finfo(nodes.dtype).eps * nodes[:, -1:]  # positive but for rounding
    total = (vectors[:, -1] ** 2 / jnp.maximum(nodes, least)).sum(axis=1)
    extra = bound + last**2 * total
    diagonal = jnp.concatenate([rules.diagonal, extra[:, None]], axis=1)
    return _decomposed(diagonal, rules.off_diagonal)


@compiled
def log_bounds(rules: Rules, ridge: Any) -> jax.Array:
    """Upper and lower bound of ``v^T log(A + ridge) v``, ``|v| = 1``, for each probe, ``(m, 2)``.

    ``A`` is positive semi-definite, to rounding.
    """
    nodes, weights = gauss(rules)
    eps, n = jnp.finfo(nodes.dtype).eps, rules.diagonal.shape[1]
    ridge = jnp.asarray(ridge, nodes.dtype)
    low = -jnp.minimum(ridge / 2, 16 * n * eps * jnp.abs(nodes).max())
    below, shares = radau(rules, low)

    def total(nodes, weights):
        return (weights * jnp.log(jnp.maximum(nodes, low) + ridge)).sum(axis=1)

    return jnp.stack([total(nodes, weights), total(below, shares)], axis=1)


@compiled(static_argnames="log")
def smoothed(rules: Rules, grid: jax.Array, width: Any, log: bool) -> jax.Array:
    """Spectral measures smoothed by a Gaussian, at the whole depth and at three quarters of it.

    Of shape ``(m, 2, len(grid))``. With ``log`` the grid is one of logarithms, on which nodes
    that are zero to rounding have no place.
    """
    fewer = max(1, 3 * rules.diagonal.shape[1] // 4)
    short = Rules(rules.diagonal[:, :fewer], rules.off_diagonal[:, :fewer])
    width = jnp.asarray(width, grid.dtype)

    def density(rules: Rules) -> jax.Array:
        nodes, weights = gauss(rules)
        if log:
            least = 1000 * jnp.finfo(nodes.dtype).eps * jnp.abs(nodes).max()
            weights = jnp.where(nodes > least, weights, 0)
            nodes = jnp.log(jnp.maximum(nodes, least))
        gaps = (grid[None, :, None] - nodes[:, None]) / width
        bells = jnp.exp(-(gaps**2) / 2) / ((2 * np.pi) ** 0.5 * width)
        return (bells * weights[:, None]).sum(axis=2)

    return jnp.stack([density(rules), density(short)], axis=1)


def _jacobi(diagonal: jax.Array, off: jax.Array) -> jax.Array:
    def one(d, e):
        return jnp.diag(d) + jnp.diag(e, 1) + jnp.diag(e, -1)

    return jax.vmap(one)(diagonal, off)


def _decomposed(diagonal: jax.Array, off: jax.Array) -> tuple[jax.Array, jax.Array]:
    nodes, vectors = jnp.linalg.eigh(_jacobi(diagonal, off))
    return nodes, vectors[:, 0] ** 2
