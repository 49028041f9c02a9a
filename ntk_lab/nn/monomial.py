"""Powers."""

import jax

from ntk_lab.kernel import Covariance
from ntk_lab.nn.closed_form import ClosedForm
from ntk_lab.nn.module import module
from ntk_lab.nn.polynomial import check_degree, diagonal_series, mean_derivatives


@module
class Monomial(ClosedForm):
    """``x^degree``; all terms of the dual (see :class:`Polynomial`) have one sign or parity.

    Right to rounding. A degree that is not a whole number from 0 to 80 raises InputError.
    """

    degree: int

    def __post_init__(self):
        check_degree(self.degree, "Monomial")

    def function(self, x: jax.Array) -> jax.Array:
        return x**self.degree

    def product(self, k: Covariance) -> jax.Array:
        coef = (0,) * self.degree + (1,)
        first, second = (mean_derivatives(coef, v) for v in (k.var1, k.var2))
        return diagonal_series(first, second, k.cov)
