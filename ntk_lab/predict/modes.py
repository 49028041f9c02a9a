"""Training with squared error, seen in the eigenbasis of the kernel.

Gradient flow, gradient descent and momentum all act on each eigenvector of the kernel
separately. They differ in one thing only: which part of the initial error of a mode survives.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.errors import InputError
from ntk_lab.predict.inputs import KernelLike, Problem, Which, read_non_negative, read_problem
from ntk_lab.predict.result import Moments, Prediction
from ntk_lab.solve import Spectrum, spectrum


class Prior(NamedTuple):
    """Covariance of the initial outputs: training set in modes, test set in examples."""

    train: jax.Array
    test_train: jax.Array | None
    test_test: jax.Array | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Modes:
    """A regression problem in the eigenbasis ``V`` of ``K = Theta + ridge * I``.

    Attributes
    ----------
    spectrum
        Eigenvalues and eigenvectors of ``K``.
    error
        Initial error in modes, ``V^T (y - f0)``.
    f0_train, f0_test
        Initial outputs.
    theta_test
        Kernel of (test, train) in modes, ``Theta_test,train V``.
    prior
        Covariance of the initial outputs, or None if these are given.
    examples, outputs
        As in `ntk_lab.predict.inputs.Problem`.
    """

    spectrum: Spectrum
    error: jax.Array
    f0_train: jax.Array
    f0_test: jax.Array | None
    theta_test: jax.Array | None
    prior: Prior | None
    examples: int = field(metadata={"static": True})
    outputs: int | None = field(metadata={"static": True})

    @property
    def learnable(self) -> jax.Array:
        """Modes whose eigenvalue is above rounding noise; training moves no others."""
        return self.spectrum.eigenvalues > self.spectrum.diagnostics.threshold

    @property
    def rates(self) -> jax.Array:
        """Eigenvalues of ``K / n``; the largest one stands in for modes that are not learnable."""
        eigenvalues, learnable = self.spectrum.eigenvalues, self.learnable
        largest = jnp.where(learnable[-1], eigenvalues[-1], 1)
        return jnp.where(learnable, eigenvalues, largest) / self.examples

    @property
    def time_scales(self) -> jax.Array:
        """Time ``n / eigenvalue`` each mode takes to shrink its error by ``e``."""
        return jnp.where(self.learnable, 1 / self.rates, jnp.inf)


def prepare(
    kernel_train_train: KernelLike,
    y_train: ArrayLike,
    kernel_test_train: KernelLike | None,
    kernel_test_test: KernelLike | None,
    *,
    f0_train: ArrayLike | None,
    f0_test: ArrayLike | None,
    ridge: ArrayLike,
    which: Which,
) -> Modes:
    """Check the arguments and change to the eigenbasis, at O(n^3)."""
    problem = read_problem(
        kernel_train_train, y_train, kernel_test_train, kernel_test_test, f0_train, f0_test, which
    )
    theta = problem.theta
    ridge = read_non_negative("ridge", ridge, theta.train_train.dtype)
    if ridge.ndim:
        raise InputError(f"ridge has shape {ridge.shape}; one number is needed.")
    modes = spectrum(theta.train_train, ridge=ridge)
    vectors = modes.eigenvectors
    return Modes(
        spectrum=modes,
        error=vectors.T @ (problem.targets - problem.f0_train),
        f0_train=problem.f0_train,
        f0_test=problem.f0_test,
        theta_test=None if theta.test_train is None else theta.test_train @ vectors,
        prior=_prior(problem, modes, which),
        examples=problem.examples,
        outputs=problem.outputs,
    )


def _prior(problem: Problem, modes: Spectrum, which: Which) -> Prior | None:
    nngp, vectors = problem.nngp, modes.eigenvectors
    if nngp is None:
        return None
    if which == "nngp":  # the kernel of training and the covariance are the same matrix K
        train = jnp.diag(modes.eigenvalues)
    else:
        train = vectors.T @ nngp.train_train @ vectors
    test_train = None if nngp.test_train is None else nngp.test_train @ vectors
    return Prior(train, test_train, nngp.test_test)


def evolve(modes: Modes, surviving: jax.Array, gain: jax.Array) -> Prediction:
    """Prediction from what training did to each mode.

    Parameters
    ----------
    modes
        The problem.
    surviving
        Fraction r of the initial error left in each mode, shape ``(n,)``.
    gain
        ``(1 - r) / rate``, computed without cancellation, shape ``(n,)``.

    Returns
    -------
    Prediction
        At one time.
    """
    learnable, vectors = modes.learnable, modes.spectrum.eigenvectors
    surviving = jnp.where(learnable, surviving, 1)
    learnt = jnp.where(learnable, gain * modes.rates, 0)
    gain = jnp.where(learnable, gain, 0) / modes.examples
    prior = modes.prior

    mean = modes.f0_train + vectors @ (learnt[:, None] * modes.error)
    covariance = None
    if prior is not None:
        left = surviving[:, None] * prior.train * surviving[None, :]
        covariance = _symmetric(vectors @ left @ vectors.T)
    train = _unflatten(mean, covariance, modes.outputs)
    if modes.theta_test is None or modes.f0_test is None:
        return Prediction(train, None)

    mean = modes.f0_test + modes.theta_test @ (gain[:, None] * modes.error)
    covariance = None
    if prior is not None and prior.test_train is not None and prior.test_test is not None:
        # Var(f0_test - A f0_train) with A = theta_test diag(gain) V^T
        inner = gain[:, None] * prior.train * gain[None, :]
        twice = modes.theta_test @ (inner @ modes.theta_test.T)
        cross = (modes.theta_test * gain[None, :]) @ prior.test_train.T
        covariance = _symmetric(prior.test_test + twice - cross - cross.T)
    return Prediction(train, _unflatten(mean, covariance, modes.outputs))


def _symmetric(matrix: jax.Array) -> jax.Array:
    return (matrix + matrix.T) / 2


def _unflatten(mean: jax.Array, covariance: jax.Array | None, outputs: int | None) -> Moments:
    if outputs is None:
        return Moments(mean, covariance)
    mean = mean.reshape(-1, outputs)
    n = len(mean)
    if covariance is not None:
        covariance = covariance.reshape(n, outputs, n, outputs).transpose(0, 2, 1, 3)
    return Moments(mean, covariance)
