"""Loops over pairs of positions, compiled for this machine's CPU by numba.

Arrays are of one pair of examples, of shape ``(h, h', w, w')``: a block ``(w, w')`` of all pairs
of columns for each pair of rows, small enough for the first cache. Constants come in the arrays'
dtype.
"""

import numpy as np

from ntk_lab.kernel.native_math import compiled, inlined, two_slopes


@compiled
def layer(
    distance, ntk, halves, rows, columns, after, constants, slopes, roots, series, out, out_ntk
):
    """A filter with shared weights, and the piecewise linear activation after it, of one pair.

    Parameters
    ----------
    distance, ntk
        Distances (see ``Covariance.distance``) and NTK before the layer.
    halves
        Half the weighted variances of either example: before the layer, ``(h, w)`` each, and
        summed over the taps along the first axis, ``(h_out, w)`` each.
    rows, columns
        Taps along either axis: input of the first tap of each output, step between taps, number
        of taps, and whether the axis is periodic.
    after
        Half the weighted variances of the mean over the window.
    constants
        Share of a tap, factors on distance and NTK, what is added to the distance, factor and
        constant of the layer's own tangent.
    slopes, roots, series
        For :func:`_activate`; without an activation ``slopes`` is empty.
    """
    half1, half2, summed1, summed2 = halves
    first, step, taps, periodic = columns
    stride = np.uintp(first[1] - first[0] if len(first) > 1 else 1)
    width, size = distance.shape[2], np.uintp(out.shape[3])
    before, length = np.uintp(-first[0]), np.uintp(distance.shape[3])
    reach = max(before + length, stride * (size - np.uintp(1)) + np.uintp((taps - 1) * step + 1))
    # The block after the first axis, with what is outside of the second image on its margins.
    block, block_ntk = np.zeros((width, reach), out.dtype), np.zeros((width, reach), out.dtype)
    beyond = np.zeros(reach, out.dtype)
    row, row_ntk = np.zeros(size, out.dtype), np.zeros(size, out.dtype)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            _sum_rows(distance, ntk, half1, half2, rows, i, j, before, block, block_ntk)
            _fill_margins(block, block_ntk, summed1, i, before, length, periodic)
            for c in range(length):
                beyond[c + before] = summed2[j, c]
            for x in range(out.shape[2]):
                _sum_columns(block, block_ntk, beyond, columns, stride, x, row, row_ntk)
                _affine(row, row_ntk, after, i, j, x, constants)
                if len(slopes) > 0:
                    _activate(row, row_ntk, i, j, x, slopes, roots, series)
                for c in range(size):
                    out[i, j, x, c] = row[c]
                    out_ntk[i, j, x, c] = row_ntk[c]


@compiled
def distances(x1, x2, share, out):
    """``share`` times the sum over channels of the squared differences of ``(h, w, channels)``."""
    channels = x1.shape[2]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for x in range(out.shape[2]):
                for c in range(out.shape[3]):
                    total = x1[i, x, 0] - x2[j, c, 0]
                    total *= total
                    for k in range(1, channels):
                        difference = x1[i, x, k] - x2[j, c, k]
                        total += difference * difference
                    out[i, j, x, c] = share * total


@compiled
def pool(distance, ntk, halves, rows, columns, out, out_ntk):
    """Covariances (not distances) and NTK after a linear map of each spatial axis.

    ``halves`` are half the weighted variances of either example, ``rows`` and ``columns`` a matrix
    for each axis with the range of its entries in each line that are not zero, ``(out, 2)``.
    """
    half1, half2 = halves
    matrix, ranges = columns
    width, length = distance.shape[2:]
    block, block_ntk = np.empty((width, length), out.dtype), np.empty((width, length), out.dtype)
    line, line_ntk = np.empty(length, out.dtype), np.empty(length, out.dtype)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            _pool_rows(distance, ntk, half1, half2, rows, i, j, block, block_ntk)
            for x in range(out.shape[2]):
                line[:] = 0
                line_ntk[:] = 0
                for a in range(ranges[x, 0], ranges[x, 1]):
                    weight = matrix[x, a]
                    for c in range(np.uintp(length)):
                        line[c] += weight * block[a, c]
                        line_ntk[c] += weight * block_ntk[a, c]
                for y in range(out.shape[3]):
                    total, total_ntk = line[0] * 0, line[0] * 0
                    for c in range(ranges[y, 0], ranges[y, 1]):
                        total += matrix[y, c] * line[c]
                        total_ntk += matrix[y, c] * line_ntk[c]
                    out[i, j, x, y] = total
                    out_ntk[i, j, x, y] = total_ntk


@compiled
def _pool_rows(distance, ntk, half1, half2, rows, i, j, block, block_ntk):
    matrix, ranges = rows
    block[:] = 0
    block_ntk[:] = 0
    for a in range(ranges[i, 0], ranges[i, 1]):
        for b in range(ranges[j, 0], ranges[j, 1]):
            weight = matrix[i, a] * matrix[j, b]
            for x in range(block.shape[0]):
                for c in range(np.uintp(block.shape[1])):
                    cov = half1[a, x] + half2[b, c] - distance[a, b, x, c]
                    block[x, c] += weight * cov
                    block_ntk[x, c] += weight * ntk[a, b, x, c]


