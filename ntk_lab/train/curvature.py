"""Curvature of the loss along training: top eigenvalues of the Hessian and of the NTK."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ntk_lab.empirical.ntk import Model, Params, Progress
from ntk_lab.empirical.operator import operator
from ntk_lab.errors import InputError
from ntk_lab.losses import Loss
from ntk_lab.train.hessian import best, top_of
from ntk_lab.train.objective import Objective


@dataclass(frozen=True)
class Curvature:
    """Curvature of the training loss at checkpoints; made by :func:`curvature_along`.

    Arrays are float64. Each eigenvalue comes with its residual norm: within that distance there
    is an eigenvalue.

    Attributes
    ----------
    steps
        Names of the ``T`` checkpoints.
    loss
        Mean training loss, ``(T,)``.
    hessian, hessian_error
        Largest eigenvalues of its Hessian, ``(T, top)``; None if not asked for.
    ntk, ntk_error
        Largest eigenvalues of the empirical NTK over ``n``, ``(T, top)``: for squared error those
        of the Gauss-Newton part of the Hessian. None if not asked for.
    """

    steps: tuple[Any, ...]
    loss: np.ndarray
    hessian: np.ndarray | None
    hessian_error: np.ndarray | None
    ntk: np.ndarray | None
    ntk_error: np.ndarray | None

    @property
    def largest_learning_rate(self) -> np.ndarray:
        """``2 / sharpness`` of each checkpoint, ``(T,)``: what gradient descent is stable up to.

        Of the Hessian, or of the NTK where that is all there is; infinite without any curvature.
        """
        top = self.ntk if self.hessian is None else self.hessian
        assert top is not None  # one of them is computed
        return np.where(top[:, 0] > 0, 2 / np.where(top[:, 0] > 0, top[:, 0], 1), np.inf)

    def __str__(self) -> str:
        columns = [("step", self.steps), ("loss", self.loss)]
        for name, values, error in (
            ("Hessian", self.hessian, self.hessian_error),
            ("NTK/n", self.ntk, self.ntk_error),
        ):
            if values is not None and error is not None:
                columns += [(name, values[:, 0]), ("+-", error[:, 0])]
        columns.append(("2/sharpness", self.largest_learning_rate))
        lines = ["  ".join(f"{head:>11}" for head, _ in columns)]
        for row in zip(*(values for _, values in columns), strict=True):
            cells = [f"{row[0]!s:>11}", *(f"{value:>11.4g}" for value in row[1:])]
            lines.append("  ".join(cells))
        return "\n".join(lines)


def curvature_along(
    f: Model,
    checkpoints: Iterable[Params] | Mapping[Any, Params],
    x: Any,
    y: Any,
    *,
    loss: str | Loss = "squared",
    top: int = 1,
    hessian: bool = True,
    ntk: bool = True,
    tol: float = 1e-3,
    batch: int | None = None,
    key: jax.Array | None = None,
    progress: Progress | None = None,
) -> Curvature:
    """Top eigenvalues of the Hessian of the loss and of the NTK at checkpoints of a run.

    Parameters
    ----------
    f, x, y, loss, top, tol, batch, key
        As for :func:`hessian_eigenvalues`.
    checkpoints
        Parameters one after the other (a generator may load them), or a mapping from steps.
    hessian, ntk
        Which of the two to compute.
    progress
        Called after each checkpoint as ``progress(done, total)``; ``total`` is 0 where their
        number is not known before.

    Returns
    -------
    Curvature
        ``print`` shows it as a table. Where iterations stopped short of ``tol`` the residual norm
        beside the eigenvalue says so.

    Raises
    ------
    InputError
        No checkpoints, neither of both kinds of eigenvalues, shapes that do not fit.
    NumericalError
        Values that are not finite.

    Notes
    -----
    About ``20 top`` products with the Hessian and with the NTK a checkpoint; neither is formed.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda w, x: x * w**2  # L = (w^2 - 1)^2 / 2: L'' = 6 w^2 - 2, NTK = 4 w^2
    >>> run = {0: jnp.float32(2), 9: jnp.float32(1)}
    >>> print(ntk.train.curvature_along(f, run, jnp.ones((1, 1)), jnp.ones((1, 1))))
           step         loss      Hessian           +-        NTK/n           +-  2/sharpness
              0          4.5           22            0           16            0      0.09091
              9            0            4            0            4            0          0.5
    """
    if not hessian and not ntk:
        raise InputError("hessian=False and ntk=False leave nothing to compute; choose one.")
    total = len(checkpoints) if hasattr(checkpoints, "__len__") else 0  # type: ignore[arg-type]
    pairs = checkpoints.items() if isinstance(checkpoints, Mapping) else enumerate(checkpoints)
    steps, losses, objective = [], [], None
    found: dict[str, list[tuple[Any, Any]]] = {"hessian": [], "ntk": []}
    for step, params in pairs:
        if objective is None:
            objective = Objective(f, params, x, y, loss, batch)
        steps.append(step)
        losses.append(objective.value(params))
        if hessian:
            pair = best(top_of, objective, params, top, tol=tol, key=key)
            found["hessian"].append(_known(pair, 1.0))
        if ntk:
            kernel = operator(f, params, x)
            pair = best(kernel.eigsh, min(top, kernel.shape[0]), tol=tol, key=key)
            found["ntk"].append(_known(pair, float(objective.n)))
        if progress is not None:
            progress(len(steps), total)
    if not steps:
        raise InputError("checkpoints is empty; expected parameters of at least one.")

    return Curvature(
        tuple(steps), np.asarray(losses), *_stacked(found["hessian"]), *_stacked(found["ntk"])
    )


def _stacked(pairs: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Values and errors, or None for both."""
    if not pairs:
        return None, None
    return np.stack([values for values, _ in pairs]), np.stack([errors for _, errors in pairs])


def _known(found: Any, scale: float) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(found.eigenvalues, np.float64) / scale
    return values, np.asarray(found.residual_norms, np.float64) / scale
