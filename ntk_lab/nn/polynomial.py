"""Polynomials."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Covariance
from ntk_lab.nn.closed_form import ClosedForm
from ntk_lab.nn.module import hyper, module


def diagonal_series(first: list, second: list, q12: jax.Array) -> jax.Array:
    """``sum_k E[f^(k)(u)] E[f^(k)(v)] q12^k / k!``, which is ``E[f(u) f(v)]`` (Mehler).

    ``first`` and ``second`` hold the mean derivatives of ``f`` at the two variances, lowest order
    first; zeros that are Python numbers cost nothing.
    """
    total = jnp.zeros_like(q12)
    for k in reversed(range(len(first))):
        total = total * q12 if k + 1 < len(first) else total
        if not (isinstance(first[k], int | float) and first[k] == 0):
            total = total + first[k] * second[k] / math.factorial(k)
    return total


def check_degree(degree: Any, name: str) -> None:
    """Refuse a degree that is not a whole number from 0 to 80."""
    if isinstance(degree, bool) or not isinstance(degree, int) or not 0 <= degree <= 80:
        raise InputError(f"{name} got degree {degree!r}; it must be a whole number from 0 to 80.")


def mean_derivatives(coef: tuple, var: jax.Array) -> list:
    """``E[p^(k)(u)]`` for every ``k``, ``p`` the polynomial and ``u`` of variance ``var``."""
    means = []
    for k in range(len(coef)):
        total: Any = 0
        for m in reversed(range((len(coef) - 1 - k) // 2 + 1)):
            # The moments of a Gaussian: E[u^(2 m)] = (2 m)! / (2^m m!) var^m.
            factor = math.factorial(k + 2 * m) // (math.factorial(m) * 2**m)
            c = coef[k + 2 * m]
            vanishes = isinstance(c, int | float) and c == 0
            total = total * var if not (isinstance(total, int) and total == 0) else 0
            total = total if vanishes else total + c * factor
        means.append(total)
    return means


@module
class Polynomial(ClosedForm):
    """``sum_k coef[k] x^k``, lowest degree first; kernels are differentiable in ``coef``.

    ``E[phi phi] = sum_k E[phi^(k)(u)] E[phi^(k)(v)] q12^k / k!`` (Mehler): a polynomial in the
    covariance whose coefficients are moments of single inputs. Right to rounding unless terms of
    the polynomial itself cancel. Raises InputError without coefficients or with more than 81.
    """

    coef: tuple[float, ...] = hyper()

    def __post_init__(self):
        object.__setattr__(self, "coef", tuple(self.coef))
        if not 1 <= len(self.coef) <= 81:
            raise InputError(
                f"Polynomial got {len(self.coef)} coefficients; give 1 to 81, lowest degree first."
            )

    def function(self, x: jax.Array) -> jax.Array:
        total = jnp.full_like(x, self.coef[-1])
        for c in self.coef[-2::-1]:
            total = total * x + c
        return total

    def product(self, k: Covariance) -> jax.Array:
        first, second = (mean_derivatives(self.coef, v) for v in (k.var1, k.var2))
        return diagonal_series(first, second, k.cov)
