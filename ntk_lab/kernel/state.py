"""What is known of a network's infinite-width limit between two of its layers.

A layer's kernel rule maps one of these states to another. There are three kinds, and which
layers may follow is decided by the kind, not by flags:

``Inputs``
    the data themselves, before any layer has needed more than a reshape;
``Features``
    second moments of a process that need not be Gaussian (after an activation, or of data);
``Gaussian``
    second moments of a centred Gaussian process (after a layer with fresh weights): the only
    kind to which an activation's dual applies.

The last two hold a covariance object, whose type says over which axes it runs. So far there is
one: ``Covariance``, for a single position. Spatial layouts are further types beside it.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel.covariance import Covariance
from ntk_lab.kernel.gram import gram


@dataclass(frozen=True)
class Inputs:
    """Two batches of data, ``x1`` of shape ``(n1, *shape)`` and ``x2`` of ``(n2, *shape)``.

    The first ``overlap`` rows of ``x2`` are the first ``overlap`` rows of ``x1``: the same
    examples, whose kernel entries are exact diagonal entries.
    """

    x1: jax.Array
    x2: jax.Array
    overlap: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.x1.shape[1:]

    def reshape(self, *shape: int) -> "Inputs":
        """The same examples in another shape."""
        return replace(
            self,
            x1=self.x1.reshape(len(self.x1), *shape),
            x2=self.x2.reshape(len(self.x2), *shape),
        )


@dataclass(frozen=True)
class Features:
    """Second moments per channel, and the NTK of what came before.

    ``channels`` is the number of channels that the finite network has here: infinite-width
    rules of parameterizations that do not divide by the fan-in need it.
    """

    cov: Covariance
    ntk: jax.Array
    channels: int


@dataclass(frozen=True)
class Gaussian:
    """Like :class:`Features`, of a centred Gaussian process."""

    cov: Covariance
    ntk: jax.Array
    channels: int


State = Inputs | Features | Gaussian


def moments(state: State) -> Features | Gaussian:
    """Second moments of a state; of data, ``<x, x'> / channels`` with a zero NTK."""
    if not isinstance(state, Inputs):
        return state
    if len(state.shape) != 1:
        raise InputError(
            f"this layer needs vectors, but one example has shape {state.shape}: the covariance "
            "between positions is not carried. Put ntk.nn.Flatten() before it."
        )
    cov = gram(state.x1, state.x2, state.overlap)
    return Features(cov, jnp.zeros_like(cov.cov), state.shape[0])
