"""Gradient flow on any differentiable loss, with or without momentum, by an adaptive ODE solver."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.errors import ConvergenceError, InputError
from ntk_lab.predict.function_space import FunctionSpace
from ntk_lab.predict.inputs import read_non_negative
from ntk_lab.predict.result import Prediction
from ntk_lab.solve import Diagnostics

_RTOL = {"float64": 1e-11, "float32": 1e-6}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossFlow:
    """Predictions at any time of gradient flow on a loss; made by `gradient_flow`.

    Attributes
    ----------
    space
        The problem.
    learning_rate
        Of the flow with momentum, which depends on it; None without momentum.
    momentum
        Decay of the velocity, 0 for plain gradient flow.
    """

    space: FunctionSpace
    learning_rate: jax.Array | None
    momentum: float = field(metadata={"static": True})

    @property
    def diagnostics(self) -> Diagnostics:
        """Spectrum of the training kernel: condition number, rank, extreme eigenvalues, ridge."""
        return self.space.diagnostics

    def at(
        self,
        t: ArrayLike,
        *,
        rtol: float | None = None,
        max_steps: int = 100_000,
        solver: Any = None,
    ) -> Prediction:
        """Prediction at time ``t = learning_rate * steps``.

        Parameters
        ----------
        t
            One time or an array of times in any order, each finite and >= 0.
        rtol
            Tolerance of a step, relative to each output or, where larger, to the largest target
            or initial output. Default 1e-11 in float64, 1e-6 in float32.
        max_steps
            Bound on the number of steps of the solver.
        solver
            A diffrax solver. The default ``diffrax.Dopri8()`` is explicit: the number of steps
            grows as ``t * lambda_max / n`` times the curvature of the loss where that stays up
            (Huber), and as its logarithm where it falls with the loss (cross-entropy). For long
            times of small problems ``diffrax.Kvaerno5()`` solves systems of size ``n * outputs``
            instead.

        Returns
        -------
        Prediction
            Means, with the axes of ``t`` first; all times are found in one pass. Works under
            ``jit``, ``vmap`` and ``grad`` (reverse mode).

        Raises
        ------
        InputError
            If a time is negative, NaN or infinite: for infinity only squared error has a formula,
            and cross-entropy has no limit at all.
        ConvergenceError
            If the steps are used up; its ``result`` is the prediction, NaN at the times that
            were not reached. Not under ``jit``, where the prediction is NaN there.

        Examples
        --------
        >>> import numpy as np
        >>> from ntk_lab.predict import gradient_flow
        >>> flow = gradient_flow(np.eye(2), np.eye(2), loss="cross_entropy")
        >>> print(np.asarray(flow.at([0.0, 1.0, 100.0]).train.mean[:, 0]).round(2))
        [[ 0.    0.  ]
         [ 0.22 -0.22]
         [ 2.28 -2.28]]
        """
        t = read_non_negative("t", t, self.space.start.dtype)
        if is_concrete(t) and not np.isfinite(np.asarray(t)).all():
            raise InputError(
                "t is infinite, and only squared error has a formula for that; the minimum of "
                "cross-entropy and other losses may lie at infinity. Give a large finite time."
            )
        tolerance = _RTOL[t.dtype.name] if rtol is None else float(rtol)
        if not t.size:
            empty = jnp.zeros((*t.shape, *self.space.start.shape), t.dtype)
            return self.space.prediction(empty)
        flat = t.reshape(-1)
        order = jnp.argsort(flat)
        outputs, reached = _integrate(self, flat[order], tolerance, max_steps, _solver(solver))
        outputs = outputs[jnp.argsort(order)].reshape(*t.shape, *self.space.start.shape)
        prediction = self.space.prediction(outputs)
        if is_concrete(reached) and not bool(reached):
            _refuse(prediction, np.asarray(flat), np.asarray(outputs), max_steps)
        return prediction


def _diffrax() -> Any:
    try:
        import diffrax
    except ImportError as error:
        raise ImportError(
            "gradient flow on losses other than squared error, or with momentum, needs diffrax: "
            "pip install 'ntk_lab[ode]'. Discrete steps (gradient_descent) need nothing."
        ) from error
    return diffrax


def _solver(solver: Any) -> Any:
    diffrax = _diffrax()
    if solver is None:
        return diffrax.Dopri8()
    if not isinstance(solver, diffrax.AbstractSolver):
        raise InputError(f"solver={solver!r} is not a diffrax solver, such as diffrax.Kvaerno5().")
    return solver


@compiled(static_argnums=(2, 3, 4))
def _integrate(
    flow: LossFlow, times: jax.Array, rtol: float, max_steps: int, solver: Any
) -> tuple[jax.Array, jax.Array]:
    """Outputs at rising times, and whether the last was reached."""
    diffrax = _diffrax()
    space = flow.space
    sizes = [jnp.max(jnp.abs(x)) for x in (space.targets, space.start)]
    size = jnp.maximum(*sizes)
    # Steps end at the times asked for: interpolation would be less accurate than the steps.
    controller = diffrax.ClipStepSizeController(
        diffrax.PIDController(rtol=rtol, atol=rtol * jnp.where(size > 0, size, 1)),
        step_ts=times,
    )
    if flow.momentum:
        start = (space.start, jnp.zeros_like(space.start))
    else:
        start = space.start
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_velocity),
        solver,
        t0=jnp.zeros((), times.dtype),
        t1=times[-1],
        dt0=None,
        y0=start,
        args=flow,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=controller,
        max_steps=max_steps,
        throw=False,
    )
    outputs = solution.ys[0] if flow.momentum else solution.ys
    reached = solution.result == diffrax.RESULTS.successful
    return jnp.where(jnp.isfinite(outputs), outputs, jnp.nan), reached


def _velocity(t: jax.Array, state: Any, flow: LossFlow) -> Any:
    del t
    if flow.learning_rate is None:
        return -flow.space.force(state)
    f, velocity = state
    return velocity, -(flow.space.force(f) + (1 - flow.momentum) * velocity) / flow.learning_rate


def _refuse(prediction: Prediction, times: np.ndarray, outputs: np.ndarray, max_steps: int) -> None:
    found = np.isfinite(outputs.reshape(len(times), -1)).all(axis=1)
    last = times[found].max() if found.any() else 0.0
    raise ConvergenceError(
        f"the solver stopped between times {last:.3g} and {times.max():.3g} (max_steps="
        f"{max_steps}). The equation is stiff: raise max_steps, ask for shorter times, or pass "
        "solver=diffrax.Kvaerno5(). Where a loss has kinks (hinge), outputs stick to them and no "
        "step size is small enough: use gradient_descent. This error's `result` holds the "
        "prediction, NaN where it was not reached.",
        prediction,
    )
