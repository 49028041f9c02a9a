"""One network trained at many learning rates: where it is lazy, catapults and diverges."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.empirical.ntk import Model, Params, Progress
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.losses import Loss
from ntk_lab.train.catapult import Phase, phase_of
from ntk_lab.train.hessian import best, top_of
from ntk_lab.train.objective import Objective
from ntk_lab.train.schedule import log_spaced

RATIOS = (0.5, 1.0, 1.5, 1.9, 2.1, 2.5, 3.0, 3.5, 4.0, 5.0, 7.0, 10.0, 14.0)


@dataclass(frozen=True)
class LearningRatePhases:
    """Training at ``R`` learning rates; made by :func:`learning_rate_phases`.

    Attributes
    ----------
    learning_rates
        Ascending, ``(R,)``, float64.
    ratios
        Learning rate times curvature at the start, ``(R,)``: the limit is 2.
    curvature0
        Curvature at the start: largest eigenvalue of ``J^T l'' J``, for squared error that of the
        NTK over ``n``.
    loss
        Training loss before each step and after the last, ``(R, steps + 1)``.
    steps
        Where the curvature was recorded, ``(K,)``.
    curvature
        There, ``(R, K)``; NaN once parameters are not finite.
    test_loss
        At the end, ``(R,)``; None without test data.
    phases
        One a learning rate, with the evidence.
    """

    learning_rates: np.ndarray
    ratios: np.ndarray
    curvature0: float
    loss: np.ndarray
    steps: np.ndarray
    curvature: np.ndarray
    test_loss: np.ndarray | None
    phases: tuple[Phase, ...]

    @property
    def lazy_until(self) -> tuple[float, float]:
        """Largest lazy ratio, and the smallest above it that is not: the limit lies between."""
        return self._between(("lazy",))

    @property
    def trains_until(self) -> tuple[float, float]:
        """Largest ratio that is lazy or a catapult, and the smallest above it that is not."""
        return self._between(("lazy", "catapult"))

    def _between(self, names: tuple[str, ...]) -> tuple[float, float]:
        inside = [i for i, p in enumerate(self.phases) if p.name in names]
        if not inside:
            return 0.0, float(self.ratios[0])
        above = self.ratios[inside[-1] + 1 :]
        return float(self.ratios[inside[-1]]), float(above[0]) if len(above) else float("inf")

    def __str__(self) -> str:
        heads = ["learning rate", "x curvature", "phase", "peak loss", "end loss", "ends at"]
        lines = ["  ".join(f"{head:>13}" for head in heads)]
        for eta, ratio, phase in zip(self.learning_rates, self.ratios, self.phases, strict=True):
            cells = [f"{eta:.4g}", f"{ratio:.3g}", phase.name, f"{phase.peak:.3g}",
                     f"{phase.remaining:.2g}", f"{phase.final:.3g}"]  # fmt: skip
            lines.append("  ".join(f"{cell:>13}" for cell in cells))
        return "\n".join(lines)


def learning_rate_phases(
    f: Model,
    params: Params,
    x: Any,
    y: Any,
    *,
    steps: int,
    ratios: Sequence[float] | None = None,
    learning_rates: Sequence[float] | None = None,
    loss: str | Loss = "squared",
    record: int = 6,
    test: tuple[Any, Any] | None = None,
    tol: float = 1e-3,
    progress: Progress | None = None,
) -> LearningRatePhases:
    """Train one network by gradient descent at many learning rates, and tell the phases apart.

    Parameters
    ----------
    f, params, x, y, loss, tol
        As for :func:`hessian_eigenvalues`.
    steps
        Full-batch updates at each learning rate. A catapult takes about ``log(width)`` steps
        to rise and fall, more near the limits.
    ratios
        Learning rates times the curvature at the start; by default from 0.5 to 14, as
        :data:`ntk_lab.train.phases.RATIOS`. Wide two-layer linear networks under squared error are
        lazy below 2 and diverge above 4 (arXiv:2003.02218); where others do is measured.
    learning_rates
        In place of ratios: the learning rates themselves.
    record
        About how many times the curvature is recorded after the start, spaced by the logarithm
        of the step, the last one included.
    test
        ``(x, y)``, for the loss at the end.
    progress
        Called after each learning rate as ``progress(done, total)``.

    Returns
    -------
    LearningRatePhases
        ``print`` shows a table; ``phases[i].evidence`` says why.

    Raises
    ------
    InputError
        Learning rates that are not positive and rising, or both kinds given; data that do not fit;
        a start without loss or curvature.

    Notes
    -----
    Two compiled programs for all learning rates: an update, and a product with the curvature.
    Memory for ``record`` copies of the parameters.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> u, v = jax.random.normal(jax.random.key(0), (2, 500))
    >>> f = lambda p, x: x * (p["u"] @ p["v"]) / 500**0.5
    >>> one, zero, p = jnp.ones((1, 1)), jnp.zeros((1, 1)), {"u": u, "v": v}
    >>> found = ntk.train.learning_rate_phases(f, p, one, zero, steps=60, ratios=(1, 3, 5))
    >>> [phase.name for phase in found.phases]
    ['lazy', 'catapult', 'divergent']
    """
    objective = Objective(f, params, x, y, loss)
    start = _curvature(objective, params, tol)
    if not 0 < start < np.inf:
        raise InputError(f"the curvature at the start is {start}; no learning rate belongs to it.")
    rates = _rates(ratios, learning_rates, start)
    recorded = log_spaced(steps, record)
    advance = _segments(objective, steps)
    other = None if test is None else Objective(f, params, test[0], test[1], loss)
    losses, curvatures, ends = [], [], []
    for rate in rates:
        at, history, curvature = params, None, [start]
        for first, last in pairwise((0, *recorded)):
            at, history = advance(at, history, jnp.asarray(rate, objective.y.dtype), first, last)
            curvature.append(_curvature(objective, at, tol))
        losses.append(np.append(np.asarray(history, np.float64), objective.value(at)))
        curvatures.append(curvature)
        ends.append(np.nan if other is None else other.value(at))
        if progress is not None:
            progress(len(losses), len(rates))
    return LearningRatePhases(
        learning_rates=rates,
        ratios=rates * start,
        curvature0=start,
        loss=np.stack(losses),
        steps=np.asarray([0, *recorded]),
        curvature=np.asarray(curvatures),
        test_loss=None if test is None else np.asarray(ends),
        phases=tuple(map(phase_of, losses, curvatures, rates)),
    )


def _segments(objective: Objective, steps: int) -> Any:
    """Gradient descent from one step to another, writing down the loss before each."""

    def moved(rate, p, g):
        floating = jnp.issubdtype(jnp.asarray(p).dtype, jnp.floating)
        return p - rate.astype(p.dtype) * g if floating else p

    @compiled(sequential=True)
    def advance(params, history, rate, start, stop):
        def step(i, carry):
            params, history = carry
            value, slope = jax.value_and_grad(objective.whole, allow_int=True)(params)
            history = history.at[i].set(value.astype(history.dtype))
            return jax.tree.map(lambda p, g: moved(rate, p, g), params, slope), history

        return jax.lax.fori_loop(start, stop, step, (params, history))

    empty = jnp.zeros(steps, objective.y.dtype)
    return lambda params, history, *rest: advance(
        params, empty if history is None else history, *rest
    )


def _curvature(objective: Objective, params: Params, tol: float) -> float:
    """Largest eigenvalue of ``J^T l'' J``; NaN where parameters or products are not finite."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        return float("nan")
    try:
        found = best(top_of, objective, params, 1, True, tol=tol)
    except NumericalError:
        return float("nan")
    return float(found.eigenvalues[0])


def _rates(ratios: Any, learning_rates: Any, curvature: float) -> np.ndarray:
    if ratios is not None and learning_rates is not None:
        raise InputError("give ratios or learning_rates, not both.")
    given = RATIOS if ratios is None else ratios
    found = np.asarray(given if learning_rates is None else learning_rates, np.float64)
    if found.ndim != 1 or not len(found) or not (np.diff(found, prepend=0.0) > 0).all():
        raise InputError(f"learning rates {found} must be a list, positive and rising.")
    return found / curvature if learning_rates is None else found
