"""Sawtooth functions: what a deep network writes down in few neurons and a shallow one cannot."""

from typing import Any

import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.nn import Dense, Relu, Sequential


def sawtooth(levels: int, dtype: Any = None) -> tuple[Sequential, tuple]:
    """Exact ReLU network of the tent map composed with itself, ``2^levels`` linear pieces.

    On [0, 1], with ``T(x) = 2 relu(x) - 4 relu(x - 1/2)``, the tent from 0 up to 1 and down::

        f = T o T o ... o T  (levels times)

    rises and falls ``2^(levels - 1)`` times. The network has ``2 levels`` neurons in ``levels``
    hidden layers; one with a single hidden layer needs ``2^levels - 1`` on this interval, and
    any of depth ``levels^(1/3)`` exponentially many (arXiv:1602.04485).

    Parameters
    ----------
    levels
        Number of compositions, at least 1.
    dtype
        Of the parameters; JAX's default unless given.

    Returns
    -------
    net, params
        A ``Sequential`` of ``Dense`` and ``Relu`` from ``(n, 1)`` to ``(n, 1)``. Values are exact
        at multiples of ``2^-m`` as long as ``m`` is below the digits of the dtype: all numbers on
        the way are then dyadic.

    Raises
    ------
    InputError
        ``levels`` that is not a positive integer.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net, params = ntk.theory.sawtooth(2)
    >>> net.apply(params, jnp.array([[0.0], [0.25], [0.5], [0.75], [1.0]])).ravel()
    Array([0., 1., 0., 1., 0.], dtype=float32)
    """
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
        raise InputError(f"levels is {levels!r}; it must be an integer of at least 1.")
    dtype = jnp.result_type(float) if dtype is None else dtype
    # w_std = sqrt(fan_in) makes the factor of NTK parameterization exactly one.
    layers, params, root = [Dense(2, 1.0, 1.0), Relu()], [], 2**0.5
    bias = jnp.array([0.0, -0.5], dtype)
    tent = jnp.array([[2.0], [-4.0]], dtype)
    params += [{"w": jnp.ones((1, 2), dtype), "b": bias}, ()]
    for _ in range(levels - 1):
        layers += [Dense(2, root, 1.0), Relu()]
        params += [{"w": jnp.concatenate([tent, tent], axis=1), "b": bias}, ()]
    return Sequential(*layers, Dense(1, root)), (*params, {"w": tent})
