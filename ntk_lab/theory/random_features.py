"""Learning curves of regression on random features: double descent in width and in data."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError
from ntk_lab.theory.bias_variance import BiasVariance
from ntk_lab.theory.rising_root import rising_root


class RandomFeatureCurve(NamedTuple):
    """Expected errors of regression on random features; every field broadcasts the arguments.

    Attributes
    ----------
    kappa
        Effective regularization by the data, on the kernel of the features that were drawn.
    gamma
        Effective regularization by data and features, on the limiting kernel: modes of eigenvalue
        above it are learnt. ``gamma >= kappa``, equal for infinitely many features.
    parts
        Bias and the parts of the variance.
    test_error
        Mean squared error on new noisy labels, summed over outputs.
    train_error
        Mean squared error on the training labels.
    """

    kappa: Array
    gamma: Array
    parts: BiasVariance
    test_error: Array
    train_error: Array


def random_feature_curve(
    eigenvalues: ArrayLike,
    power: ArrayLike,
    n: ArrayLike,
    features: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    noise: ArrayLike = 0.0,
    multiplicity: ArrayLike | None = None,
) -> RandomFeatureCurve:
    """Expected errors of ridge regression with ``p`` random features on ``n`` random examples.

    The predictor is ``z(x) . w`` with features ``z`` in ``p`` dimensions, whose ``w`` minimizes
    ``sum_i (z(x_i) . w - y_i)^2 + ridge |w|^2``: kernel ridge regression with the kernel
    ``z(x) . z(x')``, whose mean over features has the eigenvalues ``lambda_i``, of multiplicities
    ``m_i``. With ``L_i = lambda_i / (lambda_i + gamma)``, ``q = sum_i m_i L_i^2`` and
    ``s = sum_i m_i L_i (1 - L_i)``, the two regularizations solve

    ``a = n - q - s = ridge / kappa,    b = p - q - s = p kappa / gamma``,

    and with ``D = ab + as + bs``, ``B = sum_i (1 - L_i)^2 power_i`` and
    ``V = s / (b + s) sum_i L_i (1 - L_i) power_i`` the parts of the error are

    - bias ``B``, by features (``initialization``) ``V``, by inputs (``data``) ``B q / (a + s)``,
    - by both ``B s^2 n / (D (a + s)) + V (b q + (q + s) s) / D``,
    - by noise ``noise q / (a + s)``, by noise and features ``noise s^2 n / (D (a + s))``.

    Their sum with the noise of new labels is ``n (b + s) / D (B + V + noise)``, the test error
    (arXiv:2311.14646; with bounds of what is left out, arXiv:2405.15699); the training error is
    ``(a / n)^2`` times that. The parts follow from averages of the predictor: over features it is
    kernel regression of ridge ``ridge gamma / kappa`` (arXiv:2002.08404), over data that of the
    kernel that was drawn, ``M (M + kappa)^-1``; named as in arXiv:2011.03321.

    Without ridge the error diverges at ``p = n``: double descent, in ``p`` as in ``n``. Under the
    best ridge (:func:`optimal_ridge`) it falls with either (arXiv:2311.14646, theorem 1).

    It assumes that eigenfunctions at random inputs and coefficients of random features both behave
    like independent Gaussian variables, and each feature independent of the others: exact for
    Gaussian features of Gaussian inputs as numbers grow; for neurons and real data an
    approximation, to be measured: it is good for many input dimensions (20 on a sphere: a few per
    cent), and some 15 to 35% too low for five or six.

    Parameters
    ----------
    eigenvalues, power, noise, multiplicity
        As of :func:`learning_curve`, which this is for ``p = inf``.
    n, features, ridge
        Numbers of examples and ``p`` (may be infinite) and the ridge; any shapes that broadcast.
        The ridge is added to the kernel of the features, whose limit has the given eigenvalues: as
        for readouts in NTK parameterization, that divide by the root of the width.

    Differentiable in everything and usable under ``jax.jit``; a sum over modes for each of some
    ten steps of Newton's method. Without ridge there must be more modes than the lesser of ``n``
    and ``p``.

    Raises
    ------
    InputError
        Where shapes or values do not fit, as far as they are known (not under ``jit``).

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> curve = ntk.theory.random_feature_curve(
    ...     jnp.ones(400), jnp.full(400, 1 / 400), 100.0, jnp.array([50.0, 90, 110, 200, jnp.inf]))
    >>> curve.test_error.round(2).tolist()
    [1.75, 7.75, 8.25, 1.5, 0.75]
    """
    values = jnp.asarray(eigenvalues)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(jnp.result_type(float))
    dtype = values.dtype
    counts = jnp.ones_like(values) if multiplicity is None else jnp.asarray(multiplicity, dtype)
    power, noise = jnp.asarray(power, dtype), jnp.asarray(noise, dtype)
    points = [jnp.asarray(v, dtype) for v in (n, features, ridge)]
    shape = jnp.broadcast_shapes(*(v.shape for v in points))
    points = [jnp.broadcast_to(v, shape) for v in points]
    _check(values, power, counts, noise, *points)
    result = _curves(values, power, counts, noise, *(v.reshape(-1) for v in points))
    return jax.tree.map(lambda v: v.reshape(shape), result)


@compiled
def _curves(
    values: Array, power: Array, counts: Array, noise: Array, n: Array, p: Array, ridge: Array
) -> RandomFeatureCurve:
    one = jax.vmap(lambda *point: _curve(values, power, counts, noise, *point))
    return one(n, p, ridge)


def _curve(
    values: Array, power: Array, counts: Array, noise: Array, n: Array, p: Array, ridge: Array
) -> RandomFeatureCurve:
    """``b``, ``D`` and one ``s`` of each product are divided by ``p``, which may be infinite."""
    u = _inverse_gamma(values, counts, n, p, ridge)
    (a, b), r = _both_left(u, n, p, ridge), 1 / p
    learnt, unlearnt = values * u / (1 + values * u), 1 / (1 + values * u)
    s = jnp.sum(counts * learnt * unlearnt)
    q = jnp.sum(counts * learnt**2)
    d, z = b * (a + s) + a * s * r, q + s
    bias = jnp.sum(unlearnt**2 * power)
    by_features = s * r / (b + s * r) * jnp.sum(learnt * unlearnt * power)
    crossed = s**2 * r * n / (d * (a + s))  # infinite at p = n without ridge
    parts = BiasVariance(
        bias=bias,
        data=bias * q / (a + s),
        initialization=by_features,
        data_initialization=_times(bias, crossed) + _times(by_features, (b * q + z * s * r) / d),
        noise=noise * q / (a + s),
        noise_initialization=_times(noise, crossed),
    )
    test = _times(bias + by_features + noise, n * (b + s * r) / d)
    # a^2 / d is finite where both vanish, at p = n without ridge.
    train = jnp.where(a > 0, (a / n) ** 2 * test, jnp.zeros_like(test))
    return RandomFeatureCurve(b / u, 1 / u, parts, test, train)


def _times(error: Array, factor: Array) -> Array:
    """Their product, with 0 where there is no error to be made infinite."""
    unbounded = jnp.isinf(factor)
    bounded = error * jnp.where(unbounded, jnp.ones_like(factor), factor)
    return jnp.where(unbounded & (error > 0), jnp.full_like(bounded, jnp.inf), bounded)


def _inverse_gamma(values: Array, counts: Array, n: Array, p: Array, ridge: Array) -> Array:
    """``u = 1 / gamma``: ``q + s`` and what is left of the lesser of ``n`` and ``p`` add up to it.

    Their sum is increasing and concave in ``u``. With the bound ``q + s <= u sum_i m_i lambda_i``
    it is a quadratic equation, whose root is a start on its left.
    """

    def excess(u: Array) -> Array:
        learnt = jnp.sum(counts * values * u / (1 + values * u))
        return learnt + _left(u, n, p, ridge)[0] - jnp.minimum(n, p)

    trace = jnp.sum(counts * values)
    more = trace * (1 + n / p) + ridge
    root = (trace * _excess_of_features(n, p)) ** 2 + (2 * more - ridge) * ridge
    start = 2 * n / (more + _root(root))
    return rising_root(excess, start)


def _left(u: Array, n: Array, p: Array, ridge: Array) -> tuple[Array, Array]:
    """The lesser of ``a`` and ``b``, and the greater over ``p / 2``, without cancellation.

    From ``a b = ridge p u`` and ``a - b = n - p``.
    """
    more = _excess_of_features(n, p)
    large = jnp.abs(more) + _root(more**2 + 4 * ridge * u / p)
    return 2 * ridge * u / jnp.where(large > 0, large, jnp.ones_like(large)), large


def _both_left(u: Array, n: Array, p: Array, ridge: Array) -> tuple[Array, Array]:
    """``a`` and ``b / p``."""
    less, large = _left(u, n, p, ridge)
    finite = jnp.where(p < n, p, jnp.ones_like(p))
    return jnp.where(p < n, large * finite / 2, less), jnp.where(p < n, less / p, large / 2)


def _excess_of_features(n: Array, p: Array) -> Array:
    """``1 - n / p``: minus ``(a - b) / p``, exactly 0 where ``p`` is ``n``."""
    finite = jnp.where(jnp.isinf(p), n + n, p)
    return jnp.where(jnp.isinf(p), jnp.ones_like(p), (finite - n) / finite)


def _root(square: Array) -> Array:
    """Square root whose derivative at 0 is 0 rather than infinite."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, jnp.ones_like(square))), 0)


def _check(
    values: Array, power: Array, counts: Array, noise: Array, n: Array, p: Array, ridge: Array
) -> None:
    if values.ndim != 1 or power.shape != values.shape or counts.shape != values.shape:
        raise InputError(
            "eigenvalues, power and multiplicity must be vectors of one length, one entry a mode; "
            f"got shapes {values.shape}, {power.shape} and {counts.shape}."
        )
    if noise.ndim:
        raise InputError(f"noise must be a number; got shape {noise.shape}: use jax.vmap.")
    if not is_concrete((values, power, counts, noise, n, p, ridge), {}):
        return
    named = {
        "eigenvalues": values, "power": power, "multiplicity": counts, "ridge": ridge,
        "noise": noise,
    }  # fmt: skip
    for name, array in named.items():
        if not bool(jnp.all(array >= 0)):
            raise InputError(f"{name} must not be negative or NaN; the least is {array.min()}.")
    for name, array in named.items():
        if not bool(jnp.all(jnp.isfinite(array))):
            raise InputError(f"{name} must be finite; the greatest is {array.max()}.")
    if not bool(jnp.all((n > 0) & jnp.isfinite(n) & (p > 0))):
        raise InputError(
            "n must be positive and finite, features positive; "
            f"the least are {n.min()} and {p.min()}, the largest n is {n.max()}."
        )
    modes = jnp.sum(jnp.where(values > 0, counts, 0))
    least = jnp.where(ridge > 0, jnp.zeros_like(n), jnp.minimum(n, p))
    if n.size and not bool(least.max() < modes):
        raise InputError(
            f"without ridge, {least.max()} examples or features, whichever are fewer, need more "
            f"modes than that of positive eigenvalue; got {modes}. Give more modes or a ridge."
        )
