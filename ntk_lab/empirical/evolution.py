"""How a kernel evolves: its size, direction, spectrum and eigenvectors from time to time."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from ntk_lab.empirical.after_kernels import AfterKernels
from ntk_lab.empirical.effective_rank import effective_rank, participation_ratio
from ntk_lab.empirical.eigenspaces import Decomposition, choose_k, decomposed
from ntk_lab.empirical.evolution_inputs import (
    checked_k,
    kept,
    matrix_of,
    numbered_steps,
    targets_of,
    times_of,
)
from ntk_lab.errors import InputError

_ROUNDINGS = 100  # a kernel of which less is left by centring has no direction


@dataclass(frozen=True)
class Evolution:
    """What changes in a kernel over ``T`` times; made by :func:`kernel_evolution`.

    Arrays are float64. ``N`` is the number of rows of the kernel as a matrix: ``n``, or
    ``n outputs`` for a kernel with axes of outputs.

    Attributes
    ----------
    times
        Shape ``(T,)``.
    drift
        ``|Theta_t - Theta_0| / |Theta_0|`` in Frobenius norm, ``(T,)``; the first is 0.
    norm
        ``|Theta_t| / |Theta_0|``, ``(T,)``: what of the drift is growth.
    velocity
        ``|Theta_t' - Theta_t| / (|Theta_t| (t' - t))`` between neighbouring times, ``(T - 1,)``,
        in units of one over time.
    distance
        ``1 - <Theta_s, Theta_t> / (|Theta_s| |Theta_t|)``, ``(T, T)``: the kernel distance of
        arXiv:2010.15110, blind to growth.
    cka
        The centred kernel alignment (arXiv:1203.0550) of any two times, ``(T, T)``; NaN where
        nothing is left of a kernel when it is centred.
    alignment
        The same with the targets' ``y y^T``, ``(T,)``; None without targets.
    captured
        Share ``|V_k^T y|^2 / |y|^2`` of the targets that lies in the top ``k`` eigenvectors,
        ``(T,)``; None without targets.
    eigenvalues
        All of them in descending order, ``(T, N)``; what rounding makes negative is 0.
    growth
        The ``k`` largest over those at the first time, ``(T, k)``.
    effective_rank, participation_ratio
        Of the spectrum, ``(T,)``; see the functions of these names.
    k
        Number of top eigenvectors whose rotation is followed.
    gap
        ``1 - lambda_(k+1) / lambda_k``, ``(T,)``. Where it is near 0 the top ``k`` are not set
        apart from the next, and their rotation says nothing.
    angles
        The ``k`` principal angles between the top eigenvectors of each time and of the first,
        radians from 0 to pi/2, ascending, ``(T, k)``.
    overlap
        Mean squared cosine ``|V_s^T V_t|^2 / k`` of these angles between any two times, ``(T, T)``:
        1 for the same space; `chance` for two random ones.
    """

    times: np.ndarray
    drift: np.ndarray
    norm: np.ndarray
    velocity: np.ndarray
    distance: np.ndarray
    cka: np.ndarray
    alignment: np.ndarray | None
    captured: np.ndarray | None
    eigenvalues: np.ndarray
    growth: np.ndarray
    effective_rank: np.ndarray
    participation_ratio: np.ndarray
    k: int
    gap: np.ndarray
    angles: np.ndarray
    overlap: np.ndarray

    @property
    def chance(self) -> float:
        """Expected overlap of two random spaces of ``k`` dimensions, ``k / N``."""
        return self.k / self.eigenvalues.shape[1]

    def __len__(self) -> int:
        return len(self.times)

    def __str__(self) -> str:
        columns = {
            "time": self.times,
            "drift": self.drift,
            "norm": self.norm,
            "velocity": np.concatenate([[np.nan], self.velocity]),
            "CKA with 0": self.cka[0],
        }
        if self.alignment is not None:
            columns["alignment"] = self.alignment
        columns |= {
            "eff. rank": self.effective_rank,
            "part. ratio": self.participation_ratio,
            "growth": self.growth[:, 0],
            f"overlap({self.k})": self.overlap[0],
        }
        lines = ["  ".join(f"{head:>11}" for head in columns)]
        for row in zip(*columns.values(), strict=True):
            lines.append("  ".join(f"{'' if np.isnan(v) else f'{v:.4g}':>11}" for v in row))
        return "\n".join(lines)


def kernel_evolution(
    kernels: AfterKernels | Iterable[ArrayLike],
    *,
    times: ArrayLike | None = None,
    targets: ArrayLike | None = None,
    k: int | None = None,
) -> Evolution:
    """How a kernel evolves in training: drift, velocity, alignment, spectrum, rotation.

    Parameters
    ----------
    kernels
        Of the training inputs with themselves, one a time, in order: what :func:`after_kernels`
        returned, or matrices ``(n, n)`` or ``(n, n, outputs, outputs)``, also from a generator.
        A kernel with axes of outputs is looked at as a matrix of pairs (example, output).
    times
        Rising numbers, one a kernel, for the velocity; time is ``learning_rate * steps``. By
        default the steps of `AfterKernels`, or 0, 1, 2, ...
    targets
        ``(n,)`` or ``(n, outputs)``. A kernel without axes of outputs is compared with ``y y^T``
        summed over outputs.
    k
        Top eigenvectors to follow. A good choice is the number of classes, as each brings one
        eigenvalue that stands apart; by default :func:`choose_k` decides.

    Returns
    -------
    Evolution
        ``print`` shows it as a table.

    Raises
    ------
    InputError
        No kernels, shapes that differ or do not fit, times that do not rise, ``k`` out of range.
    NumericalError
        Kernels that are zero, not finite, not symmetric, or not positive semi-definite beyond
        rounding.

    Notes
    -----
    One eigendecomposition a kernel, in float64: ``O(T N^3)`` time, and ``T`` kernels in memory.
    What is known of a kernel of lower precision is known to that precision: eigenvalues to about
    ``eps`` of the largest, the top eigenvectors to ``eps lambda_1 / (lambda_k - lambda_(k+1))``.

    Examples
    --------
    >>> import numpy as np, ntk_lab as ntk
    >>> found = ntk.empirical.kernel_evolution([np.diag([4.0, 1, 1]), np.diag([2.0, 6, 1])], k=1)
    >>> print(found.drift.round(3), found.overlap[0], found.effective_rank.round(2))
    [0.    1.269] [1. 0.] [2.38 2.34]
    """
    if isinstance(kernels, AfterKernels):
        times = numbered_steps(kernels) if times is None else times
        kernels = kept(kernels)
    matrices, found, outputs, y = _read(kernels, targets)
    t = times_of(times, len(found))
    values = np.stack([one.values for one in found])
    k = choose_k(values) if k is None else checked_k(k, values.shape[1])
    tops = [one.vectors[:, :k] for one in found]
    centred = [_centred(m, outputs, one.eps) for m, one in zip(matrices, found, strict=True)]
    norms = np.array([np.linalg.norm(m) for m in matrices])
    moved = np.array([np.linalg.norm(b - a) for a, b in pairwise(matrices)])
    return Evolution(
        times=t,
        drift=np.array([np.linalg.norm(m - matrices[0]) for m in matrices]) / norms[0],
        norm=norms / norms[0],
        velocity=moved / (norms[:-1] * np.diff(t)),
        distance=1 - _cosines(matrices),
        cka=_cosines(centred),
        alignment=None if y is None else _alignment(centred, y, outputs),
        captured=None if y is None else _captured(tops, y),
        eigenvalues=values,
        growth=_ratio(values[:, :k], values[0, :k]),
        effective_rank=effective_rank(values),
        participation_ratio=participation_ratio(values),
        k=k,
        gap=1 - _ratio(_following(values, k), values[:, k - 1]),
        angles=np.stack([np.sort(scipy.linalg.subspace_angles(tops[0], v)) for v in tops]),
        overlap=np.array([[np.sum((a.T @ b) ** 2) / k for b in tops] for a in tops]),
    )


def _read(kernels: Iterable[ArrayLike], targets: ArrayLike | None) -> tuple[Any, ...]:
    """Matrices, their decompositions, the number of outputs in them, and targets as columns."""
    matrices: list[np.ndarray] = []
    found: list[Decomposition] = []
    outputs: int | None = None
    for number, kernel in enumerate(kernels):
        array = np.asarray(kernel)
        matrices.append(matrix_of(array, number, matrices))
        found.append(decomposed(matrices[-1], array.dtype, number))
        outputs = array.shape[2] if array.ndim == 4 else None
    if not found:
        raise InputError("kernels is empty; expected at least one.")
    n = len(matrices[0]) // (outputs or 1)
    y = None if targets is None else targets_of(targets, n, outputs)
    return matrices, found, outputs or 1, y


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NaN in place of division by an eigenvalue of zero."""
    return np.where(b > 0, a / np.where(b > 0, b, 1.0), np.nan)


