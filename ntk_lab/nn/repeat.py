"""The same block many times, as one loop."""

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Features, Need, State, moments
from ntk_lab.kernel.layout import Full
from ntk_lab.kernel.native_steps import Step
from ntk_lab.nn.graph import feed, nodes
from ntk_lab.nn.masked import passed_on
from ntk_lab.nn.module import Module, Params, module, submodules


@module
class Repeat(Module):
    """``times`` copies of a block one after the other, with weights of their own.

    Equal to ``Sequential(body, ..., body)``, but traced and compiled once: both halves are one loop
    (``jax.lax.scan``), so that compilation does not grow with depth.

    Parameters
    ----------
    body
        The block. It must keep the shape of an example.
    times
        Number of copies, at least one.

    Notes
    -----
    Parameters are those of the body with a leading axis of size ``times``. On CPUs compiled loops
    run convolutions of the finite half on fewer cores; the kernel half has none.

    In the kernel half the state after the body must be like the one before it. Data before any
    layer are not like what comes after one; for these the first copy is computed by itself.

    Raises
    ------
    InputError
        A body that changes the shape of an example, or the kind of process: a body that ends in
        an activation, say, and starts with another.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> block = ntk.nn.Sequential(ntk.nn.Relu(), ntk.nn.Dense(64, w_std=2**0.5))
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Repeat(block, 50), ntk.nn.Dense(1))
    >>> net.kernel(jnp.eye(3)).ntk.shape
    (3, 3)
    """

    body: Module = submodules()
    times: int = 1

    def __post_init__(self):
        times = operator.index(self.times)
        if times < 1:
            raise InputError(f"Repeat got times={times}; it must be at least 1.")
        object.__setattr__(self, "times", times)

    @property
    def ends_independent(self) -> bool:
        return self.body.ends_independent

    @property
    def keeps_independence(self) -> bool:
        return self.body.keeps_independence

    @property
    def independent(self) -> bool:
        return self.body.independent

    @property
    def takes_graphs(self) -> bool:
        return self.body.takes_graphs

    @property
    def takes_masks(self) -> bool:
        return True

    def presence(self, mask: jax.Array) -> jax.Array:
        def step(_: Any, mask: jax.Array) -> jax.Array:
            return self.body.presence(mask).astype(bool)

        return jax.lax.fori_loop(0, self.times, step, mask)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        after = self.body.output_shape(shape)
        if after != shape:
            raise InputError(
                f"the body of Repeat turns examples of shape {shape} into {after}; to be repeated "
                "it must keep the shape. Give its last layer the width of the input, and put a "
                "layer such as ntk.nn.Dense(width) in front of Repeat."
            )
        return shape

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        keys = jax.random.split(key, self.times)
        return jax.vmap(lambda key: self.body.init(key, shape, dtype))(keys)

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        def step(x: Any, p: Params) -> tuple[Any, None]:
            return passed_on(self.body, x, feed(self.body, p, x)), None

        return nodes(jax.lax.scan(step, x, params, length=self.times)[0])

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        body = self.body.vector_steps(shape) if len(shape) == 1 else None
        return None if body is None else body * self.times

    def need(self, after: Need) -> Need:
        # What any of the copies needs all have to be given: the loop carries one kind of state.
        before = after | self.body.need(after)
        while before != after:
            after, before = before, before | self.body.need(before)
        return before

    def propagate(self, state: State) -> State:
        after = propagate_copies([self.body] * self.times, state)
        if after is None:
            before = moments(self.body.propagate(state))
            raise InputError(
                "the body of Repeat gives a state of another kind or shape than it is given, also "
                "after its first copy, so it cannot be a loop: "
                f"{_describe(before)} becomes {_describe(_after(self.body, before))}. Write the "
                "copies out in ntk.nn.Sequential instead."
            )
        return after


def propagate_copies(copies: Sequence[Module], state: State) -> State | None:
    """State after blocks that differ in numbers only, as one loop; None where that cannot be.

    The state after a block must be like the one before it, but for the first block.
    """
    if not isinstance(state, Features) or not _keeps(copies[0], state):
        state, copies = moments(copies[0].propagate(state)), copies[1:]
    if not copies:
        return state
    if not _keeps(copies[0], state):
        return None
    leaves, treedef = zip(*((tuple(n), d) for n, d in map(jax.tree.flatten, copies)), strict=True)
    if all(isinstance(n, int | float) for row in leaves for n in row) and len(set(leaves)) == 1:
        # As Python's numbers, scales are combined in double precision before they are rounded.
        numbers, body = None, lambda _: copies[0]
    else:
        columns = zip(*leaves, strict=True)
        numbers = [jnp.stack([jnp.asarray(n, state.ntk.dtype) for n in c]) for c in columns]
        body = treedef[0].unflatten

    def step(arrays: Any, numbers: Any) -> tuple[Any, None]:
        return _arrays(moments(body(numbers).propagate(_with_arrays(state, arrays)))), None

    arrays, _ = jax.lax.scan(step, _arrays(state), numbers, length=len(copies))
    return _with_arrays(state, arrays)


def _after(body: Module, state: Features) -> Features:
    """State after the body, of shapes without values."""
    found = []

    def record(arrays: Any) -> Any:
        found.append(moments(body.propagate(_with_arrays(state, arrays))))
        return _arrays(found[0])

    shapes = jax.eval_shape(record, _arrays(state))
    return _with_arrays(found[0], shapes)


def _keeps(body: Module, state: Features) -> bool:
    """Whether the state after the body is of the kind and shape of the one before it."""
    return _describe(_after(body, state)) == _describe(state)


def _arrays(state: Features) -> Any:
    """The arrays of a state that its layers change."""
    own = state.layout.own if isinstance(state.layout, Full) else None
    return state.cov, state.ntk, own, state.masks


def _with_arrays(state: Features, arrays: Any) -> Features:
    cov, ntk, own, masks = arrays
    layout = replace(state.layout, own=own) if isinstance(state.layout, Full) else state.layout
    return replace(state, cov=cov, ntk=ntk, layout=layout, masks=masks)


def _describe(state: Features) -> tuple:
    """All that a loop needs to be equal before and after."""
    shapes = jax.tree.map(lambda a: (a.shape, str(a.dtype)), _arrays(state))
    layout = state.layout
    return (
        type(state).__name__,
        f"{state.channels} channels",
        type(layout).__name__,
        layout.shape,
        tuple(jax.tree.leaves(shapes)),
    )
