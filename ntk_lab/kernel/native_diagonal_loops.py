"""Loops over pairs of images at equal positions, compiled for this machine's CPU by numba.

For one example and a block of others, arrays are ``(positions, block)``: the innermost loop runs
over examples. Processes are divided by ``m``, their root mean square over positions after the next
filter: distances are ``E[(f1 / m1 - f2 / m2)^2] / 2``, and NTKs over ``m1 m2``.
"""

import numpy as np

from ntk_lab.kernel.native_math import compiled, inlined, two_slopes

# Columns of the table of operations.
(H_IN, W_IN, H_OUT, W_OUT, ACTIVATES, OFFSET, Y_AXIS, X_AXIS) = (0, 1, 2, 3, 4, 5, 6, 11)
COLUMNS = 16
# Blocks of examples begin and end at multiples of it.
ALIGNED = 16


@compiled
def block(first, last, j0, j1, mirror, data, examples, operations, numbers, slopes, series, out):
    """Kernels of the examples ``first`` to ``last`` with a block of others, written to ``out``.

    Parameters
    ----------
    mirror
        Whether both are the same examples: only pairs on and above the diagonal are computed.
    data
        Inputs over ``m`` of either side: ``(n1, positions, channels)`` and ``(positions,
        channels, n2)``.
    examples
        Of each side: standard deviations after the filter of each operation over its ``m``,
        ``(n1, all positions)`` and ``(all positions, n2)``; those at its end over the next ``m``;
        one over ``m``, ``(operations + 1, n)``; and each ``m`` over the next.
    operations
        ``(operations, 16)``: sizes before and after, whether an activation follows, where its
        positions begin in ``examples``, and for each axis: taps, dilation, stride, padding before,
        and whether the axis is periodic.
    numbers
        ``(operations, 4)``: factor on sums over the window, factors of the covariance and of a
        constant in the layer's own NTK, and standard deviation of the bias.
    out
        Means over positions of distance and NTK.
    """
    x1, x2 = data
    largest, widest = 1, 1
    for k in range(len(operations)):
        largest = max(largest, operations[k, H_IN] * operations[k, W_IN])
        largest = max(largest, operations[k, H_OUT] * operations[k, W_OUT])
        widest = max(widest, operations[k, W_IN])
    shape = (largest, j1 - j0)
    d, t, new_d, new_t = (
        np.empty(shape, x1.dtype),
        np.empty(shape, x1.dtype),
        np.empty(shape, x1.dtype),
        np.empty(shape, x1.dtype),
    )
    rows = np.empty((2, widest, j1 - j0), x1.dtype)
    for i in range(first, last):
        # Whole vectors: some pairs below the diagonal are computed too.
        start = max(j0, i // ALIGNED * ALIGNED) if mirror else j0
        count = j1 - start
        if count <= 0:
            continue
        _distances(x1[i], x2, start, count, d, t)
        for k in range(len(operations)):
            _operate(i, start, count, k, examples, operations, numbers, slopes, series, rows,
                     d, t, new_d, new_t)  # fmt: skip
            d, t, new_d, new_t = new_d, new_t, d, t
        _average(i, start, count, operations, d, t, out)


@compiled
def _distances(x1, x2, start, count, d, t):
    positions, channels = x1.shape
    zero, share = x1.dtype.type(0), x1.dtype.type(0.5) / x1.dtype.type(channels)
    start = np.uintp(start)
    for p in range(positions):
        for c in range(np.uintp(count)):
            d[p, c] = zero
            t[p, c] = zero
        for k in range(channels):
            own = x1[p, k]
            for c in range(np.uintp(count)):
                difference = own - x2[p, k, start + c]
                d[p, c] += share * difference * difference


@compiled
def _operate(
    i, start, count, k, examples, operations, numbers, slopes, series, rows, d, t, new_d, new_t
):
    """A filter with shared weights and the activation after it, for one example and a block."""
    for y in range(operations[k, H_OUT]):
        _sum_rows(y, count, k, operations, d, t, rows)
        _sum_columns(y, count, k, operations, rows, new_d, new_t)
        place = i, start, count, k, y
        if operations[k, ACTIVATES]:
            _weights_and_slopes(place, operations, examples, numbers, slopes, series, new_d, new_t)
        else:
            _weights(place, operations, examples, numbers, new_d, new_t)


@inlined
def _source(out, tap, size, axis):
    """Position that a tap reads, or -1 outside of the image."""
    source = out * axis[2] + tap * axis[1] - axis[3]
    if axis[4]:
        return source % size
    return source if 0 <= source < size else -1


@compiled
def _sum_rows(y, count, k, operations, d, t, rows):
    height, width, axis = operations[k, H_IN], operations[k, W_IN], operations[k, Y_AXIS:X_AXIS]
    for x in range(width):
        for c in range(np.uintp(count)):
            rows[0, x, c] = 0
            rows[1, x, c] = 0
    for tap in range(axis[0]):
        source = _source(y, tap, height, axis)
        if source >= 0:
            for x in range(width):
                p = source * width + x
                for c in range(np.uintp(count)):
                    rows[0, x, c] += d[p, c]
                    rows[1, x, c] += t[p, c]


@compiled
def _sum_columns(y, count, k, operations, rows, d, t):
    size, width, axis = operations[k, W_IN], operations[k, W_OUT], operations[k, X_AXIS:COLUMNS]
    for x in range(width):
        p = np.uintp(y * width + x)
        for c in range(np.uintp(count)):
            d[p, c] = 0
            t[p, c] = 0
        for tap in range(axis[0]):
            source = _source(x, tap, size, axis)
            if source >= 0:
                for c in range(np.uintp(count)):
                    d[p, c] += rows[0, np.uintp(source), c]
                    t[p, c] += rows[1, np.uintp(source), c]


@inlined
def _affine(d, t, u, v, one1, one2, factors):
    """A layer's weights and bias at one position of a pair: gap, covariance's norm, and NTK."""
    factor, tangent, rest, b_std, zero, half = factors
    shift, apart = b_std * (one1 - one2), u - v
    distance = factor * d + half * shift * shift
    ntk = factor * t + tangent * (half * (u * u + v * v) - distance) + rest * one1 * one2
    gap = distance - half * apart * apart
    return gap if gap > zero else zero, ntk


# The two loops below are apart: a condition inside keeps a loop from being vectorized well.
@compiled
def _weights(place, operations, examples, numbers, d, t):
    """Weights and bias along one row of positions, in place."""
    i, start, count, k, y = place
    (before1, before2), (after1, after2), (inverse1, inverse2), (change1, change2) = examples
    width, offset, j0 = operations[k, W_OUT], operations[k, OFFSET], np.uintp(start)
    zero, half = d.dtype.type(0), d.dtype.type(0.5)
    factors = numbers[k, 0], numbers[k, 1], numbers[k, 2], numbers[k, 3], zero, half
    one1, rho1 = inverse1[k, i], change1[k, i]
    for x in range(width):
        p = np.uintp(y * width + x)
        q = p + np.uintp(offset)
        u, n1 = before1[i, q], after1[i, q]
        for c in range(np.uintp(count)):
            j = j0 + c
            gap, ntk = _affine(d[p, c], t[p, c], u, before2[q, j], one1, inverse2[k, j], factors)
            change, apart = rho1 * change2[k, j], n1 - after2[q, j]
            t[p, c] = ntk * change
            d[p, c] = gap * change + half * apart * apart


@compiled
def _weights_and_slopes(place, operations, examples, numbers, slopes, series, d, t):
    """Weights, bias and activation along one row of positions, in place."""
    i, start, count, k, y = place
    (before1, before2), (after1, after2), (inverse1, inverse2), (change1, change2) = examples
    width, offset, j0 = operations[k, W_OUT], operations[k, OFFSET], np.uintp(start)
    zero, half, one = d.dtype.type(0), d.dtype.type(0.5), d.dtype.type(1)
    factors = numbers[k, 0], numbers[k, 1], numbers[k, 2], numbers[k, 3], zero, half
    constants = zero, half, one, slopes[k, 0], slopes[k, 1], slopes[k, 2]
    one1, rho1 = inverse1[k, i], change1[k, i]
    for x in range(width):
        p = np.uintp(y * width + x)
        q = p + np.uintp(offset)
        u, n1 = before1[i, q], after1[i, q]
        for c in range(np.uintp(count)):
            j = j0 + c
            v = before2[q, j]
            gap, ntk = _affine(d[p, c], t[p, c], u, v, one1, inverse2[k, j], factors)
            norm = u * v
            share = half * gap / norm if norm > zero else half
            share = share if share < one else one
            gap, slope = two_slopes(norm, gap, share, constants, series)
            change, apart = rho1 * change2[k, j], n1 - after2[q, j]
            t[p, c] = ntk * slope * change
            d[p, c] = gap * change + half * apart * apart


@compiled
def _average(i, start, count, operations, d, t, out):
    distance, ntk = out
    last = len(operations) - 1
    positions = operations[last, H_OUT] * operations[last, W_OUT]
    sums, share = np.zeros((2, count), np.float64), 1.0 / positions
    start = np.uintp(start)
    for p in range(positions):
        for c in range(np.uintp(count)):
            sums[0, c] += d[p, c]
            sums[1, c] += t[p, c]
    for c in range(np.uintp(count)):
        distance[i, start + c] = share * sums[0, c]
        ntk[i, start + c] = share * sums[1, c]
