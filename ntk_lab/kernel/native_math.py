"""What all loops compiled by numba share: how they are compiled, and functions of the angle."""

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

FAST = {"contract", "nsz", "arcp"}


def _wide(typing_context):
    """In a compiled function: vectors of 512 bits where the CPU has them.

    LLVM prefers 256, as the first CPUs with 512 slowed down for them; loops over pairs of vectors
    are a seventh faster with 512. Elsewhere this changes nothing.
    """

    def generate(context, builder, signature, args):
        # A set of words, of which llvmlite's own `add` knows only some.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


wide: Any = intrinsic(_wide)

compiled = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
inlined = numba.njit(nogil=True, error_model="numpy", fastmath=FAST, inline="always")


@inlined
def polynomial(x, series):
    """Polynomial with the coefficients of ``series``, the highest first: 9 or 19 of them."""
    # Written out: a loop over coefficients inside the loop over entries would not vectorize.
    total = series[0]
    total = (total * x + series[1]) * x + series[2]
    total = (total * x + series[3]) * x + series[4]
    total = (total * x + series[5]) * x + series[6]
    total = (total * x + series[7]) * x + series[8]
    if len(series) > 9:
        for k in numba.literal_unroll((9, 11, 13, 15, 17)):
            total = (total * x + series[k]) * x + series[k + 1]
    return total


@inlined
def two_slopes(norm, gap, share, slopes, series):
    """Gap and slopes after ``a min(x, 0) + b max(x, 0)``.

    With ``R`` the covariance for the rectifier and ``theta`` the angle::

        E[phi(u) phi(v)]   = a b c + (b - a)^2 R
        E[phi'(u) phi'(v)] = a b + (b - a)^2 (pi - theta) / (2 pi)

    ``norm`` is ``sqrt(k11 k22)``, ``share`` the gap over twice the norm, at most one. The norm of
    the result is ``(a^2 + b^2) / 2`` of that before. ``slopes`` are 0, 1/2, 1, ``a b``,
    ``(b - a)^2`` and that factor; ``series`` those of ``half_angle_series``.
    """
    zero, half, one, both, square, mean = slopes
    angle, bent = series
    obtuse = share > half
    near = one - share if obtuse else share
    root = np.sqrt(near)
    turn = root * polynomial(near, angle)
    half_plane = half * (turn if obtuse else one - turn)
    lost = half * square * norm * root * near * polynomial(near, bent)
    extra = (mean - both) * (norm - gap) if obtuse else zero
    return mean * gap + extra - lost, both + square * half_plane
