"""A network as a list of its layers."""

from collections.abc import Iterator

import jax
import numpy as np

from ntk_lab.nn import Repeat, Sequential
from ntk_lab.nn.module import Module, Params


def unrolled(net: Module) -> Iterator[Module]:
    """Layers in order, those inside sequences and repeated blocks one by one."""
    if isinstance(net, Sequential):
        for layer in net.layers:
            yield from unrolled(layer)
    elif isinstance(net, Repeat):
        for _ in range(net.times):
            yield from unrolled(net.body)
    else:
        yield net


def layer_names(stages: list[Module]) -> tuple[str, ...]:
    """Names of the layers' classes."""
    return tuple(type(layer).__name__ for layer in stages)


def with_params(net: Module, params: Params) -> Iterator[tuple[Module, Params]]:
    """The layers of :func:`unrolled` with their parameters, of several networks at once."""
    if isinstance(net, Sequential):
        for layer, p in zip(net.layers, params, strict=True):
            yield from with_params(layer, p)
    elif isinstance(net, Repeat):
        # In NumPy: each slice of a JAX array would be a program of its own.
        rows = jax.tree.map(np.asarray, params)
        for i in range(net.times):
            yield from with_params(net.body, jax.tree.map(lambda a, i=i: a[:, i], rows))
    else:
        yield net, params
