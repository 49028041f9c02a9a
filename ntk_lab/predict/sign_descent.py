"""Sign descent in the kernel regime: the first steps of Adam, from the asymmetric sign kernel."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError
from ntk_lab.losses import Loss, mean_loss, read_loss
from ntk_lab.predict.inputs import (
    check_starts,
    read_array,
    read_learning_rate,
    read_outputs,
    read_steps,
)
from ntk_lab.predict.result import Moments, Prediction


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SignDescent:
    """Predictions after steps of sign descent; made by `sign_descent`.

    Attributes
    ----------
    kernel
        Sign kernel of (train, train), then (test, train), shape ``(rows, n)``.
    start
        Initial outputs, ``(rows, 1)``.
    targets
        Shape ``(n, 1)``.
    order
        Examples of each step's batch, ``(steps, B)``.
    """

    kernel: jax.Array
    start: jax.Array
    targets: jax.Array
    order: jax.Array
    learning_rate: jax.Array
    loss: Loss = field(metadata={"static": True})

    def at(self, steps: ArrayLike) -> Prediction:
        """Prediction after ``steps`` steps, at most as many as the order has.

        Parameters
        ----------
        steps
            A number of steps or an array of them, of integer dtype.

        Returns
        -------
        Prediction
            Means, with the axes of ``steps`` first.

        Raises
        ------
        InputError
            If a number of steps is negative, not an integer, or beyond the order of examples.
            Under ``jit``, where that cannot be known, the prediction is NaN beyond it.
        """
        steps = read_steps(steps)
        most = len(self.order)
        if is_concrete(steps) and steps.size and int(steps.max()) > most:
            raise InputError(f"steps is {int(steps.max())}, but order has examples for {most}.")
        found = _run(self).at[steps].get(mode="fill", fill_value=jnp.nan)
        n = len(self.targets)
        train = Moments(found[..., :n, :], None)
        if len(self.start) == n:
            return Prediction(train, None)
        return Prediction(train, Moments(found[..., n:, :], None))


@compiled
def _run(descent: SignDescent) -> jax.Array:
    """Outputs after every step, the initial ones first."""
    n = len(descent.targets)

    def step(f: jax.Array, batch: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Of the batch's examples only the signs of their own slopes matter.
        slope = jax.grad(lambda g: mean_loss(descent.loss, g, descent.targets))(f[:n])
        columns = descent.kernel[:, batch]
        move = jnp.matmul(columns, jnp.sign(slope[batch]), precision="highest") / len(batch)
        f = f - descent.learning_rate * move
        return f, f

    _, path = jax.lax.scan(step, descent.start, descent.order)
    return jnp.concatenate([descent.start[None], path])


def sign_descent(
    kernel_train_train: ArrayLike,
    y_train: ArrayLike,
    kernel_test_train: ArrayLike | None = None,
    *,
    learning_rate: ArrayLike,
    order: Any,
    loss: str | Loss = "squared",
    f0_train: ArrayLike | None = None,
    f0_test: ArrayLike | None = None,
) -> SignDescent:
    r"""What sign descent, as the first steps of Adam are, does to a linearized network.

    A step on the examples ``i`` of a batch of ``B`` moves all outputs by ::

        f(x) <- f(x) - learning_rate / B sum_i K(x, x_i) sign(dloss_i / df_i)

    Parameters
    ----------
    kernel_train_train, kernel_test_train
        Sign kernels (`ntk_lab.empirical.sign_kernel`) of one output: of (train, train), ``(n, n)``,
        and of (test, train), ``(n_test, n)``. Not symmetric: the second argument is what trains.
    y_train
        Targets ``(n, 1)``.
    learning_rate
        Number > 0, that of the optimizer.
    order
        Which examples each step sees, integers ``(steps,)`` for batches of one, or
        ``(steps, B)``.
    loss
        As in `gradient_flow`. Only the sign of its slope matters.
    f0_train, f0_test
        Outputs before training, ``(n, 1)`` and ``(n_test, 1)``; default zero.

    Returns
    -------
    SignDescent
        With ``.at(steps)``, and a pytree.

    Raises
    ------
    InputError
        If a shape or value does not fit.

    Notes
    -----
    *Where it holds.* For batches of one example it is exact for the linearized network under
    ``optax.sign_sgd``, or Adam with ``b1 = b2 = 0``. It is an approximation in three respects
    otherwise. Larger batches: the sign of a mean of gradients is replaced by the mean of their
    signs, which is too small where they agree and too large where they do not. Adam with its usual
    averages: its first step is a sign step, its later ones divide averages of gradients by those
    of squares, so that the direction is about right and the size is not. For 200 neurons and 20
    points, one at a time, the movement predicted for the linearized Adam run was off by 0.04% of
    it at step 1, 25% at step 2, and up to 65% at steps 3 to 20 (cosine 0.77 to 0.93); on the full
    batch by 61% throughout, at half the speed (cosine 0.85). The network itself:
    sign steps move all parameters alike, and leave the linear regime after
    ``learning_rate * steps`` far smaller than gradient descent does. Compare with a linearized run
    (``ntk.empirical.linearize``) before believing more than the beginning.

    There is no closed form and no limit: at the end outputs keep moving by ``learning_rate * K``.

    References
    ----------
    .. [1] Malladi et al. 2023, arXiv:2210.05643.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.predict import sign_descent
    >>> kernel = np.array([[3.0, -1.0], [-0.5, 1.5]])
    >>> y = np.array([[1.0], [-1.0]])
    >>> descent = sign_descent(kernel, y, learning_rate=0.1, order=[0, 1])
    >>> print(np.asarray(descent.at([1, 2]).train.mean[:, :, 0]).round(2))
    [[ 0.3  -0.05]
     [ 0.4  -0.2 ]]
    """
    train = read_array("kernel_train_train", kernel_train_train)
    if train.ndim != 2 or train.shape[0] != train.shape[1] or not train.size:
        raise InputError(
            f"kernel_train_train has shape {train.shape}; expected (n, n): a sign kernel of one "
            "output. The sign of a sum over several outputs is not a sum of their signs."
        )
    n, dtype = len(train), train.dtype
    rows = [train]
    if kernel_test_train is not None:
        test = read_array("kernel_test_train", kernel_test_train, dtype)
        if test.ndim != 2 or test.shape[1] != n or not len(test):
            raise InputError(f"kernel_test_train has shape {test.shape}; expected (n_test, {n}).")
        rows.append(test)
    y = read_outputs("y_train", y_train, n, 1, dtype)
    check_starts(f0_train, f0_test, kernel_test_train)
    starts = []
    for name, f0, kernel in zip(("f0_train", "f0_test"), (f0_train, f0_test), rows, strict=False):
        zero = jnp.zeros((len(kernel), 1), dtype)
        starts.append(zero if f0 is None else read_outputs(name, f0, len(kernel), 1, dtype))
    stacked = jnp.concatenate(rows)
    if is_concrete(stacked) and not np.isfinite(np.asarray(stacked)).all():
        raise InputError("the sign kernel has NaN or infinite values.")
    return SignDescent(
        kernel=stacked,
        start=jnp.concatenate(starts),
        targets=y,
        order=_read_order(order, n),
        learning_rate=read_learning_rate(learning_rate, dtype),
        loss=read_loss(loss),
    )


def _read_order(order: Any, n: int) -> jax.Array:
    order = np.asarray(order)
    batches = order[:, None] if order.ndim == 1 else order
    if order.dtype.kind not in "iu" or batches.ndim != 2 or not batches.size:
        raise InputError(
            f"order has shape {order.shape} and dtype {order.dtype}; expected the integer numbers "
            "of the examples of each step, (steps,) or (steps, B)."
        )
    if batches.min() < 0 or batches.max() >= n:
        worst = batches.min() if batches.min() < 0 else batches.max()
        raise InputError(f"order names example {worst}; there are {n}, from 0 to {n - 1}.")
    return jnp.asarray(batches.astype(np.int32))
