"""Sharpness: the largest eigenvalues of the Hessian of the training loss and of the NTK."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from ntk_lab.compiled import compiled
from ntk_lab.empirical.linearize import linearize
from ntk_lab.errors import NumericalError
from ntk_lab.losses import Loss, mean_loss, read_loss

Model = Callable[[Any, Any], jax.Array]
Operator = Callable[[Any, Any], Any]
TOLERANCE = 1e-3
PRODUCTS = 200


class TopEigenvalue(NamedTuple):
    """The largest eigenvalue of a symmetric matrix, and how well it is known.

    Attributes
    ----------
    value
        The eigenvalue, a Rayleigh quotient and so never above the largest but by rounding.
    residual
        ``|A v - value v|`` for the unit vector ``v`` that belongs to it: an eigenvalue lies within
        this distance, and where the next one is ``gap`` away, within ``residual^2 / gap``.
    products
        Products of the matrix with a vector.
    """

    value: float
    residual: float
    products: int


def sharpness(
    f: Model,
    params: Any,
    x: Any,
    y: jax.Array,
    *,
    loss: str | Loss = "squared",
    key: jax.Array,
    tol: float = TOLERANCE,
    max_products: int = PRODUCTS,
) -> TopEigenvalue:
    """Largest eigenvalue of the Hessian of the training loss in the parameters.

    ``max eig  d^2/dtheta^2  1/n sum_i loss(f(theta, x_i), y_i)``. Gradient descent is stable
    below ``2 / learning_rate`` (arXiv:2003.02218, arXiv:2103.00065).

    Parameters
    ----------
    f, params
        Any ``f(params, x)`` with outputs ``(n, C)``.
    x, y
        Examples and targets ``(n, C)``.
    loss
        A name or function of `ntk_lab.losses`.
    key
        Decides the vector to start from.
    tol, max_products
        Stop where the residual is below ``tol`` times the eigenvalue, or after so many products.
        The eigenvalue itself is then known far better, to about ``tol^2`` where it is isolated.

    Returns
    -------
    TopEigenvalue
        Floats; look at ``residual`` where ``products`` reached the bound.

    Raises
    ------
    NumericalError
        Products that are not finite.

    Notes
    -----
    Lanczos iteration without reorthogonalization, which keeps three vectors of the size of the
    parameters; the largest Ritz value and its residual stay right, only copies of it appear.
    Each product costs about two gradients of the loss.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.zeros((2, 1))
    >>> top = ntk.train.sharpness(lambda w, x: x @ w, jnp.ones((2, 1)), x, y, key=jax.random.key(0))
    >>> round(top.value, 4)
    2.0
    """
    operator = hessian_operator(f, read_loss(loss), linearized=False)
    return top_eigenvalue(operator, params, (params, params, x, y), key, tol, max_products)


def top_ntk(
    f: Model,
    params: Any,
    x: Any,
    *,
    key: jax.Array,
    tol: float = TOLERANCE,
    max_products: int = PRODUCTS,
) -> TopEigenvalue:
    """Largest eigenvalue of the empirical NTK over all examples and outputs, divided by ``n``.

    For the squared loss that of the Gauss-Newton matrix ``J^T J / n``: kernel gradient descent is
    stable for learning rates below ``2 / value``. Arguments, result and method are those of
    `sharpness`, with products ``J J^T v / n`` of vectors of the outputs.
    """
    outputs = jax.eval_shape(f, params, x)
    return top_eigenvalue(ntk_operator(f), outputs, (params, x), key, tol, max_products)


@lru_cache(maxsize=16)
def hessian_operator(f: Model, loss: Loss, linearized: bool) -> Operator:
    """``(vector, (params, params0, x, y)) -> Hessian @ vector``.

    Of the loss of ``f``, or of its linearization around ``params0``.
    """

    def product(v, data):
        params, params0, x, y = data
        model = linearize(f, params0) if linearized else f
        gradient = jax.grad(lambda p: mean_loss(loss, model(p, x), y))
        return jax.jvp(gradient, (params,), (v,))[1]

    return product


@lru_cache(maxsize=16)
def ntk_operator(f: Model) -> Operator:
    """``(vector, (params, x)) -> J J^T @ vector / n``."""

    def product(v, data):
        params, x = data
        outputs, back = jax.vjp(lambda p: f(p, x), params)
        pushed = jax.jvp(lambda p: f(p, x), (params,), back(v))[1]
        return pushed / len(outputs)

    return product


def top_eigenvalue(
    operator: Operator, like: Any, data: Any, key: jax.Array, tol: float, most: int
) -> TopEigenvalue:
    """Lanczos iteration from a random vector with the shapes of ``like``."""
    before, v = _random(like, key)
    size = sum(leaf.size for leaf in jax.tree.leaves(v))
    diagonal: list[float] = []
    beside: list[float] = [0.0]
    value = residual = float("inf")
    for done in range(1, min(most, size) + 1):
        before, v, alpha, beta = _advance(operator, before, v, beside[-1], data)
        diagonal.append(float(alpha))
        beside.append(float(beta))
        if not np.isfinite([diagonal[-1], beside[-1]]).all():
            raise NumericalError("products with the Hessian or the NTK are not finite.")
        exhausted = done == min(most, size) or beside[-1] == 0
        if done % 4 and not exhausted and done > 4:
            continue
        value, residual = _ritz(diagonal, beside[1:])
        if exhausted or residual <= tol * abs(value):
            break
    return TopEigenvalue(value, residual, len(diagonal))


@compiled(static_argnums=0)
def _advance(operator, before, v, beta, data):
    w = operator(v, data)
    alpha = _dot(w, v)
    w = jax.tree.map(
        lambda a, b, c: a - alpha.astype(a.dtype) * b - jnp.asarray(beta, a.dtype) * c, w, v, before
    )
    norm = jnp.sqrt(_dot(w, w))
    scale = jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0)
    return v, jax.tree.map(lambda a: a * scale.astype(a.dtype), w), alpha, norm


def _random(like: Any, key: jax.Array) -> tuple[Any, Any]:
    """Zeros, and a random unit vector; what is not floating point stays out of both."""
    leaves, tree = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=True)]
    norm = jnp.sqrt(_dot(drawn, drawn))
    unit = [v / norm.astype(v.dtype) for v in drawn]
    return tree.unflatten([jnp.zeros_like(v) for v in unit]), tree.unflatten(unit)


def _dot(a: Any, b: Any) -> jax.Array:
    parts = [
        jnp.vdot(p, q, precision="highest")
        for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    return jnp.sum(jnp.stack(parts))


def _ritz(diagonal: list[float], beside: list[float]) -> tuple[float, float]:
    """Largest eigenvalue of the tridiagonal matrix, and the residual of its vector."""
    last = len(diagonal) - 1
    values, vectors = scipy.linalg.eigh_tridiagonal(
        np.asarray(diagonal), np.asarray(beside[:-1]), select="i", select_range=(last, last)
    )
    return float(values[0]), float(beside[-1] * abs(vectors[-1, 0]))
