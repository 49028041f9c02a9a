"""Log marginal likelihood of a Gaussian process, with derivatives that are always finite."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.predict.inputs import read_array, read_outputs, read_ridge
from ntk_lab.solve import diagnose


def log_marginal_likelihood(
    kernel: ArrayLike, y: ArrayLike, *, noise: ArrayLike = 0.0
) -> jax.Array:
    """Logarithm of the density of ``y`` under a Gaussian process with this kernel and noise.

    ``sum over outputs of -1/2 (y^T K^-1 y + log det K + n log 2 pi)``, ``K = kernel + noise I``.

    Parameters
    ----------
    kernel
        Shape ``(n, n)``, such as ``net.kernel(x).nngp``. Its dtype is that of the result.
    y
        Targets, shape ``(n, outputs)``; outputs are independent processes.
    noise
        Variance of the noise in the targets, a number >= 0.

    Returns
    -------
    jax.Array
        One number. Works under ``jit``, ``vmap`` and ``grad``: derivatives by the kernel exist for
        repeated eigenvalues too, unlike those of `gp_posterior`.

    Raises
    ------
    InputError
        If a shape or value does not fit.
    NumericalError
        If ``K`` is not positive definite to rounding, so that there is no density. Nothing is
        added to prevent it. Under ``jit`` the result is NaN then.

    Notes
    -----
    One Cholesky factorization, O(n^3). Accurate to eps times the condition number.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.predict import log_marginal_likelihood
    >>> print(f"{log_marginal_likelihood(np.eye(2), np.zeros((2, 1)), noise=1.0):.3f}")
    -2.531
    """
    k = read_array("kernel", kernel)
    if k.ndim != 2 or k.shape[0] != k.shape[1] or not k.size:
        raise InputError(f"kernel has shape {k.shape}; expected (n, n).")
    y = read_outputs("y", y, len(k), None, k.dtype)
    found = density(k, y, read_ridge(noise, k.dtype, "noise"))
    if is_concrete(found) and not bool(jnp.isfinite(found)):
        low = diagnose(k, ridge=jnp.asarray(noise, k.dtype)).smallest_eigenvalue
        raise NumericalError(
            f"kernel + noise is not positive definite to rounding: its smallest eigenvalue is "
            f"{float(low):.3g}. Inputs that occur twice, or more examples than the kernel has "
            "rank, have no density without noise: pass noise > 0, or compute in float64."
        )
    return found


def density(kernel: jax.Array, y: jax.Array, noise: jax.Array) -> jax.Array:
    """The same without checks; NaN where there is none."""
    n, outputs = y.shape
    factor = jnp.linalg.cholesky(kernel + noise * jnp.eye(n, dtype=kernel.dtype))
    white = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
    volume = 2 * jnp.sum(jnp.log(jnp.diagonal(factor))) + n * jnp.log(2 * jnp.pi)
    return -0.5 * (jnp.sum(white**2) + outputs * volume)
