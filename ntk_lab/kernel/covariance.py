"""Covariances between two batches, with the angle between any two inputs kept to full precision.

The kernels of kinked activations depend on the angle between inputs, which ``arccos`` of a
correlation near one loses half of the digits of. Beside each covariance ``k12`` travels therefore
the *gap* ``sqrt(k11 k22) - |k12|``, updated by rules without cancellation. It is how far two
inputs are from being colinear, is exactly zero on a diagonal, and carries no derivative:
gradients flow through ``k11, k22, k12`` alone, by the rules in ``ntk_lab.kernel.arccosine``.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

# Units of rounding by which two variances that are equal may differ.
_ROUNDING = 8


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Covariance:
    """Covariance of one process at two batches of inputs.

    Attributes
    ----------
    cov
        ``k(x1, x2)``: of shape ``(n1, n2)`` for vectors; see ``ntk_lab.kernel.layout`` for the
        shapes with positions.
    var1, var2
        Variances ``k(x1, x1)`` and ``k(x2, x2)``, of shapes that broadcast to that of ``cov``:
        ``(n1, 1)`` and ``(1, n2)`` for vectors.
    gap
        ``sqrt(var1 var2) - |cov| >= 0``, of the shape of ``cov``; never differentiated.
    """

    var1: jax.Array
    var2: jax.Array
    cov: jax.Array
    gap: jax.Array

    @property
    def coincident(self) -> jax.Array:
        """Mask of the pairs whose two values are always equal, as on a diagonal.

        Both variances of a diagonal entry are computed alike, but compiled code may round them
        differently.
        """
        close = _ROUNDING * jnp.finfo(self.cov.dtype).eps * self.var1
        return (self.gap == 0) & (jnp.abs(self.var1 - self.var2) <= close) & (self.cov >= 0)

    def after_smooth_rule(self, var1: jax.Array, var2: jax.Array, cov: jax.Array) -> "Covariance":
        """Covariance after a smooth elementwise function, from its new variances and covariances.

        The gap is formed by subtraction. Where two inputs coincide, the covariance is made the
        variance and the gap zero: they may differ by rounding, of which a kinked function that
        follows would take the square root.
        """
        same = self.coincident
        cov = cov + jax.lax.stop_gradient(jnp.where(same, var1 - cov, 0))
        gap = jax.lax.stop_gradient(jnp.maximum(_norm(var1, var2) - jnp.abs(cov), 0))
        return Covariance(var1, var2, cov, jnp.where(same, 0, gap))

    @classmethod
    def from_distance(cls, var1, var2, distance, weight) -> "Covariance":
        """Covariance from ``E[(sqrt(w) f(x1) - f(x2) / sqrt(w))^2] / 2``, ``w`` being ``weight``.

        Unlike the gap, this distance is linear in the process, so that filters act on it as they
        do on covariances; and unlike a covariance it says how near two inputs are.
        """
        constant = jax.lax.stop_gradient
        middle = (weight * var1 + var2 / weight) / 2
        cov = middle - distance
        root1, root2 = (jnp.sqrt(constant(v)) for v in (weight * var1, var2 / weight))
        apart = (root1 - root2) ** 2 / 2
        near, far = constant(distance) - apart, (root1 + root2) ** 2 / 2 - constant(distance)
        gap = jnp.where(constant(cov) >= 0, near, far)
        return cls(var1, var2, cov, _without_rounding(gap, root1 * root2))

    def distance(self, weight) -> jax.Array:
        """What :meth:`from_distance` reads, without cancellation; differentiable."""
        return _distance(self.var1, self.var2, self.cov, self.gap, weight)

    @property
    def norm(self) -> jax.Array:
        """``sqrt(var1 var2)``; not differentiated."""
        return _norm(jax.lax.stop_gradient(self.var1), jax.lax.stop_gradient(self.var2))

    @property
    def determinant(self) -> jax.Array:
        """``var1 var2 - cov^2 >= 0``: the value from the gap, differentiable.

        Its derivative is that of the formula, by adding and removing the naive value.
        """
        value = self.gap * (2 * self.norm - self.gap)
        naive = self.var1 * self.var2 - self.cov**2
        return value + (naive - jax.lax.stop_gradient(naive))

    def scale(self, factor) -> "Covariance":
        """Covariance of the process times ``sqrt(factor)``."""
        gap = self.gap * jax.lax.stop_gradient(factor)
        return Covariance(self.var1 * factor, self.var2 * factor, self.cov * factor, gap)

    def add_constant(self, variance) -> "Covariance":
        """Add an independent random constant (a bias): the same variance everywhere."""
        ones = Covariance(
            jnp.full_like(self.var1, variance),
            jnp.full_like(self.var2, variance),
            jnp.full_like(self.cov, variance),
            jnp.zeros_like(self.gap),
        )
        return self.add(ones)

    def add(self, other: "Covariance") -> "Covariance":
        """Covariance of the sum of two independent processes."""
        cov = self.cov + other.cov
        gap = jax.lax.stop_gradient(_gap_of_sum(self, other, cov))
        return Covariance(self.var1 + other.var1, self.var2 + other.var2, cov, gap)


def balance(var1: jax.Array, var2: jax.Array, pair_axes: int) -> jax.Array:
    """Weight that makes two batches of variances equally large on average, for distances.

    One number for each pair of examples, whose axes are the last ``pair_axes``: a weight that
    varied with position would not pass through a filter.
    """
    var1, var2 = jax.lax.stop_gradient((var1, var2))
    axes = tuple(range(var1.ndim - pair_axes))
    mean1, mean2 = (jnp.mean(v, axis=axes, keepdims=True) for v in (var1, var2))
    usable = (mean1 > 0) & (mean2 > 0)
    return jnp.where(usable, jnp.sqrt(mean2) / jnp.sqrt(jnp.where(mean1 > 0, mean1, 1)), 1)


@jax.custom_jvp
def _distance(var1, var2, cov, gap, weight):
    root1, root2 = jnp.sqrt(weight * var1), jnp.sqrt(var2 / weight)
    near = gap + (root1 - root2) ** 2 / 2
    return jnp.where(cov >= 0, near, (weight * var1 + var2 / weight) / 2 - cov)


@_distance.defjvp
def _distance_jvp(primals, tangents):
    weight = primals[4]
    dvar1, dvar2, dcov, _, _ = tangents
    return _distance(*primals), (weight * dvar1 + dvar2 / weight) / 2 - dcov


def _norm(var1: jax.Array, var2: jax.Array) -> jax.Array:
    return jnp.sqrt(var1) * jnp.sqrt(var2)


def _gap_of_sum(a: Covariance, b: Covariance, cov: jax.Array) -> jax.Array:
    """``sqrt((a11+b11)(a22+b22)) - |a12+b12|`` without subtracting nearly equal numbers.

    With ``r = sqrt(a11 a22)`` and ``s = sqrt(b11 b22)``, the norm of the sum exceeds ``r + s`` by
    ``(sqrt(a11 b22) - sqrt(a22 b11))^2 / (norm + r + s)``, and both ``norm - cov`` and
    ``norm + cov`` are this excess plus the same quantity of the two terms.
    """
    root1, root2 = jnp.sqrt(a.var1), jnp.sqrt(a.var2)
    other1, other2 = jnp.sqrt(b.var1), jnp.sqrt(b.var2)
    norm_a, norm_b = root1 * root2, other1 * other2
    norm = _norm(a.var1 + b.var1, a.var2 + b.var2)
    total = norm + norm_a + norm_b
    # root1 other2 - root2 other1, written so that fused multiply-adds leave it zero on a diagonal.
    cross = root1 * (other2 - other1) + other1 * (root1 - root2)
    excess = cross**2 / jnp.where(total > 0, total, 1)
    minus = _below(a, norm_a) + _below(b, norm_b)
    plus = _above(a, norm_a) + _above(b, norm_b)
    return _without_rounding(excess + jnp.where(cov >= 0, minus, plus), norm)


def _without_rounding(gap: jax.Array, norm: jax.Array) -> jax.Array:
    """The gap, exactly zero where it comes from variances that differ by rounding.

    On a diagonal nothing may remain: derivatives of the angle divide by the root of the gap. And
    where an input is zero: a normalization would divide what remains by the root of its epsilon.
    """
    tiny = (_ROUNDING * jnp.finfo(gap.dtype).eps) ** 2 * norm
    return jnp.where(gap > tiny, jnp.minimum(gap, norm), 0)


def _below(k: Covariance, norm: jax.Array) -> jax.Array:
    """``norm - cov``."""
    return jnp.where(k.cov >= 0, k.gap, norm - k.cov)


def _above(k: Covariance, norm: jax.Array) -> jax.Array:
    """``norm + cov``."""
    return jnp.where(k.cov >= 0, norm + k.cov, k.gap)
