"""Gaussian expectations of functions with kinks anywhere, by panels between them.

With ``u = s1 z`` and ``v = s2 (cos(theta) z + sin(theta) w)``, the inner integral over ``w`` is
split where ``v`` passes a kink. The outer one over ``z`` is split where ``u`` does, and on both
sides of where ``v`` does for ``w = 0``: there the inner integral bends within a width of
``tan(theta)``. Each panel has a Gauss-Legendre rule.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[[jax.Array], jax.Array]

_REACH, _BEND = 9.0, 8.0
_NODES = {np.dtype(np.float32): 14, np.dtype(np.float64): 24}


def panels(f: Function, g: Function, kinks: tuple[float, ...], theta, scale1, scale2) -> jax.Array:
    """``E[f(u) g(v)]`` at an angle and two standard deviations; a loop over nodes.

    Cost: for ``m`` kinks about ``(3 m + 2) (m + 2)`` panels of 576 nodes (196 in float32) a pair.
    """
    shape = np.broadcast_shapes(theta.shape, scale1.shape, scale2.shape)
    cosine, sine = jnp.cos(theta), jnp.sin(theta)
    first = [_position(c, scale1) for c in kinks]
    second = [_position(c, scale2) for c in kinks]
    bends = [_divide(c + side * sine, cosine) for c in second for side in (-_BEND, _BEND)]

    def outer(z):
        cuts = [_divide(c - cosine * z, sine) for c in second]
        return f(scale1 * z) * _integrate(
            lambda w: g(scale2 * (cosine * z + sine * w)), _edges(cuts, theta, shape)
        )

    return _integrate(outer, _edges(first + bends, theta, shape))


def _integrate(f: Function, edges: jax.Array) -> jax.Array:
    """``E[f(z)]`` for standard normal ``z``; ``edges`` of the panels on the first axis."""
    x, weights = np.polynomial.legendre.leggauss(_NODES[np.dtype(edges.dtype)])
    rule = jnp.asarray((x + 1) / 2, edges.dtype), jnp.asarray(weights / 2, edges.dtype)

    def panel(total, bounds):
        low, width = bounds[0], bounds[1] - bounds[0]

        def node(total, point):
            z = low + width * point[0]
            density = jnp.exp(-(z**2) / 2) / (2 * np.pi) ** 0.5
            return total + point[1] * width * density * f(z), None

        return jax.lax.scan(node, total, rule)[0], None

    return jax.lax.scan(panel, jnp.zeros_like(edges[0]), (edges[:-1], edges[1:]))[0]


def _edges(cuts: list[jax.Array], like: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Ends of all panels in order; zero is one, so that no panel is longer than the reach."""
    cuts = [jnp.clip(c, -_REACH, _REACH) for c in cuts]
    cuts = [jnp.broadcast_to(c, shape) for c in (*cuts, jnp.zeros_like(like))]
    for end in range(len(cuts) - 1, 0, -1):
        for i in range(end):
            low, high = cuts[i], cuts[i + 1]
            swap = low > high
            cuts[i], cuts[i + 1] = jnp.where(swap, high, low), jnp.where(swap, low, high)
    reach = jnp.full_like(cuts[0], _REACH)
    return jnp.stack([-reach, *cuts, reach])


def _position(kink: float, scale: jax.Array) -> jax.Array:
    """Where ``scale z`` is at a kink: out of reach if it is always zero."""
    if kink == 0:
        return jnp.zeros_like(scale)
    return jnp.where(scale > 0, kink / jnp.where(scale > 0, scale, 1), 2 * _REACH)


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """``a / b``, kept finite: out of reach with the sign of ``a`` where ``b`` is about zero."""
    usable = jnp.abs(b) > jnp.finfo(b.dtype).eps ** 2
    return jnp.where(usable, a / jnp.where(usable, b, 1), 2 * _REACH * jnp.sign(a))
