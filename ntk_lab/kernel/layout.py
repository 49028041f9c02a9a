"""Over which positions of two examples a covariance runs.

=============  ======================  ====================================================
layout         shape of ``cov``        variances ``var1``, ``var2``
=============  ======================  ====================================================
``Vector``     ``(n1, n2)``            ``(n1, 1)``, ``(1, n2)``
``Diagonal``   ``(*S, n1, n2)``        ``(*S, n1, 1)``, ``(*S, 1, n2)``
``Full``       ``(*S, *S, pairs)``     ``(*S, *ones, pairs)``, ``(*ones, *S, pairs)``
=============  ======================  ====================================================

``S`` are the spatial sizes. Examples come last, so that shifts between positions move whole
contiguous rows. ``Diagonal`` pairs each position with itself; ``Full`` pairs every two positions,
for a flat list of pairs of examples. Which of them a network needs is found by walking its layers
backwards (:class:`Need`): only what mixes positions, such as pooling, needs more than ``Diagonal``.
"""

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.kernel.covariance import Covariance


class Carry(enum.IntEnum):
    """How much of the covariance between positions has to be carried."""

    DIAGONAL = 0
    FULL = 1
    # Also of each example with itself: variances after pooling need it.
    OWN = 2


@dataclass(frozen=True)
class Need:
    """What the layers that follow need: which covariances, and whether variances are used.

    ``ragged``: positions of the inputs may be absent, in each example others.
    """

    carry: Carry
    variances: bool
    ragged: bool = False

    def __or__(self, other: "Need") -> "Need":
        carry, variances = max(self.carry, other.carry), self.variances or other.variances
        return replace(self, carry=carry, variances=variances)

    def for_activation(self) -> "Need":
        """Before a layer that uses variances."""
        return replace(self, variances=True)

    def for_mixing(self) -> "Need":
        """Before a layer that mixes positions."""
        return replace(self, carry=Carry.OWN if self.variances else max(self.carry, Carry.FULL))


@dataclass(frozen=True)
class Pairs:
    """A list of pairs of examples: all of a rectangle, or the upper triangle of a square.

    Distinct examples are numbered: those of ``x1`` first, then those of ``x2`` unless it is ``x1``.
    """

    n1: int
    n2: int
    symmetric: bool

    @property
    def examples(self) -> int:
        """Number of distinct examples."""
        return self.n1 if self.symmetric else self.n1 + self.n2

    @property
    def rows(self) -> np.ndarray:
        """Row of each pair in the kernel matrix."""
        return (
            np.triu_indices(self.n1)[0]
            if self.symmetric
            else np.indices((self.n1, self.n2))[0].ravel()
        )

    @property
    def columns(self) -> np.ndarray:
        """Column of each pair in the kernel matrix."""
        return (
            np.triu_indices(self.n1)[1]
            if self.symmetric
            else np.indices((self.n1, self.n2))[1].ravel()
        )

    @property
    def first(self) -> np.ndarray:
        """Number of the first example of each pair."""
        return self.rows

    @property
    def second(self) -> np.ndarray:
        """Number of the second example of each pair."""
        return self.columns if self.symmetric else self.n1 + self.columns

    def matrix(self, values: jax.Array) -> jax.Array:
        """Values of the pairs, on the last axis, as a matrix: ``(..., n1, n2)``.

        For a symmetric list the entries below the diagonal repeat those above; between positions
        they have to be transposed by the caller.
        """
        if not self.symmetric:
            return values.reshape(*values.shape[:-1], self.n1, self.n2)
        place = np.zeros((self.n1, self.n1), np.int32)
        place[self.first, self.second] = np.arange(len(self.first))
        place = np.maximum(place, place.T)
        return values[..., place]


@dataclass(frozen=True)
class Vector:
    """No positions."""

    shape: tuple[int, ...] = ()

    def mapped(self, rule: Callable[[Covariance], Covariance]) -> "Vector":
        """The same layout."""
        return self


@dataclass(frozen=True)
class Diagonal:
    """Each position with itself."""

    shape: tuple[int, ...]

    def mapped(self, rule: Callable[[Covariance], Covariance]) -> "Diagonal":
        """The same layout."""
        return self


@dataclass(frozen=True)
class Full:
    """Every two positions, for a list of pairs of examples.

    ``own`` is the covariance of each distinct example with itself, ``(*S, *S, examples)``.
    """

    shape: tuple[int, ...]
    pairs: Pairs
    own: Covariance | None = None

    def mapped(self, rule: Callable[[Covariance], Covariance]) -> "Full":
        """The layout after a rule for covariances, which applies to ``own`` as well."""
        return self if self.own is None else replace(self, own=rule(self.own))

    @property
    def axes1(self) -> tuple[int, ...]:
        """Axes of the first position."""
        return tuple(range(len(self.shape)))

    @property
    def axes2(self) -> tuple[int, ...]:
        """Axes of the second position."""
        return tuple(range(len(self.shape), 2 * len(self.shape)))


Layout = Vector | Diagonal | Full


def diagonal_of(values: jax.Array, ndim: int) -> jax.Array:
    """Entries at equal positions of ``(*S, *S, k)``, shape ``(*S, k)``."""
    shape, size = values.shape[:ndim], math.prod(values.shape[:ndim])
    flat = values.reshape(size * size, -1)[:: size + 1]
    return flat.reshape(*shape, values.shape[-1])


def spread1(values: jax.Array, ndim: int) -> jax.Array:
    """Values at positions, ``(*S, k)``, as those of the first position of a pair."""
    return values.reshape(*values.shape[:ndim], *(1,) * ndim, values.shape[-1])


def spread2(values: jax.Array, ndim: int) -> jax.Array:
    """Values at positions, ``(*S, k)``, as those of the second position of a pair."""
    return values.reshape(*(1,) * ndim, *values.shape[:ndim], values.shape[-1])


def same_position(shape: tuple[int, ...], like: jax.Array) -> jax.Array:
    """Ones where both positions are equal and zeros elsewhere, ``(*S, *S, 1)``."""
    size = math.prod(shape)
    return jnp.eye(size, dtype=like.dtype).reshape(*shape, *shape, 1)
