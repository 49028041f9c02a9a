"""Any fixed linear map of the positions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel import Need, State, moments
from ntk_lab.kernel.blocks import along_positions
from ntk_lab.nn.module import Module, Params, module

Numbers = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]


@module
class DotGeneral(Module):
    """``jax.lax.dot_general`` of the input with a constant array that is not trained.

    Parameters
    ----------
    rhs, lhs
        The constant as right-hand or left-hand side, one of them: nested sequences or an array,
        kept as nested tuples. A number multiplies the input.
    dimension_numbers
        As for ``jax.lax.dot_general``, ``((lhs_contracting, rhs_contracting), (lhs_batch,
        rhs_batch))``; axes of the input are those of the batch array. Examples (axis 0) and
        channels (the last axis) cannot be contracted.

    Notes
    -----
    In the output examples are moved to the front and channels to the end; other axes are in the
    order of ``jax.lax.dot_general``. With ``A`` the map of the positions, ``q' = A q A^T`` and
    ``t' = A t A^T``; for each pair of examples with ``p`` positions ``O(p^3)`` operations.

    Raises
    ------
    InputError
        Both or none of ``rhs`` and ``lhs``, or dimension numbers that do not fit.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> difference = ntk.nn.DotGeneral(rhs=(1.0, -1.0), dimension_numbers=(((1,), (0,)), ((), ())))
    >>> difference.output_shape((2, 32, 3))
    (32, 3)
    """

    rhs: Any = None
    lhs: Any = None
    dimension_numbers: Numbers = (((), ()), ((), ()))

    def __post_init__(self):
        if (self.rhs is None) == (self.lhs is None):
            raise InputError("DotGeneral takes one constant array, as rhs=... or as lhs=....")
        for side in ("rhs", "lhs"):
            if getattr(self, side) is not None:
                values = np.asarray(getattr(self, side), np.float64)
                object.__setattr__(self, side, _as_tuples(values.tolist()))
        object.__setattr__(self, "dimension_numbers", _as_tuples(self.dimension_numbers))

    @property
    def keeps_independence(self) -> bool:
        return True

    def _constant(self, dtype: Any) -> jax.Array:
        return jnp.asarray(self.lhs if self.rhs is None else self.rhs, dtype)

    def _dot(self, x: jax.Array) -> jax.Array:
        """The product with examples first and channels last."""
        constant, reverse = self._constant(x.dtype), self.rhs is None
        contracting, batch = (both[reverse] for both in self.dimension_numbers)
        if {axis % x.ndim for axis in (*contracting, *batch)} & {0, x.ndim - 1}:
            raise InputError(
                f"DotGeneral got dimension_numbers={self.dimension_numbers}, which use the axis of "
                f"examples or of channels of inputs of shape {x.shape}; only spatial axes can be."
            )
        sides = (constant, x) if reverse else (x, constant)
        try:
            y = jax.lax.dot_general(
                *sides, self.dimension_numbers, precision=jax.lax.Precision.HIGHEST
            )
        except (TypeError, ValueError) as error:
            raise InputError(
                f"DotGeneral cannot multiply inputs of shape {x.shape} and a constant of shape "
                f"{constant.shape} along {self.dimension_numbers}: {error}"
            ) from error
        # Axes of the result: shared ones, then the rest of the left, then of the right side.
        rest = x.ndim - len(contracting) - len(batch)
        first = y.ndim - rest if reverse else len(batch)
        return jnp.moveaxis(y, (first, first + rest - 1), (0, -1))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        dtype = jnp.result_type(float)
        return jax.eval_shape(self._dot, jax.ShapeDtypeStruct((1, *shape), dtype)).shape[1:]

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return self._dot(x)

    def need(self, after: Need) -> Need:
        return after if self._is_number() else after.for_mixing()

    def _is_number(self) -> bool:
        return isinstance(self.lhs if self.rhs is None else self.rhs, float)

    def propagate(self, state: State) -> State:
        state = moments(state)
        if self._is_number():
            square = (self.lhs if self.rhs is None else self.rhs) ** 2
            return state.mapped(lambda k: k.scale(square), square * state.ntk)
        sizes = state.layout.shape
        count = math.prod(sizes)
        # Images of all positions, each as an example of its own with one channel.
        basis = jnp.eye(count, dtype=state.ntk.dtype).reshape(count, *sizes, 1)
        images = self._dot(basis)
        return along_positions(state, images.reshape(count, -1).T, images.shape[1:-1])


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list | tuple) else value
