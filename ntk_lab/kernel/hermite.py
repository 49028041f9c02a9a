"""Gaussian expectations of smooth functions without a closed form, by Hermite expansion.

For centred Gaussians ``(u, v)`` with variances ``q11, q22`` and correlation ``rho``, Mehler's
formula gives ``E[f(u) g(v)] = sum_k a_k(q11) b_k(q22) rho^k``, where ``a_k(q)`` are the
coefficients of ``z -> f(sqrt(q) z)`` in normalized Hermite polynomials, found by one-dimensional
quadrature. Truncation leaves at most ``sqrt(tail_a tail_b) |rho|^k``, with ``tail_a`` what
Parseval's identity says is missing. Terms are added in blocks until that is below rounding: few
for generic data and moderate variances, up to 1536 for near-duplicates of large variance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[[jax.Array], jax.Array]

# Trapezoid nodes on the half line: the weight exp(-z^2/2) and the polynomials are resolved to
# rounding, so the rule converges exponentially for functions analytic near the real axis.
_STEP = 0.04
_NODES = _STEP * np.arange(326)
_BLOCK, _BLOCKS = 16, 48
# Share of the root mean squares beyond which a result is NaN rather than silently wrong.
_REFUSED = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-6}
# Share at which the sum stops.
_ENOUGH = {np.dtype(np.float32): 6e-7, np.dtype(np.float64): 4e-15}


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def gaussian_product(
    f: Function,
    g: Function,
    var1: jax.Array,
    var2: jax.Array,
    cov: jax.Array,
    known: jax.Array | None = None,
) -> jax.Array:
    """``E[f(u) g(v)]`` for all pairs.

    Parameters
    ----------
    f, g
        Smooth elementwise functions, differentiable by JAX.
    var1, var2, cov
        Variances and covariances, of shapes that broadcast, such as ``(n1, 1)``, ``(1, n2)`` and
        ``(n1, n2)``.
    known
        Mask of the pairs whose values are not needed, such as a diagonal; they are less accurate.

    Returns
    -------
    jax.Array
        Of the shape of ``cov``. NaN where the expansion, or the quadrature behind it, may be off
        by more than 1e-6 of ``sqrt(E[f^2] E[g^2])`` (1e-4 in float32): strongly correlated pairs
        of very large variance, functions with kinks.

    Notes
    -----
    Differentiable to any order by Price's theorem: the derivative in the covariance is
    ``E[f' g']``, in the first variance ``E[f'' g] / 2``. Cost: two to three operations a pair and
    term, half of it for even or odd functions; the number of terms is found at run time.
    """
    norm = jnp.sqrt(var1) * jnp.sqrt(var2)
    rho = jnp.clip(jnp.where(norm > 0, cov / jnp.where(norm > 0, norm, 1), 0), -1, 1)
    parities = _parities(f, g)
    if not parities:
        return jnp.zeros_like(cov)
    wanted = jnp.abs(rho) if known is None else jnp.where(known, 0, jnp.abs(rho))
    values = _Values.of((f, g), (var1, var2))
    total, left_out = jnp.zeros_like(cov), sum(values.split(values.error))
    for parity in parities:
        value, missing = _series(parity, values, rho, jnp.max(wanted))
        total, left_out = total + value, left_out + missing
    bad = left_out > _REFUSED[np.dtype(cov.dtype)]
    return jnp.where(bad if known is None else bad & ~known, jnp.nan, total)


@gaussian_product.defjvp
def _gaussian_product_jvp(f, g, primals, tangents):
    args, (dvar1, dvar2, dcov) = primals[:3], tangents[:3]
    df, dg = derivative(f), derivative(g)
    tangent = (
        gaussian_product(df, dg, *args) * dcov
        + gaussian_product(derivative(df), g, *args) * dvar1 / 2
        + gaussian_product(f, derivative(dg), *args) * dvar2 / 2
    )
    return gaussian_product(f, g, *primals), tangent


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def gaussian_mean(f: Function, g: Function, var: jax.Array) -> jax.Array:
    """``E[f(u) g(u)]`` for ``u`` of variance ``var``, in its shape; exact to quadrature."""
    values = _at_nodes((f, g), (var, var))
    size = values.shape[1] // 2
    mean = jnp.sum(values[:, :size] * values[:, size:], axis=0) @ _constant(_weights(), var)
    return mean.reshape(var.shape)


@gaussian_mean.defjvp
def _gaussian_mean_jvp(f, g, primals, tangents):
    df, dg = derivative(f), derivative(g)
    second = gaussian_mean(derivative(df), g, *primals) + gaussian_mean(f, derivative(dg), *primals)
    return gaussian_mean(f, g, *primals), tangents[0] * (
        gaussian_mean(df, dg, *primals) + second / 2
    )


def truncation_error(f: Function, var: jax.Array) -> jax.Array:
    """Bound on the error of ``E[f(u) f(v)]`` at variance ``var`` and any correlation.

    What all the terms that may be used leave out.
    """
    values = _Values.of((f, f), (var, var))
    missing = jnp.zeros_like(values.square)
    for parity in (0, 1):
        coefficients = values.folded[parity] @ _constant(_table(parity), var).T
        left = values.shares[parity] - jnp.sum(coefficients**2, axis=-1) / values.square
        missing += jnp.maximum(left, 0)
    return values.split(missing * values.square)[0]


def derivative(f: Function) -> Function:
    """Elementwise derivative of ``f``, the same object each time it is asked for."""
    if f not in _DERIVATIVES:
        _DERIVATIVES[f] = lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]
    return _DERIVATIVES[f]


_DERIVATIVES: dict[Function, Function] = {}


@dataclass(frozen=True)
class _Values:
    """Two functions at the nodes, each for several variances, in one list.

    ``folded`` is twice their even and odd parts, of shape ``(2, variances, nodes)``; ``square`` is
    ``E[f^2]``, or one where that is zero, and ``shares`` what the two parts have of it. ``error``
    is the share of it by which every other node gives another value: pessimistic, for an analytic
    function's error is about its square.
    """

    folded: jax.Array
    square: jax.Array
    shares: jax.Array
    error: jax.Array
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(cls, functions: tuple[Function, Function], variances: tuple) -> "_Values":
        right, left = _at_nodes(functions, variances)
        folded = jnp.stack([right + left, right - left])
        weights = _weights() / 2
        coarse = np.where(np.arange(len(weights)) % 2, 0, 2 * weights)
        squares = folded**2 @ _constant(np.stack([weights, coarse], axis=1), folded)
        fine, other = jnp.sum(squares, axis=0).T
        square = jnp.where(fine > 0, fine, 1)
        shapes = variances[0].shape, variances[1].shape
        shares, error = squares[..., 0] / square[None], jnp.abs(fine - other) / square
        return cls(folded, square, shares, error, shapes)

    def split(self, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Values for all variances as arrays of the shapes of the two groups."""
        size, rest = math.prod(self.shapes[0]), values.shape[1:]
        return (
            values[:size].reshape(*self.shapes[0], *rest),
            values[size:].reshape(*self.shapes[1], *rest),
        )


