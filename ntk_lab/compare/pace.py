"""How fast the stages of gradient descent go beside an optimizer of its own pace."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax

from ntk_lab.compare.experiment import Experiment
from ntk_lab.empirical import ntk
from ntk_lab.errors import InputError, StabilityError
from ntk_lab.losses import mean_loss, squared
from ntk_lab.predict import max_learning_rate

_DEFAULT_SHARE = 0.02  # of the limit of stability
_STEP_SHARE = 0.05  # of it, that a step of gradient descent may take when it catches up
_MOST_STEPS = 20  # of gradient descent for one of the run
_GRID = 60


class Pace(NamedTuple):
    """Of gradient descent: its rate, the steps that stand beside those recorded of the run.

    ``limit`` is the largest stable rate, and ``remark`` says where the rate came from.
    """

    rate: float
    record: tuple[int, ...]
    limit: float
    remark: str

    @property
    def times(self) -> np.ndarray:
        """Training times that stand beside the recorded steps of the run."""
        return self.rate * np.asarray(self.record, float)


def find_pace(make: Callable[[Pace], Experiment], asked: float | None) -> Pace:
    """Pace of the stages of gradient descent.

    Asked for; or 0.02 of the limit of stability; or, for an optimizer made with a rate of its own,
    such that gradient flow has the training loss of the first seed's real run at every recorded
    step.
    """
    unknown = make(Pace(1.0, (1,), 1.0, ""))
    params = jax.tree.map(lambda leaf: leaf[0], unknown.start([0]))
    kernel = ntk(unknown.net.apply, params, unknown.data.x_train)
    limit = float(max_learning_rate(kernel)) / _curvature(unknown, params)
    if not np.isfinite(limit):
        raise InputError(
            "the NTK of this model is zero: no parameter moves the outputs at the initial ones."
        )
    own = isinstance(unknown.optimizer, optax.GradientTransformation)
    if asked is None and own:
        return _matched(unknown, kernel, limit)
    if asked is None:
        rate, remark = _DEFAULT_SHARE * limit, "0.02 of the limit of stability a step"
    else:
        rate, remark = _check(asked, own, limit), "as asked"
    parts = int(np.ceil(rate / (_STEP_SHARE * limit))) if own else 1
    return Pace(rate / parts, tuple(parts * r for r in unknown.record), limit, remark)


def _check(asked: float, own: bool, limit: float) -> float:
    if not 0 < asked < float("inf"):
        raise InputError(f"learning_rate={asked} must be a positive number.")
    if asked >= limit * (_MOST_STEPS if own else 1):
        raise StabilityError(
            f"the learning rate {asked:.4g} is beyond the limit {limit:.4g} at which gradient "
            f"descent on this kernel diverges. Use less, for example {_DEFAULT_SHARE * limit:.3g}."
        )
    return float(asked)


def _curvature(e: Experiment, params: jax.Array) -> float:
    """Largest second derivative of one example's loss by its outputs, at the start."""
    if e.loss is squared:
        return 1.0

    def own(f, y):
        return mean_loss(e.loss, f[None], y[None])

    outputs = e.net.apply(params, e.data.x_train)
    hessians = jax.vmap(jax.hessian(own))(outputs, e.data.y_train)
    largest = float(np.linalg.norm(np.asarray(hessians, np.float64), 2, axis=(1, 2)).max())
    return largest if largest > 0 else 1.0  # piecewise linear losses, such as hinge, have none


def _matched(e: Experiment, kernel: jax.Array, limit: float) -> Pace:
    run = e.train(e.start([0]), [0])
    wanted = np.minimum.accumulate(np.asarray(run.loss[0], float))
    if not wanted[-1] < wanted[0] or not np.isfinite(run.loss[0]).all():
        raise StabilityError(
            f"the optimizer took the training loss from {wanted[0]:.4g} to {run.loss[0, -1]:.4g} "
            f"in {e.steps} steps: training that does not lower the loss cannot be matched by "
            "gradient descent. Use a smaller rate in the optimizer, or pass learning_rate= to "
            "compare all the same."
        )
    longest = limit * e.steps
    grid = np.geomspace(1e-4 * longest / e.steps, longest, _GRID).astype(e.data.y_train.dtype)
    train = e.flow((kernel, None), run.train[0, 0], None, grid).train.mean
    losses = np.asarray([float(mean_loss(e.loss, f, e.data.y_train)) for f in train])
    # The flow's loss falls with time; rounding may let it rise, where it has stopped falling.
    falling = np.minimum.accumulate(losses)
    times = np.exp(np.interp(-wanted[1:], -falling, np.log(grid.astype(float))))
    # Short enough for the first recorded step, but not so short that the last takes too many.
    rate = float(min(max(times[0], times[-1] / (_MOST_STEPS * e.steps)), _STEP_SHARE * limit))
    record = np.maximum(np.round(times / rate), 1).astype(int)
    offsets = np.arange(len(record))
    record = np.maximum.accumulate(record - offsets) + offsets  # strictly rising
    remark = "as fast as the optimizer lowers the training loss, on seed 0"
    if wanted[-1] < falling[-1]:
        remark += (
            f"; it does not come down to the optimizer's {wanted[-1]:.4g} in a feasible time, only "
            f"to {falling[-1]:.4g}"
        )
    return Pace(rate, tuple(int(r) for r in record), limit, remark)
