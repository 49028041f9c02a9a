"""Scales between order and chaos, where deep networks can be trained."""

from typing import Any, NamedTuple

import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.nn.module import Module
from ntk_lab.theory.block import Map
from ntk_lab.theory.fixed_points import dense_block

# Variances among which critical points are looked for; duals of some activations are refused
# beyond.
_VARIANCES = np.geomspace(1e-3, 1e2, 61)
_ROUNDING = 64


class CriticalPoint(NamedTuple):
    """Scales at which ``chi_1 = 1``, and the variance of pre-activations that stays as it is.

    ``variance_slope`` is the factor per layer on the variance's distance from there: the point is
    stable below one, and at one every variance near it stays (Relu).
    """

    w_std: float
    b_std: float
    variance: float
    variance_slope: float


def critical_line(activation: Module, variance: Any) -> tuple[np.ndarray, np.ndarray]:
    """The border between order and chaos, by the variance that stays as it is on it.

    ``w_std^2 = 1 / E[phi'(u)^2]`` makes ``chi_1 = 1``, and ``b_std^2 = q - w_std^2 E[phi(u)^2]``
    makes ``q`` a fixed point, with ``u`` of variance ``q`` (arXiv:1611.01232).

    Parameters
    ----------
    activation
        An activation, or whatever stands between two ``Dense`` layers.
    variance
        Variances ``q > 0`` of the pre-activations, an array.

    Returns
    -------
    tuple of arrays
        ``w_std`` and ``b_std`` of the shape of ``variance``; ``b_std`` is NaN where no bias can
        keep that variance, and both where the activation's dual is refused.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> w_std, b_std = ntk.theory.critical_line(ntk.nn.Erf(), (0.1, 1.0))
    >>> bool(w_std[1] > w_std[0]), bool(b_std[1] > b_std[0])
    (True, True)
    """
    variance = np.asarray(variance, float)
    if not np.all(variance > 0):
        raise InputError("variances of the critical line must be positive.")
    w, square, _ = _Line(activation, variance.size)(variance.ravel())
    square = np.where(square >= 0, square, np.nan)
    return w.reshape(variance.shape), np.sqrt(square).reshape(variance.shape)


def critical_initialization(activation: Module, b_std: float = 0.0) -> CriticalPoint:
    """``w_std`` at which a deep network of this activation neither forgets nor scrambles its input.

    The root of ``chi_1 = 1`` at the fixed point ``q*(w_std, b_std)``, found along
    :func:`critical_line`, where ``chi_1 = 1`` holds, as the root of ``b_std``.

    Parameters
    ----------
    activation
        An activation, or whatever stands between two ``Dense`` layers.
    b_std
        Scale of the biases.

    Returns
    -------
    CriticalPoint
        Where there are several, a stable one, of the largest variance; an unstable one
        (``variance_slope`` above one) if there is no other.

    Raises
    ------
    InputError
        A ``b_std`` for which there is none: Relu has ``w_std = sqrt(2)`` without biases only.

    Notes
    -----
    Looks among variances of 1e-3 to 100, and at zero for ``b_std=0``: odd activations are critical
    at ``w_std = 1 / |phi'(0)|``, where the variance falls to zero as ``1 / depth``. Accurate to
    1e-10 in float64, 1e-5 in float32.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> round(ntk.theory.critical_initialization(ntk.nn.Relu()).w_std ** 2, 4)
    2.0
    """
    if not 0 <= b_std < np.inf:
        raise InputError(f"b_std={b_std}; it must be finite and not negative.")
    line = _Line(activation, len(_VARIANCES))
    square = line(_VARIANCES)[1]
    excess = square - b_std**2
    fixed = np.abs(excess) <= line.rounding * _VARIANCES
    if b_std == 0 and fixed[np.isfinite(excess)].all():
        return line.point(1.0, b_std)
    crossings = np.flatnonzero(np.sign(excess[:-1]) * np.sign(excess[1:]) < 0)
    ends = [(float(_VARIANCES[i]), float(_VARIANCES[i + 1])) for i in crossings]
    points = [line.point(line.refined(low, high, b_std), b_std) for low, high in ends]
    stable = [p for p in points if p.variance_slope <= 1 + line.rounding]
    if stable:
        return stable[-1]
    if b_std == 0 and line.dies_slowly():
        return CriticalPoint(float(line(np.full_like(_VARIANCES, 1e-12))[0][0]), 0.0, 0.0, 1.0)
    if points:
        return points[-1]
    known = np.sqrt(square[square >= 0])
    reach = f"b_std from {known.min():.3g} to {known.max():.3g}" if len(known) else "no b_std"
    raise InputError(
        f"no w_std makes {activation!r} critical with b_std={b_std}: fixed points of chi_1 = 1 and "
        f"variance of 1e-3 to 100 have {reach}. See ntk.theory.critical_line."
    )


class _Line:
    """The critical line of an activation, at a fixed number of variances: compiled once."""

    def __init__(self, activation: Module, size: int):
        self._layer = Map(dense_block(activation, np.ones(size)))
        self.rounding = _ROUNDING * self._layer.eps

    def __call__(self, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``w_std``, the square of ``b_std``, and the slope of the variance's map."""
        step = self._layer(variance)
        square = 1 / step.chi
        return np.sqrt(square), variance - square * step.variance, square * step.variance_slope

    def refined(self, low: float, high: float, b_std: float) -> float:
        """The variance between these two that has this ``b_std``, by finer and finer grids."""
        while high - low > 4 * self._layer.eps * high:
            grid = np.linspace(low, high, self._layer.shape[0])
            excess = self(grid)[1] - b_std**2
            crossings = np.flatnonzero(np.sign(excess[:-1]) != np.sign(excess[1:]))
            if not len(crossings) or not np.diff(grid).all():
                break
            low, high = float(grid[crossings[0]]), float(grid[crossings[0] + 1])
        return float((low + high) / 2)

    def point(self, variance: float, b_std: float) -> CriticalPoint:
        """The point of the line at that variance."""
        w, _, slope = (float(v[0]) for v in self(np.full(self._layer.shape, variance)))
        return CriticalPoint(w, float(b_std), variance, slope)

    def dies_slowly(self) -> bool:
        """Whether, critical at zero variance and without biases, small variances fall to zero."""
        zero, small = (np.full(self._layer.shape, v) for v in (1e-12, 1e-3))
        w, square, _ = (v[0] for v in self(zero))
        keeps = np.abs(square) <= max(self.rounding, 1e-6) * zero[0]
        return bool(keeps and w**2 * self._layer.variance(small)[0] <= small[0])
