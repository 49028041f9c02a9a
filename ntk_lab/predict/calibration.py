"""Do predicted uncertainties mean what they say: coverage of intervals, and log score."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy import stats

from ntk_lab.errors import InputError
from ntk_lab.predict.inputs import check_finite, read_array, read_outputs, read_ridge
from ntk_lab.solve import Estimate

LEVELS = (*np.arange(5, 100, 5) / 100, 0.99)


class Calibration(NamedTuple):
    """How targets lie within their predicted distributions.

    Attributes
    ----------
    levels
        Of central intervals, shape ``(L,)``.
    coverage
        Share of targets within the interval of each level; right if near the level.
    log_score
        Mean logarithm of the predicted density of a target; the higher the better.
    spread
        Mean square of ``(y - mean) / deviation``; right if near 1, above it if too sure.
    count
        Number of targets.

    Notes
    -----
    Standard errors take targets as independent. They are not: outputs share the data they were
    fitted to. So they are too small where test inputs lie close together.
    """

    levels: jax.Array
    coverage: Estimate
    log_score: Estimate
    spread: Estimate
    count: int


def calibration(
    predicted: Any, y: ArrayLike, *, noise: ArrayLike = 0.0, levels: Sequence[float] = LEVELS
) -> Calibration:
    """Compare targets with the mean and covariance that were predicted for them.

    Parameters
    ----------
    predicted
        What has ``mean`` ``(n, outputs)`` and ``covariance``: the `Posterior` of `gp_posterior`,
        or `Moments` at one time.
    y
        Targets ``(n, outputs)``.
    noise
        Variance of the noise in the targets, which their predicted variance lacks.
    levels
        Probabilities of central intervals, between 0 and 1.

    Returns
    -------
    Calibration
        In the default precision.

    Raises
    ------
    InputError
        If there is no covariance, a variance is not positive, or a shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.predict import Moments, calibration
    >>> y = np.random.default_rng(0).normal(size=(1000, 1))
    >>> found = calibration(Moments(np.zeros((1000, 1)), np.eye(1000)), y, levels=[0.5, 0.9])
    >>> print(np.asarray(found.coverage.value).round(2), f"{found.spread.value:.2f}")
    [0.51 0.91] 0.96
    """
    mean = read_array("predicted.mean", predicted.mean)
    if predicted.covariance is None:
        raise InputError("the prediction has no covariance, so there is nothing to calibrate.")
    if mean.ndim != 2:
        raise InputError(f"predicted.mean has shape {mean.shape}; expected one time, (n, outputs).")
    check_finite("predicted.mean", mean)
    y = np.asarray(read_outputs("y", y, len(mean), mean.shape[1], mean.dtype), np.float64)
    covariance = np.asarray(predicted.covariance, np.float64)
    variance = np.diagonal(covariance, axis1=0, axis2=1)
    if covariance.ndim == 4:
        variance = np.diagonal(variance, axis1=0, axis2=1)
    else:
        variance = np.broadcast_to(variance[:, None], y.shape)
    variance = variance + float(read_ridge(noise, mean.dtype, "noise"))
    if not y.size or not (variance > 0).all():
        raise InputError(
            f"{int((variance <= 0).sum())} of {variance.size} predicted variances are not "
            "positive; noise-free targets at training inputs have none: leave them out, or pass "
            "the noise."
        )
    chosen = np.asarray(levels, np.float64)
    if chosen.ndim != 1 or not chosen.size or not ((chosen > 0) & (chosen < 1)).all():
        raise InputError("levels must be probabilities between 0 and 1, an array (L,).")
    z = ((y - np.asarray(mean, np.float64)) / np.sqrt(variance)).ravel()
    inside = np.abs(z)[:, None] <= stats.norm.ppf((1 + chosen) / 2)
    # The error that the prediction itself implies: the observed one vanishes at 0 and 1.
    expected = np.sqrt(chosen * (1 - chosen) / z.size)
    coverage = _estimate(inside.mean(axis=0), expected, z.size)
    densities = stats.norm.logpdf(z) - 0.5 * np.log(variance).ravel()
    return Calibration(_array(chosen), coverage, _mean(densities), _mean(z**2), z.size)


def _array(x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.result_type(float))


def _estimate(value: Any, error: Any, count: int) -> Estimate:
    return Estimate(_array(value), _array(error), count)


def _mean(values: np.ndarray) -> Estimate:
    error = values.std(ddof=1) / values.size**0.5 if values.size > 1 else np.inf
    return _estimate(values.mean(), error, values.size)
