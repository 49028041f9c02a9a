"""Functions of the angle between two inputs, accurate at every angle and finite to differentiate.

``theta`` is the angle of the correlation ``rho = cov / sqrt(var1 var2)``. Its value is taken from
the gap (see ``ntk_lab.kernel.covariance``); derivatives are taken with respect to the
covariances. Where an input is zero the angle is pi/2 and its derivative zero; at coincident and
antipodal inputs, where ``theta`` has a kink, the derivative along the kink is zero.
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.kernel.covariance import Covariance


def angle(k: Covariance) -> jax.Array:
    """Angle in ``[0, pi]``, to within rounding; no derivative.

    From the half angle to the nearer of 0 and pi: ``sin^2(theta/2) = gap / (2 norm)`` is known to
    full relative precision and at most 1/2, where a short polynomial gives the arcsine.
    """
    half = _half_square(k)
    nearer = jnp.pi * jnp.sqrt(half) * _polynomial(half, 0)
    return jnp.where(jax.lax.stop_gradient(k.cov) < 0, jnp.pi - nearer, nearer)


def _half_square(k: Covariance) -> jax.Array:
    """``gap / (2 norm)``, in [0, 1/2]; 1/2 (a right angle) where an input is zero."""
    norm = k.norm
    return jnp.where(norm > 0, jnp.minimum(k.gap / jnp.where(norm > 0, 2 * norm, 1), 0.5), 0.5)


def _polynomial(half: jax.Array, which: int) -> jax.Array:
    """One of the two functions of :func:`half_angle_series`."""
    first, *rest = half_angle_series(jnp.finfo(half.dtype).bits)[which]
    total = jnp.full_like(half, first)
    for c in rest:
        total = total * half + c
    return total


def _interpolant(function: Callable[[np.ndarray], np.ndarray], degree: int) -> list[float]:
    """Power-series coefficients in ``h`` of the Chebyshev interpolant on [0, 1/2]."""
    nodes = 0.25 + 0.25 * np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    fit = np.polynomial.Chebyshev.fit(nodes, function(nodes), degree, domain=[0, 0.5])
    return [float(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef]


def _excess(h: np.ndarray) -> np.ndarray:
    # The Taylor series, whose ratio of terms is below 1/2 here, does not cancel at small nodes.
    k = np.arange(60)
    ratios = (2 * k + 1) ** 2 / ((2 * k + 2) * (2 * k + 3))
    return np.polynomial.polynomial.polyval(h, np.cumprod(ratios))


DEGREES = {32: 8, 64: 18}


@cache
def half_angle_series(bits: int) -> tuple[list[float], list[float]]:
    """Polynomials in ``h = sin^2(phi/2)``, of an acute angle, highest coefficients first.

    With ``A`` and ``B`` the two, ``phi = pi sqrt(h) A(h)`` and ``sin(phi) - phi cos(phi) =
    pi sqrt(h) h B(h)``, to within rounding in a floating-point type of that many bits.
    """

    def bent(h: np.ndarray) -> np.ndarray:
        return 2 / np.pi * (2 - 1 / (1 + np.sqrt(1 - h)) - _excess(h) * (1 - 2 * h))

    degree = DEGREES[bits]
    angle = _interpolant(lambda h: 2 / np.pi * (1 + h * _excess(h)), degree)
    return angle[::-1], _interpolant(bent, degree)[::-1]


def _sine_minus_angle_cosine(k: Covariance) -> jax.Array:
    """``sin(phi) - phi cos(phi)``, ``phi`` the angle to the nearer of 0 and pi; no derivative.

    It is of order ``phi^3``: subtracting the terms would lose the digits that the gap carries.
    """
    half = _half_square(k)
    return jnp.pi * jnp.sqrt(half) * half * _polynomial(half, 1)


@jax.custom_jvp
def sine(k: Covariance) -> jax.Array:
    """``sin(theta)``."""
    half = _half_square(k)
    return 2 * jnp.sqrt(half * (1 - half))


@sine.defjvp
def _sine_jvp(primals, tangents):
    (k,), (dk,) = primals, tangents
    value = sine(k)
    return value, -_divide(_correlation(k) * _correlation_tangent(k, dk), value)


@jax.custom_jvp
def half_plane(k: Covariance) -> jax.Array:
    """``(pi - theta) / (2 pi)``: the probability that both variables are positive."""
    return (jnp.pi - angle(k)) / (2 * jnp.pi)


@half_plane.defjvp
def _half_plane_jvp(primals, tangents):
    (k,), (dk,) = primals, tangents
    return half_plane(k), _divide(_correlation_tangent(k, dk), 2 * jnp.pi * sine(k))


@jax.custom_jvp
def rectified_product(k: Covariance) -> jax.Array:
    """``E[max(u, 0) max(v, 0)]``: the arc-cosine kernel of order one (arXiv:1112.3712)."""
    return k.norm * _sine_minus_angle_cosine(k) / (2 * jnp.pi) + jnp.maximum(k.cov, 0) / 2


@rectified_product.defjvp
def _rectified_product_jvp(primals, tangents):
    (k,), (dk,) = primals, tangents
    root1, root2 = _safe_sqrt(k.var1), _safe_sqrt(k.var2)
    ratio = _divide(root2, root1) * dk.var1 + _divide(root1, root2) * dk.var2
    tangent = half_plane(k) * dk.cov + sine(k) / (4 * jnp.pi) * ratio
    return rectified_product(k), tangent


def rectified_gap(k: Covariance) -> jax.Array:
    """The gap after rectification: ``(norm/2) (1 - E[..] / E[..]_max)``; no derivative."""
    cov, norm = jax.lax.stop_gradient(k.cov), k.norm
    below = jnp.where(cov >= 0, k.gap, norm)
    lost = norm * _sine_minus_angle_cosine(k) / jnp.pi
    return jax.lax.stop_gradient(jnp.maximum(below - lost, 0) / 2)


def two_slope_gap(k: Covariance, a, b, product: jax.Array) -> jax.Array:
    """The gap after ``a min(x, 0) + b max(x, 0)``; ``product`` is its covariance; no derivative.

    The norm becomes ``(a^2 + b^2) / 2`` times what it was; the covariance is taken from it term by
    term, so that nearly equal numbers are not subtracted at any angle.
    """
    norm, square = k.norm, (a**2 + b**2) / 2
    bent = (a - b) ** 2 * norm * _sine_minus_angle_cosine(k) / (2 * jnp.pi)
    same = square * k.gap - bent
    opposite = (a + b) ** 2 / 2 * norm - a * b * k.gap - bent
    negative = (a - b) ** 2 / 2 * norm + a * b * k.gap + bent
    gap = jnp.where(k.cov >= 0, same, jnp.where(product >= 0, opposite, negative))
    return jax.lax.stop_gradient(jnp.maximum(gap, 0))


def _correlation(k: Covariance) -> jax.Array:
    return _divide(k.cov, _safe_sqrt(k.var1) * _safe_sqrt(k.var2))


def _correlation_tangent(k: Covariance, dk: Covariance) -> jax.Array:
    norm = _safe_sqrt(k.var1) * _safe_sqrt(k.var2)
    relative = _divide(dk.var1, k.var1) + _divide(dk.var2, k.var2)
    return _divide(dk.cov, norm) - _correlation(k) / 2 * relative


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """``a / b``, and zero with zero derivative where ``b`` is zero."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def _safe_sqrt(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)
