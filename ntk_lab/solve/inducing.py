"""Regression on chosen centres: least squares with products that are streamed."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from ntk_lab.errors import NumericalError
from ntk_lab.solve.host import host_conjugate_gradient
from ntk_lab.solve.routines import blas, lapack

# Rows and columns, with the block of K_nm that belongs to them.
Blocks = Callable[[int], Iterable[tuple[slice, np.ndarray]]]
# Rows that are widened to double precision together.
_ROWS = 2048


class Sums(NamedTuple):
    """What least squares needs of the rows seen so far.

    Attributes
    ----------
    gram
        Lower half of ``K_nm^T K_nm``, ``(m, m)`` float64.
    moments
        ``K_nm^T y``, ``(m, C)``.
    square
        ``|y|^2`` of each column.
    rows
        How many rows were seen.
    """

    gram: np.ndarray
    moments: np.ndarray
    square: np.ndarray
    rows: int


class Inducing(NamedTuple):
    """Minimizer of ``|y - K_nm a|^2 + ridge a^T K_mm a``.

    Attributes
    ----------
    value
        ``a``, ``(m, C)`` float64.
    relative_residual
        Of the normal equations ``(K_nm^T K_nm + ridge K_mm) a = K_nm^T y``, for each column.
    train_error
        ``|y - K_nm a| / |y|`` of each column; NaN where it was not measured.
    iterations
        Times that ``K_nm`` was gone through.
    """

    value: np.ndarray
    relative_residual: np.ndarray
    train_error: np.ndarray
    iterations: int


def accumulate(
    blocks: Blocks, y: np.ndarray, m: int, start: Sums | None, watch: Callable[[Sums], object]
) -> Sums:
    """Sums over all rows, or over those after ``start``; ``watch`` is told after each block."""
    gram = np.zeros((m, m), order="F")
    sums = start or Sums(gram, np.zeros((m, y.shape[1])), np.zeros(y.shape[1]), 0)
    gram, moments, square = np.asfortranarray(sums.gram), sums.moments, sums.square
    for rows, block in blocks(sums.rows):
        for first in range(0, len(block), _ROWS):
            wide = block[first : first + _ROWS].astype(np.float64)
            own = y[rows.start + first : rows.start + first + len(wide)]
            gram = blas.dsyrk(1.0, wide.T, beta=1.0, c=gram, lower=1, overwrite_c=1)
            moments = moments + wide.T @ own
            square = square + np.square(own).sum(axis=0)
        sums = Sums(gram, moments, square, rows.stop)
        watch(sums)
    return sums


def solve_sums(centres: np.ndarray, sums: Sums, ridge: float) -> Inducing:
    """Coefficients from the sums, by Cholesky factors in double precision.

    ``centres`` is ``K_mm``. In the coordinates ``b = U a`` with ``K_mm = U^T U`` the condition
    number is that of the kernel and not its square.
    """
    upper = _root(centres)
    gram = _whole(sums)
    inner = solve_triangular(upper, gram, trans=1, check_finite=False)
    inner = solve_triangular(upper, inner.T, trans=1, check_finite=False)
    right = solve_triangular(upper, sums.moments, trans=1, check_finite=False)
    inside = _solved((inner + inner.T) / 2, right, ridge, "centres or none that are duplicates")
    value = solve_triangular(upper, inside, check_finite=False)
    return _described(gram, sums, value, ridge * (centres.astype(np.float64) @ value))


def solve_features(sums: Sums, ridge: float) -> Inducing:
    """Minimizer ``a`` of ``|y - F a|^2 + ridge |a|^2``, with ``F`` in place of ``K_nm``."""
    gram = _whole(sums)
    value = _solved(gram.copy(), sums.moments, ridge, "features")
    return _described(gram, sums, value, ridge * value)


def _whole(sums: Sums) -> np.ndarray:
    lower = np.tril(sums.gram)
    return lower + np.tril(lower, -1).T


def _solved(inner: np.ndarray, right: np.ndarray, ridge: float, others: str) -> np.ndarray:
    inner[np.diag_indices(len(inner))] += ridge
    factor, failed = lapack.dpotrf(inner, lower=1, overwrite_a=1)
    if failed:
        raise NumericalError(
            f"least squares is singular to rounding with ridge={ridge:.2g}: raise the ridge, or "
            f"take fewer {others}."
        )
    return lapack.dpotrs(factor, right, lower=1)[0]


def _described(gram: np.ndarray, sums: Sums, value: np.ndarray, shrunk: np.ndarray) -> Inducing:
    """The solution with its residual and training error; ``shrunk`` is the ridge's part."""
    fitted = gram @ value
    left = sums.moments - fitted - shrunk
    squares = sums.square - 2 * (sums.moments * value).sum(axis=0) + (value * fitted).sum(axis=0)
    error = np.sqrt(np.maximum(squares, 0) / np.where(sums.square > 0, sums.square, 1))
    return Inducing(value, _relative(left, sums.moments), error, 1)


