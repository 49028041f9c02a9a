"""Rectified linear unit."""

import jax

from ntk_lab.kernel import Covariance
from ntk_lab.kernel.arccosine import half_plane, rectified_gap, rectified_product
from ntk_lab.kernel.native_steps import Step, TwoSlopes
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.module import module


@module
class Relu(Activation):
    """``max(x, 0)``.

    With ``theta`` the angle between the inputs (arXiv:1112.3712)::

        E[phi phi]   = sqrt(q11 q22) (sin theta + (pi - theta) cos theta) / (2 pi)
        E[phi' phi'] = (pi - theta) / (2 pi)

    The angle is carried so that both are accurate to rounding at every angle, the diagonal and
    near-duplicates included. Derivatives are finite everywhere; where the second has a kink
    (coincident or antipodal inputs) the derivative along it is zero.
    """

    def function(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x)

    def native_step(self, shape: tuple[int, ...]) -> Step | None:
        return TwoSlopes(0.0, 1.0)

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        return [TwoSlopes(0.0, 1.0)] if len(shape) == 1 else None

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        product = Covariance(cov.var1 / 2, cov.var2 / 2, rectified_product(cov), rectified_gap(cov))
        return product, half_plane(cov)
