"""Gaussian expectations of functions with kinks, and their derivatives.

A kink at zero alone is integrated by sectors of the plane (``ntk_lab.kernel.sectors``), kinks
elsewhere by panels (``ntk_lab.kernel.panels``). Both need the function to be smooth between its
kinks, and loop over nodes with one value a pair in memory.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from ntk_lab.kernel.arccosine import angle, sine
from ntk_lab.kernel.covariance import Covariance
from ntk_lab.kernel.hermite import derivative
from ntk_lab.kernel.panels import panels
from ntk_lab.kernel.sectors import sectors

Function = Callable[[jax.Array], jax.Array]
Kinks = tuple[float, ...]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def kinked_product(f: Function, kinks: Kinks, k: Covariance) -> jax.Array:
    """``E[f(u) f(v)]`` for ``f`` continuous, smooth between ``kinks``.

    Differentiable by Price's theorem in the covariance, ``E[f' f']``, and by homogeneity in the
    variances; those derivatives once more, where no two inputs are colinear.
    """
    return _integral(f, f, kinks, k)


@kinked_product.defjvp
def _kinked_product_jvp(f, kinks, primals, tangents):
    (k,), (dk,) = primals, tangents
    slopes = kinked_slopes(f, kinks, k)
    first = _over((_integral(_radial(f), f, kinks, k) - k.cov * slopes) / 2, k.var1)
    second = _over((_integral(f, _radial(f), kinks, k) - k.cov * slopes) / 2, k.var2)
    return kinked_product(f, kinks, k), slopes * dk.cov + first * dk.var1 + second * dk.var2


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def kinked_slopes(f: Function, kinks: Kinks, k: Covariance) -> jax.Array:
    """``E[f'(u) f'(v)]`` for ``f`` continuous, smooth between ``kinks``.

    Its derivative is that of the quadrature; along the kink at coincident or antipodal inputs it
    is zero.
    """
    return _integral(derivative(f), derivative(f), kinks, k)


@kinked_slopes.defjvp
def _kinked_slopes_jvp(f, kinks, primals, tangents):
    (k,), (dk,) = primals, tangents
    slope, norm = derivative(f), k.norm
    theta, scale1, scale2 = angle(k), _root(k.var1), _root(k.var2)
    dscale1 = _over(dk.var1, 2 * scale1)
    dscale2 = _over(dk.var2, 2 * scale2)
    rho = _over(k.cov, norm)
    drho = _over(dk.cov, norm) - rho / 2 * (_over(dk.var1, k.var1) + _over(dk.var2, k.var2))
    dtheta = -_over(drho, sine(k))
    return jax.jvp(
        lambda *args: _quadrature(slope, slope, kinks, *args),
        (theta, scale1, scale2),
        (dtheta, dscale1, dscale2),
    )


def kinked_mean(f: Function, kinks: Kinks, var: jax.Array) -> jax.Array:
    """``E[f(u)^2]``, smooth between ``kinks``."""
    return kinked_product(f, kinks, Covariance(var, var, var, jnp.zeros_like(var)))


def _radial(f: Function) -> Function:
    """``x f'(x)``, the same object each time it is asked for."""
    if f not in _RADIAL:
        slope = derivative(f)
        _RADIAL[f] = lambda x: x * slope(x)
    return _RADIAL[f]


_RADIAL: dict[Function, Function] = {}


def _integral(f: Function, g: Function, kinks: Kinks, k: Covariance) -> jax.Array:
    return _quadrature(f, g, kinks, angle(k), _root(k.var1), _root(k.var2))


def _quadrature(f: Function, g: Function, kinks: Kinks, theta, scale1, scale2) -> jax.Array:
    """``E[f(u) g(v)]`` at an angle and two standard deviations."""
    if kinks == (0.0,):
        return sectors(f, g, theta, scale1, scale2)
    return panels(f, g, kinks, theta, scale1, scale2)


def _root(v: jax.Array) -> jax.Array:
    return jnp.where(v > 0, jnp.sqrt(jnp.where(v > 0, v, 1)), 0)


def _over(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
