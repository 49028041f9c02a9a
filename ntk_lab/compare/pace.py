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
_MOST_SUBSTEPS = 20
_GRID = 60


class Pace(NamedTuple):
    """Learning rate of gradient flow a step of the run, and how many steps of descent share it.

    ``limit`` is that of stability for one step, and ``remark`` says where the rate came from.
    """

    learning_rate: float
    substeps: int
    limit: float
    remark: str


def find_pace(make: Callable[[Pace], Experiment], asked: float | None) -> Pace:
    """Pace of the stages of gradient descent.

    Asked for; or 0.02 of the limit of stability; or, for an optimizer made with a rate of its own,
    such that gradient flow ends at the training loss of the first seed's real run.
    """
    unknown = make(Pace(1.0, 1, 1.0, ""))
    params = jax.tree.map(lambda leaf: leaf[0], unknown.start([0]))
    kernel = ntk(unknown.net.apply, params, unknown.data.x_train)
    limit = float(max_learning_rate(kernel)) / _curvature(unknown, params)
    if not np.isfinite(limit):
        raise InputError(
            "the NTK of this model is zero: no parameter moves the outputs at the initial ones."
        )
    own = isinstance(unknown.optimizer, optax.GradientTransformation)
    if asked is not None:
        rate, remark = _check(asked, own, limit), "as asked"
    elif own:
        rate, remark = _matched(unknown, kernel, limit)
    else:
        rate, remark = _DEFAULT_SHARE * limit, "0.02 of the limit of stability"
    substeps = int(np.clip(np.ceil(rate / (_STEP_SHARE * limit)), 1, _MOST_SUBSTEPS)) if own else 1
    return Pace(rate, substeps, limit, remark)


def _check(asked: float, own: bool, limit: float) -> float:
    if not 0 < asked < float("inf"):
        raise InputError(f"learning_rate={asked} must be a positive number.")
    if asked >= limit * (_MOST_SUBSTEPS if own else 1):
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


def _matched(e: Experiment, kernel: jax.Array, limit: float) -> tuple[float, str]:
    run = e.train(e.start([0]), [0])
    start, end = float(run.loss[0, 0]), float(run.loss[0, -1])
    if not end < start:
        raise StabilityError(
            f"the optimizer took the training loss from {start:.4g} to {end:.4g} in {e.steps} "
            "steps: training that does not lower the loss cannot be matched by gradient descent. "
            "Use a smaller rate in the optimizer, or pass learning_rate= to compare all the same."
        )
    longest = limit * e.steps
    times = np.geomspace(1e-4 * longest, longest, _GRID).astype(e.data.y_train.dtype)
    train = e.flow((kernel, None), run.train[0, 0], None, times).train.mean
    losses = np.asarray([float(mean_loss(e.loss, f, e.data.y_train)) for f in train])
    if losses[-1] > end:
        return limit, (
            f"gradient flow does not come down to the optimizer's training loss {end:.4g} in a "
            f"feasible time, only to {losses[-1]:.4g}: its stages end there"
        )
    # The flow's loss falls with time; rounding may let it rise, where it has stopped falling.
    falling = np.minimum.accumulate(losses)[::-1]
    time = float(np.exp(np.interp(end, falling, np.log(times[::-1]))))
    return time / e.steps, (
        f"such that gradient flow ends at the optimizer's training loss, {end:.4g} on seed 0"
    )
