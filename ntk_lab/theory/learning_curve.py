"""Learning curves of kernel regression from the spectrum of the kernel and the target's modes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError
from ntk_lab.theory.rising_root import rising_root


class LearningCurve(NamedTuple):
    """Expected errors of kernel regression; every field has the shape of ``n``, modes last.

    Attributes
    ----------
    kappa
        Effective regularization: modes of eigenvalue above it are learnt.
    learnability
        Share of each mode's coefficient that the mean prediction has, ``(..., modes)``.
    overfitting
        ``E_0``, the price of a unit of noise; 1 where nothing is overfitted.
    test_error
        Mean squared error on new noisy labels, summed over outputs.
    train_error
        Mean squared error on the training labels.
    """

    kappa: Array
    learnability: Array
    overfitting: Array
    test_error: Array
    train_error: Array


def learning_curve(
    eigenvalues: ArrayLike,
    power: ArrayLike,
    n: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    noise: ArrayLike = 0.0,
    multiplicity: ArrayLike | None = None,
) -> LearningCurve:
    """Expected errors of kernel ridge regression on ``n`` random examples.

    The predictor is ``K(x, X) (K(X, X) + ridge I)^-1 y`` and the kernel's eigenvalues
    ``lambda_i``, of multiplicities ``m_i``, are those of its integral operator over the inputs'
    distribution. With ``kappa`` from

    ``n = sum_i m_i lambda_i / (lambda_i + kappa) + ridge / kappa``,

    the learnabilities are ``L_i = lambda_i / (lambda_i + kappa)``, ``E_0 = n / (n - sum_i m_i
    L_i^2)``, the test error is ``E_0 (sum_i (1 - L_i)^2 power_i + noise)`` and the training error
    ``(ridge / (n kappa))^2`` times that (arXiv:2006.13198; in this form arXiv:2110.03922).

    It assumes that eigenfunctions at random inputs behave like independent Gaussian variables:
    exact for Gaussian features as their number grows with ``n``; for real data an approximation,
    to be measured.

    Parameters
    ----------
    eigenvalues
        Non-negative, ``(modes,)``; floating.
    power
        Squared coefficients of the target, of all outputs and of all functions of one eigenvalue
        together, ``(modes,)``. What no mode has belongs to ``noise``.
    n
        Numbers of examples, of any shape.
    ridge
        As above: it is added to ``K``, not to ``K / n``.
    noise
        Variance of the labels' noise, summed over outputs.
    multiplicity
        Of each eigenvalue, ``(modes,)``; 1 by default.

    Differentiable in everything and usable under ``jax.jit``; a sum over modes for each of some
    ten steps of Newton's method. Without ridge there must be more modes than examples.

    Raises
    ------
    InputError
        Where shapes or values do not fit, as far as they are known (not under ``jit``).

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> curve = ntk.theory.learning_curve(jnp.ones(100), jnp.full(100, 0.01), jnp.array([50.0]))
    >>> float(curve.learnability[0, 0].round(3)), float(curve.test_error[0].round(3))
    (0.5, 0.5)
    """
    values = jnp.asarray(eigenvalues)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(jnp.result_type(float))
    dtype = values.dtype
    counts = jnp.ones_like(values) if multiplicity is None else jnp.asarray(multiplicity, dtype)
    power, sizes = jnp.asarray(power, dtype), jnp.asarray(n, dtype)
    ridge, noise = jnp.asarray(ridge, dtype), jnp.asarray(noise, dtype)
    _check(values, power, counts, sizes, ridge, noise)
    result = _curves(values, power, counts, sizes.reshape(-1), ridge, noise)
    return LearningCurve(*(r.reshape(sizes.shape + r.shape[1:]) for r in result))


@compiled
def _curves(
    values: Array, power: Array, counts: Array, n: Array, ridge: Array, noise: Array
) -> LearningCurve:
    return jax.vmap(lambda one: _curve(values, power, counts, one, ridge, noise))(n)


def _curve(
    values: Array, power: Array, counts: Array, n: Array, ridge: Array, noise: Array
) -> LearningCurve:
    kappa = 1 / _inverse_kappa(values, counts, n, ridge)
    unlearnt = kappa / (values + kappa)
    learnt = values / (values + kappa)
    # n - sum m L^2 without cancellation: n is sum m L + ridge / kappa.
    overfitting = n / (jnp.sum(counts * learnt * unlearnt) + ridge / kappa)
    test = overfitting * (jnp.sum(unlearnt**2 * power) + noise)
    train = (ridge / (n * kappa)) ** 2 * test
    return LearningCurve(kappa, learnt, overfitting, test, train)


def _inverse_kappa(values: Array, counts: Array, n: Array, ridge: Array) -> Array:
    """``u = 1 / kappa``: the equation is increasing and concave in ``u``.

    The bound ``L <= lambda u`` is a start on its left.
    """

    def excess(u: Array) -> Array:
        return jnp.sum(counts * values * u / (1 + values * u)) + ridge * u - n

    start = n / (jnp.sum(counts * values) + ridge)
    return rising_root(excess, start)


def _check(
    values: Array, power: Array, counts: Array, n: Array, ridge: Array, noise: Array
) -> None:
    if values.ndim != 1 or power.shape != values.shape or counts.shape != values.shape:
        raise InputError(
            "eigenvalues, power and multiplicity must be vectors of one length, one entry a mode; "
            f"got shapes {values.shape}, {power.shape} and {counts.shape}."
        )
    if ridge.ndim or noise.ndim:
        raise InputError(
            f"ridge and noise must be numbers; got shapes {ridge.shape} and {noise.shape}: use "
            "jax.vmap for several."
        )
    if not is_concrete((values, power, counts, n, ridge, noise), {}):
        return
    named = {"eigenvalues": values, "power": power, "ridge": ridge, "noise": noise}
    for name, array in named.items():
        if not bool(jnp.all(array >= 0)):
            raise InputError(f"{name} must not be negative or NaN; the least is {array.min()}.")
    if not bool(jnp.all(n > 0)):
        raise InputError(f"n must be positive; the least is {n.min()}.")
    modes = jnp.sum(jnp.where(values > 0, counts, 0))
    if n.size and not bool(ridge > 0) and not bool(n.max() < modes):
        raise InputError(
            f"without ridge, kernel regression on n = {n.max()} examples needs more than n modes "
            f"of positive eigenvalue; got {modes}. Give more modes, fewer examples or a ridge."
        )
