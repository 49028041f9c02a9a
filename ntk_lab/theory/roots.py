"""Roots of many functions of one variable at once."""

from collections.abc import Callable

import numpy as np

_ITERATIONS = 60


def roots(
    f: Callable[[np.ndarray], np.ndarray], a: np.ndarray, b: np.ndarray, relative: float
) -> np.ndarray:
    """A root between ``a`` and ``b`` of each entry of ``f``, whose signs at the ends differ.

    Regula falsi by the rule of Illinois, for smooth functions: some ten evaluations of all
    entries, at most sixty. An entry stops at its root or at steps below ``relative`` of it.
    """
    fa, fb = f(a), f(b)
    best = np.where(np.abs(fa) < np.abs(fb), a, b)
    done = (fa == 0) | (fb == 0) | ~(fa * fb < 0)
    for _ in range(_ITERATIONS):
        if done.all():
            break
        denominator = np.where(done, 1.0, fb - fa)
        new = np.where(done, best, b - fb * np.where(done, 0.0, b - a) / denominator)
        value = f(new)
        done_now = (value == 0) | (np.abs(new - best) <= relative * np.abs(new))
        crossed = value * fb < 0
        # The end that is kept twice running counts half, or it would be kept for ever.
        a, fa = np.where(crossed, b, a), np.where(crossed, fb, fa / 2)
        b, fb = np.where(done, b, new), np.where(done, fb, value)
        best, done = np.where(done, best, new), done | done_now
    return best
