"""What the kinks of Relu do to the kernel in training: neurons switch off, few come back."""

from typing import Any

import numpy as np
from scipy.special import erf

from ntk_lab.errors import InputError
from ntk_lab.nn.module import Module
from ntk_lab.theory.fluctuations import finite_width_moments, read_layers


def switching_change(net: Module, x: Any, time: Any, target: float = 0.0) -> np.ndarray:
    """``E[K(t) - K(0)]`` of one hidden layer trained on one example, to order ``width^-1/2``.

    A neuron that is on is moved by its gradient, ``dz/dt = -(f - y) K_1 s delta``, with ``s`` its
    slope and ``delta`` its output weight; one that is off stays. Near the kink the density of
    pre-activations is ``1 / sqrt(2 pi q_1)``, so that neurons are switched off at a rate and hardly
    any on, and each takes ``K_1 delta^2`` of the kernel with it. With slopes ``a`` below and ``b``
    above zero, ``q_1`` the variance of pre-activations (which is the NTK of the first layer too),
    ``w`` the scale of the readout and ``u = 1 - exp(-E[K] t)``::

        -width^-1/2 (b - a)^2 (b + a) q_1^(3/2) w^3 E|f - y| u / (pi E[K])

    This is larger than what the smooth parts of the function do, which is of order ``1/width``.

    Parameters
    ----------
    net
        As for :func:`finite_width_moments`, with one hidden layer and slopes of one sign.
    x
        Inputs ``(n, *shape)``, each trained on by itself.
    time
        Times ``(k,)``, or a number; learning rate times steps of the loss ``(f - y)^2 / 2``.
    target
        ``y``.

    Returns
    -------
    array ``(k, n)``, or ``(n,)`` for a number.

    Raises
    ------
    InputError
        Another architecture.

    Notes
    -----
    Derived here; the mean over initial parameters of ``|f - y|`` is that of a Gaussian.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(100), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> bool(ntk.theory.switching_change(net, jnp.ones((1, 4)), 1.0)[0] < 0)
    True
    """
    layers = read_layers(net)
    if len(layers) != 2:
        raise InputError(f"the network has {len(layers) - 1} hidden layers; this is known for one.")
    (first, _), (readout, (low, high)) = layers
    if low * high < 0:
        raise InputError(f"slopes {low} and {high} are of both signs; they must be of one.")
    moments = finite_width_moments(net, x)
    x = np.asarray(x, float)
    q = first.w_std**2 * (x.reshape(len(x), -1) ** 2).mean(1)
    sigma = np.sqrt(moments.output_square)
    y = abs(target)
    distance = sigma * (2 / np.pi) ** 0.5 * np.exp(-(y**2) / (2 * sigma**2))
    distance = distance + y * erf(y / (2**0.5 * sigma))
    kinks = (high - low) ** 2 * abs(high + low)
    scale = kinks * q**1.5 * readout.w_std**3 * distance / (np.pi * first.width**0.5 * moments.ntk)
    return scale * np.expm1(-np.multiply.outer(np.asarray(time, float), moments.ntk))
