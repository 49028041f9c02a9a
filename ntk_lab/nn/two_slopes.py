"""What piecewise linear activations with one kink, at zero, share."""

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Covariance, native_steps
from ntk_lab.kernel.arccosine import half_plane, rectified_product, two_slope_gap
from ntk_lab.kernel.native_steps import Step
from ntk_lab.nn.activation import Activation


class TwoSlopes(Activation):
    """``a min(x, 0) + b max(x, 0)``: a ReLU of each sign (arXiv:1112.3712).

    With ``R = E[max(u, 0) max(v, 0)]`` and ``h`` the probability that both are positive::

        E[phi phi]   = (a - b)^2 R + a b q12
        E[phi' phi'] = (a - b)^2 h + a b

    Both are right to rounding at every angle, the diagonal and near-duplicates included, as for
    :class:`Relu`. Derivatives are finite everywhere.
    """

    def slopes(self) -> tuple[float, float]:
        """Slopes ``(a, b)`` left and right of zero."""
        raise TypeError(f"{type(self).__name__} does not define slopes().")

    def function(self, x: jax.Array) -> jax.Array:
        a, b = self.slopes()
        return jnp.where(x < 0, a * x, b * x)

    def native_step(self, shape: tuple[int, ...]) -> Step | None:
        return native_steps.TwoSlopes(*self.slopes())

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        a, b = self.slopes()
        return [native_steps.TwoSlopes(a, b)] if len(shape) == 1 and (a or b) else None

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        a, b = self.slopes()
        bend, square = (a - b) ** 2, (a**2 + b**2) / 2
        k12 = bend * rectified_product(cov) + a * b * cov.cov
        gap = two_slope_gap(cov, a, b, jax.lax.stop_gradient(k12))
        product = Covariance(cov.var1 * square, cov.var2 * square, k12, gap)
        return product, bend * half_plane(cov) + a * b
