"""Functions of a large symmetric matrix times a vector, by Lanczos iteration."""

from collections.abc import Callable

import numpy as np
import scipy.linalg

from ntk_lab.errors import NumericalError

_FIRST = 12


def functions_of(
    product: Callable[[np.ndarray], np.ndarray],
    vector: np.ndarray,
    functions: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """``phi(A) v`` and ``A phi(A) v`` for several functions ``phi``.

    Parameters
    ----------
    product
        ``A @ v`` for float64 vectors ``(N,)``.
    vector
        Shape ``(N,)``.
    functions
        From eigenvalues ``(m,)`` to the values of ``T`` functions, ``(T, m)``.
    tolerance
        Stop when one quarter fewer products give the same ``A phi(A) v``, relative to its norm.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        Each ``(T, N)``.

    Raises
    ------
    NumericalError
        Products that are not finite.

    Notes
    -----
    Fully orthogonalized, so that the numbers do not depend on how rounding errors spread:
    ``O(m^2 N)`` operations beside ``m`` products.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.train.krylov import functions_of
    >>> diagonal = np.array([1.0, 4.0])
    >>> root, _ = functions_of(lambda v: diagonal * v, np.ones(2), lambda x: x[None] ** 0.5, 1e-9)
    >>> print(root.round(6))
    [[1. 2.]]
    """
    norm, size = float(np.linalg.norm(vector)), len(vector)
    if norm == 0:
        nothing = np.zeros((len(functions(np.ones(1))), size))
        return nothing, nothing.copy()
    basis = np.zeros((2 * _FIRST, size))
    basis[0] = vector / norm
    diagonal: list[float] = []
    beside: list[float] = []
    before, check = None, _FIRST
    while True:
        done = len(diagonal) + 1
        w = product(basis[done - 1])
        diagonal.append(float(w @ basis[done - 1]))
        for _ in range(2):
            w = w - basis[:done].T @ (basis[:done] @ w)
        beside.append(float(np.linalg.norm(w)))
        if not np.isfinite([diagonal[-1], beside[-1]]).all():
            raise NumericalError("products with the NTK are not finite.")
        small = 10 * size**0.5 * np.finfo(float).eps * np.abs(diagonal).max()
        exhausted = done == size or beside[-1] <= small
        if exhausted or done == check:
            weights, moved = _weights(diagonal, beside[:-1], functions)
            if exhausted or _same(moved, before, tolerance):
                return norm * weights @ basis[:done], norm * moved @ basis[:done]
            before, check = moved, done + -(-done // 3)
        if done == len(basis):
            basis = np.concatenate([basis, np.zeros_like(basis)])
        basis[done] = w / beside[-1]


def _weights(diagonal, beside, functions) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of ``phi(A) v / |v|`` and ``A phi(A) v / |v|`` in the basis."""
    values, vectors = scipy.linalg.eigh_tridiagonal(np.asarray(diagonal), np.asarray(beside))
    applied = functions(values) * vectors[:1]
    return applied @ vectors.T, (applied * values[None]) @ vectors.T


def _same(moved: np.ndarray, before: np.ndarray | None, tolerance: float) -> bool:
    if before is None:
        return False
    shorter = np.pad(before, ((0, 0), (0, moved.shape[1] - before.shape[1])))
    # What grows beyond all numbers is as well known as it can be; the rest may be large too.
    largest = np.abs(moved).max(axis=1, keepdims=True)
    fine = np.isfinite(largest[:, 0]) & np.isfinite(shorter).all(axis=1) & (largest[:, 0] > 0)
    unit = moved[fine] / largest[fine]
    difference = np.linalg.norm(unit - shorter[fine] / largest[fine], axis=1)
    return bool((difference <= tolerance * np.linalg.norm(unit, axis=1)).all())
