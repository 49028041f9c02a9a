"""How fast a function can be seen to change: Lipschitz lower bounds by input gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError, NumericalError


class LipschitzLowerBound(NamedTuple):
    """The steepest places that were found.

    Attributes
    ----------
    value
        The largest spectral norm of the Jacobian that was met: no Lipschitz constant in Euclidean
        norms is smaller (to rounding).
    at_data
        Spectral norm of the Jacobian at each given input, shape ``(n,)``.
    largest
        The largest one met on the way from each of them, shape ``(n,)``.
    where
        Where that was, shape ``(n, *shape)``.
    """

    value: float
    at_data: jax.Array
    largest: jax.Array
    where: jax.Array


def lipschitz_lower_bound(
    f: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    x: ArrayLike,
    *,
    radius: float = 0.0,
    steps: int = 10,
) -> LipschitzLowerBound:
    """Largest spectral norm of the Jacobian in the input, found by gradient ascent from the data.

    ``Lip(f) >= |J(z)|_2`` with ``J = df/dx`` at any ``z``. From each input the ascent climbs
    ``|f(z + r v) - f(z - r v)|^2`` in ``z``, with ``v`` the leading right singular vector of
    ``J(z)`` and ``r = radius / 4``, and keeps the largest exact norm on its way. The
    differences take the place of ``|J(z) v|^2``, whose gradient is zero almost everywhere in a
    Relu network.

    Parameters
    ----------
    f, params
        Any ``f(params, x)`` that takes a batch ``(n, *shape)`` and treats its examples apart:
        ``net.apply`` with its parameters, or :func:`kernel_function` with its coefficients.
    x
        Inputs to start from, floating point, shape ``(n, *shape)``.
    radius
        Euclidean distance from its start that the ascent may go; 0 looks at the data alone.
    steps
        Steps of the ascent, each of normalized length, shorter and shorter.

    Returns
    -------
    LipschitzLowerBound
        In the dtype of the inputs.

    Raises
    ------
    InputError
        Inputs that are not a batch of floating point numbers; a negative radius; no steps.
    NumericalError
        Gradients that are not finite.

    Notes
    -----
    A step costs one backward pass for each output, and four passes, of every example; all at once.
    At a kink JAX's derivative of Relu is that of one side; data are there with probability zero.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(1))
    >>> params = ({"w": jnp.array([[3.0], [4.0]])},)
    >>> found = ntk.theory.lipschitz_lower_bound(net.apply, params, jnp.ones((5, 2)))
    >>> print(round(found.value * 2**0.5, 5))  # y = x w / sqrt(2)
    5.0
    """
    x = jnp.asarray(x)
    if x.ndim < 2 or not len(x) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"x has shape {x.shape} and dtype {x.dtype}; expected floating point inputs of shape "
            "(n, *shape), at least one."
        )
    if not 0 <= float(radius) < float("inf"):
        raise InputError(f"radius={radius}; expected a distance, finite and not negative.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps={steps!r}; expected a whole number, at least 1.")
    length = jnp.asarray(radius, x.dtype)
    at_data, largest, where = _ascend(f, params, x, length, steps if radius else 0)
    if not bool(jnp.isfinite(largest).all()):
        raise NumericalError("gradients in the input are not finite: check parameters and inputs.")
    return LipschitzLowerBound(float(largest.max()), at_data, largest, where)


@compiled(static_argnames=("f", "steps"))
def _ascend(
    f: Callable[..., jax.Array], params: Any, x: jax.Array, radius: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def function(z: jax.Array) -> jax.Array:
        return f(params, z[None])[0].reshape(-1)

    def rise(z: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum((function(z + radius / 4 * v) - function(z - radius / 4 * v)) ** 2)

    def climb(start: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def step(carry, length):
            z, largest, where, v = carry
            z = z + length * radius * _unit(jax.grad(rise)(z, v))
            away = z - start
            z = start + away * jnp.minimum(1, radius / jnp.maximum(_norm(away), radius))
            size, v = _steepest(function, z)
            better = size > largest
            found = jnp.where(better, size, largest), jnp.where(better, z, where)
            return (z, *found, v), None

        size, v = _steepest(function, start)
        carry = (start, size, start, v)
        if steps:
            lengths = 3 / steps * (1 - jnp.arange(steps, dtype=x.dtype) / steps)
            carry, _ = jax.lax.scan(step, carry, lengths)
        return size, carry[1], carry[2]

    return jax.vmap(climb)(x)


def _steepest(
    function: Callable[[jax.Array], jax.Array], z: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Spectral norm of the Jacobian, and the direction of the input in which it is met."""
    jacobian = jax.jacrev(function)(z)
    rows = jacobian.reshape(len(jacobian), -1)
    if len(rows) == 1:
        steepest = rows[0]
    else:
        # Values and vectors of the small square: no singular vector is sign or scale sensitive.
        _, vectors = jnp.linalg.eigh(jnp.matmul(rows, rows.T, precision="highest"))
        steepest = jnp.matmul(vectors[:, -1], rows, precision="highest")
    return _norm(steepest), _unit(steepest).reshape(z.shape)


def _norm(v: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(v**2))


def _unit(v: jax.Array) -> jax.Array:
    size = _norm(v)
    return jnp.where(size > 0, v / jnp.where(size > 0, size, 1), 0)
