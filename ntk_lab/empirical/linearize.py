"""First-order Taylor expansion of a network in its parameters."""

from collections.abc import Callable
from typing import Any

import jax

Params = Any
Model = Callable[[Params, Any], jax.Array]


def linearize(f: Model, params0: Params) -> Model:
    """Linearization of a network around ``params0``.

    ``f_lin(params, x) = f(params0, x) + J(params0, x) (params - params0)``: the model whose
    training is exactly kernel regression with the empirical NTK at ``params0``
    (arXiv:1902.06720).

    Parameters
    ----------
    f
        Any ``f(params, x)``, differentiable in ``params``.
    params0
        Pytree of parameters to expand around.

    Returns
    -------
    Callable
        ``f_lin(params, x)`` with outputs of the shape and dtype of ``f``'s. Costs about three
        evaluations of ``f``.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f_lin = ntk.empirical.linearize(lambda w, x: w**2 * x, 3.0)
    >>> float(f_lin(3.5, jnp.float32(1.0)))
    12.0
    """

    def f_lin(params: Params, x: Any) -> jax.Array:
        delta = jax.tree.map(lambda p, p0: p - p0, params, params0)
        value, change = jax.jvp(lambda p: f(p, x), (params0,), (delta,))
        return value + change

    return f_lin
