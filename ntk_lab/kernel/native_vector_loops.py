"""Loops over pairs of vectors, compiled for this machine's CPU by numba.

For each pair a signed number ``e`` says how far the two are from colinear: with ``rho`` their
correlation, ``e = (1 - rho) / 2`` where ``rho >= 0`` and ``e = -(1 + rho) / 2`` where it is
negative, so that ``|e| <= 1/2`` is known to full relative precision at either end; and ``t`` is
the NTK over the product of the two standard deviations. What belongs to one example alone comes in
arrays of constants, in double precision until then; see ``native_vectors``.
"""

import numpy as np

from ntk_lab.kernel.native_math import compiled, inlined, polynomial, wide

AFFINE, PLAIN_AFFINE, ACUTE_AFFINE, TWO_SLOPES, RELU, ERF, FORK, JOIN = range(8)
ROWS, COLUMNS = 32, 512
# Instead of zero for opposite inputs: the sign says that the angle is obtuse.
TINY = 1e-30
# Where smooth functions of nearly equal inputs are found from differences.
CLOSE = 1e-3


@compiled
def tile(
    rho, data1, data2, start, mirror, program, numbers, side1, side2, series, nngp, ntk, threshold
):
    """Kernels of one tile of pairs, written to ``nngp`` and ``ntk`` from ``start`` on.

    Returns whether some entry is not finite.

    Parameters
    ----------
    rho
        Correlations of the inputs by a matrix product. ``data1``, ``data2`` are the inputs and
        one over their lengths: where a product says too little of the angle (``threshold``), it
        is found from the difference of the two.
    start
        Row and column of the first pair.
    mirror
        Whether to write the mirror image as well.
    program, numbers
        Operations and their constants, ``(ops,)`` and ``(ops, 2)``.
    side1, side2
        Constants of the examples of either side, ``(ops + 1, 5, n)``; the last are the standard
        deviations of the result.
    series
        Coefficients of the two functions of the half angle, highest first.
    """
    wide()
    i0, j0 = start
    height, width = rho.shape
    depth = 1
    for k in range(len(program)):
        depth += program[k] == FORK
    zero, one, two, unusable = rho.dtype.type(0), rho.dtype.type(1), rho.dtype.type(2), False
    e, t = np.empty(COLUMNS, rho.dtype), np.empty(COLUMNS, rho.dtype)
    stack_e, stack_t = np.empty((depth, COLUMNS), rho.dtype), np.empty((depth, COLUMNS), rho.dtype)
    block, block_t = np.empty((ROWS, COLUMNS), rho.dtype), np.empty((ROWS, COLUMNS), rho.dtype)
    for top in range(0, height, ROWS):
        rows = min(ROWS, height - top)
        # Of a mirrored tile on the diagonal, whole vectors from about there on.
        first = max(0, (i0 + top - j0) // ROWS * ROWS) if mirror else 0
        for left in range(first, width, COLUMNS):
            count = min(COLUMNS, width - left)
            for r in range(rows):
                i, j = i0 + top + r, j0 + left
                begin(rho, data1, data2, top + r, left, i, j, count, e, t, threshold)
                advance(e, t, stack_e, stack_t, i, j, count, program, numbers, side1, side2, series)
                last, scale = len(program), side1[len(program), 0, i]
                bad = False
                for c in range(np.uintp(count)):
                    norm = scale * side2[last, 0, np.uintp(j) + c]
                    nngp_value, ntk_value = (
                        norm * (np.copysign(one, e[c]) - two * e[c]),
                        norm * t[c],
                    )
                    block[r, c], block_t[r, c] = nngp_value, ntk_value
                    bad |= (nngp_value - nngp_value != zero) | (ntk_value - ntk_value != zero)
                unusable |= bad
            _write(block, block_t, i0 + top, j0 + left, rows, count, mirror, nngp, ntk)
    return unusable


@compiled
def begin(rho, data1, data2, row, left, i, j, count, e, t, threshold):
    """``e`` of vector ``i`` and the vectors from ``j`` on, whose correlations are in ``rho``."""
    wide()
    doubtful = False
    half, one, zero = rho.dtype.type(0.5), rho.dtype.type(1), rho.dtype.type(0)
    for c in range(np.uintp(count)):
        value = rho[row, np.uintp(left) + c]
        near = half * (one - abs(value))
        e[c] = np.copysign(near if near > zero else zero, value)
        t[c] = zero
    for c in range(np.uintp(count)):
        doubtful |= abs(e[c]) < threshold
    if doubtful:
        for c in range(count):
            if abs(e[c]) < threshold:
                e[c] = _from_difference(data1, data2, i, j + c, rho[row, left + c] >= 0)


@compiled
def _from_difference(data1, data2, i, j, acute):
    """The angle of two inputs from the difference, or sum, of their directions, in double."""
    (x1, inverse1), (x2, inverse2) = data1, data2
    total, scale1, scale2 = 0.0, inverse1[i], inverse2[j] if acute else -inverse2[j]
    for k in range(x1.shape[1]):
        difference = scale1 * x1[i, k] - scale2 * x2[j, k]
        total += difference * difference
    return 0.25 * total if acute else -max(0.25 * total, TINY)


@compiled
def advance(e, t, stack_e, stack_t, i, j, count, program, numbers, side1, side2, series):
    """All operations for vector ``i`` and the vectors from ``j`` on, in place."""
    level = 0
    for k in range(len(program)):
        op = program[k]
        if op == ACUTE_AFFINE:
            _acute_affine(e, t, i, j, count, side1[k], side2[k])
        elif op == PLAIN_AFFINE:
            _plain_affine(e, t, i, j, count, side1[k], side2[k])
        elif op == AFFINE:
            _affine(e, t, i, j, count, side1[k], side2[k])
        elif op == TWO_SLOPES:
            _two_slopes(e, t, count, numbers[k, 0], series)
        elif op == RELU:
            _relu(e, t, count, series)
        elif op == ERF:
            _erf(e, t, i, j, count, numbers[k, 0], numbers[k, 1], side1[k], side2[k], series)
        elif op == FORK:
            for c in range(np.uintp(count)):
                stack_e[level, c] = e[c]
                stack_t[level, c] = t[c]
            level += 1
        else:
            level -= 1
            _join(e, t, stack_e[level], stack_t[level], i, j, count, side1[k], side2[k])


@inlined
def _apart(sine, cosine, other_sine, other_cosine):
    """Sine of the difference of two angles, exactly zero for equal ones."""
    return sine * (other_cosine - cosine) - cosine * (other_sine - sine)


@inlined
def _turned_by_weights(old, both, sine_half, cosine_half, other_sine, other_cosine, constants):
    """``e`` after a layer with weights."""
    half, one, tiny = constants
    # Of nearly opposite inputs the angles add up.
    sine = np.copysign(other_sine, old)
    apart = _apart(sine_half, cosine_half, sine, other_cosine)
    new = apart * apart + both * abs(old)
    new = new if new < one else one
    least = new if new > tiny else tiny
    folded = one - new if new > half else -least
    return new if old >= 0 else folded


# The two loops below are apart, and store last: a condition inside makes for masked stores.
@compiled
def _plain_affine(e, t, i, j, count, own, other):
    """A layer with weights: ``rho' = cos cos rho + sin sin``, angles being those of the examples.

    Its own share of the NTK is its covariance, as in NTK parameterization.
    """
    wide()
    cosine, sine_half, cosine_half = own[0, i], own[1, i], own[2, i]
    one, two, j = e.dtype.type(1), e.dtype.type(2), np.uintp(j)
    constants = e.dtype.type(0.5), one, e.dtype.type(TINY)
    for c in range(np.uintp(count)):
        both = cosine * other[0, j + c]
        sine, turned = other[1, j + c], other[2, j + c]
        new = _turned_by_weights(e[c], both, sine_half, cosine_half, sine, turned, constants)
        t[c] = both * t[c] + (np.copysign(one, new) - two * new)
        e[c] = new


@compiled
def _affine(e, t, i, j, count, own, other):
    """The same with other shares of weights and bias in the NTK."""
    wide()
    cosine, sine_half, cosine_half = own[0, i], own[1, i], own[2, i]
    weight, bias = own[3, i], own[4, i]
    one, two, j = e.dtype.type(1), e.dtype.type(2), np.uintp(j)
    constants = e.dtype.type(0.5), one, e.dtype.type(TINY)
    for c in range(np.uintp(count)):
        both, old = cosine * other[0, j + c], e[c]
        rho = np.copysign(one, old) - two * old
        t[c] = both * t[c] + weight * other[3, j + c] * rho + bias * other[4, j + c]
        sine, turned = other[1, j + c], other[2, j + c]
        e[c] = _turned_by_weights(old, both, sine_half, cosine_half, sine, turned, constants)


@compiled
def _acute_affine(e, t, i, j, count, own, other):
    """A plain layer with weights where all angles are acute: they stay so."""
    wide()
    cosine, sine_half, cosine_half = own[0, i], own[1, i], own[2, i]
    one, two, j = e.dtype.type(1), e.dtype.type(2), np.uintp(j)
    for c in range(np.uintp(count)):
        both = cosine * other[0, j + c]
        apart = _apart(sine_half, cosine_half, other[1, j + c], other[2, j + c])
        new = apart * apart + both * e[c]
        e[c] = new
        t[c] = both * t[c] + (one - two * new)


@compiled
def _relu(e, t, count, series):
    """Rectifier of acute angles, which all later ones are: ``1 - rho' = 1 - rho - L``."""
    wide()
    angle, bent = series
    half, one = e.dtype.type(0.5), e.dtype.type(1)
    for c in range(np.uintp(count)):
        near = abs(e[c])
        root = np.sqrt(near)
        t[c] = t[c] * (one - root * polynomial(near, angle))
        e[c] = near - half * root * near * polynomial(near, bent)


@compiled
def _two_slopes(e, t, count, kappa, series):
    """``a min(x, 0) + b max(x, 0)`` with ``kappa = (a - b)^2 / (a^2 + b^2)``.

    With ``f`` the rectifier's correlation and ``theta`` the angle, ``rho' = kappa f + (1 - kappa)
    rho``, and slopes give ``1 - kappa theta / pi``.
    """
    wide()
    angle, bent = series
    half, one, tiny = e.dtype.type(0.5), e.dtype.type(1), e.dtype.type(TINY)
    share, rest = half * kappa, one - kappa
    for c in range(np.uintp(count)):
        old = e[c]
        near = abs(old)
        root = np.sqrt(near)
        turn = root * polynomial(near, angle)
        lost = share * root * near * polynomial(near, bent)
        # (1 - rho') / 2 and (1 + rho') / 2 for obtuse angles, neither by a difference of the other.
        minus, plus = (one - share) - lost - rest * near, share + lost + rest * near
        obtuse = minus if minus <= half else -max(plus, tiny)
        e[c] = near - lost if old >= 0 else obtuse
        t[c] = t[c] * (one - kappa * turn if old >= 0 else rest + kappa * turn)


@compiled
def _erf(e, t, i, j, count, square, shift, own, other, series):
    """``a erf(b x) + c``: the arcsine of ``sin sin rho``, angles being those of the examples."""
    wide()
    angle, some = series[0], False
    sine, inverse, slope, haversine = own[0, i], own[2, i], own[3, i], own[4, i]
    zero, half, one, two = e.dtype.type(0), e.dtype.type(0.5), e.dtype.type(1), e.dtype.type(2)
    tiny, close, j = e.dtype.type(TINY), e.dtype.type(CLOSE), np.uintp(j)
    least = np.sqrt(tiny)
    for c in range(np.uintp(count)):
        old = e[c]
        near = abs(old)
        sines = sine * other[0, j + c]
        # (1 - |sin sin rho|) / 2 without cancellation.
        complement = haversine + sine * other[4, j + c] + sines * near
        size = sines * (one - two * near)
        small = complement > half * half
        series_of = polynomial(size * size if small else complement, angle)
        root, other_root = np.sqrt(complement), np.sqrt(one - complement)
        arcsine = size * series_of if small else one - two * root * series_of
        rho = (np.copysign(square * arcsine, old) + shift) * inverse * other[2, j + c]
        new = half * (one - abs(rho))
        new = new if new > tiny else tiny
        steep = two * root * other_root
        steep = steep if steep > least else least
        t[c] = t[c] * slope * other[3, j + c] / steep
        keep = (near < close) & ((old >= zero) | (shift == zero))
        e[c] = old if keep else np.copysign(new, rho)
    for c in range(np.uintp(count)):
        some |= abs(e[c]) < close
    if some:
        for c in range(np.uintp(count)):
            if abs(e[c]) < close and (e[c] >= zero or shift == zero):
                e[c] = _erf_of_close(e[c], square, own, other, i, j + c)


@compiled
def _erf_of_close(e, square, own, other, i, j):
    """The new ``e`` of inputs that are nearly equal or opposite, from differences of arcsines."""
    near, r1, r2 = abs(float(e)), float(own[0, i]), float(other[0, j])
    z1, z2 = 0.5 * own[1, i], 0.5 * other[1, j]
    above1, above2 = 0.5 * r1 * (r1 - r2) + r1 * r2 * near, 0.5 * r2 * (r2 - r1) + r1 * r2 * near
    z = max(z1 + above1, 0.0)
    # Half the mean square difference of the two outputs; then that of outputs of unit variance.
    distance = square * (2 / np.pi) * (_turned(z, z1, above1) + _turned(z, z2, above2))
    scale1, scale2 = float(own[2, i]), float(other[2, j])
    if scale1 > 0 and scale2 > 0:
        distance -= 0.5 * (1 / scale1 - 1 / scale2) ** 2
    new = max(0.5 * distance * scale1 * scale2, 0.0)
    return new if e >= 0 else -max(new, TINY)


@compiled
def _turned(z, z1, above):
    """``asin(sqrt(z)) - asin(sqrt(z1))`` for ``z = z1 + above``."""
    below = np.sqrt(z * (1 - z1)) + np.sqrt(z1 * (1 - z))
    return np.arcsin(min(max(above / below, -1.0), 1.0)) if below > 0 else 0.0


@compiled
def _join(e, t, skip, skip_t, i, j, count, own, other):
    """Sum of two independent processes: ``rho' = cos cos rho + sin sin rho_b``."""
    wide()
    cosine, sine, sine_half, cosine_half = own[0, i], own[1, i], own[2, i], own[3, i]
    half, one, tiny = e.dtype.type(0.5), e.dtype.type(1), e.dtype.type(TINY)
    j = np.uintp(j)
    for c in range(np.uintp(count)):
        first, second = cosine * other[0, j + c], sine * other[1, j + c]
        a, b = skip[c], e[c]
        opposite = (a < 0) & (b < 0)
        apart = _apart(sine_half, cosine_half, other[2, j + c], other[3, j + c])
        if opposite:
            a, b = -a, -b
        else:
            a, b = (a if a >= 0 else one + a), (b if b >= 0 else one + b)
        new = apart * apart + first * a + second * b
        folded = new - one if new > half else new
        e[c] = folded if not opposite else (one - new if new > half else -max(new, tiny))
        t[c] = first * skip_t[c] + second * t[c]


@compiled
def _write(block, block_t, i, j, rows, count, mirror, nngp, ntk):
    wide()
    for r in range(rows):
        for c in range(np.uintp(count)):
            nngp[i + r, np.uintp(j) + c] = block[r, c]
            ntk[i + r, np.uintp(j) + c] = block_t[r, c]
    # Whole cache lines: one column of the block is one row of the mirror image. Loops of a length
    # that is known when they are compiled are a fifth faster.
    if mirror and rows == ROWS:
        _mirror(block, i, j, ROWS, count, nngp)
        _mirror(block_t, i, j, ROWS, count, ntk)
    elif mirror:
        _mirror(block, i, j, rows, count, nngp)
        _mirror(block_t, i, j, rows, count, ntk)


@inlined
def _mirror(block, i, j, rows, count, kernel):
    for c in range(np.uintp(count)):
        for r in range(np.uintp(rows)):
            kernel[np.uintp(j) + c, np.uintp(i) + r] = block[r, c]
