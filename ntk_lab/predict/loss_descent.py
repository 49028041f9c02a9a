"""Gradient descent on any differentiable loss in discrete steps, plain or with momentum."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.errors import NumericalError
from ntk_lab.predict.function_space import FunctionSpace
from ntk_lab.predict.inputs import read_steps
from ntk_lab.predict.result import Prediction
from ntk_lab.solve import Diagnostics


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossDescent:
    """Predictions after any number of steps on a loss; made by `gradient_descent`."""

    space: FunctionSpace
    learning_rate: jax.Array
    momentum: float = field(metadata={"static": True})
    nesterov: bool = field(metadata={"static": True})

    @property
    def diagnostics(self) -> Diagnostics:
        """Spectrum of the training kernel: condition number, rank, extreme eigenvalues, ridge."""
        return self.space.diagnostics

    def at(self, steps: ArrayLike) -> Prediction:
        """Prediction after ``steps`` steps.

        Parameters
        ----------
        steps
            A number of steps >= 0, or an array of them in any order, of integer dtype.

        Returns
        -------
        Prediction
            Means, with the axes of ``steps`` first; all are found in one pass over the steps,
            each of which costs a product with the kernel, O(n (n + n_test) outputs). Works under
            ``jit``, ``vmap`` and forward-mode derivatives (``jax.jvp``, ``jax.jacfwd``).

        Raises
        ------
        InputError
            If a number of steps is negative, or is not an integer.
        NumericalError
            If the outputs grow beyond all numbers: the learning rate is too large. Not under
            ``jit``, where they are then infinite or NaN.

        Examples
        --------
        >>> import numpy as np
        >>> from ntk_lab.predict import gradient_descent
        >>> descent = gradient_descent(
        ...     np.eye(2), np.eye(2), learning_rate=1.0, loss="cross_entropy"
        ... )
        >>> print(np.asarray(descent.at([0, 1, 100]).train.mean[:, 0]).round(3))
        [[ 0.     0.   ]
         [ 0.25  -0.25 ]
         [ 2.295 -2.295]]
        """
        steps = read_steps(steps)
        flat = steps.reshape(-1)
        order = jnp.argsort(flat)
        outputs = _descend(self, flat[order])[jnp.argsort(order)]
        outputs = outputs.reshape(*steps.shape, *self.space.start.shape)
        if is_concrete(outputs):
            check_outputs(np.asarray(flat), np.asarray(outputs))
        return self.space.prediction(outputs)


@compiled
def _descend(descent: LossDescent, steps: jax.Array) -> jax.Array:
    """Outputs after each of a rising sequence of steps."""
    space, rate, momentum = descent.space, descent.learning_rate, descent.momentum

    def step(_, state):
        f, velocity = state
        force = space.force(f)
        velocity = force + momentum * velocity
        move = force + momentum * velocity if descent.nesterov else velocity
        return f - rate * move, velocity

    def segment(carry, until):
        state, done = carry
        state = jax.lax.fori_loop(done, until, step, state)
        return (state, until), state[0]

    start = (space.start, jnp.zeros_like(space.start))
    _, outputs = jax.lax.scan(segment, (start, jnp.int32(0)), steps)
    return outputs


def check_outputs(steps: np.ndarray, outputs: np.ndarray) -> None:
    """Refuse outputs ``(len(steps), ...)`` that have overflown."""
    bad = ~np.isfinite(outputs.reshape(len(steps), -1)).all(axis=1)
    if bad.any():
        raise NumericalError(
            f"the outputs are no longer finite after {steps[bad].min()} steps: training diverges. "
            "Lower the learning rate (max_learning_rate is the limit for squared error), or look "
            "for targets or a loss of extreme values."
        )
