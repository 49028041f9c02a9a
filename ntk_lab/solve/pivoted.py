"""Randomly pivoted partial Cholesky factors, and the preconditioner that they make."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from ntk_lab.errors import InputError
from ntk_lab.solve.routines import blas, lapack
from ntk_lab.solve.tiled import Tiled

# Pivots that are drawn together, as a share of the rank; of these, those below this share of the
# largest are dropped, as rounding would decide them.
_BLOCK = 1 / 16
_FEWEST = 32
_DROP = {4: 1e-5, 8: 1e-12}
_ROWS = 2048


class PivotedCholesky(NamedTuple):
    """Approximation ``L L^T`` of a positive semi-definite matrix ``A``.

    Attributes
    ----------
    factor
        ``L``, shape ``(n, rank)``, in the dtype of the matrix. ``A - L L^T`` is positive
        semi-definite up to rounding.
    pivots
        Rows and columns of ``A`` on which the approximation is exact, ``(rank,)``.
    remaining
        ``trace(A - L L^T) / trace(A)``.
    """

    factor: np.ndarray
    pivots: np.ndarray
    remaining: float


def pivoted_cholesky(matrix: Tiled, rank: int, *, seed: int = 0) -> PivotedCholesky:
    """Partial Cholesky factor with pivots drawn by what is left of the diagonal.

    Parameters
    ----------
    matrix
        Symmetric positive semi-definite, ``(n, n)``; ``rank`` of its columns are looked at.
    rank
        Columns of the factor, at most; fewer where no more can be told from rounding.
    seed
        Of the draw.

    Returns
    -------
    PivotedCholesky

    Notes
    -----
    ``O(n rank^2)`` operations and ``n rank`` numbers. Its error in trace is near that of the best
    approximation of such rank (arXiv:2207.06503); drawing in blocks makes it matrix products.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.solve import InMemory, pivoted_cholesky
    >>> half = np.array([[1.0], [2.0], [-1.0]])
    >>> found = pivoted_cholesky(InMemory(half @ half.T), 3)
    >>> print(found.factor.shape, bool(found.remaining < 1e-12))
    (3, 1) True
    """
    n = matrix.shape[0]
    if not 1 <= rank <= n:
        raise InputError(f"rank={rank}; a partial factor of {n} rows has 1 to {n} columns.")
    rng = np.random.default_rng(seed)
    left = matrix.diagonal().astype(np.float64)
    trace, largest = left.sum(), left.max()
    floor = _DROP[matrix.dtype.itemsize] * largest
    factor, pivots = np.empty((n, rank), matrix.dtype, order="F"), np.empty(rank, np.int64)
    block, k = max(_FEWEST, int(rank * _BLOCK)), 0
    while k < rank and (left > floor).any():
        some = min(block, rank - k, int((left > floor).sum()))
        weights = np.where(left > floor, left, 0)
        chosen = rng.choice(n, some, replace=False, p=weights / weights.sum())
        new = matrix.columns(chosen) - factor[:, :k] @ factor[chosen, :k].T
        core = new[chosen].astype(np.float64)
        upper, order, kept, _ = lapack.dpstrf((core + core.T) / 2, tol=floor)
        order = order[:kept] - 1
        if kept == 0:
            break
        upper = np.triu(upper[:kept, :kept]).astype(matrix.dtype)
        columns = solve_triangular(upper, new[:, order].T, trans=1, check_finite=False).T
        factor[:, k : k + kept], pivots[k : k + kept] = columns, chosen[order]
        left = np.maximum(left - np.square(columns, dtype=np.float64).sum(axis=1), 0)
        left[chosen[order]] = 0
        k += kept
    return PivotedCholesky(factor[:, :k], pivots[:k], float(left.sum() / trace) if trace else 0.0)


class LowRankInverse:
    """``(L L^T + ridge I)^-1`` applied to vectors, for a factor ``L`` of shape ``(n, k)``.

    In double precision whatever the dtype of ``L``, as ``ridge`` may be below the rounding of
    ``L L^T`` (arXiv:1903.08114, by the identity of Woodbury).
    """

    def __init__(self, factor: np.ndarray, ridge: float):
        k = factor.shape[1]
        self._factor, self._ridge = factor, ridge
        gram = np.zeros((k, k), order="F")
        for start in range(0, len(factor), _ROWS):
            rows = factor[start : start + _ROWS].astype(np.float64)
            gram = blas.dsyrk(1.0, rows.T, beta=1.0, c=gram, lower=1, overwrite_c=1)
        gram[np.diag_indices(k)] += ridge
        self._inner, failed = lapack.dpotrf(gram, lower=1, overwrite_a=1)
        if failed:
            raise InputError(f"ridge={ridge:.2g} is too small for a preconditioner; raise it.")

    def __call__(self, v: np.ndarray) -> np.ndarray:
        """The product with ``v`` of shape ``(n, m)``."""
        inside = np.zeros((self._factor.shape[1], v.shape[1]))
        for start in range(0, len(v), _ROWS):
            rows = self._factor[start : start + _ROWS].astype(np.float64)
            inside += rows.T @ v[start : start + _ROWS]
        inside = cho_solve((self._inner, True), inside, check_finite=False)
        out = np.empty_like(v)
        for start in range(0, len(v), _ROWS):
            here = slice(start, start + _ROWS)
            out[here] = (v[here] - self._factor[here].astype(np.float64) @ inside) / self._ridge
        return out
