"""What evaluating a network's infinite-width kernels returns."""

from typing import NamedTuple

import jax


class Kernel(NamedTuple):
    """The two infinite-width kernels of one architecture on the same pairs of inputs.

    Attributes
    ----------
    nngp
        Covariance of the outputs over random parameters, ``K(x, x') = E[f(x) f(x')]`` per
        output channel, shape ``(n1, n2)`` (arXiv:1711.00165).
    ntk
        Neural tangent kernel ``Theta(x, x') = E[<df(x)/dtheta, df(x')/dtheta>]`` per output
        channel, shape ``(n1, n2)`` (arXiv:1806.07572).

    Output channels are independent and identical, so one ``(n1, n2)`` block describes all of
    them.
    """

    nngp: jax.Array
    ntk: jax.Array
