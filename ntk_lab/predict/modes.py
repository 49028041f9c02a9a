"""Training with squared error, seen in the eigenbasis of the kernel.

Gradient flow, gradient descent and momentum all act on each eigenvector of the kernel
separately. They differ in one thing only: which part of the initial error of a mode survives.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.predict.decay import Decay, DecayTo, read_decay
from ntk_lab.predict.inputs import KernelLike, Problem, Which, read_problem, read_ridge
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
    decay
        Weight decay, with what it pulls on the training set in modes.
    pull_train
        ``J theta_0`` on the training set in examples, or None.
    examples, outputs
        As in `ntk_lab.predict.inputs.Problem`.
    """

    spectrum: Spectrum
    error: jax.Array
    f0_train: jax.Array
    f0_test: jax.Array | None
    theta_test: jax.Array | None
    prior: Prior | None
    decay: Decay
    pull_train: jax.Array | None
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
    def decayed(self) -> jax.Array:
        """Rates of training with weight decay: curvatures of the loss with its penalty."""
        return self.rates + self.decay.rate

    @property
    def time_scales(self) -> jax.Array:
        """Time each mode takes to come nearer to where it goes by a factor of ``e``."""
        return jnp.where(self.learnable, 1 / self.decayed, jnp.inf)


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
    weight_decay: ArrayLike = 0.0,
    decay_to: DecayTo = "initial",
    jvp_train: ArrayLike | None = None,
    jvp_test: ArrayLike | None = None,
) -> Modes:
    """Check the arguments and change to the eigenbasis, at O(n^3)."""
    problem = read_problem(
        kernel_train_train, y_train, kernel_test_train, kernel_test_test, f0_train, f0_test, which
    )
    theta = problem.theta
    ridge = read_ridge(ridge, theta.train_train.dtype)
    decay = read_decay(problem, weight_decay, decay_to, jvp_train, jvp_test)
    modes = spectrum(theta.train_train, ridge=ridge)
    vectors = modes.eigenvectors
    return Modes(
        spectrum=modes,
        error=vectors.T @ (problem.targets - problem.f0_train),
        f0_train=problem.f0_train,
        f0_test=problem.f0_test,
        theta_test=None if theta.test_train is None else theta.test_train @ vectors,
        prior=_prior(problem, modes, which),
        decay=decay if decay.train is None else decay._replace(train=vectors.T @ decay.train),
        pull_train=decay.train,
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


Factors = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def evolve(modes: Modes, factors: Factors) -> Prediction:
    """Prediction from what training does to a mode of each rate.

    Parameters
    ----------
    modes
        The problem.
    factors
        From rates (curvatures of the loss, weight decay included) to the fraction ``r`` of the
        initial distance to the minimum that is left, and ``1 - r`` without cancellation.

    Returns
    -------
    Prediction
        At one time.

    Notes
    -----
    Training with any of the linear methods leaves ``r(H) (theta_0 - theta_min)``, with ``H`` the
    Hessian ``J^T J / n + weight_decay``. Decay towards zero splits the distance into what lies in
    the span of the gradients and what only decays.
    """
    learnable, vectors, prior = modes.learnable, modes.spectrum.eigenvectors, modes.prior
    left, gone = factors(modes.decayed)
    gain = jnp.where(learnable, gone / modes.decayed, 0)
    # 1 - gain * rates, without cancellation
    surviving = (modes.decay.rate + modes.rates * left) / modes.decayed
    surviving = jnp.where(learnable, surviving, 1)
    moved, shrunk = gain[:, None] * modes.error, None
    if modes.decay.train is not None:
        idle, shrunk = factors(modes.decay.rate)
        apart = jnp.where(learnable, (left - idle) / modes.rates, 0)
        moved = moved + (gain + apart)[:, None] * modes.decay.train

    mean = modes.f0_train + vectors @ (modes.rates[:, None] * moved)
    if shrunk is not None and modes.pull_train is not None:
        mean = mean - shrunk * modes.pull_train
    covariance = None
    if prior is not None:
        inner = surviving[:, None] * prior.train * surviving[None, :]
        covariance = _symmetric(vectors @ inner @ vectors.T)
    train = _unflatten(mean, covariance, modes.outputs)
    if modes.theta_test is None or modes.f0_test is None:
        return Prediction(train, None)

    gain = gain / modes.examples
    mean = modes.f0_test + modes.theta_test @ (moved / modes.examples)
    if shrunk is not None and modes.decay.test is not None:
        mean = mean - shrunk * modes.decay.test
    covariance = None
    if prior is not None and prior.test_train is not None and prior.test_test is not None:
        # Var(f0_test - A f0_train) with A = theta_test diag(gain) V^T
        inner = gain[:, None] * prior.train * gain[None, :]
        twice = modes.theta_test @ (inner @ modes.theta_test.T)
        cross = (modes.theta_test * gain[None, :]) @ prior.test_train.T
        covariance = _symmetric(prior.test_test + twice - cross - cross.T)
    return Prediction(train, _unflatten(mean, covariance, modes.outputs))


def learnt_share(modes: Modes, factors: Factors) -> jax.Array:
    """Share of the error ``y - f0`` of each mode that is gone, shape ``(n,)``."""
    _, gone = factors(modes.decayed)
    return jnp.where(modes.learnable, gone * modes.rates / modes.decayed, 0)


def at_each(predict: Callable[[jax.Array], Any], times: jax.Array) -> Any:
    """What ``predict`` says of each time, axes of ``times`` first."""
    for _ in range(times.ndim):
        predict = jax.vmap(predict)
    return predict(times)


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
