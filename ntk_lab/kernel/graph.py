"""Batches of inputs that come with edges between their positions."""

from dataclasses import dataclass
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Graph:
    """A batch of graphs, accepted by ``net.apply`` and ``net.kernel`` in place of an array.

    Attributes
    ----------
    nodes
        Features of the nodes, ``(n, *S, channels)``; ``S`` is the number of nodes, or the sizes
        of a grid of them. ``net.init`` takes the shape of one example of these, ``(*S, channels)``.
    pattern
        Weights of the edges of each example, ``(n, *A, *A)`` from the first node to the second;
        ``A`` are the sizes of the axes that :class:`ntk_lab.nn.Aggregate` adds up over. Graphs of
        fewer nodes are padded with nodes without edges.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(
    ...     ntk.nn.Dense(64), ntk.nn.Relu(), ntk.nn.Aggregate(), ntk.nn.GlobalAvgPool(),
    ...     ntk.nn.Dense(1),
    ... )
    >>> graphs = ntk.nn.Graph(jnp.ones((2, 3, 4)), jnp.ones((2, 3, 3)))
    >>> net.kernel(graphs).ntk.shape
    (2, 2)
    """

    nodes: jax.Array
    pattern: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the nodes."""
        return self.nodes.shape

    @property
    def ndim(self) -> int:
        """Number of axes of the nodes."""
        return self.nodes.ndim

    @property
    def dtype(self) -> Any:
        """Type of the features."""
        return self.nodes.dtype

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, examples: Any) -> "Graph":
        return Graph(self.nodes[examples], self.pattern[examples])
