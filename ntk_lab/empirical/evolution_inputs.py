"""Reading the arguments of the evolution of a kernel."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.empirical.after_kernels import AfterKernels
from ntk_lab.errors import InputError, NumericalError


def numbered_steps(found: AfterKernels) -> Any:
    """The steps, if they are numbers."""
    numbers = all(isinstance(s, (int, float, np.integer, np.floating)) for s in found.steps)
    return found.steps if numbers else None


def kept(found: AfterKernels) -> Iterator[np.ndarray]:
    """The kernels, if they are matrices."""
    if found.kernels is None:
        raise InputError("these after-kernels were not kept; make them with keep=True.")
    if found.kernels.ndim == 4:  # one kernel of each output
        raise InputError(
            f"the after-kernels have shape {found.kernels.shape}, those of outputs='diagonal'; "
            "make them with outputs='trace' or 'full', or give the kernels of one output."
        )
    return iter(found.kernels)


def matrix_of(kernel: np.ndarray, number: int, before: list[np.ndarray]) -> np.ndarray:
    """A matrix of float64, after checks."""
    shape = kernel.shape
    square = kernel.ndim in (2, 4) and shape[0] == shape[1] and shape[-1] == shape[-2]
    if not square or kernel.size == 0 or kernel.dtype.kind not in "fiu":
        raise InputError(
            f"kernel {number} has shape {shape} and dtype {kernel.dtype}; expected real numbers "
            "(n, n) or (n, n, outputs, outputs), of a batch with itself."
        )
    matrix = kernel.astype(np.float64)
    if kernel.ndim == 4:
        size = shape[0] * shape[2]
        matrix = matrix.transpose(0, 2, 1, 3).reshape(size, size)
    if before and before[0].shape != matrix.shape:
        raise InputError(
            f"kernel {number} is a matrix {matrix.shape} and the first {before[0].shape}; "
            "expected kernels of one network on one batch."
        )
    if not np.isfinite(matrix).all():
        raise NumericalError(f"kernel {number} holds NaN or infinity.")
    return matrix


def targets_of(targets: ArrayLike, n: int, outputs: int | None) -> np.ndarray:
    """Columns of the rows of a kernel: ``(n, outputs)``, or ``(n outputs, 1)``."""
    y = np.asarray(targets, np.float64)
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or len(y) != n or outputs not in (None, y.shape[1]):
        wanted = f"({n}, {'outputs' if outputs is None else outputs})"
        raise InputError(f"targets have shape {y.shape}; the kernels call for {wanted}.")
    if not np.isfinite(y).all() or not y.any():
        raise InputError("targets are all zero, or hold NaN or infinity.")
    return y if outputs is None else y.reshape(-1, 1)


def times_of(times: ArrayLike | None, count: int) -> np.ndarray:
    """Rising numbers, one a kernel."""
    t = np.arange(count, dtype=float) if times is None else np.asarray(times, np.float64)
    if t.shape != (count,) or not np.isfinite(t).all() or (np.diff(t) <= 0).any():
        raise InputError(f"times={times} must be {count} rising numbers, one a kernel.")
    return t


def checked_k(k: int, size: int) -> int:
    """A number of eigenvectors."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= size:
        raise InputError(f"k={k!r}; it must be an integer from 1 to {size}.")
    return int(k)
