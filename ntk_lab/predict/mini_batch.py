"""Mini-batch SGD on squared error in the kernel regime: mean and covariance over the batches."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError
from ntk_lab.losses import squared
from ntk_lab.predict.function_space import FunctionSpace, function_space
from ntk_lab.predict.inputs import read_learning_rate, read_steps
from ntk_lab.predict.loss_descent import check_outputs
from ntk_lab.predict.result import Moments, Prediction
from ntk_lab.solve import Diagnostics

Sampling = Literal["shuffle", "independent", "replacement"]


class _State(NamedTuple):
    """Mean ``(rows, C)``, covariance ``(rows, C, rows, C)``, and the epoch so far.

    ``epoch`` of shape ``(rows, C, n)`` says how outputs depend on which examples the epoch's
    batches held, in units of the learning rate.
    """

    mean: jax.Array
    covariance: jax.Array
    epoch: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StochasticDescent:
    """Moments over the choice of batches; made by `stochastic_descent`."""

    space: FunctionSpace
    learning_rate: jax.Array
    batch_size: int = field(metadata={"static": True})
    sampling: Sampling = field(metadata={"static": True})

    @property
    def diagnostics(self) -> Diagnostics:
        """Spectrum of the training kernel: condition number, rank, extreme eigenvalues, ridge."""
        return self.space.diagnostics

    def at(self, steps: ArrayLike) -> Prediction:
        """Mean and covariance after ``steps`` mini-batches.

        Parameters
        ----------
        steps
            A number of steps >= 0, or an array of them in any order, of integer dtype.

        Returns
        -------
        Prediction
            With the axes of ``steps`` first. ``covariance`` is over the choice of batches, for
            given initial outputs, between examples and outputs: ``(n, n, outputs, outputs)``, as
            all outputs see the same batches. The covariance between train and test is not kept.
            Cost of a step: O(rows^2 outputs^2 n), memory O((rows outputs)^2), with ``rows`` the
            examples of both sets. Works under ``jit`` and ``vmap``.

        Raises
        ------
        InputError
            If a number of steps is negative, or is not an integer.
        NumericalError
            If outputs or their covariance grow beyond all numbers. Not under ``jit``.
        """
        steps = read_steps(steps)
        flat = steps.reshape(-1)
        order = jnp.argsort(flat)
        mean, covariance = (x[jnp.argsort(order)] for x in _run(self, flat[order]))
        if is_concrete(covariance):
            check_outputs(np.asarray(flat), np.asarray(covariance))
        n = self.space.examples
        lead = steps.shape

        def moments(rows: slice) -> Moments:
            some = covariance[:, rows, :, rows].transpose(0, 1, 3, 2, 4)
            return Moments(
                mean[:, rows].reshape(*lead, *mean[0, rows].shape),
                some.reshape(*lead, *some.shape[1:]),
            )

        train = moments(slice(0, n))
        if len(self.space.start) == n:
            return Prediction(train, None)
        return Prediction(train, moments(slice(n, None)))


@compiled
def _run(descent: StochasticDescent, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
    space = descent.space
    rows, outputs = space.start.shape
    n, dtype = space.examples, space.start.dtype
    advance = _shuffled if descent.sampling == "shuffle" else _independent

    def segment(carry, until):
        state, done = carry
        state = jax.lax.fori_loop(done, until, lambda k, s: advance(descent, k, s), state)
        covariance = state.covariance
        if descent.sampling == "shuffle":
            covariance = covariance + _within(descent, state.epoch)
        return (state, until), (state.mean, covariance)

    state = _State(
        space.start,
        jnp.zeros((rows, outputs, rows, outputs), dtype),
        jnp.zeros((rows, outputs, n), dtype),
    )
    _, found = jax.lax.scan(segment, (state, jnp.int32(0)), steps)
    return found


def _rates(descent: StochasticDescent) -> tuple[float, float]:
    """Variance of a batch in units of that of one example, and correlation within an epoch."""
    n, size = descent.space.examples, descent.batch_size
    if descent.sampling == "replacement":
        return 1 / size, 0.0
    if size == n:
        return 0.0, 0.0
    return (n - size) / (size * (n - 1)), -size / (n - size)


def _step_mean(descent: StochasticDescent, mean: jax.Array) -> jax.Array:
    return mean - descent.learning_rate * descent.space.force(mean)


def _carry(descent: StochasticDescent, x: jax.Array) -> jax.Array:
    """A full-batch step of deviations ``(rows, ...)`` along the first axis."""
    kernel, n = descent.space.kernel, descent.space.examples
    flat = x.reshape(len(x), -1)
    moved = jnp.matmul(kernel, flat[:n], precision="highest")
    return (flat - descent.learning_rate / n * moved).reshape(x.shape)


def _carry_both(descent: StochasticDescent, covariance: jax.Array) -> jax.Array:
    left = _carry(descent, covariance)
    return _carry(descent, left.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1)


def _independent(descent: StochasticDescent, k: jax.Array, state: _State) -> _State:
    """Exact: batches do not depend on earlier ones, so second moments obey a closed equation."""
    del k
    space, n = descent.space, descent.space.examples
    variance, _ = _rates(descent)
    error = state.mean[:n] - space.targets
    second = state.covariance[:n, :, :n] + error[:, :, None, None] * error[None, None]
    same = jnp.einsum("acad->acd", second)
    noise = -second / n**2
    index = jnp.arange(n)
    noise = noise.at[index, :, index].add(same / n)
    spread = _push_both(space, noise) * (variance * descent.learning_rate**2)
    return _State(
        _step_mean(descent, state.mean),
        _carry_both(descent, state.covariance) + spread,
        state.epoch,
    )


def _push_both(space: FunctionSpace, noise: jax.Array) -> jax.Array:
    """``K noise K^T`` over examples, for noise ``(n, C, n, C)``."""
    left = jnp.einsum("ra,acbd->rcbd", space.kernel, noise, precision="highest")
    return jnp.einsum("rcbd,sb->rcsd", left, space.kernel, precision="highest")


def _shuffled(descent: StochasticDescent, k: jax.Array, state: _State) -> _State:
    """To leading order in the learning rate, with what batches of an epoch say of each other."""
    space, n, rate = descent.space, descent.space.examples, descent.learning_rate
    variance, shared = _rates(descent)
    fresh = k % (n // descent.batch_size) == 0
    closed = state.covariance + _within(descent, state.epoch)
    covariance = jnp.where(fresh, closed, state.covariance)
    epoch = jnp.where(fresh, 0, state.epoch)

    error = state.mean[:n] - space.targets
    now = space.kernel[:, None, :] * error.T[None]
    # Examples seen already in this epoch, and fitted, do not come again in it.
    own = jnp.einsum("aca->ac", epoch[:n]) / n - epoch[:n].sum(axis=2) / n**2
    drift = rate**2 * variance * shared * space.push(own)
    covariance = _carry_both(descent, covariance)
    covariance = covariance + (1 - shared) * variance * rate**2 * _quadratic(now)
    return _State(_step_mean(descent, state.mean) + drift, covariance, _carry(descent, epoch) + now)


def _within(descent: StochasticDescent, epoch: jax.Array) -> jax.Array:
    """What batches of an unfinished epoch owe to being drawn without replacement."""
    variance, shared = _rates(descent)
    return shared * variance * descent.learning_rate**2 * _quadratic(epoch)


def _quadratic(x: jax.Array) -> jax.Array:
    """``x (I / n - 1 1^T / n^2) x^T`` over the last axis, ``(rows, C, rows, C)``."""
    n = x.shape[-1]
    centred = x - x.mean(axis=-1, keepdims=True)
    return jnp.einsum("rca,sda->rcsd", centred, centred, precision="highest") / n


def stochastic_descent(
    kernel_train_train: ArrayLike,
    y_train: ArrayLike,
    kernel_test_train: ArrayLike | None = None,
    *,
    learning_rate: ArrayLike,
    batch_size: int,
    sampling: Sampling = "shuffle",
    f0_train: ArrayLike | None = None,
    f0_test: ArrayLike | None = None,
) -> StochasticDescent:
    r"""What mini-batch SGD on squared error does to a network in the kernel regime.

    A step moves outputs by ``-learning_rate / B Theta S (f - y)`` with ``S`` the batch's choice
    of examples. Over the batches outputs have a mean and a covariance, for given initial outputs.
    With ``e = E[f] - y`` a step adds, to a covariance that training then shrinks, ::

        (learning_rate^2 / B) q Theta (diag(e e^T) / n - e e^T / n^2) Theta,   q = (n - B) / (n - 1)

    Parameters
    ----------
    kernel_train_train, y_train, kernel_test_train
        As in `gradient_flow`: arrays without output axes.
    learning_rate
        Number > 0.
    batch_size
        Examples in a batch, ``1 <= B <= n``.
    sampling
        "shuffle": each epoch goes through the examples in a new random order, and leaves out those
        that fill no batch, as ``ntk.train`` does. "independent": each batch is a new random set of
        ``B`` different examples. "replacement": each is ``B`` independent draws (``q = 1``).
    f0_train, f0_test
        As in `gradient_flow`.

    Returns
    -------
    StochasticDescent
        With ``.at(steps)``, and a pytree.

    Raises
    ------
    InputError, NumericalError
        As in `gradient_flow`, and for a batch size out of range.

    Notes
    -----
    *Accuracy.* "independent" and "replacement" are exact, at any learning rate: the mean is that
    of full-batch descent, and the covariance also has the noise that noise causes (in the formula
    above ``E[e e^T]`` in place of ``e e^T``). It may grow without bound below the full-batch limit
    of stability, as SGD does. "shuffle" is right to leading order: within an epoch batches are
    anticorrelated, which cancels most of the noise, and the mean moves off full-batch descent at
    second order; relative errors are of order ``learning_rate * lambda_max / B``. Where an epoch
    takes in all examples the leading order cancels at its end: what is left of the covariance
    there, smaller by ``(learning_rate * lambda_max)^2``, is right in size only, by a factor of 2.

    References
    ----------
    .. [1] Mandt, Hoffman, Blei 2017, arXiv:1704.04289 (SGD as a linear stochastic process).

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.predict import stochastic_descent
    >>> y = np.array([[1.0], [-1.0]])
    >>> descent = stochastic_descent(
    ...     np.eye(2), y, learning_rate=0.5, batch_size=1, sampling="independent"
    ... )
    >>> after = descent.at(1).train
    >>> print(after.mean[:, 0], after.covariance[:, :, 0, 0])
    [ 0.25 -0.25] [[0.0625 0.0625]
     [0.0625 0.0625]]
    """
    if sampling not in get_args(Sampling):
        raise InputError(f"sampling={sampling!r}; choose {', '.join(get_args(Sampling))}.")
    space = function_space(
        kernel_train_train,
        y_train,
        kernel_test_train,
        None,
        f0_train=f0_train,
        f0_test=f0_test,
        ridge=0.0,
        which="ntk",
        loss=squared,
        weight_decay=0.0,
        decay_to="initial",
        jvp_train=None,
        jvp_test=None,
    )
    if space.axes:
        raise InputError("stochastic_descent needs kernels of shape (n, n), without output axes.")
    n = space.examples
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or not 1 <= batch_size <= n:
        raise InputError(f"batch_size={batch_size!r}; expected a whole number from 1 to n={n}.")
    rate = read_learning_rate(learning_rate, space.start.dtype)
    return StochasticDescent(space, rate, batch_size, sampling)
