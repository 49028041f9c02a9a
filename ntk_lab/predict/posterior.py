"""Gaussian process regression: Bayesian inference with an infinitely wide network."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.errors import InputError
from ntk_lab.kernel.result import Kernel
from ntk_lab.predict.flow import GradientFlow
from ntk_lab.predict.inputs import read_array
from ntk_lab.predict.modes import Modes, prepare
from ntk_lab.solve import Diagnostics


class Posterior(NamedTuple):
    """A Gaussian process after seeing the training set.

    Attributes
    ----------
    mean
        Of the noise-free function on the test inputs, shape ``(n_test, outputs)``.
    covariance
        Shape ``(n_test, n_test)``, the same for each output; None without a test-test kernel.
    log_marginal_likelihood
        Natural logarithm of the density of ``y_train``, summed over outputs. NaN if the kernel
        plus noise is rank-deficient, as no density exists then.
    diagnostics
        Spectrum of kernel plus noise: condition number, rank, extreme eigenvalues.
    """

    mean: jax.Array
    covariance: jax.Array | None
    log_marginal_likelihood: jax.Array
    diagnostics: Diagnostics


def gp_posterior(
    kernel_train_train: ArrayLike,
    y_train: ArrayLike,
    kernel_test_train: ArrayLike,
    kernel_test_test: ArrayLike | None = None,
    *,
    noise: ArrayLike = 0.0,
) -> Posterior:
    """Posterior of a Gaussian process with this kernel given noisy targets.

    With ``K = kernel_train_train + noise * I``::

        mean       = kernel_test_train K^-1 y
        covariance = kernel_test_test - kernel_test_train K^-1 kernel_test_train^T
        log p(y)   = sum over outputs of -1/2 (y^T K^-1 y + log det K + n log 2 pi)

    The NNGP as kernel is Bayesian inference over all parameters of an infinitely wide network,
    and equals training its last layer to the end from random initializations.

    Parameters
    ----------
    kernel_train_train
        Kernel of the n training inputs, shape ``(n, n)`` or ``(n, n, outputs, outputs)``:
        ``kernel.nngp`` or ``kernel.ntk``. Its dtype, float32 or float64, is that of the result.
    y_train
        Targets, shape ``(n, outputs)``; outputs are independent processes.
    kernel_test_train, kernel_test_test
        The same kernel of (test, train), shape ``(n_test, n)``, and of the test inputs.
    noise
        Variance of the noise in the targets, a number >= 0.

    Returns
    -------
    Posterior
        Works under ``jit``, ``vmap`` and ``grad``.

    Raises
    ------
    InputError, NumericalError
        As in `gradient_flow`.

    Notes
    -----
    Cost: one eigendecomposition, O(n^3), and O(n^2) memory: more than a Cholesky factorization,
    for an exact condition number and a right answer with a singular kernel, whose null
    directions are left out. Accurate to eps times the condition number.

    References
    ----------
    .. [1] Lee et al. 2018, arXiv:1711.00165.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.predict import gp_posterior
    >>> one = np.ones((1, 1))
    >>> posterior = gp_posterior(one, one, one, one, noise=1.0)
    >>> print(posterior.mean, posterior.covariance, posterior.log_marginal_likelihood.round(3))
    [[0.5]] [[0.5]] -1.516
    """
    train = _as_process("kernel_train_train", kernel_train_train)
    cross = _as_process("kernel_test_train", kernel_test_train)
    corner = None
    if kernel_test_test is not None:
        corner = _as_process("kernel_test_test", kernel_test_test)
    # Training the last layer to the end, from a random start, is a draw from the posterior.
    modes = prepare(
        train, y_train, cross, corner, f0_train=None, f0_test=None, ridge=noise, which="nngp"
    )
    flow = GradientFlow(modes)
    test = flow.at(jnp.inf).test
    assert test is not None  # as kernel_test_train is not
    likelihood = _log_marginal_likelihood(flow.modes)
    return Posterior(test.mean, test.covariance, likelihood, flow.diagnostics)


def _as_process(name: str, kernel: ArrayLike) -> Kernel:
    if isinstance(kernel, Kernel):
        raise InputError(f"{name} is a Kernel, but which of the two? Pass its .nngp or its .ntk.")
    array = read_array(name, kernel)
    return Kernel(nngp=array, ntk=array)


def _log_marginal_likelihood(modes: Modes) -> jax.Array:
    eigenvalues = modes.rates * modes.examples
    rows, columns = modes.error.shape
    fit = jnp.sum(modes.error**2 / eigenvalues[:, None])
    volume = columns * (jnp.sum(jnp.log(eigenvalues)) + rows * jnp.log(2 * jnp.pi))
    return jnp.where(modes.learnable.all(), -0.5 * (fit + volume), jnp.nan)
