"""Several networks applied to the same input: their sum, product, or concatenation."""

import dataclasses
from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Features, Need, State, moments
from ntk_lab.kernel.combine import (
    concatenate_channels,
    concatenate_positions,
    product_of_independent,
    sum_of_independent,
)
from ntk_lab.nn.graph import feed
from ntk_lab.nn.module import Module, Params, module, submodules


class _Branches(Module):
    """Branches over one input; subclasses say how their outputs are combined."""

    branches: tuple[Module, ...]

    def _set_branches(self, branches: tuple[Module, ...]) -> None:
        name = type(self).__name__
        if not branches or not all(isinstance(b, Module) for b in branches):
            raise InputError(f"{name} takes modules as arguments, {name}(a, b); got {branches!r}.")
        object.__setattr__(self, "branches", branches)

    @property
    def ends_independent(self) -> bool:
        return all(b.ends_independent for b in self.branches)

    @property
    def independent(self) -> bool:
        return all(b.independent for b in self.branches)

    @property
    def takes_graphs(self) -> bool:
        return any(b.takes_graphs for b in self.branches)

    @property
    def takes_masks(self) -> bool:
        return True

    def presence(self, mask: jax.Array) -> jax.Array:
        return reduce(jnp.logical_or, self._presences(mask))

    def _presences(self, mask: jax.Array) -> list[jax.Array]:
        return [b.presence(mask).astype(bool) for b in self.branches]

    @property
    def vocabulary_size(self) -> int | None:
        return min((b.vocabulary_size for b in self.branches if b.vocabulary_size), default=None)

    def _combined_shape(self, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        if len(set(shapes)) > 1:
            raise InputError(
                f"the branches of {type(self).__name__} have outputs of shapes {shapes}, which "
                "must be equal."
            )
        return shapes[0]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._combined_shape([b.output_shape(shape) for b in self.branches])

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        return tuple(
            b.init(jax.random.fold_in(key, i), shape, dtype) for i, b in enumerate(self.branches)
        )

    def _outputs(self, params: Params, x: jax.Array) -> list[jax.Array]:
        if len(params) != len(self.branches):
            raise InputError(
                f"got parameters of {len(params)} branches for {len(self.branches)}; use those "
                "that net.init(key, shape) returns."
            )
        return [feed(b, p, x) for b, p in zip(self.branches, params, strict=True)]

    def need(self, after: Need) -> Need:
        return reduce(Need.__or__, (b.need(after) for b in self.branches))

    def _states(self, state: State) -> list[Features]:
        return [moments(b.propagate(state)) for b in self.branches]

    def _map_layers(self, change: Callable[[Any, bool], Any], readout: bool = True) -> Any:
        # Every branch has a readout of its own.
        mapped = object.__new__(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            object.__setattr__(mapped, field.name, getattr(self, field.name))
        branches = tuple(b._map_layers(change, readout) for b in self.branches)
        object.__setattr__(mapped, "branches", branches)
        return mapped

    def __repr__(self) -> str:
        parts = [repr(b) for b in self.branches]
        fields = dataclasses.fields(self)[1:]  # type: ignore[arg-type]
        parts += [f"{f.name}={getattr(self, f.name)!r}" for f in fields]
        lines = ",\n".join(parts).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {lines},\n)"


@module
class Sum(_Branches):
    """``y = a(x) + b(x) + ...`` of branches over one input.

    In the infinite-width limit covariances and NTKs of the branches add up, provided that no two
    branches are correlated: all but at most one must end in fresh weights (``Dense``, ``Conv``;
    pooling and other fixed linear layers may follow). ``Residual`` is ``Sum(Identity(), body)``.

    Raises
    ------
    InputError
        Two branches that do not end in weights of their own: ``relu(u)`` and ``erf(u)``, say, have
        products that do not average to zero, and the kernels would not add up. Or unequal shapes.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> both = ntk.nn.Sum(ntk.nn.Dense(8), ntk.nn.Dense(8, w_std=2.0))
    >>> float(both.kernel(jnp.ones((1, 3))).nngp[0, 0])
    5.0
    """

    branches: tuple[Module, ...] = submodules()

    def __init__(self, *branches: Module):
        self._set_branches(branches)
        _check_uncorrelated("Sum", branches)

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return reduce(jnp.add, self._outputs(params, x))

    def propagate(self, state: State) -> State:
        return sum_of_independent(*self._states(state))


@module
class Product(_Branches):
    """Elementwise product ``y = a(x) b(x) ...`` of branches over one input, as in gated networks.

    With independent branches ``q' = prod_i q_i`` and ``t' = sum_i t_i prod_(j != i) q_j``. The
    product of Gaussian variables is not Gaussian: a layer with weights must come before the next
    activation.

    Raises
    ------
    InputError
        Two branches without weights of their own, which are not independent; unequal shapes.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> gate = ntk.nn.Sequential(ntk.nn.Dense(8), ntk.nn.SigmoidLike())
    >>> ntk.nn.Product(gate, ntk.nn.Dense(8)).output_shape((3,))
    (8,)
    """

    branches: tuple[Module, ...] = submodules()

    def __init__(self, *branches: Module):
        self._set_branches(branches)
        dependent = [b for b in branches if not b.independent]
        if len(dependent) > 1:
            raise InputError(
                "the branches of Product must be independent in the infinite-width limit, so all "
                "but one must have a layer with weights of its own, such as ntk.nn.Dense, that "
                f"nothing skips; these have none: {dependent!r}."
            )

    @property
    def ends_independent(self) -> bool:
        # One factor with a random sign makes all products with other things average to zero.
        return all(b.independent for b in self.branches) and any(
            b.ends_independent for b in self.branches
        )

    def presence(self, mask: jax.Array) -> jax.Array:
        return reduce(jnp.logical_and, self._presences(mask))

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return reduce(jnp.multiply, self._outputs(params, x))

    def propagate(self, state: State) -> State:
        return product_of_independent(*self._states(state))


@module
class Concat(_Branches):
    """Concatenation of branches over one input.

    Parameters
    ----------
    *branches
        Networks over the same input.
    axis
        Axis of the batch arrays, ``-1`` (default) for channels or that of positions (1 is the
        first one).

    Notes
    -----
    Over channels, with ``c_i`` those of branch ``i`` (their finite widths): ``q' = sum_i c_i q_i /
    sum_i c_i``, and ``t'`` alike. Channels are then of different distributions: a layer with
    weights must come before the next activation. Over positions, covariance and NTK between
    positions of different branches are zero, so all but one must end in fresh weights, as for
    :class:`Sum`.

    Raises
    ------
    InputError
        Sizes that do not agree along other axes, the batch axis, or correlated branches.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> ntk.nn.Concat(ntk.nn.Dense(8), ntk.nn.Dense(4)).output_shape((3,))
    (12,)
    """

    branches: tuple[Module, ...] = submodules()
    axis: int = -1

    def __init__(self, *branches: Module, axis: int = -1):
        self._set_branches(branches)
        object.__setattr__(self, "axis", axis)

    def _position_axis(self, ndim: int) -> int | None:
        """Number of the spatial axis, None for channels; ``ndim`` is that of one example."""
        axis = self.axis + (ndim + 1 if self.axis < 0 else 0)
        if not 1 <= axis <= ndim:
            raise InputError(
                f"Concat got axis={self.axis} for batches of {ndim + 1} axes: it is -1 for "
                f"channels, or one from 1 to {ndim}; examples cannot be concatenated."
            )
        if axis == ndim:
            return None
        _check_uncorrelated("Concat over positions", self.branches)
        return axis - 1

    def _combined_shape(self, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        axis = self._position_axis(len(shapes[0]))
        place = len(shapes[0]) - 1 if axis is None else axis
        if len({(*s[:place], *s[place + 1 :], len(s)) for s in shapes}) > 1:
            raise InputError(
                f"the branches of Concat have outputs of shapes {shapes}, which must agree but for "
                f"axis {place} of an example."
            )
        return (*shapes[0][:place], sum(s[place] for s in shapes), *shapes[0][place + 1 :])

    def presence(self, mask: jax.Array) -> jax.Array:
        presences = self._presences(mask)
        if self._position_axis(presences[0].ndim) is None:
            return reduce(jnp.logical_or, presences)
        return jnp.concatenate(presences, axis=self.axis + (self.axis < 0))

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return jnp.concatenate(self._outputs(params, x), axis=self.axis)

    def propagate(self, state: State) -> State:
        states = self._states(state)
        axis = self._position_axis(len(states[0].layout.shape) + 1)
        if axis is None:
            return concatenate_channels(*states)
        return concatenate_positions(axis, *states)


def _check_uncorrelated(what: str, branches: tuple[Module, ...]) -> None:
    others = [b for b in branches if not b.ends_independent]
    if len(others) > 1:
        raise InputError(
            f"{what} needs branches that are uncorrelated in the infinite-width limit, so all but "
            "one must end in a layer with weights of their own, such as ntk.nn.Dense: otherwise "
            f"products of two branches do not average to zero. These do not: {others!r}."
        )
