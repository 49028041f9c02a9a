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
        Price of a unit of noise, by which it raises the test error; 1 where nothing is overfitted.
    test_error
        Mean squared error on noisy labels of examples not trained on, summed over outputs.
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
    population: ArrayLike | None = None,
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

    With a ``population`` of ``N`` examples, whose modes (:func:`kernel_modes`) are all there is,
    the training set is ``n`` of them without replacement and the test set the others. Then modes
    are orthogonal over the examples, and for eigenvectors in random directions

    ``n = sum_i m_i L_i + (ridge / kappa) (1 - sum_i m_i L_i / N)``.

    Errors follow from it by free probability as those above do in the limit of large ``N``: they
    differ from these by a relative order ``n / N`` and more where noise dominates.

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
    population
        ``N``, above every ``n`` and not below the number of modes; infinite by default.

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
    total = jnp.asarray(jnp.inf if population is None else population, dtype)
    _check(values, power, counts, sizes, ridge, noise, total)
    result = _curves(values, power, counts, sizes.reshape(-1), ridge, noise, 1 / total)
    return LearningCurve(*(r.reshape(sizes.shape + r.shape[1:]) for r in result))


@compiled
def _curves(
    values: Array,
    power: Array,
    counts: Array,
    n: Array,
    ridge: Array,
    noise: Array,
    per_example: Array,
) -> LearningCurve:
    return jax.vmap(lambda one: _curve(values, power, counts, one, ridge, noise, per_example))(n)


def _curve(
    values: Array,
    power: Array,
    counts: Array,
    n: Array,
    ridge: Array,
    noise: Array,
    per_example: Array,
) -> LearningCurve:
    kappa = 1 / _inverse_kappa(values, counts, n, ridge, per_example)
    unlearnt = kappa / (values + kappa)
    learnt = values / (values + kappa)
    left = jnp.sum(unlearnt**2 * power)
    (test, price), (train, train_noise) = _population_errors(
        learnt, unlearnt, counts, n, ridge / kappa, per_example
    )
    return LearningCurve(
        kappa, learnt, price, test * left + price * noise, train * left + train_noise * noise
    )


def _population_errors(
    learnt: Array, unlearnt: Array, counts: Array, n: Array, regular: Array, per_example: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Test and training error for a unit of unlearnt target power and for a unit of noise.

    With ``D = ridge / kappa``, ``q = sum L / N``, ``a = n / N``, ``S = sum L^2``,
    ``X = sum L (1 - L)`` and the derivative ``k' = d kappa / d ridge = 1 / (X (1 - a) / (1 - q)^2
    + D)``: over the whole population, training examples included, target power costs
    ``n / (n - c S)`` with ``c = (1 - a) / (1 - a + (D (1 - q))^2 / (n N))`` and noise ``k' S``.
    The first is the derivative of the subordination function of ``P + ridge / Lambda``, with ``P``
    a random projection on ``n`` of ``N`` dimensions, the second that of ``sum lambda (1 - L)``.
    Training residuals are derivatives of ``y^T (K + ridge)^-1 y``. What is left of the whole after
    the training examples is the test error. For infinite ``N``, ``k' = 1 / (n - S)`` and all are
    the formulas of :func:`learning_curve`.
    """
    squares, mixed = jnp.sum(counts * learnt**2), jnp.sum(counts * learnt * unlearnt)
    share, modes_share = n * per_example, jnp.sum(counts * learnt) * per_example
    rest = 1 - share
    slack = regular * (1 - modes_share)  # n - sum L, without cancellation
    slope = 1 / (mixed * rest / (1 - modes_share) ** 2 + regular)
    excess = slack**2 * per_example / n
    # n - c S, as a sum of positive terms.
    whole = n / (slack + mixed + excess / (rest + excess) * squares)
    train = regular**2 * slope / n
    clean = jnp.sum(counts * learnt) - slope * regular * mixed
    test = (whole - share * train) / rest
    price = 1 + (slope * squares - clean * per_example) / rest
    return (test, price), (train, (slack - slope * regular * mixed) / n)


def _inverse_kappa(
    values: Array, counts: Array, n: Array, ridge: Array, per_example: Array
) -> Array:
    """``u = 1 / kappa``.

    Divided by ``1 - sum L / N`` the equation is increasing and concave in ``u``: its first term is
    a harmonic mean of lines. So Newton's steps from the left never overshoot, and the bound
    ``1 - sum L / N >= 1 / (1 + u sum lambda / N)`` is a start.
    """

    def learnt_share(u: Array) -> tuple[Array, Array]:
        learnt = jnp.sum(counts * values * u / (1 + values * u))
        return learnt, 1 - learnt * per_example

    def excess(u: Array) -> Array:
        learnt, rest = learnt_share(u)
        return (learnt - n) / rest + ridge * u

    start = n / ((1 - n * per_example) * jnp.sum(counts * values) + ridge)
    return rising_root(excess, start)


def _check(
    values: Array,
    power: Array,
    counts: Array,
    n: Array,
    ridge: Array,
    noise: Array,
    population: Array,
) -> None:
    if values.ndim != 1 or power.shape != values.shape or counts.shape != values.shape:
        raise InputError(
            "eigenvalues, power and multiplicity must be vectors of one length, one entry a mode; "
            f"got shapes {values.shape}, {power.shape} and {counts.shape}."
        )
    if ridge.ndim or noise.ndim or population.ndim:
        raise InputError(
            f"ridge, noise and population must be numbers; got shapes {ridge.shape}, {noise.shape} "
            f"and {population.shape}: use jax.vmap for several."
        )
    if not is_concrete((values, power, counts, n, ridge, noise, population), {}):
        return
    named = {
        "eigenvalues": values, "power": power, "multiplicity": counts, "ridge": ridge,
        "noise": noise,
    }  # fmt: skip
    for name, array in named.items():
        if not bool(jnp.all(array >= 0)):
            raise InputError(f"{name} must not be negative or NaN; the least is {array.min()}.")
    if not bool(jnp.all(n > 0)):
        raise InputError(f"n must be positive; the least is {n.min()}.")
    if n.size and not bool((n.max() < population) & (counts.sum() <= population)):
        raise InputError(
            f"a population of {population} examples has no more than so many modes and leaves some "
            f"for the test; got {counts.sum()} modes and n = {n.max()}. Leave out population "
            "if examples are drawn from a distribution."
        )
    modes = jnp.sum(jnp.where(values > 0, counts, 0))
    if n.size and not bool(ridge > 0) and not bool(n.max() < modes):
        raise InputError(
            f"without ridge, kernel regression on n = {n.max()} examples needs more than n modes "
            f"of positive eigenvalue; got {modes}. Give more modes, fewer examples or a ridge."
        )
