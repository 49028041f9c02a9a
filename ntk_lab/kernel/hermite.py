"""Gaussian expectations of smooth functions without a closed form, by Hermite expansion.

For centred Gaussians ``(u, v)`` with variances ``q11, q22`` and correlation ``rho``, Mehler's
formula gives ``E[f(u) g(v)] = sum_k a_k(q11) b_k(q22) rho^k``, where ``a_k(q)`` are the
coefficients of ``z -> f(sqrt(q) z)`` in normalized Hermite polynomials, found by one-dimensional
quadrature. Truncation leaves at most ``sqrt(tail_a tail_b)``, with ``tail_a`` what Parseval's
identity says is missing: :func:`truncation_error`.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[[jax.Array], jax.Array]

# Trapezoid nodes: the weight exp(-z^2/2) and the polynomials up to this degree are resolved to
# rounding, so the rule converges exponentially for functions analytic near the real axis.
_NODES = np.linspace(-13.0, 13.0, 1041)
_DEGREE = {np.dtype(np.float32): 128, np.dtype(np.float64): 200}
# Share of the root mean squares beyond which a result is NaN rather than silently wrong.
_REFUSED = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-6}


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def gaussian_product(
    f: Function, g: Function, var1: jax.Array, var2: jax.Array, cov: jax.Array
) -> jax.Array:
    """``E[f(u) g(v)]`` for all pairs.

    Parameters
    ----------
    f, g
        Smooth elementwise functions, differentiable by JAX.
    var1, var2, cov
        Variances and covariances, of shapes that broadcast, such as ``(n1, 1)``, ``(1, n2)`` and
        ``(n1, n2)``.

    Returns
    -------
    jax.Array
        Of the shape of ``cov``. NaN where the expansion leaves out more than 1e-6 of
        ``sqrt(E[f^2] E[g^2])`` (1e-4 in float32): strongly correlated pairs of large variance.

    Notes
    -----
    Differentiable to any order by Price's theorem: the derivative in the covariance is
    ``E[f' g']``, in the first variance ``E[f'' g] / 2``. Cost: about ``degree`` multiply-adds a
    pair, half of it for even or odd functions.
    """
    a, b = _coefficients(f, var1), _coefficients(g, var2)
    norm = jnp.sqrt(var1) * jnp.sqrt(var2)
    rho = jnp.clip(jnp.where(norm > 0, cov / jnp.where(norm > 0, norm, 1), 0), -1, 1)
    start, step = _parity(f, g)
    if start is None:
        return jnp.zeros_like(cov)
    total, ratio = jnp.zeros_like(cov), rho**step
    left_out = _root_tail(f, a, var1) * _root_tail(g, b, var2)
    left_out = left_out * jnp.abs(rho) ** a.shape[-1]
    for k in reversed(range(start, a.shape[-1], step)):
        total = total * ratio + a[..., k] * b[..., k]
    total = total * rho if start else total
    return jnp.where(left_out > _REFUSED[np.dtype(var1.dtype)], jnp.nan, total)


@gaussian_product.defjvp
def _gaussian_product_jvp(f, g, primals, tangents):
    dvar1, dvar2, dcov = tangents
    df, dg = derivative(f), derivative(g)
    tangent = (
        gaussian_product(df, dg, *primals) * dcov
        + gaussian_product(derivative(df), g, *primals) * dvar1 / 2
        + gaussian_product(f, derivative(dg), *primals) * dvar2 / 2
    )
    return gaussian_product(f, g, *primals), tangent


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def gaussian_mean(f: Function, g: Function, var: jax.Array) -> jax.Array:
    """``E[f(u) g(u)]`` for ``u`` of variance ``var``, in its shape; exact to quadrature."""
    z = _scaled_nodes(var)
    return f(z) * g(z) @ _constant(_weights(), var)


@gaussian_mean.defjvp
def _gaussian_mean_jvp(f, g, primals, tangents):
    df, dg = derivative(f), derivative(g)
    second = gaussian_mean(derivative(df), g, *primals) + gaussian_mean(f, derivative(dg), *primals)
    return gaussian_mean(f, g, *primals), tangents[0] * (
        gaussian_mean(df, dg, *primals) + second / 2
    )


def truncation_error(f: Function, var: jax.Array) -> jax.Array:
    """Bound on the error of ``E[f(u) f(v)]`` at variance ``var``: what the expansion leaves out."""
    return jnp.maximum(gaussian_mean(f, f, var) - jnp.sum(_coefficients(f, var) ** 2, axis=-1), 0)


def derivative(f: Function) -> Function:
    """Elementwise derivative of ``f``, the same object each time it is asked for."""
    if f not in _DERIVATIVES:
        _DERIVATIVES[f] = lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]
    return _DERIVATIVES[f]


_DERIVATIVES: dict[Function, Function] = {}


def _root_tail(f: Function, coefficients: jax.Array, var: jax.Array) -> jax.Array:
    """Root of the share of ``E[f^2]`` that the coefficients miss."""
    square = gaussian_mean(f, f, var)
    missing = jnp.maximum(square - jnp.sum(coefficients**2, axis=-1), 0)
    return jnp.sqrt(missing / jnp.where(square > 0, square, 1))


def _coefficients(f: Function, var: jax.Array) -> jax.Array:
    """Coefficients of ``z -> f(sqrt(var) z)``, shape ``(*var.shape, degree)``."""
    basis = _constant(_hermite_basis(_DEGREE[np.dtype(var.dtype)]), var)
    return f(_scaled_nodes(var)) @ basis


def _scaled_nodes(var: jax.Array) -> jax.Array:
    """``sqrt(var) z`` for all nodes ``z``, on a last axis of its own."""
    nodes = _constant(_NODES, var).reshape((1,) * var.ndim + (-1,))
    return jnp.sqrt(var)[..., None] * nodes


def _constant(values: np.ndarray, like: jax.Array) -> jax.Array:
    return jnp.asarray(values, like.dtype)


def _weights() -> np.ndarray:
    return np.exp(-(_NODES**2) / 2) / np.sqrt(2 * np.pi) * (_NODES[1] - _NODES[0])


def _hermite_basis(degree: int) -> np.ndarray:
    """Normalized Hermite polynomials times quadrature weights, shape ``(nodes, degree)``."""
    basis = np.empty((degree, len(_NODES)))
    basis[0], basis[1] = 1, _NODES
    for k in range(1, degree - 1):
        basis[k + 1] = (_NODES * basis[k] - np.sqrt(k) * basis[k - 1]) / np.sqrt(k + 1)
    return (basis * _weights()).T


def _parity(f: Function, g: Function) -> tuple[int | None, int]:
    """First exponent of ``rho`` that can occur, and the step between exponents."""
    with jax.ensure_compile_time_eval():
        x = jnp.linspace(0.1, 3.7, 12)
        signs = [_sign(np.asarray(h(x)), np.asarray(h(-x))) for h in (f, g)]
    if 0 in signs:
        known = [s for s in signs if s]
        return ((0 if known[0] > 0 else 1), 2) if known else (0, 1)
    if signs[0] != signs[1]:
        return None, 2
    return (0 if signs[0] > 0 else 1), 2


def _sign(right: np.ndarray, left: np.ndarray) -> int:
    """1 for even, -1 for odd, 0 for neither."""
    return 1 if np.array_equal(left, right) else -1 if np.array_equal(left, -right) else 0
