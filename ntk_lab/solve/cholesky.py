"""Exact solves by a Cholesky factor that takes half of a matrix's memory."""

from typing import NamedTuple

import numpy as np

from ntk_lab.errors import InputError, NumericalError
from ntk_lab.solve.routines import lapack
from ntk_lab.solve.tiled import Tiled, product

# LAPACK's integers have 32 bits: entries of half a matrix must be countable.
LARGEST = 65535
_REFINEMENTS = 5


class Factored(NamedTuple):
    """Solution of ``(A + ridge I) a = y`` by a Cholesky factor.

    Attributes
    ----------
    value
        ``a``, ``(n, m)`` in float64.
    relative_residual
        ``|y - (A + ridge I) a| / |y|`` of each column, in double precision.
    refinements
        How often the solution was improved by its residual.
    smallest_pivot, largest_pivot
        Extreme squares of the factor's diagonal: their ratio bounds the condition number from
        below.
    """

    value: np.ndarray
    relative_residual: np.ndarray
    refinements: int
    smallest_pivot: float
    largest_pivot: float


def cholesky_bytes(n: int, itemsize: int) -> int:
    """Memory that the factor of ``n`` rows takes: half of a matrix."""
    return n * (n + 1) // 2 * itemsize


def cholesky_solve(matrix: Tiled, y: np.ndarray, ridge: float, *, tol: float) -> Factored:
    """Solve ``(A + ridge I) a = y``, factoring in place and in the dtype of ``A``.

    Parameters
    ----------
    matrix
        Symmetric positive definite with the ridge. Its tiles are gone through once for the factor
        and once for each refinement.
    y
        Right sides ``(n, m)``.
    ridge
        Added to the diagonal.
    tol
        Residuals above it are refined, as long as that helps.

    Raises
    ------
    InputError
        More than 65535 rows, which LAPACK cannot count.
    NumericalError
        A matrix that is not positive definite to rounding.

    Notes
    -----
    ``n^3 / 3`` operations, ``n^2 / 2`` numbers: rectangular full packed format, at the speed of
    matrix products. In float32 the residual is measured and the solution refined in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.solve import InMemory, cholesky_solve
    >>> found = cholesky_solve(InMemory(np.eye(3)), np.ones((3, 1)), 1.0, tol=1e-12)
    >>> print(found.value[:, 0])
    [0.5 0.5 0.5]
    """
    n, dtype = matrix.shape[0], matrix.dtype
    if n > LARGEST:
        raise InputError(f"a Cholesky factor of {n} rows: at most {LARGEST} can be counted.")
    prefix = "s" if dtype.itemsize == 4 else "d"
    packed = np.empty(n * (n + 1) // 2, dtype)
    halves = _views(packed, n)
    for rows, columns, tile in matrix.tiles():
        _place(halves, n, rows, columns, tile)
    _add_diagonal(halves, n, dtype.type(ridge))
    packed, failed = getattr(lapack, f"{prefix}pftrf")(n, packed, uplo="L", overwrite_a=1)
    if failed:
        raise NumericalError(
            f"the kernel plus ridge={ridge:.2g} is not positive definite to rounding in {dtype}: "
            f"its first {failed} rows depend on each other. Raise the ridge above rounding "
            f"({_rounding(matrix):.1g} here), remove duplicated inputs, or compute in float64."
        )
    pivots = np.square(_diagonal(_views(packed, n), n), dtype=np.float64)
    solve = getattr(lapack, f"{prefix}pftrs")
    sizes = np.linalg.norm(y, axis=0)
    sizes = np.where(sizes > 0, sizes, 1)
    value, residual, best = np.zeros(y.shape), y.astype(np.float64), np.ones(y.shape[1])
    refinements = -1
    for _ in range(_REFINEMENTS + 1):
        scale = np.abs(residual).max(axis=0)
        scale = np.where(scale > 0, scale, 1)  # small residuals must not leave float32's range
        change, _ = solve(n, packed, (residual / scale).astype(dtype), uplo="L")
        new = value + scale * change
        left = y - product(matrix, new) - ridge * new
        relative = np.linalg.norm(left, axis=0) / sizes
        if not (relative < best).any():
            break
        better = relative < best
        value, residual = np.where(better, new, value), np.where(better, left, residual)
        best, refinements = np.minimum(best, relative), refinements + 1
        if (best <= tol).all():
            break
    return Factored(value, best, max(refinements, 0), float(pivots.min()), float(pivots.max()))


def _rounding(matrix: Tiled) -> float:
    """What rounding of the entries moves eigenvalues by, about."""
    return 4 * matrix.shape[0] ** 0.5 * float(np.finfo(matrix.dtype).eps * matrix.diagonal().max())


def _views(packed: np.ndarray, n: int) -> tuple[np.ndarray, int, int]:
    """The packed half as an array whose rows are columns of the lower triangle.

    With ``k = ceil(n / 2)`` and ``e = 1 - n % 2``, ``A[i, j]`` of ``i >= j`` is at ``[j, i + e]``
    for ``j < k``, and at ``[i - k + 1 - e, j - k]`` otherwise.
    """
    k, even = -(-n // 2), 1 - n % 2
    return packed.reshape(k, n + even), k, even


def _place(halves: tuple[np.ndarray, int, int], n: int, rows: slice, columns: slice, tile) -> None:
    """Write a tile of the upper triangle: ``tile[a, b]`` is ``A[i, j]`` of ``j <= i``."""
    array, k, even = halves
    for a in range(tile.shape[0]):
        j = rows.start + a
        first = max(j, columns.start)
        values = tile[a, first - columns.start :]
        if j < k:
            array[j, first + even : columns.stop + even] = values
        else:
            array[first - k + 1 - even : columns.stop - k + 1 - even, j - k] = values


def _positions(n: int, k: int, even: int) -> tuple[np.ndarray, np.ndarray]:
    i = np.arange(n)
    return np.where(i < k, i, i - k + 1 - even), np.where(i < k, i + even, i - k)


def _add_diagonal(halves: tuple[np.ndarray, int, int], n: int, ridge) -> None:
    array, k, even = halves
    array[_positions(n, k, even)] += ridge


def _diagonal(halves: tuple[np.ndarray, int, int], n: int) -> np.ndarray:
    array, k, even = halves
    return array[_positions(n, k, even)]
