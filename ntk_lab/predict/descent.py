"""Full-batch gradient descent in discrete steps, with or without heavy-ball momentum."""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.concrete import is_concrete
from ntk_lab.errors import StabilityError
from ntk_lab.kernel.result import Kernel
from ntk_lab.losses import Loss, read_loss, squared
from ntk_lab.predict.function_space import function_space
from ntk_lab.predict.heavy_ball import momentum_factors, plain_factors
from ntk_lab.predict.inputs import (
    KernelLike,
    Which,
    read_blocks,
    read_learning_rate,
    read_momentum,
    read_non_negative,
    read_steps,
)
from ntk_lab.predict.loss_descent import LossDescent
from ntk_lab.predict.modes import Modes, evolve, prepare
from ntk_lab.predict.result import Prediction
from ntk_lab.solve import Diagnostics, spectrum


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientDescent:
    """Predictions after any number of steps; made by `gradient_descent`."""

    modes: Modes
    learning_rate: jax.Array
    momentum: float = field(metadata={"static": True})

    @property
    def diagnostics(self) -> Diagnostics:
        """Spectrum of the training kernel: condition number, rank, extreme eigenvalues, ridge."""
        return self.modes.spectrum.diagnostics

    @property
    def time_scales(self) -> jax.Array:
        """As `GradientFlow.time_scales`, in units of time.

        Divide by ``learning_rate / (1 - momentum)`` for steps, roughly.
        """
        return self.modes.time_scales

    def at(self, steps: ArrayLike) -> Prediction:
        """Prediction after ``steps`` steps.

        Parameters
        ----------
        steps
            A number of steps >= 0, or an array of them, of integer dtype.

        Returns
        -------
        Prediction
            As `GradientFlow.at`, at the same cost, whatever the number of steps.

        Raises
        ------
        InputError
            If a number of steps is negative, or is not an integer.

        Examples
        --------
        >>> import numpy as np
        >>> from ntk_lab.predict import gradient_descent
        >>> descent = gradient_descent(np.eye(2), np.ones((2, 1)), learning_rate=1.0)
        >>> print(descent.at([0, 1, 2]).train.mean[:, 0, 0])
        [0.   0.5  0.75]
        """
        steps = read_steps(steps)
        predict = partial(_descend, self.modes, self.learning_rate, self.momentum)
        for _ in range(steps.ndim):
            predict = jax.vmap(predict)
        return predict(steps)


@partial(jax.jit, static_argnums=2)
def _descend(
    modes: Modes, learning_rate: jax.Array, momentum: float, steps: jax.Array
) -> Prediction:
    x = learning_rate * modes.rates
    if momentum > float(jnp.finfo(x.dtype).eps):  # less of it changes nothing
        surviving, learnt = momentum_factors(x, steps, momentum)
    else:
        surviving, learnt = plain_factors(x, steps)
    return evolve(modes, surviving, learnt / modes.rates)


