"""Taylor expansion of a network in its parameters, to any order."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError

Params = Any
Model = Callable[[Params, Any], jax.Array]


def taylor_expand(f: Model, params0: Params, order: int) -> Model:
    """Taylor expansion of a network around ``params0``, in its parameters.

    ``f_k(params, x) = sum_{j <= k} 1/j! D^j f(params0, x)[delta, ..., delta]`` with
    ``delta = params - params0``. Order 1 is :func:`linearize`; how far order 2 or 3 follows a
    training run tells how much of it is beyond the kernel, and at which order (arXiv:1909.08156).

    Parameters
    ----------
    f
        Any ``f(params, x)``, ``order`` times differentiable in ``params``. Of a function with
        kinks, such as a Relu network, it is the expansion within one linear region.
    params0
        Pytree of parameters to expand around. Leaves that are not floating point stay as they are
        here.
    order
        Highest power of ``delta``, at least 0.

    Returns
    -------
    Callable
        ``f_k(params, x)`` with outputs of the shape and dtype of ``f``'s: exact, to rounding, for
        networks that are polynomials of this degree in their parameters. Each order at most
        doubles the cost of the one below; compiled, what orders share is computed once.

    Raises
    ------
    InputError
        An order that is not a non-negative integer.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f2 = ntk.empirical.taylor_expand(lambda w, x: w**3 * x, jnp.float32(1), order=2)
    >>> float(f2(jnp.float32(1.5), jnp.float32(1.0)))  # 1 + 3 delta + 3 delta^2
    3.25
    """
    if isinstance(order, bool) or not isinstance(order, int) or order < 0:
        raise InputError(f"order is {order!r}; expected an integer of at least 0.")
    leaves0, tree = jax.tree.flatten(params0)
    leaves0 = [jnp.asarray(leaf) for leaf in leaves0]
    moving = [i for i, leaf in enumerate(leaves0) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

    def f_k(params: Params, x: Any) -> jax.Array:
        leaves = tree.flatten_up_to(params)
        start = [leaves0[i] for i in moving]
        delta = [jnp.asarray(leaves[i], leaves0[i].dtype) - leaves0[i] for i in moving]

        def at(point):
            full = list(leaves0)
            for i, leaf in zip(moving, point, strict=True):
                full[i] = leaf
            return (f(tree.unflatten(full), x),)

        result, *terms = _derivatives(at, delta, order)(start)
        for power, term in enumerate(terms, 1):
            result = result + term / math.factorial(power)
        return result

    return f_k


def _derivatives(function: Any, delta: Any, order: int) -> Any:
    """Value and directional derivatives up to ``order``, as one tuple."""
    if order == 0:
        return function
    below = _derivatives(function, delta, order - 1)

    def extended(point):
        values, changes = jax.jvp(below, (point,), (delta,))
        return (*values, changes[-1])

    return extended
