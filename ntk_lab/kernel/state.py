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

The last two hold a covariance and its layout, which says over which positions it runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel.covariance import Covariance
from ntk_lab.kernel.gram import diagonal_gram, full_gram, gram, own_gram
from ntk_lab.kernel.graph import Graph
from ntk_lab.kernel.layout import Carry, Diagonal, Full, Layout, Pairs, Vector
from ntk_lab.kernel.masked import Masked

_VECTOR = Vector()


@dataclass(frozen=True)
class Inputs:
    """Two batches of data, ``x1`` of shape ``(n1, *shape)`` and ``x2`` of ``(n2, *shape)``.

    The first ``overlap`` rows of ``x2`` are the first ``overlap`` rows of ``x1``: the same
    examples, whose kernel entries are exact diagonal entries. ``same`` says so entry by entry,
    ``(n1, n2)``, where it is not known before the program runs. ``carry`` is what later layers
    need of the covariance between positions. ``patterns`` are the edges of graphs, one array for
    each batch (see :class:`ntk_lab.nn.Graph`), ``masks`` which positions are present, ``(n, *S)``
    for each (see :class:`ntk_lab.nn.Masked`); at the others, the data are zero.
    """

    x1: jax.Array
    x2: jax.Array
    overlap: int = 0
    carry: Carry = Carry.DIAGONAL
    same: jax.Array | None = None
    patterns: tuple[jax.Array, jax.Array] | None = None
    masks: tuple[jax.Array, jax.Array] | None = None

    @classmethod
    def of(cls, x1: Any, x2: Any, **fields: Any) -> "Inputs":
        """Two batches of arrays, of graphs, or with masks."""
        if isinstance(x1, Masked):
            return cls(x1.zeroed(), x2.zeroed(), masks=(x1.mask, x2.mask), **fields)
        if isinstance(x1, Graph):
            return cls(x1.nodes, x2.nodes, patterns=(x1.pattern, x2.pattern), **fields)
        return cls(x1, x2, **fields)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.x1.shape[1:]

    @property
    def pairs(self) -> Pairs:
        """The pairs of examples that are to be computed."""
        n1, n2 = len(self.x1), len(self.x2)
        return Pairs(n1, n2, symmetric=self.overlap == n1 == n2)

    def identical(self) -> jax.Array:
        """Whether the two examples of each pair are one and the same, ``(n1, n2)``."""
        if self.same is not None:
            return self.same
        i, j = np.arange(len(self.x1))[:, None], np.arange(len(self.x2))[None, :]
        return jnp.asarray((i == j) & (i < self.overlap))

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
    rules of parameterizations that do not divide by the fan-in need it. ``ntk`` has the shape of
    ``cov.cov``. ``same`` says which pairs are an example and itself: ``(n1, n2)``, or ``(pairs,)``
    in a full layout. ``patterns`` and ``masks`` are those of :class:`Inputs`; where a position is
    absent, all moments are zero.
    """

    cov: Covariance
    ntk: jax.Array
    channels: int
    layout: Layout = _VECTOR
    same: jax.Array | None = None
    patterns: tuple[jax.Array, jax.Array] | None = None
    masks: tuple[jax.Array, jax.Array] | None = None

    def mapped(self, rule: Callable[[Covariance], Covariance], ntk: jax.Array) -> Self:
        """The same kind of state with ``rule`` applied to its covariances, and another NTK."""
        return replace(self, cov=rule(self.cov), ntk=ntk, layout=self.layout.mapped(rule))

    def features(self) -> "Features":
        """The same moments, of a process that need not be Gaussian."""
        return Features(self.cov, self.ntk, self.channels, *self.places())

    def gaussian(self, channels: int) -> "Gaussian":
        """The same moments, of a Gaussian process with this number of channels."""
        return Gaussian(self.cov, self.ntk, channels, *self.places())

    def places(self) -> tuple:
        """All that is not a moment: the fields that follow ``channels``."""
        return self.layout, self.same, self.patterns, self.masks


@dataclass(frozen=True)
class Gaussian(Features):
    """Like :class:`Features`, of a centred Gaussian process."""


@dataclass(frozen=True)
class Mixture(Features):
    """Like :class:`Features`, averaged over channels that are of different distributions."""


State = Inputs | Features


def moments(state: State) -> Features:
    """Second moments of a state; of data, ``<x, x'> / channels`` with a zero NTK."""
    if not isinstance(state, Inputs):
        return state
    *spatial, channels = state.shape
    layout: Layout
    same = state.identical()
    if not jnp.issubdtype(state.x1.dtype, jnp.floating):
        raise InputError(
            f"inputs of dtype {state.x1.dtype} are tokens; they need ntk.nn.Embedding(...) as the "
            "first layer."
        )
    if not spatial:
        cov, layout = gram(state.x1, state.x2, state.overlap), Vector()
    elif state.carry == Carry.DIAGONAL:
        cov, layout = diagonal_gram(state.x1, state.x2), Diagonal(tuple(spatial))
    else:
        cov = full_gram(state.x1, state.x2, state.pairs)
        own = own_gram(state.x1, state.x2, state.pairs) if state.carry == Carry.OWN else None
        layout = Full(tuple(spatial), state.pairs, own)
        same = same[state.pairs.rows, state.pairs.columns]
    return Features(
        cov, jnp.zeros_like(cov.cov), channels, layout, same, state.patterns, state.masks
    )
