"""How gaps scale with width: fitted exponents, and the width at which a tolerance is met."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

_DRAWS = 4000


class Exponent(NamedTuple):
    """Fitted power of the width, with a two-sided confidence interval, and theory's value."""

    value: float
    lower: float
    upper: float
    theory: float | None


class RequiredWidth(NamedTuple):
    """Width at which the total gap would come within tolerance; ``reason`` says why never.

    With a finite ``value``, ``reason`` says why no larger width than those measured is needed, or
    is empty.
    """

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
    widths: np.ndarray,
    gaps: np.ndarray,
    confidence: float,
    theory: float | None,
    rounding: float = 0.0,
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
    rounding
        Gaps as small as this are rounding noise, without a power of the width.

    Returns
    -------
    Exponent or None
        None where a power law cannot be fitted: fewer than three numbers, one width only,
        gaps of exactly zero, or of no more than rounding in the mean at every width.
    """
    fit = _fit(widths, gaps)
    if fit is None or (gaps.mean(axis=1) <= rounding).all():
        return None
    reach = stdtrit(fit.freedom, (1 + confidence) / 2) * np.sqrt(fit.covariance[1, 1])
    return Exponent(fit.slope, fit.slope - reach, fit.slope + reach, theory)


def required_width(
    widths: np.ndarray,
    total: np.ndarray,
    incurable: np.ndarray,
    tolerance: float,
    confidence: float,
    kernel_limit: bool,
) -> RequiredWidth:
    """Width at which the fitted total gap reaches ``tolerance``, with an interval.

    The interval holds the given share of widths implied by coefficients drawn from their
    t-distribution. Never, that is, infinity, for parameterizations without a kernel limit, where
    the ``incurable`` gap (discretization or optimizer, which no width cures) exceeds the
    tolerance, or where the gap does not fall with width; unknown where the incurable gap is over
    half of the tolerance, so that the total bends away from a power law. Where the mean gap is
    within the tolerance at every width already, and none of this or the fit gives an upper bound,
    that is the smallest of the widths.
    """
    result = _extrapolate(widths, total, incurable, tolerance, confidence, kernel_limit)
    if not np.isfinite(result.upper) and (total.mean(axis=1) < tolerance).all():
        smallest = float(min(widths))
        return RequiredWidth(smallest, 1.0, smallest, "the gap is within it at every width")
    return result


def _extrapolate(widths, total, incurable, tolerance, confidence, kernel_limit):
    never, unknown = float("inf"), float("nan")
    if not kernel_limit and total.mean(axis=1)[-1] < tolerance:
        reason = "the largest width measured is within it, but the limit is not a kernel"
        return RequiredWidth(unknown, unknown, unknown, reason)
    if not kernel_limit:
        reason = "this parameterization has no kernel limit (arXiv:2011.14522)"
        return RequiredWidth(never, never, never, reason)
    floor = float(incurable.mean(axis=1)[-1])
    if floor >= tolerance:
        reason = "discretization or optimizer, which no width cures, exceed the tolerance"
        return RequiredWidth(never, never, never, reason)
    if floor >= tolerance / 2:
        reason = "discretization or optimizer take over half of the tolerance"
        return RequiredWidth(unknown, unknown, unknown, reason)
    fit = _fit(widths, total)
    if fit is None:
        return RequiredWidth(unknown, unknown, unknown, "no power law can be fitted")
    rng = np.random.default_rng(0)
    scale = np.sqrt(rng.chisquare(fit.freedom, _DRAWS) / fit.freedom)
    noise = rng.multivariate_normal(np.zeros(2), fit.covariance, _DRAWS) / scale[:, None]
    draws = _crossing(fit.intercept + noise[:, 0], fit.slope + noise[:, 1], tolerance)
    value = float(_crossing(fit.intercept, fit.slope, tolerance))
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(draws, [tail, 1 - tail], method="nearest")
    reason = "the measured gap does not fall with width" if np.isinf(value) else ""
    return RequiredWidth(value, float(lower), float(upper), reason)


def _crossing(intercept: Any, slope: Any, tolerance: float) -> np.ndarray:
    """Width, at least 1, at which power laws meet the tolerance; infinity if they do not fall."""
    intercept, slope = np.asarray(intercept), np.asarray(slope)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        width = np.exp((np.log(tolerance) - intercept) / slope)
    return np.where(slope < 0, np.maximum(width, 1), np.inf)


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
