"""Where variance and correlation go with depth: fixed points, depth scales, order and chaos."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.nn import Dense, Sequential
from ntk_lab.nn.module import Module
from ntk_lab.theory.block import Map
from ntk_lab.theory.roots import roots

_LARGEST = 1e4


@dataclass(frozen=True)
class SignalFixedPoint:
    """Where a stack of equal blocks takes two inputs. Arrays have the shape of the scales.

    Attributes
    ----------
    variance
        ``q*``: zero where the signal dies, infinite where it explodes.
    correlation
        ``c*``, the stable one: one in the ordered phase, below it in the chaotic one.
    chi_1
        Factor per block on squared gradients, and on a small difference of two inputs.
    slope
        ``chi`` at ``c*``: factor per block on the correlation's distance from ``c*``.
    variance_slope
        Factor per block on the variance's distance from ``q*``.
    """

    variance: np.ndarray
    correlation: np.ndarray
    chi_1: np.ndarray
    slope: np.ndarray
    variance_slope: np.ndarray

    @property
    def correlation_depth(self) -> np.ndarray:
        """``xi_c = -1 / log slope``: blocks in which ``|c - c*|`` falls by ``e``."""
        return _depth(self.slope)

    @property
    def variance_depth(self) -> np.ndarray:
        """``xi_q = -1 / log |variance_slope|``: blocks in which ``|q - q*|`` falls by ``e``."""
        return _depth(self.variance_slope)

    @property
    def gradient_depth(self) -> np.ndarray:
        """``1 / |log chi_1|``: blocks in which squared gradients change by ``e``."""
        return np.abs(_depth(self.chi_1))

    @property
    def phase(self) -> np.ndarray:
        """``"ordered"``, ``"critical"`` (``|chi_1 - 1| < 1e-4``) or ``"chaotic"``, as texts."""
        names = np.where(self.chi_1 < 1, "ordered", "chaotic")
        return np.where(np.abs(self.chi_1 - 1) < 1e-4, "critical", names)

    def nngp_condition(self, n: int) -> np.ndarray:
        """Limit of the NNGP's condition number for ``n`` inputs, ``(1 + (n-1) c*) / (1 - c*)``.

        Infinite in the ordered phase. The NTK's limit is infinite there too, and one in the
        chaotic phase, where its diagonal grows as ``chi_1^depth`` (arXiv:1912.13053).
        """
        c = self.correlation
        with np.errstate(divide="ignore"):
            return (1 + (n - 1) * c) / (1 - c)


def signal_fixed_point(block: Module, *, start: float = 1.0) -> SignalFixedPoint:
    """Fixed point of variance and correlation that a stack of equal blocks leads to.

    With an activation and ``Dense`` the maps are (arXiv:1611.01232, eqs. 3 to 8)::

        q' = w_std^2 E[phi(u)^2] + b_std^2,    q' c' = w_std^2 E[phi(u) phi(v)] + b_std^2
        chi = w_std^2 E[phi'(u) phi'(v)],      chi_1 = chi at c = 1

    Any other block takes its own kernel rule: residual, with normalization, and so on.

    Parameters
    ----------
    block
        Module over vectors whose copies may follow each other, such as ``Sequential(Tanh(),
        Dense(1, w_std, b_std))``. Its scales may be arrays that broadcast together.
    start
        Variance of the first pre-activations.

    Returns
    -------
    SignalFixedPoint
        Float64 arrays of the shape of the scales; accurate to rounding of JAX's default dtype
        times ``1 / |1 - slope|``.

    Raises
    ------
    InputError
        A block that does not map a process to one of its kind, has positions, or a ``start`` that
        is not positive.

    Notes
    -----
    The variance is the first fixed point in the direction in which it moves from ``start``, which
    is where it goes if its map increases; two fixed points within a factor of two may be missed.
    The correlation is the one below one if ``chi_1 > 1``: the map is a power series in ``c`` with
    coefficients that are not negative, so that there is one; within ``16 sqrt(eps)`` of
    ``chi_1 = 1``, 2e-7 and 6e-3 in float64 and float32, it is given as one. Where the variance
    dies or explodes, ``chi`` and ``c*`` are those of variances as small (1e-10 of ``start``, 1e-5
    in float32) or as large (1e4 times ``start``) as are looked at, and NaN where the activation's
    dual is refused.
    Cost: some 30 evaluations of the block's rule for each entry.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> layer = ntk.nn.Sequential(ntk.nn.Erf(), ntk.nn.Dense(1, w_std=1.5, b_std=0.2))
    >>> point = ntk.theory.signal_fixed_point(layer)
    >>> str(point.phase), bool(point.correlation < 1)
    ('chaotic', True)
    """
    if not 0 < start < np.inf:
        raise InputError(f"start={start}; the variance to start from must be positive and finite.")
    layer = Map(block)
    variance = _fixed_variance(layer, start)
    least = start * _smallest(layer)
    # What is looked at in place of zero and infinity.
    looked_at = np.clip(variance, least, start * _LARGEST)
    same = layer(looked_at)
    # Of correlations: covariances over the variance after the block, which may be another one.
    scale = looked_at / same.variance
    distance = _fixed_distance(layer, looked_at, same.chi * scale)
    # At a stable fixed point it is one at most; rounding may leave it above.
    slope = np.minimum(layer(looked_at, distance).chi * scale, 1)
    found = variance, 1 - distance, same.chi, slope, same.variance_slope
    return SignalFixedPoint(*(np.asarray(v) for v in found))


def phase_diagram(
    activation: Module, w_std: Any, b_std: Any, *, start: float = 1.0
) -> SignalFixedPoint:
    """Order and chaos of fully connected networks over a grid of scales.

    Parameters
    ----------
    activation
        An activation, or whatever stands between two ``Dense`` layers.
    w_std, b_std
        Scales along the two axes, vectors of lengths ``k`` and ``m``.
    start
        As for :func:`signal_fixed_point`.

    Returns
    -------
    SignalFixedPoint
        Arrays ``(m, k)``; the border between order and chaos is ``chi_1 = 1``. arXiv:1606.05340,
        1611.01232.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> found = ntk.theory.phase_diagram(ntk.nn.Erf(), w_std=(0.5, 2.0), b_std=(0.1,))
    >>> print(found.phase)
    [['ordered' 'chaotic']]
    """
    w, b = (np.asarray(v, float) for v in (w_std, b_std))
    if w.ndim != 1 or b.ndim != 1 or not w.size or not b.size:
        raise InputError(f"w_std and b_std have shapes {w.shape} and {b.shape}; give two vectors.")
    if not (np.all(w > 0) and np.all(b >= 0) and np.all(np.isfinite([*w, *b]))):
        raise InputError("w_std must be positive, b_std not negative, and both finite.")
    return signal_fixed_point(dense_block(activation, w[None, :], b[:, None]), start=start)


def dense_block(activation: Module, w_std: Any, b_std: Any = None) -> Sequential:
    """The activation and a ``Dense`` layer behind it, of scales that may be arrays."""
    return Sequential(activation, Dense(1, w_std, b_std))


def _smallest(layer: Map) -> float:
    return 1e-10 if layer.eps < 1e-12 else 1e-5


def _fixed_variance(layer: Map, start: float) -> np.ndarray:
    """First fixed point in the direction of motion: a bracket by doubling, then its root."""
    least, most = start * _smallest(layer), start * _LARGEST

    def growth(q: np.ndarray) -> np.ndarray:
        growth = layer.variance(q) / q - 1
        return np.where(np.abs(growth) <= 8 * layer.eps, 0, growth)

    near = np.full(layer.shape, float(start))
    far, way = near, np.sign(growth(near))
    crossed = way == 0
    while True:
        moving = ~crossed & (near > least) & (near < most)
        if not moving.any():
            break
        far = np.where(moving, np.where(way > 0, 2 * near, near / 2), far)
        now = np.sign(growth(far))
        # NaN, a dual that is refused, ends the search as well.
        crossed |= moving & (now != way)
        near = np.where(moving & ~crossed, far, near)
    found = roots(growth, near, far, 4 * layer.eps)
    found = np.where(crossed, found, np.where(way > 0, np.inf, 0.0))
    refused = np.isnan(layer.variance(np.clip(found, least, most)))
    return np.where(refused, np.nan, found)


def _fixed_distance(layer: Map, variance: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """``1 - c*``: zero unless correlations move away from one."""

    def growth(distance: np.ndarray) -> np.ndarray:
        return layer.distance(variance, distance) / distance - 1

    # Distances are known to rounding, their growth to rounding over the distance. The root, of
    # order slope - 1, must stand out.
    excess = np.where(slope > 1, slope - 1, 1)
    chaotic = (slope > 1) & (excess**2 > 256 * layer.eps)
    least = np.minimum(16 * layer.eps / excess, 0.5)
    found = roots(growth, least, np.ones(layer.shape), 4 * layer.eps)
    return np.where(np.isnan(slope), np.nan, np.where(chaotic, found, 0.0))


def _depth(factor: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        logarithm = np.log(np.abs(factor))
        # Rounding may leave a factor of one on its other side.
        neutral = np.abs(logarithm) < 1e-15
        return np.where(neutral, np.inf, -1 / np.where(neutral, 1, logarithm))
