"""Eigenvalues and target power of a kernel on a population of examples."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from scipy import linalg

from ntk_lab.errors import InputError


class KernelModes(NamedTuple):
    """Modes from the largest eigenvalue down, float64.

    Attributes
    ----------
    eigenvalues
        Of ``K / N``, clipped at zero, ``(N,)``.
    power
        Squared coefficients of the targets, summed over outputs; their sum is the mean square of
        the targets, ``(N,)``.
    """

    eigenvalues: np.ndarray
    power: np.ndarray


def kernel_modes(kernel: ArrayLike, targets: ArrayLike) -> KernelModes:
    """Modes of a kernel matrix ``(N, N)`` and of targets ``(N, outputs)`` of ``N`` examples.

    ``K / N = sum_i lambda_i u_i u_i^T`` and ``power_i = |u_i^T y|^2 / N``: what
    :func:`learning_curve` takes, with the ``N`` examples as the whole ``population``. For inputs
    drawn from a distribution they stand for it as long as training sets are much smaller than ``N``
    (arXiv:2006.13198, section on real data). An eigendecomposition: ``O(N^3)``, in float64.

    Raises
    ------
    InputError
        If the shapes do not fit, or the kernel has values that are not finite.

    Examples
    --------
    >>> import numpy as np, ntk_lab as ntk
    >>> modes = ntk.theory.kernel_modes(np.diag([1.0, 3.0]), np.array([[2.0], [0.0]]))
    >>> modes.eigenvalues.tolist(), modes.power.tolist()
    ([1.5, 0.5], [0.0, 2.0])
    """
    matrix, y = np.asarray(kernel, np.float64), np.asarray(targets, np.float64)
    check_kernel_and_targets(matrix, y)
    values, vectors = linalg.eigh(matrix)
    power = ((vectors.T @ y) ** 2).sum(1) / len(y)
    return KernelModes(np.maximum(values[::-1], 0) / len(y), power[::-1].copy())


def check_kernel_and_targets(matrix: np.ndarray, y: np.ndarray) -> None:
    """Say what does not fit."""
    if matrix.ndim != 2 or y.ndim != 2 or matrix.shape != (len(y), len(y)):
        raise InputError(
            "expected a kernel (N, N) and targets (N, outputs) of the same examples; got shapes "
            f"{matrix.shape} and {y.shape}."
        )
    if not (np.isfinite(matrix).all() and np.isfinite(y).all()):
        raise InputError("kernel and targets must be finite; got NaN or infinity in one of them.")
