"""Full-batch gradient descent in discrete steps, with or without heavy-ball momentum."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.operator import Operator
from ntk_lab.errors import StabilityError
from ntk_lab.kernel.result import Kernel
from ntk_lab.losses import Loss, read_loss, squared
from ntk_lab.predict.decay import DecayTo
from ntk_lab.predict.function_space import function_space
from ntk_lab.predict.heavy_ball import momentum_factors, plain_factors
from ntk_lab.predict.inputs import (
    KernelLike,
    Which,
    read_learning_rate,
    read_momentum,
    read_steps,
)
from ntk_lab.predict.loss_descent import LossDescent
from ntk_lab.predict.matrix_free import MatrixFree, matrix_free
from ntk_lab.predict.modes import Factors, Modes, at_each, evolve, learnt_share, prepare
from ntk_lab.predict.nesterov import nesterov_factors
from ntk_lab.predict.result import Prediction
from ntk_lab.predict.stability import stability_limit
from ntk_lab.solve import Diagnostics


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientDescent:
    """Predictions after any number of steps; made by `gradient_descent`."""

    modes: Modes
    learning_rate: jax.Array
    momentum: float = field(metadata={"static": True})
    nesterov: bool = field(default=False, metadata={"static": True})

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
        return at_each(partial(_descend, self), steps)

    def learnt(self, steps: ArrayLike) -> jax.Array:
        """Share of its initial error that each mode has lost, axes of ``steps`` first.

        In the order of ``time_scales``; see `learnt_modes` for what else there is to say of them.
        """
        steps = read_steps(steps)
        return at_each(partial(_descend_share, self), steps)


@compiled
def _descend(descent: GradientDescent, steps: jax.Array) -> Prediction:
    given = descent.learning_rate, descent.momentum, descent.nesterov
    return evolve(descent.modes, _factors(steps, *given))


@compiled
def _descend_share(descent: GradientDescent, steps: jax.Array) -> jax.Array:
    given = descent.learning_rate, descent.momentum, descent.nesterov
    return learnt_share(descent.modes, _factors(steps, *given))


def _factors(
    steps: jax.Array, learning_rate: jax.Array, momentum: float, nesterov: bool
) -> Factors:
    def factors(rates: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = learning_rate * rates
        if momentum <= float(jnp.finfo(x.dtype).eps):  # less of it changes nothing
            return plain_factors(x, steps)
        form = nesterov_factors if nesterov else momentum_factors
        return form(x, steps, momentum)

    return factors


@overload
def gradient_descent(
    kernel_train_train: Operator, *arguments: Any, **options: Any
) -> MatrixFree: ...


@overload
def gradient_descent(
    kernel_train_train: ArrayLike | Kernel, *arguments: Any, **options: Any
) -> GradientDescent | LossDescent: ...


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
    weight_decay: ArrayLike = 0.0,
    decay_to: DecayTo = "zero",
    jvp_train: ArrayLike | None = None,
    jvp_test: ArrayLike | None = None,
) -> GradientDescent | LossDescent | MatrixFree:
    r"""What full-batch gradient descent does to a network in the kernel regime.

    A step is ``theta <- theta - learning_rate * v`` with ``v <- grad L + momentum * v``, as
    ``optax.sgd(learning_rate, momentum)`` takes it. On squared error it multiplies, for
    ``momentum = 0``, the error in each eigendirection of ``K = Theta + ridge * I``::

        f_train(k) = f0_train + (I - R^k) (y - f0_train),      R = I - learning_rate K / n
        f_test(k)  = f0_test + Theta_test,train K^-1 (I - R^k) (y - f0_train)

    With momentum the power becomes the solution ``e_k`` of
    ``e_{k+1} = (1 + momentum - x) e_k - momentum e_{k-1}``, ``e_0 = 1``, ``e_1 = 1 - x``, at
    ``x = learning_rate * lambda / n``: in closed form, so any number of steps costs the same.
    With Nesterov's momentum, ``e_{k+1} = (1 - x) ((1 + momentum) e_k - momentum e_{k-1})``.
    Covariances are those of `gradient_flow` with this in place of ``exp(-t K / n)``.

    On another loss ``L = 1/n sum_i loss(f(x_i), y_i)`` the steps are taken one by one, in one
    compiled loop, for given initial outputs: ``f <- f - learning_rate Theta v`` with
    ``v <- grad_f L + momentum * v``.

    Parameters
    ----------
    kernel_train_train, y_train, kernel_test_train, kernel_test_test
        As in `gradient_flow`.
    learning_rate
        Number > 0, at most ``max_learning_rate(kernel_train_train, momentum, ridge=ridge)``
        (given ``nesterov`` and ``weight_decay`` too, if they are used).
        In units of the loss ``L = 1/(2n) sum_i |f(x_i) - y_i|^2``.
    momentum
        Decay of the velocity, a Python number with ``0 <= momentum < 1``. With momentum,
        training runs about ``1 / (1 - momentum)`` times faster than ``learning_rate`` says.
    f0_train, f0_test, ridge, which, loss, weight_decay, decay_to, jvp_train, jvp_test
        As in `gradient_flow`. Decay is part of the gradient, as with
        ``optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(...))``.
    nesterov
        Move along ``grad L + momentum * v`` instead, as ``optax.sgd(..., nesterov=True)`` does.

    Returns
    -------
    GradientDescent, LossDescent or MatrixFree
        With ``.at(steps)`` and ``.diagnostics``, a pytree. Squared error is in closed form:
        `GradientDescent`, with ``.time_scales`` too. Other losses are a `LossDescent`,
        and predictions from operators a `MatrixFree`.

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
    options |= {"weight_decay": weight_decay, "decay_to": decay_to}
    options |= {"jvp_train": jvp_train, "jvp_test": jvp_test}
    if chosen is not squared and not isinstance(kernel_train_train, Operator):
        space = function_space(*blocks, **options, loss=chosen)
        rate = read_learning_rate(learning_rate, space.start.dtype)
        return LossDescent(space, rate, momentum, bool(nesterov))
    if isinstance(kernel_train_train, Operator):
        rate = read_learning_rate(learning_rate, kernel_train_train.dtype)
        return matrix_free(
            kernel_train_train,
            *blocks[1:],
            lambda steps: _factors(steps, rate, momentum, bool(nesterov)),
            read_steps,
            **options,
            check=lambda largest: _check_stable(rate, largest, momentum, nesterov),
            squared_loss=chosen is squared,
        )
    modes = prepare(*blocks, **options)
    rate = read_learning_rate(learning_rate, modes.error.dtype)
    largest = modes.spectrum.diagnostics.largest_eigenvalue / modes.examples + modes.decay.rate
    _check_stable(rate, largest, momentum, nesterov)
    return GradientDescent(modes, rate, momentum, bool(nesterov))


def _check_stable(rate: jax.Array, largest: jax.Array, momentum: float, nesterov: bool) -> None:
    limit = stability_limit(largest, momentum, nesterov)
    # Rounding of the limit itself is forgiven.
    if is_concrete(rate, limit) and rate > limit * (1 + 16 * float(jnp.finfo(rate.dtype).eps)):
        raise StabilityError(
            f"learning_rate is {float(rate):.6g}, above the limit of stability {float(limit):.6g} "
            "(max_learning_rate): training in the kernel regime diverges. Use 0.99 * "
            "max_learning_rate(kernel_train_train, momentum) or less. If a real network "
            "trains at this rate all the same, its kernel changed (catapult), and no prediction "
            "from a fixed kernel applies."
        )
