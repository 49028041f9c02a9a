"""Gradient flow: training at an infinitesimal learning rate."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, overload

import jax
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.empirical.operator import Operator
from ntk_lab.errors import InputError
from ntk_lab.kernel.result import Kernel
from ntk_lab.losses import Loss, read_loss, squared
from ntk_lab.predict.decay import DecayTo
from ntk_lab.predict.function_space import function_space
from ntk_lab.predict.inputs import (
    KernelLike,
    Which,
    read_learning_rate,
    read_momentum,
    read_non_negative,
)
from ntk_lab.predict.loss_flow import LossFlow
from ntk_lab.predict.matrix_free import MatrixFree, matrix_free
from ntk_lab.predict.modes import Modes, at_each, evolve, learnt_share, prepare
from ntk_lab.predict.momentum_flow import flow_factors
from ntk_lab.predict.result import Prediction
from ntk_lab.solve import Diagnostics


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientFlow:
    """Predictions at any time of gradient flow; made by `gradient_flow`.

    Attributes
    ----------
    modes
        The problem.
    learning_rate, momentum
        Of the flow with momentum; None and 0 without.
    """

    modes: Modes
    learning_rate: jax.Array | None = None
    momentum: float = field(default=0.0, metadata={"static": True})

    @property
    def diagnostics(self) -> Diagnostics:
        """Spectrum of the training kernel: condition number, rank, extreme eigenvalues, ridge."""
        return self.modes.spectrum.diagnostics

    @property
    def time_scales(self) -> jax.Array:
        """Time ``n / eigenvalue`` each mode takes to shrink its error by ``e``, slowest first.

        With weight decay, ``1 / (eigenvalue / n + weight_decay)``; with momentum ``m``, times
        ``1 - m`` for all modes slower than the velocity. Infinite below the rank threshold. Shape
        ``(n,)``, or ``(n * outputs,)`` for a kernel with output axes.
        """
        return self.modes.time_scales

    def at(self, t: ArrayLike) -> Prediction:
        """Prediction at time ``t = learning_rate * steps``.

        Parameters
        ----------
        t
            One time or an array of times, each a real number >= 0 or infinity.

        Returns
        -------
        Prediction
            With the axes of ``t`` first. Works under ``jit``, ``vmap`` and ``grad``. Cost for
            each time: O(n (n + n_test) outputs) for means; covariances add O(n^3 + n_test n^2 +
            n_test^2 n) time, and O(n^2 + n_test^2) memory.

        Raises
        ------
        InputError
            If a time is negative or NaN.

        Examples
        --------
        >>> import numpy as np
        >>> from ntk_lab.predict import gradient_flow
        >>> flow = gradient_flow(np.eye(2), np.ones((2, 1)))
        >>> print(flow.at(2 * np.log(2)).train.mean.round(3).T, flow.at(np.inf).train.mean.T)
        [[0.5 0.5]] [[1. 1.]]
        """
        t = read_non_negative("t", t, self.modes.error.dtype)
        return at_each(partial(_flow, self), t)

    def learnt(self, t: ArrayLike) -> jax.Array:
        """Share of its initial error that each mode has lost, axes of ``t`` first.

        In the order of ``time_scales``; see `learnt_modes` for what else there is to say of them.
        """
        t = read_non_negative("t", t, self.modes.error.dtype)
        return at_each(partial(_flow_share, self), t)


@compiled
def _flow(flow: GradientFlow, t: jax.Array) -> Prediction:
    return evolve(flow.modes, flow_factors(t, flow.learning_rate, flow.momentum))


@compiled
def _flow_share(flow: GradientFlow, t: jax.Array) -> jax.Array:
    return learnt_share(flow.modes, flow_factors(t, flow.learning_rate, flow.momentum))


@overload
def gradient_flow(kernel_train_train: Operator, *arguments: Any, **options: Any) -> MatrixFree: ...


@overload
def gradient_flow(
    kernel_train_train: ArrayLike | Kernel, *arguments: Any, **options: Any
) -> GradientFlow | LossFlow: ...


def gradient_flow(
    kernel_train_train: KernelLike,
    y_train: ArrayLike,
    kernel_test_train: KernelLike | None = None,
    kernel_test_test: KernelLike | None = None,
    *,
    f0_train: ArrayLike | None = None,
    f0_test: ArrayLike | None = None,
    ridge: ArrayLike = 0.0,
    which: Which = "ntk",
    loss: str | Loss = "squared",
    momentum: float = 0.0,
    learning_rate: ArrayLike | None = None,
    weight_decay: ArrayLike = 0.0,
    decay_to: DecayTo = "zero",
    jvp_train: ArrayLike | None = None,
    jvp_test: ArrayLike | None = None,
) -> GradientFlow | LossFlow | MatrixFree:
    r"""What gradient flow does to a network in the kernel regime.

    On the loss ``L = 1/(2n) sum_i |f(x_i) - y_i|^2`` the outputs obey
    ``df/dt = -(1/n) Theta (f - y)``, so with ``K = Theta + ridge * I`` on the training set::

        f_train(t) = f0_train + (I - exp(-t K / n)) (y - f0_train)
        f_test(t)  = f0_test + Theta_test,train K^-1 (I - exp(-t K / n)) (y - f0_train)

    Over random initializations ``f0`` is a Gaussian process with mean zero and covariance
    ``nngp``, and ``f(t)``, linear in ``f0``, is Gaussian too. Its mean is the above with
    ``f0 = 0``; its covariances, with ``A = Theta_test,train K^-1 (I - exp(-t K / n))``, are::

        train: exp(-t K / n) nngp exp(-t K / n)
        test:  nngp_test,test + A nngp A^T - A nngp_train,test - (A nngp_train,test)^T

    On another loss ``L = 1/n sum_i loss(f(x_i), y_i)`` an adaptive solver follows the equation
    itself, for given initial outputs. With momentum ``m`` and weight decay it is::

        learning_rate d2f/dt2 + (1 - m) df/dt = -Theta grad_f L - weight_decay (f - f0 + J w),
        df/dt(0) = 0,   w = theta_0 for decay towards zero, 0 for decay towards theta_0

    Parameters
    ----------
    kernel_train_train
        Kernel of the n training inputs with themselves. Either an array, the NTK, for given
        initial outputs (mean only): shape ``(n, n)``, shared by all outputs, or
        ``(n, n, outputs, outputs)``, such as a finite network's NTK. Or a
        `ntk_lab.kernel.Kernel`, for mean and covariance over random initializations (mean only
        if ``f0`` is given). Its dtype, float32 or float64, is that of the whole computation. Or
        an operator, ``ntk.empirical.operator(f, params, x)``, with one of (test, train),
        ``ntk.empirical.operator(f, params, x_test, x)``: means for squared error from products
        with vectors only, never the matrix, each with its estimated error.
    y_train
        Targets, shape ``(n, outputs)``.
    kernel_test_train
        The same kind of kernel of (test, train), shape ``(n_test, n)`` or with output axes.
        Without it only the training set is predicted.
    kernel_test_test
        The same kind of kernel of the test inputs, shape ``(n_test, n_test)`` or with output
        axes. Only the covariance on the test set needs it, and is None without it.
    f0_train, f0_test
        Outputs of the network before training, shapes ``(n, outputs)``, ``(n_test, outputs)``.
        Default: zero for arrays, random for Kernels.
    ridge
        Number >= 0 added to the diagonal of the training kernel.
    which
        For Kernels: the kernel that drives training. "ntk": all layers train. "nngp": only the
        last layer does, and the initial outputs on the training set are taken to have covariance
        ``nngp + ridge * I``; at ``t = inf`` the test set then has the moments of the posterior
        of the Gaussian process with noise variance ``ridge``.
    loss
        A name of `ntk_lab.losses` (such as "cross_entropy") or a differentiable function of
        outputs and targets ``(n, outputs)`` that gives the loss of each example, ``(n,)``.
    momentum, learning_rate
        Heavy-ball momentum ``0 <= m < 1`` and the learning rate of the discrete run it stands
        for, whose inertia it is: time stays ``learning_rate * steps``, and for a small learning
        rate training runs ``1 / (1 - m)`` times faster. Give both or neither.
    weight_decay
        Number >= 0: the penalty ``weight_decay / 2 |theta - w|^2`` on the loss, as
        ``optax.add_decayed_weights`` before the optimizer.
    decay_to
        "zero", as optimizers do. Then ``jvp_train`` and ``jvp_test`` are needed. "initial":
        towards the initial parameters, which needs nothing, acts like a ridge of
        ``n * weight_decay`` whose regularized fit ``f_train`` shows, and leaves the outputs
        Gaussian over initializations.
    jvp_train, jvp_test
        ``J theta_0``: outputs of ``jax.jvp(lambda p: f(p, x), (params,), (params,))[1]``, shapes
        ``(n, outputs)``, ``(n_test, outputs)``.

    Returns
    -------
    GradientFlow, LossFlow or MatrixFree
        With ``.at(t)`` and ``.diagnostics``, a pytree. Squared error is in closed form, with
        momentum and weight decay too: `GradientFlow`, which has ``.time_scales``. Other losses
        are a `LossFlow`. From operators: a `MatrixFree`, without diagnostics.

    Raises
    ------
    InputError
        If a shape, kind or value of an argument does not fit; the message says which.
    NumericalError
        If the training kernel is not symmetric, or not positive semi-definite.
    ImportError
        From ``LossFlow.at``, if diffrax (extra ``ode``) is not installed.

    Notes
    -----
    *Ridge.* ``ridge`` acts like one more parameter for each training example, with squared
    gradient ``ridge``, that test examples do not have: ``f_train`` includes it and reaches
    ``y``. For the regularized fit on the training set (of training with the penalty
    ``ridge / (2n) |theta - theta_0|^2``), pass the training set as test set too.

    *Rank.* Modes with an eigenvalue below the rank threshold (``.diagnostics.threshold``) are
    never learnt: their error stays that of ``f0``, at ``t = inf`` too.

    *From neural-tangents.* Its loss averages over the C outputs too, so its time ``t`` and
    learning rate are ours at ``t = learning_rate * t_nt / C``. Its ``diag_reg`` is our ``ridge``
    with ``diag_reg_absolute_scale=True``; otherwise (its default)
    ``ridge = diag_reg * trace(Theta) / n``. Its `gradient_descent` with momentum is ours at
    ``t = learning_rate * t_nt``.

    *Accuracy.* Training-set values are accurate to a few eps times ``1 + t * lambda_max / n``
    at worst, test-set values to eps times the condition number of ``K`` at late times.

    *Cost.* One eigendecomposition, O(n^3) time and O(n^2) memory ((n outputs)^2 for a kernel
    with output axes); see `GradientFlow.at` for each time. If only means are of interest, pass
    ``kernel.ntk`` rather than ``kernel``: covariances cost far more than means.

    *Derivatives* with respect to ``y_train``, ``f0`` and ``t`` always exist; with respect to
    the kernel where its eigenvalues are distinct.

    References
    ----------
    .. [1] Lee et al. 2019, arXiv:1902.06720, equations 13 to 16.
    .. [2] Jacot et al. 2018, arXiv:1806.07572.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.predict import gradient_flow
    >>> kernel = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> y = np.array([[1.0], [-1.0]])
    >>> flow = gradient_flow(kernel, y, kernel_test_train=np.array([[1.5, 1.0]]))
    >>> print(np.asarray(flow.time_scales).round(3))
    [2.    0.667]
    >>> print(np.asarray(flow.at([0.0, 2.0, np.inf]).test.mean[:, 0, 0]).round(3))
    [0.    0.316 0.5  ]
    """
    chosen, momentum = read_loss(loss), read_momentum(momentum)
    blocks = kernel_train_train, y_train, kernel_test_train, kernel_test_test
    options = {"f0_train": f0_train, "f0_test": f0_test, "ridge": ridge, "which": which}
    options |= {"weight_decay": weight_decay, "decay_to": decay_to}
    options |= {"jvp_train": jvp_train, "jvp_test": jvp_test}
    if (learning_rate is None) != (momentum == 0):
        raise InputError(
            f"got momentum={momentum} and learning_rate={learning_rate}; a flow with momentum "
            "depends on the learning rate, and one without does not (t = learning_rate * steps): "
            "give both or neither."
        )
    rate = None
    if isinstance(kernel_train_train, Operator):
        dtype = kernel_train_train.dtype
        if learning_rate is not None:
            rate = read_learning_rate(learning_rate, dtype)
        return matrix_free(
            kernel_train_train,
            *blocks[1:],
            lambda t: flow_factors(t, rate, momentum),
            lambda t: read_non_negative("t", t, dtype),
            **options,
            squared_loss=chosen is squared,
        )
    if chosen is squared:
        modes = prepare(*blocks, **options)
        if learning_rate is not None:
            rate = read_learning_rate(learning_rate, modes.error.dtype)
        return GradientFlow(modes, rate, momentum)
    space = function_space(*blocks, **options, loss=chosen)
    if learning_rate is not None:
        rate = read_learning_rate(learning_rate, space.start.dtype)
    return LossFlow(space, rate, momentum)
