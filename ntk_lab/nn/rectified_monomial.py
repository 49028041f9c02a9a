"""Powers of the positive part."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Polynomial as Series

from ntk_lab.kernel import Covariance
from ntk_lab.kernel.arccosine import angle, half_plane, sine
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.module import module
from ntk_lab.nn.polynomial import check_degree


@module
class RectifiedMonomial(Activation):
    """``x^degree`` for ``x >= 0``, else 0: the arc-cosine kernel of that order (arXiv:1112.3712).

    With polynomials ``A`` and ``B`` fixed by ``E_n' = n^2 E_(n-1)``::

        E[phi phi]   = E_n = (q11 q22)^(n/2) (A(rho) sin theta + B(rho) (pi - theta)) / (2 pi)
        E[phi' phi'] = n^2 E_(n-1)

    Errors are of the order of rounding in ``sqrt(k11 k22)`` at every angle, for a degree of up to
    about 6; beyond, of ``2^degree`` times that. Derivatives are finite everywhere. Degree 0 is
    the step function, which trains nothing before it. A degree that is not a whole number from 0
    to 80 raises InputError.
    """

    degree: int

    def __post_init__(self):
        check_degree(self.degree, "RectifiedMonomial")

    def function(self, x: jax.Array) -> jax.Array:
        return jnp.where(x >= 0, x**self.degree, 0)

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        n = self.degree
        if n == 0:
            return _step(cov), jnp.zeros_like(cov.cov)
        peak = math.prod(range(2 * n - 1, 0, -2)) / 2
        product, gap = _product(n, cov), _gap(n, cov)
        k11, k22 = peak * cov.var1**n, peak * cov.var2**n
        return Covariance(k11, k22, product, gap), n**2 * _product(n - 1, cov)


def _step(k: Covariance) -> Covariance:
    """The dual of the step function, which is one at zero inputs."""
    zero1, zero2 = k.var1 == 0, k.var2 == 0
    k11, k22 = (jnp.where(v == 0, jnp.ones_like(v), 0.5) for v in (k.var1, k.var2))
    product = jnp.where(zero1 & zero2, 1, jnp.where(zero1 | zero2, 0.5, half_plane(k)))
    gap = jnp.where(
        zero1 & zero2, 0, jnp.where(zero1 | zero2, 0.5**0.5 - 0.5, angle(k) / 2 / jnp.pi)
    )
    return Covariance(k11, k22, product, jax.lax.stop_gradient(gap))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _product(n: int, k: Covariance) -> jax.Array:
    """``E[u^n v^n; u > 0, v > 0]``."""
    if n == 0:
        return half_plane(k)
    norm = k.norm
    rho = jnp.where(norm > 0, k.cov / jnp.where(norm > 0, norm, 1), 0)
    a, b = _polynomials(n)
    value = _value(a.coef, rho) * sine(k) / (2 * jnp.pi) + _value(b.coef, rho) * half_plane(k)
    return norm**n * jnp.maximum(value, 0)


@_product.defjvp
def _product_jvp(n, primals, tangents):
    """By homogeneity in each variance, and Price's theorem in the covariance."""
    (k,), (dk,) = primals, tangents
    if n == 0:
        return jax.jvp(half_plane, primals, tangents)
    value, slope = _product(n, k), n**2 * _product(n - 1, k)
    rest = (n * value - k.cov * slope) / 2
    relative = sum(
        jnp.where(v > 0, dv / jnp.where(v > 0, v, 1), 0)
        for v, dv in ((k.var1, dk.var1), (k.var2, dk.var2))
    )
    return value, slope * dk.cov + rest * relative


def _gap(n: int, k: Covariance) -> jax.Array:
    """The gap afterwards; no derivative.

    For acute angles ``B(1) - B(rho)`` is formed as a polynomial in ``1 - rho = gap / norm``, with
    which an error of rounding in the angle stays one.
    """
    norm = k.norm
    near = jnp.where(norm > 0, jnp.minimum(k.gap / jnp.where(norm > 0, norm, 1), 1), 1)
    a, b = _polynomials(n)
    lost = (b(1) - b)(Series([1, -1]))
    # Its constant term is zero.
    drop = jnp.pi * near * _value(lost.coef[1:], near)
    drop = drop + _value(b.coef, 1 - near) * angle(k) - _value(a.coef, 1 - near) * sine(k)
    gap = jnp.where(
        k.cov >= 0, norm**n * drop / (2 * jnp.pi), norm**n * float(b(1)) / 2 - _product(n, k)
    )
    return jax.lax.stop_gradient(jnp.maximum(gap, 0))


def _polynomials(n: int) -> tuple[Series, Series]:
    """``A`` and ``B`` of degree ``n``."""
    a, b = Series([0.0]), Series([1.0])
    for m in range(1, n + 1):
        coefficients = np.zeros(m + 1)
        for k in range(m % 2, m + 1, 2):
            pairs = math.factorial(k) * math.factorial((m - k) // 2) ** 2 * 2 ** (m - k)
            coefficients[k] = math.factorial(m) ** 2 / pairs
        a, b = _next(m, a, coefficients), Series(coefficients)
    return a, b


def _next(m: int, a: Series, b: np.ndarray) -> Series:
    """``A_m`` from ``(1 - r^2) A' - r A + B = m^2 (1 - r^2) A_(m-1)``, a triangular system."""
    right = np.zeros(m + 3)
    known = np.asarray((m**2 * Series([1, 0, -1]) * a).coef, dtype=float)
    right[: known.size] += known
    right[: len(b)] -= b
    result = np.zeros(m + 2)
    for power in range(m, 0, -1):
        # The coefficient of r^power is (power + 1) A_(power + 1) - power A_(power - 1).
        result[power - 1] = ((power + 1) * result[power + 1] - right[power]) / power
    return Series(result[:m])


def _value(coefficients: np.ndarray, x: jax.Array) -> jax.Array:
    total = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * x + float(c)
    return total