def _centred(matrix: np.ndarray, outputs: int, eps: float) -> np.ndarray:
    """Without the means over examples; NaN where nothing but rounding is left."""
    n = len(matrix) // outputs
    k = matrix.reshape(n, outputs, n, outputs)
    k = k - k.mean(0, keepdims=True)
    k = (k - k.mean(2, keepdims=True)).reshape(matrix.shape)
    lost = np.linalg.norm(k) <= _ROUNDINGS * eps * np.linalg.norm(matrix)
    return np.full_like(k, np.nan) if lost else k


def _cosines(matrices: list[np.ndarray]) -> np.ndarray:
    norms = [np.linalg.norm(m) for m in matrices]
    found = np.empty((len(matrices), len(matrices)))
    for i, a in enumerate(matrices):
        for j, b in enumerate(matrices[: i + 1]):
            found[i, j] = found[j, i] = np.vdot(a, b) / (norms[i] * norms[j])
    return found


def _alignment(centred: list[np.ndarray], y: np.ndarray, outputs: int) -> np.ndarray:
    gram = _centred(y @ y.T, outputs, float(np.finfo(float).eps))
    return np.array([_cosines([k, gram])[0, 1] for k in centred])


def _captured(tops: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    return np.array([np.sum((v.T @ y) ** 2) for v in tops]) / np.sum(y**2)


def _following(values: np.ndarray, k: int) -> np.ndarray:
    return values[:, k] if k < values.shape[1] else np.zeros(len(values))
