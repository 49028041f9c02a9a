"""Confidence statements about a gap: predicts, fails, or undecided."""

from bisect import bisect_left
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtrit

Status = Literal["predicts", "fails", "undecided"]
_MOST_SEEDS = 10_000


class Verdict(NamedTuple):
    """Whether kernel regression predicts training at one width and time.

    Attributes
    ----------
    status
        ``predicts``: the upper confidence bound of the mean total gap is below the tolerance;
        ``fails``: the lower one is above it; otherwise ``undecided``.
    mean, standard_error, lower, upper
        Total gap over seeds, with one-sided confidence bounds.
    more_seeds
        How many more seeds would decide, if mean and spread stay as they are; 0 when decided,
        None when no feasible number would or, with one seed, when that cannot be known.
    """

    status: Status
    mean: float
    standard_error: float
    lower: float
    upper: float
    more_seeds: int | None


def judge(gaps: np.ndarray, tolerance: float, confidence: float) -> Verdict:
    """Verdict from the gaps of several seeds, shape ``(seeds,)``.

    Bounds are ``mean -+ t * standard error`` with Student's ``t`` of ``seeds - 1`` degrees of
    freedom at the given one-sided confidence. One seed has no standard error and is undecided.
    The level is exact for normal gaps. For lognormal ones of 15% spread a bound of 95% is wrong up
    to 7% of the time, for 40% spread up to 10%, where the tolerance is the true mean itself; away
    from it both are wrong less often.
    """
    n, mean = len(gaps), float(np.mean(gaps))
    if n < 2:
        return Verdict("undecided", mean, float("nan"), float("nan"), float("nan"), None)
    spread = float(np.std(gaps, ddof=1))
    verdict = judge_mean(mean, spread / n**0.5, n, tolerance, confidence)
    if verdict.status != "undecided":
        return verdict
    return verdict._replace(more_seeds=_more_seeds(n, abs(mean - tolerance), spread, confidence))


def judge_mean(mean: float, error: float, n: int, tolerance: float, confidence: float) -> Verdict:
    """Verdict from a mean gap and its standard error, estimated from ``n`` examples."""
    if n < 2:
        return Verdict("undecided", mean, float("nan"), float("nan"), float("nan"), None)
    reach = float(stdtrit(n - 1, confidence)) * error
    lower, upper = max(mean - reach, 0.0), mean + reach
    if upper < tolerance:
        return Verdict("predicts", mean, error, lower, upper, 0)
    if lower > tolerance:
        return Verdict("fails", mean, error, lower, upper, 0)
    return Verdict("undecided", mean, error, lower, upper, None)


def _more_seeds(n: int, distance: float, spread: float, confidence: float) -> int | None:
    def decides(count: int) -> bool:
        return float(stdtrit(count - 1, confidence)) * spread / count**0.5 < distance

    counts = range(n + 1, _MOST_SEEDS)
    first = bisect_left(counts, True, key=decides)
    return counts[first] - n if first < len(counts) else None
