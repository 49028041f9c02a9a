"""Learning rates at which gradient descent is stable."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.kernel.result import Kernel
from ntk_lab.predict.inputs import (
    KernelLike,
    read_blocks,
    read_momentum,
    read_non_negative,
    read_ridge,
)
from ntk_lab.solve import diagnose


def max_learning_rate(
    kernel_train_train: KernelLike,
    momentum: float = 0.0,
    *,
    nesterov: bool = False,
    ridge: ArrayLike = 0.0,
    weight_decay: ArrayLike = 0.0,
) -> jax.Array:
    """Largest learning rate at which full-batch gradient descent on squared error is stable.

    ``2 (1 + momentum) / (lambda_max / n + weight_decay)``, with the largest eigenvalue of
    ``Theta + ridge * I``; with Nesterov's momentum that over ``1 + 2 momentum``, which is less.
    Above it training diverges in the kernel regime; at it the fastest mode oscillates forever.

    Parameters
    ----------
    kernel_train_train
        NTK of the n training inputs, or a Kernel that holds it, as in `gradient_flow`.
    momentum
        Decay of the velocity, a Python number with ``0 <= momentum < 1``.
    nesterov
        Whether the momentum is Nesterov's.
    ridge
        Number >= 0 added to the diagonal.
    weight_decay
        Number >= 0, decay of the parameters as part of the gradient.

    Returns
    -------
    jax.Array
        One number, in the dtype of the kernel and in units of the loss
        ``L = 1/(2n) sum_i |f(x_i) - y_i|^2``; infinite for a kernel that is zero.

    Raises
    ------
    InputError, NumericalError
        As in `gradient_flow`.

    Notes
    -----
    Cost: eigenvalues of the kernel, O(n^3). neural-tangents, whose loss averages over the C outputs
    too, gives C times as much.

    References
    ----------
    .. [1] Lee et al. 2019, arXiv:1902.06720, section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.predict import max_learning_rate
    >>> print(max_learning_rate(np.array([[3.0, 1.0], [1.0, 3.0]])))
    1.0
    """
    momentum = read_momentum(momentum)
    field_ = "ntk" if isinstance(kernel_train_train, Kernel) else None
    blocks, outputs = read_blocks({"kernel_train_train": kernel_train_train}, field_)
    kernel = blocks.train_train
    ridge = read_ridge(ridge, kernel.dtype)
    decay = read_non_negative("weight_decay", weight_decay, kernel.dtype)
    largest = diagnose(kernel, ridge=ridge).largest_eigenvalue
    return stability_limit(largest * (outputs or 1) / len(kernel) + decay, momentum, nesterov)


def stability_limit(rate: jax.Array, momentum: float, nesterov: bool = False) -> jax.Array:
    """Largest learning rate for the largest curvature ``rate`` of the loss."""
    bound = 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1)
    positive = rate > 0
    return jnp.where(positive, bound / jnp.where(positive, rate, 1), jnp.inf)