def gradient_descent(
    kernel_train_train: KernelLike,
    y_train: ArrayLike,
    kernel_test_train: KernelLike | None = None,
    kernel_test_test: KernelLike | None = None,
    *,
    learning_rate: ArrayLike,
    momentum: float = 0.0,
    f0_train: ArrayLike | None = None,
    f0_test: ArrayLike | None = None,
    ridge: ArrayLike = 0.0,
    which: Which = "ntk",
    loss: str | Loss = "squared",
    nesterov: bool = False,
) -> GradientDescent | LossDescent:
    r"""What full-batch gradient descent does to a network in the kernel regime.

    A step is ``theta <- theta - learning_rate * v`` with ``v <- grad L + momentum * v``, as
    ``optax.sgd(learning_rate, momentum)`` takes it. On squared error it multiplies, for
    ``momentum = 0``, the error in each eigendirection of ``K = Theta + ridge * I``::

        f_train(k) = f0_train + (I - R^k) (y - f0_train),      R = I - learning_rate K / n
        f_test(k)  = f0_test + Theta_test,train K^-1 (I - R^k) (y - f0_train)

    With momentum the power becomes the solution ``e_k`` of
    ``e_{k+1} = (1 + momentum - x) e_k - momentum e_{k-1}``, ``e_0 = 1``, ``e_1 = 1 - x``, at
    ``x = learning_rate * lambda / n``: in closed form, so any number of steps costs the same.
    Covariances are those of `gradient_flow` with this in place of ``exp(-t K / n)``.

    On another loss ``L = 1/n sum_i loss(f(x_i), y_i)`` the steps are taken one by one, in one
    compiled loop, for given initial outputs: ``f <- f - learning_rate Theta v`` with
    ``v <- grad_f L + momentum * v``.

    Parameters
    ----------
    kernel_train_train, y_train, kernel_test_train, kernel_test_test
        As in `gradient_flow`.
    learning_rate
        Number > 0, at most ``max_learning_rate(kernel_train_train, momentum, ridge=ridge)``.
        In units of the loss ``L = 1/(2n) sum_i |f(x_i) - y_i|^2``.
    momentum
        Decay of the velocity, a Python number with ``0 <= momentum < 1``. With momentum,
        training runs about ``1 / (1 - momentum)`` times faster than ``learning_rate`` says.
    f0_train, f0_test, ridge, which, loss
        As in `gradient_flow`.
    nesterov
        Move along ``grad L + momentum * v`` instead, as ``optax.sgd(..., nesterov=True)`` does.

    Returns
    -------
    GradientDescent or LossDescent
        With ``.at(steps)`` and ``.diagnostics``, a pytree. Squared error is in closed form:
        `GradientDescent`, with ``.time_scales`` too. Other losses are a `LossDescent`.

    Raises
    ------
    InputError, NumericalError
        As in `gradient_flow`, and for a learning rate or momentum out of range.
    StabilityError
        If the learning rate is above the limit, where training on squared error diverges. Not
        under ``jit``, where it cannot be known: the prediction then diverges as training would.
        Other losses bend: `LossDescent.at` raises NumericalError where outputs overflow.

    Notes
    -----
    Cost, rank, ridge, accuracy and derivatives are as in `gradient_flow`; derivatives with
    respect to ``learning_rate`` exist below the limit. As ``learning_rate`` goes to 0 at fixed
    ``t = learning_rate * steps / (1 - momentum)`` predictions approach those of the flow.

    References
    ----------
    .. [1] Lee et al. 2019, arXiv:1902.06720.
    .. [2] Polyak 1964, doi:10.1016/0041-5553(64)90137-5 (momentum).

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.predict import gradient_descent
    >>> kernel = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> y = np.array([[1.0], [-1.0]])
    >>> descent = gradient_descent(kernel, y, learning_rate=1.0, momentum=0.5)
    >>> print(descent.at([0, 1, 2, 100]).train.mean[:, 0, 0].round(3))
    [0.  0.5 1.  1. ]
    """
    chosen, momentum = read_loss(loss), read_momentum(momentum)
    blocks = kernel_train_train, y_train, kernel_test_train, kernel_test_test
    options = {"f0_train": f0_train, "f0_test": f0_test, "ridge": ridge, "which": which}
    if chosen is not squared or nesterov:
        space = function_space(*blocks, **options, loss=chosen)
        rate = read_learning_rate(learning_rate, space.start.dtype)
        return LossDescent(space, rate, momentum, bool(nesterov))
    modes = prepare(*blocks, **options)
    rate = read_learning_rate(learning_rate, modes.error.dtype)
    limit = _limit(modes.spectrum.diagnostics, modes.examples, momentum)
    # Rounding of the limit itself is forgiven.
    if is_concrete(rate, limit) and rate > limit * (1 + 16 * float(jnp.finfo(rate.dtype).eps)):
        raise StabilityError(
            f"learning_rate is {float(rate):.6g}, above the limit of stability {float(limit):.6g} "
            "= 2 (1 + momentum) n / lambda_max: training in the kernel regime diverges. Use "
            "0.99 * max_learning_rate(kernel_train_train, momentum) or less. If a real network "
            "trains at this rate all the same, its kernel changed (catapult), and no prediction "
            "from a fixed kernel applies."
        )
    return GradientDescent(modes, rate, momentum)


def max_learning_rate(
    kernel_train_train: KernelLike, momentum: float = 0.0, *, ridge: ArrayLike = 0.0
) -> jax.Array:
    """Largest learning rate at which full-batch gradient descent on squared error is stable.

    ``2 (1 + momentum) n / lambda_max``, with the largest eigenvalue of ``Theta + ridge * I``.
    Above it training diverges in the kernel regime; at it the fastest mode oscillates forever.

    Parameters
    ----------
    kernel_train_train
        NTK of the n training inputs, or a Kernel that holds it, as in `gradient_flow`.
    momentum
        Decay of the velocity, a Python number with ``0 <= momentum < 1``.
    ridge
        Number >= 0 added to the diagonal.

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
    Cost: one eigendecomposition, O(n^3). neural-tangents, whose loss averages over the C outputs
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
    ridge = read_non_negative("ridge", ridge, kernel.dtype)
    diagnostics = spectrum(kernel, ridge=ridge).diagnostics
    return _limit(diagnostics, len(kernel) // (outputs or 1), momentum)


def _limit(diagnostics: Diagnostics, examples: int, momentum: float) -> jax.Array:
    largest = diagnostics.largest_eigenvalue
    positive = largest > 0
    return jnp.where(
        positive, 2 * (1 + momentum) * examples / jnp.where(positive, largest, 1), jnp.inf
    )
