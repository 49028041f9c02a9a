"""Kernel predictors as functions of their input, and how fast their norm lets them change."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntk_lab import nn
from ntk_lab.errors import InputError
from ntk_lab.theory.lipschitz_upper import lipschitz_constant


def kernel_function(
    net: nn.Module, x_train: ArrayLike, which: Literal["nngp", "ntk"] = "nngp"
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """What kernel regression predicts, ``f(alpha, x) = k(x, X) alpha``, differentiable in ``x``.

    Parameters
    ----------
    net
        A network with an infinite-width kernel.
    x_train
        The ``X``, shape ``(n, *shape)``.
    which
        Which kernel of the network.

    Returns
    -------
    Callable
        From coefficients ``(n, outputs)`` and inputs ``(m, *shape)`` to ``(m, outputs)``.

    Raises
    ------
    InputError
        An unknown kernel.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(1), ntk.nn.Erf(), ntk.nn.Dense(1))
    >>> x = jnp.eye(3)
    >>> f = ntk.theory.kernel_function(net, x)
    >>> alpha = jnp.linalg.solve(net.kernel(x).nngp, jnp.ones((3, 1)))
    >>> print(f(alpha, x).round(4).T)
    [[1. 1. 1.]]
    >>> bool(ntk.theory.lipschitz_lower_bound(f, alpha, x, radius=1.0).value
    ...      < ntk.theory.kernel_lipschitz_bound(net, x, alpha))
    True
    """
    if which not in ("nngp", "ntk"):
        raise InputError(f'which is {which!r}; it must be "nngp" or "ntk".')
    x_train = jnp.asarray(x_train)

    def predictor(alpha: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.matmul(getattr(net.kernel(x, x_train), which), alpha, precision="highest")

    return predictor


def kernel_lipschitz_bound(net: nn.Module, x_train: ArrayLike, alpha: ArrayLike) -> float:
    """``Lip(f) <= |f|_H sup |phi(x) - phi(z)| / |x - z|`` for NNGP predictors ``k(., X) alpha``.

    ``|f|_H^2 = alpha^T k(X, X) alpha`` (its largest eigenvalue, for several outputs). In feature
    space ``|phi(x) - phi(z)|^2 = E (y(x) - y(z))^2``, with ``y`` an output of the infinitely wide
    network: a dense layer multiplies it by ``w_std^2``, an activation at most by the square of its
    Lipschitz constant ``c``, and the first layer starts from ``|x - z|^2 / d``. So the supremum
    is at most ``prod_l w_std_l prod c / sqrt(d)``. The NTK has no such bound for Relu: its
    features are not Lipschitz (arXiv:1905.12173).

    Parameters
    ----------
    net
        A ``Sequential`` of ``Dense`` layers in NTK parameterization and activations; ``Flatten``
        before them.
    x_train, alpha
        Inputs ``(n, *shape)`` and coefficients ``(n, outputs)``.

    Raises
    ------
    InputError
        Other layers or parameterizations; coefficients that do not fit.
    """
    x, alpha = jnp.asarray(x_train), np.asarray(alpha, np.float64)
    if alpha.ndim != 2 or len(alpha) != len(x):
        raise InputError(f"alpha has shape {alpha.shape}; expected ({len(x)}, outputs).")
    if not isinstance(net, nn.Sequential):
        raise InputError(f"expected a Sequential network; got {type(net).__name__}.")
    slope, dense = x[0].size ** -0.5, 0
    for layer in net.layers:
        if isinstance(layer, nn.Dense):
            if layer.parameterization != "ntk":
                raise InputError(
                    f"Dense has parameterization {layer.parameterization!r}; the bound is for "
                    "'ntk': use net.with_parameterization('ntk')."
                )
            slope, dense = slope * float(layer.w_std), dense + 1
        elif isinstance(layer, nn.Activation | nn.Flatten) and (dense or x.ndim == 2):
            slope *= lipschitz_constant(layer)
        elif not isinstance(layer, nn.Flatten):
            raise InputError(
                f"{type(layer).__name__} in this place: the bound is for Flatten, Dense layers and "
                "activations between them."
            )
    gram = np.asarray(net.kernel(x).nngp, np.float64)
    return float(np.linalg.norm(alpha.T @ gram @ alpha, 2) ** 0.5 * slope)
