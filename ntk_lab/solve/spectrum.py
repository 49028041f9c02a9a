"""Eigendecomposition of a kernel matrix, with the diagnostics that say whether to trust it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError, NumericalError


class Diagnostics(NamedTuple):
    """What the spectrum of ``K = kernel + ridge * I`` says about a computation with it.

    Attributes
    ----------
    condition_number
        Largest over smallest eigenvalue; infinite if the smallest is not positive.
    smallest_eigenvalue, largest_eigenvalue
        Extreme eigenvalues of ``K``; the smallest may be negative by rounding.
    rank
        Number of eigenvalues above ``threshold``.
    threshold
        ``4 * sqrt(n) * eps * largest_eigenvalue``: independent rounding errors in the entries
        of a matrix move its eigenvalues by about this much, so anything below is noise.
    asymmetry
        ``max |kernel - kernel^T| / max |kernel|``.
    ridge
        What the caller added to the diagonal. Nothing else is ever added.
    """

    condition_number: jax.Array
    smallest_eigenvalue: jax.Array
    largest_eigenvalue: jax.Array
    rank: jax.Array
    threshold: jax.Array
    asymmetry: jax.Array
    ridge: jax.Array


class Spectrum(NamedTuple):
    """Eigendecomposition ``K = V diag(eigenvalues) V^T`` of a kernel matrix.

    Attributes
    ----------
    eigenvalues
        In ascending order, shape ``(n,)``.
    eigenvectors
        One column for each eigenvalue, shape ``(n, n)``.
    diagnostics
        See `Diagnostics`.
    """

    eigenvalues: jax.Array
    eigenvectors: jax.Array
    diagnostics: Diagnostics


def spectrum(kernel: ArrayLike, *, ridge: ArrayLike = 0.0) -> Spectrum:
    """Eigendecomposition of ``kernel + ridge * I`` for a symmetric positive semi-definite kernel.

    Parameters
    ----------
    kernel
        Symmetric positive semi-definite matrix, shape ``(n, n)``, float32 or float64. Rounding
        is forgiven: an asymmetry up to ``sqrt(eps)`` of the largest entry, and eigenvalues down
        to ``-n * eps * largest_eigenvalue``.
    ridge
        Number added to the diagonal, i.e. to each eigenvalue.

    Returns
    -------
    Spectrum
        In the dtype of the kernel.

    Raises
    ------
    InputError
        If the kernel is not a square matrix of float32 or float64.
    NumericalError
        If the kernel has NaN or infinite entries, is not symmetric, or has an eigenvalue that
        is negative beyond rounding. Under ``jit``, ``grad`` and ``vmap`` values are not known:
        the checks are skipped, and `Diagnostics` tells.

    Notes
    -----
    Cost: O(n^3) time, O(n^2) memory. Eigenvalues are accurate to a few
    ``eps * largest_eigenvalue``. Derivatives exist where the eigenvalues are distinct.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.solve import spectrum
    >>> result = spectrum(np.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> print(np.asarray(result.eigenvalues).round(3), result.diagnostics.rank)
    [1. 3.] 2
    """
    kernel, ridge = _read(kernel, ridge)
    asymmetry = _asymmetry(kernel)
    eigenvalues, eigenvectors = jnp.linalg.eigh(kernel)
    eigenvalues = eigenvalues + ridge
    diagnostics = _diagnose(eigenvalues, asymmetry, ridge)
    _check_semidefinite(diagnostics, len(kernel))
    return Spectrum(eigenvalues, eigenvectors, diagnostics)


def diagnose(kernel: ArrayLike, *, ridge: ArrayLike = 0.0) -> Diagnostics:
    """Diagnostics of ``kernel + ridge * I`` alone; arguments and errors are those of `spectrum`.

    Costs about a third of it, as no eigenvectors are computed.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.solve import diagnose
    >>> print(diagnose(np.array([[2.0, 1.0], [1.0, 2.0]]), ridge=1.0).condition_number)
    2.0
    """
    kernel, ridge = _read(kernel, ridge)
    asymmetry = _asymmetry(kernel)
    diagnostics = _diagnose(jnp.linalg.eigvalsh(kernel) + ridge, asymmetry, ridge)
    _check_semidefinite(diagnostics, len(kernel))
    return diagnostics


def _read(kernel: ArrayLike, ridge: ArrayLike) -> tuple[jax.Array, jax.Array]:
    kernel = jnp.asarray(kernel)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.size == 0:
        raise InputError(f"kernel has shape {kernel.shape}; a square matrix (n, n) is needed.")
    if kernel.dtype not in (jnp.float32, jnp.float64):
        raise InputError(f"kernel is {kernel.dtype}; convert it to float32 or float64.")
    return kernel, jnp.asarray(ridge, kernel.dtype)


def _asymmetry(kernel: jax.Array) -> jax.Array:
    """Relative asymmetry; raises where the matrix cannot be a kernel."""
    largest = jnp.max(jnp.abs(kernel))
    asymmetry = jnp.max(jnp.abs(kernel - kernel.T)) / jnp.where(largest > 0, largest, 1)
    if not is_concrete(asymmetry):
        return asymmetry
    if not np.isfinite(asymmetry):
        bad = int(np.sum(~np.isfinite(np.asarray(kernel))))
        raise NumericalError(
            f"{bad} of {kernel.size} kernel entries are NaN or infinite. Either the inputs "
            "contain such values, or the network over- or underflows; compute in float64 or "
            "rescale the inputs."
        )
    tolerance = float(jnp.finfo(kernel.dtype).eps) ** 0.5
    if asymmetry > tolerance:
        raise NumericalError(
            f"the kernel is not symmetric: entries differ from their mirror image by up to "
            f"{float(asymmetry):.2g} of the largest entry (rounding is forgiven up to "
            f"{tolerance:.1g}). Kernels of a set with itself are symmetric, so check that both "
            "arguments were the same inputs; if lower precision is the cause, pass "
            "(kernel + kernel.T) / 2."
        )
    return asymmetry


def _diagnose(eigenvalues: jax.Array, asymmetry: jax.Array, ridge: jax.Array) -> Diagnostics:
    n, eps = len(eigenvalues), float(jnp.finfo(eigenvalues.dtype).eps)
    smallest, largest = eigenvalues[0], eigenvalues[-1]
    positive = smallest > 0
    threshold = 4 * n**0.5 * eps * jnp.maximum(largest, 0)
    return Diagnostics(
        condition_number=jnp.where(positive, largest / jnp.where(positive, smallest, 1), jnp.inf),
        smallest_eigenvalue=smallest,
        largest_eigenvalue=largest,
        rank=jnp.sum(eigenvalues > threshold),
        threshold=threshold,
        asymmetry=asymmetry,
        ridge=ridge,
    )


def _check_semidefinite(diagnostics: Diagnostics, n: int) -> None:
    smallest, largest = diagnostics.smallest_eigenvalue, diagnostics.largest_eigenvalue
    if not is_concrete(smallest):
        return
    low, high = float(smallest), float(largest)
    if not np.isfinite([low, high]).all():
        raise NumericalError(
            "the eigendecomposition of the kernel failed (NaN eigenvalues) although its entries "
            "are finite; rescale the kernel to entries of order 1, or compute in float64."
        )
    tolerance = n * float(jnp.finfo(smallest.dtype).eps) * max(abs(low), abs(high))
    if low < -tolerance:
        raise NumericalError(
            f"the kernel is not positive semi-definite: its smallest eigenvalue is {low:.3g}, "
            f"below what rounding explains ({-tolerance:.1g}; the largest is {high:.3g}). "
            "Likely causes: the kernel was computed in lower precision than its dtype, was "
            "estimated by Monte Carlo entry by entry, or belongs to two different sets of "
            f"inputs. Compute it in float64, or pass a ridge above {-low:.1g} on purpose."
        )
