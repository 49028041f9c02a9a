"""Layers over inputs with edges: those that use them, and those that see the nodes alone."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax

from ntk_lab.kernel.graph import Graph as Graph

if TYPE_CHECKING:
    from ntk_lab.nn.module import Module, Params


def nodes(x: Any) -> jax.Array:
    """The array of features, with or without edges around it."""
    return x.nodes if isinstance(x, Graph) else x


def with_nodes(x: Any, values: jax.Array) -> Any:
    """The same edges, if there are any, around other features."""
    return replace(x, nodes=values) if isinstance(x, Graph) else values


def feed(layer: "Module", params: "Params", x: Any) -> jax.Array:
    """``layer.apply(params, x)``, with the edges only if the layer uses them."""
    return layer.apply(params, x if layer.takes_graphs else nodes(x))