@compiled
def activation(distance, ntk, slopes, roots, series):
    """A piecewise linear activation by itself, in place."""
    size = distance.shape[3]
    row, row_ntk = np.zeros(size, distance.dtype), np.zeros(size, distance.dtype)
    for i in range(distance.shape[0]):
        for j in range(distance.shape[1]):
            for x in range(distance.shape[2]):
                for c in range(size):
                    row[c] = distance[i, j, x, c]
                    row_ntk[c] = ntk[i, j, x, c]
                _activate(row, row_ntk, i, j, x, slopes, roots, series)
                for c in range(size):
                    distance[i, j, x, c] = row[c]
                    ntk[i, j, x, c] = row_ntk[c]


# Indices that are known not to be negative are unsigned: otherwise a check for Python's indices
# from the end stands in every loop and keeps it from being vectorized. Helpers are inlined, and
# take whole arrays and indices: a view costs as much as the loop over it.


@inlined
def _sum_rows(distance, ntk, half1, half2, rows, i, j, before, block, block_ntk):
    """Sum over the taps along the first axis, both positions moving together."""
    first, step, taps, periodic = rows
    height, other, width, length = distance.shape
    for x in range(width):
        for c in range(np.uintp(length)):
            block[x, c + before] = 0
            block_ntk[x, c + before] = 0
    for k in range(taps):
        a, b = first[i] + k * step, first[j] + k * step
        if periodic:
            a, b = a % height, b % other
        inside1, inside2 = 0 <= a < height, 0 <= b < other
        if inside1 and inside2:
            for x in range(width):
                for c in range(np.uintp(length)):
                    block[x, c + before] += distance[a, b, x, c]
                    block_ntk[x, c + before] += ntk[a, b, x, c]
        elif inside1:
            for x in range(width):
                for c in range(np.uintp(length)):
                    block[x, c + before] += half1[a, x]
        elif inside2:
            for x in range(width):
                for c in range(np.uintp(length)):
                    block[x, c + before] += half2[b, c]


@inlined
def _fill_margins(block, block_ntk, summed1, i, before, length, periodic):
    for x in range(block.shape[0]):
        for c in range(before):
            block[x, c] = block[x, c + length] if periodic else summed1[i, x]
            block_ntk[x, c] = block_ntk[x, c + length] if periodic else 0
        for c in range(before + length, np.uintp(block.shape[1])):
            block[x, c] = block[x, c - length] if periodic else summed1[i, x]
            block_ntk[x, c] = block_ntk[x, c - length] if periodic else 0


@inlined
def _sum_columns(block, block_ntk, beyond, columns, stride, x, row, row_ntk):
    """Sum over the taps along the second axis, for one position of the first example."""
    first, step, taps, periodic = columns
    width = block.shape[0]
    for c in range(len(row)):
        row[c] = 0
        row_ntk[c] = 0
    for k in range(taps):
        a, start = first[x] + k * step, np.uintp(k * step)
        if periodic:
            a = a % width
        if 0 <= a < width:
            if stride == 1:
                for c in range(np.uintp(len(row))):
                    row[c] += block[a, c + start]
                    row_ntk[c] += block_ntk[a, c + start]
            else:
                for c in range(np.uintp(len(row))):
                    row[c] += block[a, c * stride + start]
                    row_ntk[c] += block_ntk[a, c * stride + start]
        else:
            for c in range(np.uintp(len(row))):
                row[c] += beyond[c * stride + start]


@inlined
def _affine(row, row_ntk, after, i, j, x, constants):
    share, signal, shift, tangent, constant = constants
    after1, after2 = after
    for c in range(len(row)):
        mean = share * row[c]
        covariance = after1[i, x] + after2[j, c] - mean
        row_ntk[c] = signal * share * row_ntk[c] + tangent * covariance + constant
        row[c] = signal * mean + shift


@inlined
def _activate(row, row_ntk, i, j, x, slopes, roots, series):
    """Dual of ``a min(x, 0) + b max(x, 0)``, in place, for one row; see ``two_slopes``.

    ``roots`` are the weighted standard deviations of either example, one over them (zero for
    zero), and those in the weighting of the result.
    """
    roots1, roots2, inverses1, inverses2, news1, news2 = roots
    u, inverse, n1 = roots1[i, x], inverses1[i, x], news1[i, x]
    zero, half, one, mean = slopes[0], slopes[1], slopes[2], slopes[5]
    for c in range(len(row)):
        v, n2 = roots2[j, c], news2[j, c]
        norm = u * v
        gap = row[c] - half * (u - v) * (u - v)
        gap = gap if gap > zero else zero
        share = half * gap * inverse * inverses2[j, c]
        share = share if share < one else one
        share = share if norm > zero else half
        gap, slope = two_slopes(norm, gap, share, slopes, series)
        row[c] = gap + mean * half * (n1 - n2) * (n1 - n2)
        row_ntk[c] = row_ntk[c] * slope
