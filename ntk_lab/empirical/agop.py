"""Average gradient outer product: the input directions that a function is sensitive to."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.empirical.ntk import Model, Params
from ntk_lab.errors import InputError, NumericalError

_NUMBERS = 2**24  # entries of Jacobians held at once


def average_gradient_outer_product(f: Model, params: Params, x: jax.Array) -> jax.Array:
    """Average gradient outer product, ``M = 1/n sum_i J(x_i)^T J(x_i)``.

    ``J(x)`` is the Jacobian of all outputs in the input, so that ``v^T M v`` is the mean squared
    derivative along the unit vector ``v``: directions that the function does not look at have
    none. In trained networks ``M`` is close to proportional to ``W W^T`` of the first layer, and
    a kernel whose metric it is learns features without a network (arXiv:2212.13881).

    Parameters
    ----------
    f
        Any ``f(params, x)`` to outputs ``(n, C)`` or ``(n,)``; examples must not be mixed.
    params
        Its parameters.
    x
        Real inputs ``(n, *shape)``.

    Returns
    -------
    jax.Array
        Symmetric and positive semidefinite, ``(d, d)`` with ``d`` the size of one (flattened)
        input, in the dtype of ``x``.

    Raises
    ------
    InputError
        Inputs that are not a non-empty array of real numbers.
    NumericalError
        Derivatives that are not finite.

    Notes
    -----
    One backward pass for each output and example, and ``n C d^2`` multiply-adds.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda w, x: (x @ w) ** 2  # looks along w only
    >>> ntk.empirical.average_gradient_outer_product(f, jnp.array([1.0, 0.0]), jnp.ones((3, 2)))
    Array([[4., 0.],
           [0., 0.]], dtype=float32)
    """
    x = jnp.asarray(x)
    if x.ndim < 2 or 0 in x.shape or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"inputs have shape {x.shape} and dtype {x.dtype}; derivatives need real inputs "
            "(n, *shape), at least one."
        )
    size = math.prod(x.shape[1:])
    outputs = math.prod(jax.eval_shape(f, params, x).shape[1:])
    block = max(1, _NUMBERS // max(size * outputs, 1))
    total = jnp.zeros((size, size), x.dtype)
    for start in range(0, len(x), block):
        total = total + _outer(f, params, x[start : start + block])
    found = total / len(x)
    if not np.isfinite(np.asarray(found)).all():
        raise NumericalError(
            "derivatives of f in its inputs are NaN or infinite: check parameters and inputs, and "
            "that f can be differentiated (norms and roots cannot, at zero)."
        )
    return found


@compiled(static_argnums=0)
def _outer(f: Model, params: Params, x: jax.Array) -> jax.Array:
    def one(example: jax.Array) -> jax.Array:
        return jnp.ravel(f(params, example[None]))

    jacobians = jax.vmap(jax.jacrev(one))(x)
    rows = jacobians.reshape(-1, math.prod(x.shape[1:]))
    return jnp.matmul(rows.T, rows, precision="highest")
