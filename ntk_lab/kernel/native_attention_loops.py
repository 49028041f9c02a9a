"""Loops over pairs of sequences for networks with attention, compiled for this CPU by numba.

Between two layers of attention each position is a vector of its own, and the loops of
``native_vector_loops`` apply to pairs of positions: those of one example in rows, those of a block
of others in columns. There a pair is ``e`` and ``t``, its angle and its NTK over the two standard
deviations. Attention takes the matrices themselves, ``(s, 2, s)`` for covariance and NTK of a pair
of examples, so that one product with a matrix of weights acts on both.
"""

import numpy as np

from ntk_lab.kernel.native_math import compiled
from ntk_lab.kernel.native_vector_loops import TINY, advance, begin

# Columns of the arrays of one block, about: few enough that it stays in the cache.
COLUMNS = 256


@compiled
def own(is_first, data, stages, series, threshold, moments):
    """Moments of each example with itself after the operations of a single stage, in place.

    Parameters are those of :func:`rows`; ``moments`` is ``(n, s, 2, s)``.
    """
    n, s = moments.shape[:2]
    e, t = np.empty((s, s), moments.dtype), np.empty((s, s), moments.dtype)
    spare = np.empty((s, s), moments.dtype)
    for i in range(n):
        if is_first:
            _correlate(i, i, 1, data, threshold, spare, e, t)
        else:
            _angles(i, i, 1, 0, stages, moments[i : i + 1], e, t)
        _operate(i, i, 1, 0, stages, series, e, t, moments[i : i + 1])


@compiled
def own_attention(weights, turned, bias, moments):
    """Moments of each example with itself after a layer of attention, in place."""
    n, s = moments.shape[:2]
    spare = np.empty((2 * s, s), moments.dtype)
    for i in range(n):
        _attend(weights[i], turned[i], bias, spare, moments[i])


