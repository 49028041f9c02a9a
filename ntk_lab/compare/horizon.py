"""The horizon: the training time up to which kernel regression stays within tolerance."""

from typing import NamedTuple

import numpy as np

from ntk_lab.compare.scaling import Exponent, fit_exponent
from ntk_lab.compare.statistics import Verdict, judge, judge_mean

# arXiv:2305.13141: the approximation holds until a time that grows as the output scale alpha, no
# slower and in general no faster; NTK parameterization is alpha = sqrt(width) on a network whose
# limit learns features.
THEORY = 0.5
THEORY_SOURCE = "arXiv:2305.13141"


class Horizon(NamedTuple):
    """Training time until which the mean relative gap is within the tolerance.

    Attributes
    ----------
    value
        When the mean over seeds first exceeds the tolerance, between recorded times by
        interpolation in the logarithm of time; 0 if it does so at the first of them, infinity if
        it never does.
    lower, upper
        When the upper and the lower confidence bound of the mean do: the last time that is
        predicted, and the first that fails.
    seeds
        The horizon of each seed.
    """

    value: float
    lower: float
    upper: float
    seeds: tuple[float, ...]


def horizon(times: np.ndarray, gaps: np.ndarray, tolerance: float, confidence: float) -> Horizon:
    """Horizon from gaps of shape ``(seeds, times)``.

    With one seed there are no bounds: ``lower`` is 0 and ``upper`` infinity.
    """
    verdicts = [judge(at, tolerance, confidence) for at in gaps.T]
    own = tuple(_crossing(times, seed, tolerance) for seed in gaps)
    return _from_verdicts(times, verdicts, tolerance, own)


def horizon_of_one(
    times: np.ndarray,
    gaps: np.ndarray,
    errors: np.ndarray,
    examples: int,
    tolerance: float,
    confidence: float,
) -> Horizon:
    """Horizon of a single run from its gaps and their standard errors over test examples."""
    pairs = zip(gaps, errors, strict=True)
    verdicts = [judge_mean(float(g), float(e), examples, tolerance, confidence) for g, e in pairs]
    return _from_verdicts(times, verdicts, tolerance, (_crossing(times, gaps, tolerance),))


def _from_verdicts(
    times: np.ndarray, verdicts: list[Verdict], tolerance: float, own: tuple[float, ...]
) -> Horizon:
    mean, lower, upper = (
        np.asarray([getattr(v, name) for v in verdicts]) for name in ("mean", "lower", "upper")
    )
    value = _crossing(times, mean, tolerance)
    if not np.isfinite(upper).all():
        return Horizon(value, 0.0, float("inf"), own)
    first, last = (_crossing(times, bound, tolerance) for bound in (upper, lower))
    return Horizon(value, first, last, own)


def horizon_exponent(
    widths: np.ndarray, horizons: list[Horizon], confidence: float, theory: float | None
) -> Exponent | None:
    """Fitted power of the width in the horizons of single seeds.

    None unless at least two widths have horizons inside the run: those at its ends are bounds
    only.
    """
    inside = [
        (w, own)
        for w, h in zip(widths, horizons, strict=True)
        if (own := np.asarray(h.seeds)).min() > 0 and np.isfinite(own).all()
    ]
    if len(inside) < 2:
        return None
    found, values = zip(*inside, strict=True)
    return fit_exponent(np.asarray(found), np.stack(values), confidence, theory)


def _crossing(times: np.ndarray, gap: np.ndarray, tolerance: float) -> float:
    above = np.flatnonzero(gap > tolerance)
    if not len(above):
        return float("inf")
    i = int(above[0])
    if i == 0:
        return 0.0
    share = (tolerance - gap[i - 1]) / (gap[i] - gap[i - 1])
    return float(times[i - 1] * (times[i] / times[i - 1]) ** share)
