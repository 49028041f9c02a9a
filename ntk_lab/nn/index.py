"""Selecting positions."""

from typing import Any

import jax

from ntk_lab.errors import InputError
from ntk_lab.kernel import Inputs, State, moments
from ntk_lab.kernel.blocks import drop_axes
from ntk_lab.kernel.layout import Carry
from ntk_lab.kernel.positions import flatten, select
from ntk_lab.nn.module import Module, Params, module

# A slice as what JSON and hashing know: (start, stop, step).
Triple = tuple[int | None, int | None, int | None]


@module
class Index(Module):
    """Some of the positions, ``y = x[:, *idx, :]``.

    Parameters
    ----------
    idx
        One slice or integer, or a tuple of them, one for each spatial axis from the first; axes
        without one are kept. An integer removes its axis: ``Index(-1)`` reads the last position
        of a sequence. Slices may be given as triples ``(start, stop, step)``.

    Raises
    ------
    InputError
        More indices than spatial axes (the batch and the channels cannot be indexed: in the
        infinite-width limit channels are all alike), positions out of range, or none left.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> ntk.nn.Index((slice(1, 3), -1)).output_shape((5, 6, 2))
    (2, 2)
    """

    idx: Any

    def __post_init__(self):
        idx = self.idx if isinstance(self.idx, tuple) else (self.idx,)
        object.__setattr__(self, "idx", tuple(_canonical(i) for i in idx))

    @property
    def keeps_independence(self) -> bool:
        return True

    def _slices(self, sizes: tuple[int, ...]) -> list[slice]:
        if len(self.idx) > len(sizes):
            raise InputError(
                f"Index has {len(self.idx)} indices for {len(sizes)} spatial axes; give at most "
                "one for each of them, and none for the batch and the channels."
            )
        rest = ((None, None, None),) * (len(sizes) - len(self.idx))
        return [_as_slice(i, n) for i, n in zip((*self.idx, *rest), sizes, strict=True)]

    def _dropped(self) -> tuple[int, ...]:
        """Spatial axes that are removed."""
        return tuple(axis for axis, i in enumerate(self.idx) if isinstance(i, int))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = shape[:-1]
        kept = [len(range(*s.indices(n))) for s, n in zip(self._slices(sizes), sizes, strict=True)]
        if 0 in kept:
            raise InputError(f"Index({self.idx}) leaves nothing of examples of shape {shape}.")
        dropped = self._dropped()
        return (*(n for axis, n in enumerate(kept) if axis not in dropped), shape[-1])

    def presence(self, mask: jax.Array) -> jax.Array:
        return self.apply((), mask[..., None])[..., 0]

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        self.output_shape(x.shape[1:])
        y = x[(slice(None), *self._slices(x.shape[1:-1]))]
        return y.squeeze(tuple(axis + 1 for axis in self._dropped()))

    def propagate(self, state: State) -> State:
        if isinstance(state, Inputs):
            x1, x2 = (self.apply((), x) for x in (state.x1, state.x2))
            carry = state.carry if x1.ndim > 2 else Carry.DIAGONAL
            return Inputs(x1, x2, state.overlap, carry, state.same, state.patterns)
        state = moments(state)
        sizes, dropped = state.layout.shape, self._dropped()
        state = select(state, self._slices(sizes))
        return flatten(state) if len(dropped) == len(sizes) else drop_axes(state, dropped)


def _canonical(i: int | slice | Triple) -> int | Triple:
    if isinstance(i, slice):
        i = (i.start, i.stop, i.step)
    triple = isinstance(i, tuple) and len(i) == 3 and all(_is_int(v) or v is None for v in i)
    if not triple and not _is_int(i):
        raise InputError(f"Index takes slices and integers, such as slice(1, 3) or -1; got {i!r}.")
    if isinstance(i, tuple) and i[2] == 0:
        raise InputError("Index got a slice whose step is zero.")
    return i


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_slice(i: int | Triple, size: int) -> slice:
    if isinstance(i, tuple):
        return slice(*i)
    if not -size <= i < size:
        raise InputError(f"Index got position {i} of an axis of size {size}.")
    return slice(i % size, i % size + 1)
