"""Gaussian expectations of functions with a kink or jump at zero, by sectors of the plane.

For ``u = s1 r cos(p)`` and ``v = s2 r cos(p - theta)`` with ``p`` uniform and ``r`` of density
``r exp(-r^2/2)``, the lines where ``u`` or ``v`` is zero are rays. Between them the integrand is
smooth, so that Gauss-Legendre rules in the angle and the radius converge exponentially, at every
correlation: as inputs become colinear, two of the four sectors close.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[[jax.Array], jax.Array]

_REACH = 9.0
_RADII = {np.dtype(np.float32): 20, np.dtype(np.float64): 32}
_ANGLES = {np.dtype(np.float32): 12, np.dtype(np.float64): 20}


def sectors(f: Function, g: Function, theta, scale1, scale2) -> jax.Array:
    """``E[f(u) g(v)]`` at an angle and two standard deviations; a loop over nodes."""
    radii, weights, nodes, angle_weights = (
        jnp.asarray(v, theta.dtype) for v in _rules(np.dtype(theta.dtype))
    )

    def at_angle(total, node):
        x, weight = node
        # The direction, from v = 0 on, through the wide and through the narrow sectors.
        wide = -jnp.pi / 2 + theta + (jnp.pi - theta) * x
        narrow = jnp.pi / 2 + theta * x
        value = (jnp.pi - theta) * along(wide) + theta * along(narrow)
        return total + weight * value, None

    def along(direction):
        a, b = scale1 * jnp.cos(direction), scale2 * jnp.cos(direction - theta)

        def at_radius(total, node):
            r, weight = node
            return total + weight * (f(a * r) * g(b * r) + f(-a * r) * g(-b * r)), None

        return jax.lax.scan(at_radius, jnp.zeros_like(theta), (radii, weights))[0]

    total = jax.lax.scan(at_angle, jnp.zeros_like(theta), (nodes, angle_weights))[0]
    return total / (2 * jnp.pi)


def _rules(dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """Radii with weights of the density, and nodes with weights of the unit interval."""
    x, w = np.polynomial.legendre.leggauss(_RADII[dtype])
    radii = (x + 1) / 2 * _REACH
    weights = w / 2 * _REACH * radii * np.exp(-(radii**2) / 2)
    x, w = np.polynomial.legendre.leggauss(_ANGLES[dtype])
    return radii, weights, (x + 1) / 2, w / 2
