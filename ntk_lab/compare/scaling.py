"""How gaps scale with width: fitted exponents, and the width at which a tolerance is met."""

from typing import NamedTuple

import numpy as np
from scipy import stats

_DRAWS = 4000


class Exponent(NamedTuple):
    """Fitted power of the width, with a two-sided confidence interval, and theory's value."""

    value: float
    lower: float
    upper: float
    theory: float | None


class RequiredWidth(NamedTuple):
    """Width at which the total gap would come within tolerance; ``reason`` says when never."""

    value: float
    lower: float
    upper: float
    reason: str


class _Fit(NamedTuple):
    intercept: float
    slope: float
    covariance: np.ndarray
    freedom: int


def fit_exponent(
    widths: np.ndarray, gaps: np.ndarray, confidence: float, theory: float | None
) -> Exponent | None:
    """Exponent of ``gap = c * width^exponent`` by least squares on the logarithms.

    Parameters
    ----------
    widths, gaps
        Shapes ``(W,)`` and ``(W, seeds)``.
    confidence
        Of the interval, from Student's t with ``W * seeds - 2`` degrees of freedom.
    theory
        What theory says, to stand beside it.

    Returns
    -------
    Exponent or None
        None where a power law cannot be fitted: fewer than three numbers, one width only, or
        gaps of exactly zero.
    """
    fit = _fit(widths, gaps)
    if fit is None:
        return None
    reach = stats.t.ppf((1 + confidence) / 2, fit.freedom) * np.sqrt(fit.covariance[1, 1])
    return Exponent(fit.slope, fit.slope - reach, fit.slope + reach, theory)


def required_width(
    widths: np.ndarray,
    total: np.ndarray,
    discretization: np.ndarray,
    tolerance: float,
    confidence: float,
    kernel_limit: bool,
) -> RequiredWidth:
    """Width at which the fitted total gap reaches ``tolerance``, with an interval.

    The interval holds the given share of widths implied by coefficients drawn from their
    t-distribution. Never, that is, infinity, for parameterizations without a kernel limit, where
    discretization alone (which no width cures) exceeds the tolerance, or where the gap does not
    fall with width.
    """
    never = float("inf")
    if not kernel_limit:
        reason = "this parameterization has no kernel limit (arXiv:2011.14522)"
        return RequiredWidth(never, never, never, reason)
    if discretization.mean() >= tolerance:
        reason = "discretization alone exceeds the tolerance: use a smaller learning rate"
        return RequiredWidth(never, never, never, reason)
    fit = _fit(widths, total)
    if fit is None:
        return RequiredWidth(float("nan"), float("nan"), float("nan"), "no power law can be fitted")
    if fit.slope >= 0:
        return RequiredWidth(never, 0.0, never, "the measured gap does not fall with width")
    rng = np.random.default_rng(0)
    scale = np.sqrt(rng.chisquare(fit.freedom, _DRAWS) / fit.freedom)
    noise = rng.multivariate_normal(np.zeros(2), fit.covariance, _DRAWS) / scale[:, None]
    intercept, slope = fit.intercept + noise[:, 0], fit.slope + noise[:, 1]
    with np.errstate(over="ignore"):
        draws = np.where(slope < 0, np.exp((np.log(tolerance) - intercept) / slope), never)
        value = float(np.exp((np.log(tolerance) - fit.intercept) / fit.slope))
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(draws, [tail, 1 - tail], method="nearest")
    return RequiredWidth(value, float(lower), float(upper), "")


def _fit(widths: np.ndarray, gaps: np.ndarray) -> _Fit | None:
    x = np.repeat(np.log(np.asarray(widths, float)), gaps.shape[1])
    freedom = len(x) - 2
    if len(set(widths)) < 2 or freedom < 1 or not (gaps > 0).all():
        return None
    design = np.stack([np.ones_like(x), x], axis=1)
    y = np.log(gaps).reshape(-1)
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ coefficients
    covariance = residual @ residual / freedom * np.linalg.inv(design.T @ design)
    return _Fit(float(coefficients[0]), float(coefficients[1]), covariance, freedom)