def _series(
    parity: int, values: _Values, rho: jax.Array, largest: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum of the even or the odd terms, and the share of the root mean squares it leaves out."""
    table, ratio = _constant(_table(parity), rho), rho**2
    enough = _ENOUGH[np.dtype(rho.dtype)]

    def unfinished(state):
        step, _, _, rest, size = state
        first, second = (jnp.sqrt(jnp.max(r)) for r in values.split(rest))
        return (step < _BLOCKS) & (first * second * size > enough)

    def add_block(state):
        step, total, power, rest, size = state
        rows = jax.lax.dynamic_slice_in_dim(table, step * _BLOCK, _BLOCK).T
        found = jnp.matmul(values.folded[parity], rows, precision=jax.lax.Precision.HIGHEST)
        a, b = values.split(found)
        block = jnp.zeros_like(total)
        for k in reversed(range(_BLOCK)):
            block = block * ratio + a[..., k] * b[..., k]
        rest = jnp.maximum(rest - jnp.sum(found**2, axis=-1) / values.square, 0)
        total, power = total + power * block, power * ratio**_BLOCK
        return step + 1, total, power, rest, size * largest ** (2 * _BLOCK)

    power = rho if parity else jnp.ones_like(rho)
    size = largest if parity else jnp.ones_like(largest)
    start = (jnp.int32(0), jnp.zeros_like(rho), power, values.shares[parity], size)
    _, total, power, rest, _ = jax.lax.while_loop(unfinished, add_block, start)
    first, second = (jnp.sqrt(r) for r in values.split(rest))
    return total, first * second * jnp.abs(power)


def _at_nodes(functions: tuple[Function, Function], variances: tuple) -> jax.Array:
    """Functions at the positive and the negative nodes, shape ``(2, variances, nodes)``."""
    f, g = functions
    nodes = _constant(_NODES, variances[0])[None]
    first, second = (jnp.sqrt(v).reshape(-1, 1) * nodes for v in variances)
    if f is g:
        both = jnp.concatenate([first, second])
        values = f(jnp.stack([both, -both]))
    else:
        parts = f(jnp.stack([first, -first])), g(jnp.stack([second, -second]))
        values = jnp.concatenate(parts, axis=1)
    # Computed once: compiled into each of its uses, a function takes long to compile.
    return jax.lax.optimization_barrier(values)


def _constant(values: np.ndarray, like: jax.Array) -> jax.Array:
    return jnp.asarray(values, like.dtype)


def _weights() -> np.ndarray:
    weights = np.exp(-(_NODES**2) / 2) / np.sqrt(2 * np.pi) * _STEP
    return np.where(_NODES > 0, weights, weights / 2)


@lru_cache
def _table(parity: int) -> np.ndarray:
    """Even or odd normalized Hermite polynomials times weights, shape ``(terms, nodes)``."""
    rows, before, value = [], np.zeros_like(_NODES), _weights()
    for k in range(2 * _BLOCK * _BLOCKS):
        if k % 2 == parity:
            rows.append(value)
        before, value = value, (_NODES * value - np.sqrt(k) * before) / np.sqrt(k + 1)
    return np.stack(rows)


def _parities(f: Function, g: Function) -> tuple[int, ...]:
    """Which of the even (0) and the odd (1) terms can differ from zero."""
    with jax.ensure_compile_time_eval():
        x = jnp.linspace(0.1, 3.7, 12)
        signs = [_sign(np.asarray(h(x)), np.asarray(h(-x))) for h in (f, g)]
    possible = {0, 1}
    for sign in signs:
        possible &= {1: {0}, -1: {1}, 0: {0, 1}}[sign]
    return tuple(sorted(possible))


def _sign(right: np.ndarray, left: np.ndarray) -> int:
    """1 for even, -1 for odd, 0 for neither."""
    return 1 if np.array_equal(left, right) else -1 if np.array_equal(left, -right) else 0