@compiled
def rows(start, step, n1, symmetric, data, stages, attention, series, threshold, cov, ntk):
    """Means over positions of covariance and NTK, of every so many rows of the kernel.

    Parameters
    ----------
    start, step
        First row and how many rows to the next one.
    n1, symmetric
        Examples of the first batch, and whether the second is the same: then only pairs above the
        diagonal are computed, and written below it too.
    data
        Inputs of unit length ``(n s, c)``, the same transposed, and what ``begin`` of
        ``native_vector_loops`` takes: inputs and one over their lengths.
    stages
        The runs of operations between layers of attention: all operations, their numbers, where
        each run begins, constants ``(ops + runs, 5, n s)``, for each run the variances before it
        and one over their roots ``(runs, 2, n s)``, and factor and matrix ``(s, s)`` that make the
        values of attention.
    attention
        For each layer of attention: weights ``(n, s, s)``, the same transposed, and the variance
        of its bias.
    series, threshold
        Coefficients of the two functions of the half angle; ``e`` below which it is found from
        differences of inputs.
    cov, ntk
        The result, ``(n1, n2)``.
    """
    weights, turned, biases = attention
    layers, n, s, dtype = len(biases), weights.shape[1], weights.shape[2], weights.dtype
    block, before = max(1, COLUMNS // s), 0 if symmetric else n1
    e, t = np.empty((s, block * s), dtype), np.empty((s, block * s), dtype)
    moments, spare = np.empty((block, s, 2, s), dtype), np.empty((2 * s, s), dtype)
    correlations, sums = np.empty((s, block * s), dtype), np.empty((2, s), np.float64)
    for i in range(start, n1, step):
        for left in range(i + 1 if symmetric else n1, n, block):
            count = min(block, n - left)
            _correlate(i, left, count, data, threshold, correlations, e, t)
            _operate(i, left, count, 0, stages, series, e, t, moments)
            for k in range(layers):
                for b in range(count):
                    _attend(weights[k, i], turned[k, left + b], biases[k], spare, moments[b])
                _angles(i, left, count, k + 1, stages, moments, e, t)
                _operate(i, left, count, k + 1, stages, series, e, t, moments)
            for b in range(count):
                j = left + b - before
                cov[i, j], ntk[i, j] = _means(moments[b], sums)
                if symmetric:
                    cov[j, i], ntk[j, i] = cov[i, j], ntk[i, j]


@compiled
def _correlate(i, left, count, data, threshold, spare, e, t):
    """``e`` and ``t`` of the positions of inputs."""
    units, columns, (x, inverse) = data
    s, width, start = len(e), count * len(e), np.uintp(left * len(e))
    for p in range(s):
        for c in range(np.uintp(width)):
            spare[p, c] = 0
        for k in range(units.shape[1]):
            factor = units[i * s + p, k]
            for c in range(np.uintp(width)):
                spare[p, c] += factor * columns[k, start + c]
        place = p, 0, i * s + p, left * s, width
        begin(spare, (x, inverse), (x, inverse), *place, e[p], t[p], threshold)


@compiled
def _operate(i, left, count, k, stages, series, e, t, moments):
    """The operations of stage ``k``, and the moments that attention takes as values."""
    program, numbers, bounds, constants, _, factors, matrices = stages
    begins, ends = bounds[k], bounds[k + 1]
    operations, numbers = program[begins:ends], numbers[begins:ends]
    side, root = constants[begins + k : ends + k], constants[ends + k, 0]
    s, factor = len(e), factors[k]
    one, two = e.dtype.type(1), e.dtype.type(2)
    # No skip connections here, which would be kept on a stack.
    stack = np.empty((1, 1), e.dtype)
    for p in range(s):
        place = i * s + p, left * s, count * s
        advance(e[p], t[p], stack, stack, *place, operations, numbers, side, side, series)
        scale = factor * root[i * s + p]
        for b in range(count):
            column, first = np.uintp(b * s), np.uintp((left + b) * s)
            for q in range(np.uintp(s)):
                norm, angle = scale * root[first + q], e[p, column + q]
                rho = np.copysign(one, angle) - two * angle
                moments[b, p, 0, q] = norm * rho + matrices[k, p, q]
                moments[b, p, 1, q] = norm * t[p, column + q] + matrices[k, p, q]


@compiled
def _attend(weights, turned, bias, spare, moments):
    """Moments after attention, ``G1 q G2^T + b`` and ``G1 t G2^T + 2 G1 q G2^T + b``, in place."""
    s, two = len(moments), moments.dtype.type(2)
    np.dot(moments.reshape(2 * s, s), turned, spare)
    np.dot(weights, spare.reshape(s, 2 * s), moments.reshape(s, 2 * s))
    for p in range(s):
        for q in range(np.uintp(s)):
            cov = moments[p, 0, q]
            moments[p, 1, q] += two * cov + bias
            moments[p, 0, q] = cov + bias


@compiled
def _angles(i, left, count, k, stages, moments, e, t):
    """``e`` and ``t`` from the moments before stage ``k``."""
    variances, inverses = stages[4][k, 0], stages[4][k, 1]
    s, zero, half = len(e), e.dtype.type(0), e.dtype.type(0.5)
    one, tiny = e.dtype.type(1), e.dtype.type(TINY)
    for p in range(s):
        var, inverse = variances[i * s + p], inverses[i * s + p]
        for b in range(count):
            column, first = np.uintp(b * s), np.uintp((left + b) * s)
            for q in range(np.uintp(s)):
                cov, norm = moments[b, p, 0, q], inverse * inverses[first + q]
                rho = cov * norm
                near = half * (one - abs(rho))
                # Equal examples are found by their moments, to the last digit.
                equal = (cov == var) & (cov == variances[first + q])
                near = zero if equal | (near < zero) else near
                e[p, column + q] = near if rho >= zero else -max(near, tiny)
                t[p, column + q] = moments[b, p, 1, q] * norm


@compiled
def _means(moments, sums):
    s = len(moments)
    sums[:] = 0
    for p in range(s):
        for q in range(np.uintp(s)):
            sums[0, q] += moments[p, 0, q]
            sums[1, q] += moments[p, 1, q]
    return sums[0].sum() / (s * s), sums[1].sum() / (s * s)
