"""Layers over inputs with absent positions: zeros go in, and come out.

What a layer does about a mask is one method, ``Module.presence(mask)``: the factors its outputs are
multiplied by, zero where they are absent. Around it, here, is all the rest: both halves of every
module are made to accept masks when the class is made, so that layers see arrays and moments.
"""

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax

from ntk_lab.errors import InputError
from ntk_lab.kernel.graph import Graph
from ntk_lab.kernel.masked import Masked as Masked
from ntk_lab.kernel.masked import check_masked, keep
from ntk_lab.kernel.rescale import weigh
from ntk_lab.kernel.state import Inputs, State

if TYPE_CHECKING:
    from ntk_lab.nn.module import Module, Params


def accept_masks(cls: type) -> None:
    """Let ``apply`` and ``propagate`` of a class of modules take inputs with masks."""
    finite, infinite = cls.apply, cls.propagate

    # A subclass has functions of its own around these.
    @functools.wraps(finite)
    def apply(self: "Module", params: "Params", x: Any) -> jax.Array:
        if not isinstance(x, Masked) or type(self) is not cls:
            return finite(self, params, x)
        x = check_masked(x, self.vocabulary_size is not None)
        y = finite(self, params, x if self.takes_masks else x.zeroed())
        return keep(y, self.presence(x.mask))

    @functools.wraps(infinite)
    def propagate(self: "Module", state: State) -> State:
        after = infinite(self, state)
        if state.masks is None or type(self) is not cls:
            return after
        return _leave_out(after, tuple(self.presence(m) for m in state.masks))

    cls.apply, cls.propagate = apply, propagate


def _leave_out(state: State, factors: tuple[jax.Array, ...]) -> State:
    """State of the outputs times factors, zero where they are absent."""
    first, second = factors
    # A vector has no positions that could be absent later on.
    masks = None if first.ndim == 1 else (first.astype(bool), second.astype(bool))
    if isinstance(state, Inputs):
        return replace(state, x1=keep(state.x1, first), x2=keep(state.x2, second), masks=masks)
    return replace(weigh(state, (first, second)), masks=masks)


def refusal(name: str) -> InputError:
    """The error of a layer of that name for inputs with absent positions."""
    return InputError(
        f"{name} does not say what becomes of absent positions of an ntk.nn.Masked input. Put it "
        "where there are no positions, as after ntk.nn.GlobalAvgPool(), or fill in the values and "
        "pass an array. (In a layer of your own, define presence(self, mask).)"
    )


def passed_on(layer: "Module", x: Any, y: jax.Array) -> Any:
    """Outputs ``y`` of a layer for a batch ``x``, with what the next layer is to know of it."""
    if isinstance(x, Masked):
        mask = layer.presence(x.mask).astype(bool)
        return y if mask.ndim == 1 else Masked(y, mask)
    return replace(x, nodes=y) if isinstance(x, Graph) else y


def mask_of(x: Any, *shape: int) -> jax.Array | None:
    """Which positions of a batch are present, ``(n, *shape)``; None if all are."""
    return x.mask.reshape(len(x), *shape) if isinstance(x, Masked) else None