def falkon(
    blocks: Blocks,
    centres: np.ndarray,
    y: np.ndarray,
    ridge: float,
    *,
    tol: float,
    max_iterations: int,
    start: np.ndarray | None = None,
    watch: Callable[[int, np.ndarray, np.ndarray], object] | None = None,
) -> Inducing:
    """The same by conjugate gradients: ``K_nm`` is gone through once for each iteration.

    Preconditioned by the centres themselves, ``K_nm^T K_nm`` being about ``n / m K_mm^2``
    (arXiv:1705.10958, arXiv:2006.10350). Cheaper than sums where centres are many.
    """
    m, n = len(centres), len(y)
    upper, wide = _root(centres), centres.astype(np.float64)
    inner = (n / m) * (upper @ upper.T)
    inner[np.diag_indices(m)] += ridge
    factor, _ = lapack.dpotrf(inner, lower=1, overwrite_a=1)
    moments = np.zeros((m, y.shape[1]))
    for rows, block in blocks(0):
        moments += block.T.astype(np.float64) @ y[rows]

    def apply(v: np.ndarray) -> np.ndarray:
        out = ridge * (wide @ v)
        for _, block in blocks(0):
            for first in range(0, len(block), _ROWS):
                some = block[first : first + _ROWS].astype(np.float64)
                out += some.T @ (some @ v)
        return out

    def precondition(v: np.ndarray) -> np.ndarray:
        inside = solve_triangular(upper, v, trans=1, check_finite=False)
        inside, _ = lapack.dpotrs(factor, inside, lower=1)
        return solve_triangular(upper, inside, check_finite=False)

    found = host_conjugate_gradient(
        apply, moments, precondition=precondition, start=start, watch=watch, tol=tol,
        max_iterations=max_iterations,
    )  # fmt: skip
    unknown = np.full(y.shape[1], np.nan)
    residual = np.asarray(found.relative_residual)
    return Inducing(np.asarray(found.value), residual, unknown, found.iterations + 1)


def unexplained(centres: np.ndarray, block: np.ndarray, diagonal: np.ndarray) -> float:
    """Share of the kernel's diagonal that the centres do not span, on some rows of ``K_nm``."""
    half = solve_triangular(_root(centres), block.T.astype(np.float64), trans=1)
    left = np.maximum(diagonal - np.square(half).sum(axis=0), 0)
    return float(left.sum() / diagonal.sum())


def _root(centres: np.ndarray) -> Any:
    """Upper factor of ``K_mm``, with rounding added to its diagonal."""
    m = len(centres)
    wide = centres.astype(np.float64)
    rounding = np.finfo(centres.dtype).eps * m**0.5 * wide.diagonal().max()
    wide[np.diag_indices(m)] += rounding
    factor, failed = lapack.dpotrf(wide, lower=0, overwrite_a=1)
    if failed:
        raise NumericalError(
            f"the kernel of the {m} centres is not positive definite to rounding; take others."
        )
    return np.triu(factor)


def _relative(left: np.ndarray, whole: np.ndarray) -> np.ndarray:
    sizes = np.linalg.norm(whole, axis=0)
    return np.linalg.norm(left, axis=0) / np.where(sizes > 0, sizes, 1)
