"""Layer that does nothing."""

import jax

from ntk_lab.kernel import State
from ntk_lab.kernel.native_steps import Step
from ntk_lab.nn.module import Module, Params, module


@module
class Identity(Module):
    """``y = x``; kernels pass through unchanged."""

    @property
    def keeps_independence(self) -> bool:
        return True

    def presence(self, mask: jax.Array) -> jax.Array:
        return mask

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return x

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        return []

    def propagate(self, state: State) -> State:
        return state
