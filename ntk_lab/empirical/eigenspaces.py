"""Eigenvectors of a kernel, and how many of them stand apart."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.errors import NumericalError


class Decomposition(NamedTuple):
    """Eigenvalues in descending order, eigenvectors as columns, and the rounding of the entries."""

    values: np.ndarray
    vectors: np.ndarray
    eps: float


def decomposed(matrix: np.ndarray, dtype: Any, number: int) -> Decomposition:
    """The eigendecomposition of a kernel as a matrix of float64 that came in ``dtype``."""
    eps = float(np.finfo(dtype if np.dtype(dtype).kind == "f" else np.float64).eps)
    largest = np.abs(matrix).max()
    asymmetry = np.abs(matrix - matrix.T).max()
    if largest == 0 or asymmetry > eps**0.5 * largest:
        fault = "zero" if largest == 0 else f"not symmetric (by {asymmetry / largest:.2g})"
        raise NumericalError(f"kernel {number} is {fault}; its evolution cannot be told.")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    if values[-1] < -len(matrix) * eps * values[0]:
        raise NumericalError(
            f"kernel {number} is not positive semi-definite: eigenvalues run from "
            f"{values[-1]:.3g} to {values[0]:.3g}, in {np.dtype(dtype).name}. Compute it in "
            "float64, and not by Monte Carlo entry by entry."
        )
    return Decomposition(np.maximum(values, 0), vectors, eps)


def choose_k(eigenvalues: ArrayLike) -> int:
    """Number of top eigenvectors that are set apart best from the rest, at all times.

    The ``k`` from 2 to ``N / 2`` whose ``lambda_k / lambda_(k+1)``, at the time where it is
    smallest, is largest: perturbations turn the space of the top ``k`` by no more than their size
    over the gap (Davis and Kahan 1970). Not 1 if there is a choice, since the first eigenvector of
    most neural tangent kernels is nearly constant and stays where it is. Eigenvalues that are
    zero to rounding do not count.

    Parameters
    ----------
    eigenvalues
        Descending, ``(N,)`` or one row a time, ``(T, N)``.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> from ntk_lab.empirical import choose_k
    >>> choose_k([50.0, 9.0, 8.0, 1.0, 0.9, 0.8, 0.7, 0.6])
    3
    """
    values = np.atleast_2d(np.asarray(eigenvalues, np.float64))
    noise = values[:, :1] * values.shape[1] * np.finfo(np.float32).eps
    known = (values > noise).all(axis=0).sum()
    most = min(values.shape[1] // 2, int(known) - 1)
    if most < 2:
        return 1
    ratios = (values[:, 1:most] / values[:, 2 : most + 1]).min(axis=0)
    return 2 + int(np.argmax(ratios))
