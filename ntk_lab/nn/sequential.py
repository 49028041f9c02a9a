"""Layers one after the other."""

import jax

from ntk_lab.errors import InputError
from ntk_lab.kernel import Need, State
from ntk_lab.kernel.native_steps import Average, Flat, Step
from ntk_lab.nn.graph import feed, nodes
from ntk_lab.nn.masked import passed_on
from ntk_lab.nn.module import Module, Params, module, submodules
from ntk_lab.nn.repeat import propagate_copies

# Copies of a block from which on the kernel is a loop: shorter stacks compile fast, and compiled
# loops use fewer cores.
_LOOP_FROM = 8


@module
class Sequential(Module):
    """``Sequential(a, b, c)`` applies ``a``, then ``b``, then ``c``.

    Parameters of the finite network are a tuple with one entry a layer.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> net.with_width(128)
    Sequential(
      Dense(128),
      Relu(),
      Dense(1),
    )
    """

    layers: tuple[Module, ...] = submodules()

    def __init__(self, *layers: Module):
        for layer in layers:
            if not isinstance(layer, Module):
                raise InputError(
                    f"Sequential takes modules as arguments, Sequential(a, b, c); got {layer!r}."
                )
        object.__setattr__(self, "layers", layers)

    @property
    def ends_independent(self) -> bool:
        for layer in reversed(self.layers):
            if layer.ends_independent or not layer.keeps_independence:
                return layer.ends_independent
        return False

    @property
    def keeps_independence(self) -> bool:
        return all(layer.keeps_independence for layer in self.layers)

    @property
    def independent(self) -> bool:
        return any(layer.independent for layer in self.layers)

    @property
    def takes_graphs(self) -> bool:
        return any(layer.takes_graphs for layer in self.layers)

    @property
    def takes_masks(self) -> bool:
        return True

    def presence(self, mask: jax.Array) -> jax.Array:
        for layer in self.layers:
            if mask.ndim == 1:
                break
            mask = layer.presence(mask).astype(bool)
        return mask

    @property
    def vocabulary_size(self) -> int | None:
        return self.layers[0].vocabulary_size if self.layers else None

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        params = []
        for i, layer in enumerate(self.layers):
            params.append(layer.init(jax.random.fold_in(key, i), shape, dtype))
            shape = layer.output_shape(shape)
        return tuple(params)

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        if len(params) != len(self.layers):
            raise InputError(
                f"got parameters of {len(params)} layers for a network of {len(self.layers)}; "
                "use those that net.init(key, shape) returns."
            )
        for layer, p in zip(self.layers, params, strict=True):
            x = passed_on(layer, x, feed(layer, p, x))
        return nodes(x)

    def native_steps(self, shape: tuple[int, ...]) -> tuple[list[Step], int, Module] | None:
        layers, steps = list(self.layers), []
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, Sequential):
                layers = [*layer.layers, *layers]
                continue
            step = layer.native_step(shape)
            if step is None:
                return None
            steps.append(step)
            if isinstance(step, Average | Flat):
                return steps, layer.output_shape(shape)[-1], Sequential(*layers)
            shape = layer.output_shape(shape)
        return None

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        steps: list[Step] = []
        for layer in self.layers:
            taken = layer.vector_steps(shape)
            if taken is None:
                return None
            steps += taken
            shape = layer.output_shape(shape)
        return steps

    def need(self, after: Need) -> Need:
        for layer in reversed(self.layers):
            after = layer.need(after)
        return after

    def propagate(self, state: State) -> State:
        first = 0
        while first < len(self.layers):
            period, copies = _stack(self.layers[first:])
            if copies >= _LOOP_FROM:
                ends = range(first, first + copies * period, period)
                blocks = [Sequential(*self.layers[i : i + period]) for i in ends]
                after = propagate_copies(blocks, state)
                if after is not None:
                    state, first = after, first + copies * period
                    continue
            state, first = self.layers[first].propagate(state), first + 1
        return state

    def __repr__(self) -> str:
        lines = ",\n".join(repr(layer) for layer in self.layers).replace("\n", "\n  ")
        return f"Sequential(\n  {lines},\n)" if self.layers else "Sequential()"


def _stack(layers: tuple[Module, ...]) -> tuple[int, int]:
    """Size of the block that these layers begin with copies of, and the number of copies."""
    kinds = [jax.tree.structure(layer) for layer in layers]
    best = 1, 1
    for period in range(1, len(kinds) // _LOOP_FROM + 1):
        copies = 1
        while kinds[copies * period : (copies + 1) * period] == kinds[:period]:
            copies += 1
        if copies * period > best[0] * best[1]:
            best = period, copies
    return best
