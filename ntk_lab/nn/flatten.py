"""All axes of one example into one."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Inputs, Need, State
from ntk_lab.kernel.layout import Carry
from ntk_lab.kernel.native_steps import Flat, Step
from ntk_lab.kernel.positions import flatten
from ntk_lab.nn.module import Module, Params, module


@module
class Flatten(Module):
    """Reshape each example to a vector; the covariance becomes its mean over positions."""

    @property
    def keeps_independence(self) -> bool:
        return True

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(shape),)

    def presence(self, mask: jax.Array) -> jax.Array:
        return jnp.ones(len(mask), bool)

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1)

    def need(self, after: Need) -> Need:
        return replace(after, carry=Carry.DIAGONAL)

    def native_step(self, shape: tuple[int, ...]) -> Step | None:
        return Flat() if 2 <= len(shape) <= 3 else None

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        # Vectors come from data alone here: the caller has reshaped them.
        return []

    def propagate(self, state: State) -> State:
        if isinstance(state, Inputs):
            return state.reshape(math.prod(state.shape))
        return flatten(state)
