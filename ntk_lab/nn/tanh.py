"""Hyperbolic tangent."""

import jax.numpy as jnp

from ntk_lab.nn.expanded import Expanded
from ntk_lab.nn.module import module


@module
class Tanh(Expanded):
    """``tanh(x)``.

    Its dual is found by Hermite expansion (see :class:`ntk_lab.nn.expanded.Expanded`): within
    1e-13 of ``sqrt(k11 k22)`` in float64 and 1e-6 in float32 at every correlation for
    pre-activation variances of up to 10; 1e-8 in float64 up to 25. Refused, beyond, are at first
    the strongly correlated pairs.
    """

    @property
    def elementwise(self):
        return jnp.tanh
