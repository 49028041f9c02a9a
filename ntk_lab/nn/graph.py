"""Layers over inputs with edges: those that use them, and those that see the nodes alone.

Inputs with masks (see ``ntk_lab.nn.masked``) go through here as they are.
"""

from typing import TYPE_CHECKING, Any

import jax

from ntk_lab.kernel.graph import Graph as Graph
from ntk_lab.kernel.masked import Masked

if TYPE_CHECKING:
    from ntk_lab.nn.module import Module, Params


def nodes(x: Any) -> jax.Array:
    """The array of features, with or without edges or a mask around it."""
    if isinstance(x, Masked):
        return x.zeroed()
    return x.nodes if isinstance(x, Graph) else x


def feed(layer: "Module", params: "Params", x: Any) -> jax.Array:
    """``layer.apply(params, x)``, with the edges only if the layer uses them."""
    return layer.apply(params, nodes(x) if isinstance(x, Graph) and not layer.takes_graphs else x)
