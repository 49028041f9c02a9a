"""Sums over the neighbours in a graph."""

from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Need, State, moments
from ntk_lab.kernel.layout import Full
from ntk_lab.kernel.positions import mixed
from ntk_lab.nn.graph import Graph
from ntk_lab.nn.module import Module, Params, module


@module
class Aggregate(Module):
    """Each node becomes the weighted sum of the nodes with an edge to it.

    ``y[n, w, c] = sum_v x[n, v, c] pattern[n, v, w]``, every example having edges of its own: the
    input of the network is an :class:`ntk_lab.nn.Graph`.

    Parameters
    ----------
    axes
        Axes of the batch array that hold the nodes, a number or several (1 is the first spatial
        axis); ``None`` (default) means all spatial axes. Other axes are passed through.

    Notes
    -----
    ``q' = A1^T q A2`` and ``t' = A1^T t A2`` with the patterns of both examples
    (arXiv:1905.13192). For each pair of examples of ``v`` nodes: ``O(v^3)`` operations.

    Raises
    ------
    InputError
        An input without edges, or with edges between another number of nodes.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> graph = ntk.nn.Graph(jnp.ones((1, 2, 1)), jnp.array([[[0.0, 3.0], [5.0, 0.0]]]))
    >>> ntk.nn.Aggregate().apply((), graph)[0, :, 0].tolist()
    [5.0, 3.0]
    """

    axes: tuple[int, ...] | None = None

    def __post_init__(self):
        if isinstance(self.axes, int):
            object.__setattr__(self, "axes", (self.axes,))
        if self.axes is not None:
            object.__setattr__(self, "axes", tuple(self.axes))

    @property
    def keeps_independence(self) -> bool:
        return True

    @property
    def takes_graphs(self) -> bool:
        return True

    def _spatial(self, ndim: int) -> tuple[int, ...]:
        """Numbers of the spatial axes of the nodes, of ``ndim`` spatial axes."""
        axes = range(1, ndim + 1) if self.axes is None else self.axes
        numbers = tuple(a + ndim + 1 if a < -1 else a - 1 for a in axes)
        if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(ndim)):
            raise InputError(
                f"Aggregate got axes={self.axes} for examples with {ndim} spatial axes: choose "
                f"different ones from 1 to {ndim} (0 is the batch, the last one the channels)."
            )
        return numbers

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self._spatial(len(shape) - 1)
        return shape

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        return ()

    def apply(self, params: Params, x: jax.Array | Graph) -> jax.Array:
        if not isinstance(x, Graph):
            raise InputError(_NO_EDGES)
        axes = self._spatial(x.ndim - 2)
        matrices = _matrices(x.pattern, [x.shape[1 + a] for a in axes])
        values = jnp.moveaxis(x.nodes, 0, -1)
        return jnp.moveaxis(_aggregated(values, matrices, axes), -1, 0)

    def need(self, after: Need) -> Need:
        return after.for_mixing()

    def propagate(self, state: State) -> State:
        state = moments(state)
        layout, ndim = state.layout, len(state.layout.shape)
        if state.patterns is None:
            raise InputError(_NO_EDGES)
        axes = self._spatial(ndim)
        second_axes = tuple(ndim + a for a in axes)
        if not isinstance(layout, Full):
            raise InputError("Aggregate needs the covariance between positions: see Module.need.")
        sizes, pairs = [layout.shape[a] for a in axes], layout.pairs
        pattern1, pattern2 = state.patterns
        both = pattern1 if pairs.symmetric else jnp.concatenate([pattern1, pattern2])
        matrices = _matrices(both, sizes)

        def between(values: jax.Array) -> jax.Array:
            values = _aggregated(values, matrices[pairs.first], axes)
            return _aggregated(values, matrices[pairs.second], second_axes)

        def within(values: jax.Array) -> jax.Array:
            return _aggregated(_aggregated(values, matrices, axes), matrices, second_axes)

        return mixed(state, between, within, layout.shape)


_NO_EDGES = (
    "Aggregate adds up over the edges of a graph, but the input has none: pass "
    "ntk.nn.Graph(x, pattern) in place of x, to apply and to kernel."
)


def _matrices(pattern: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Edges as one matrix for each example, ``(n, v, v)``."""
    count = prod(sizes)
    if pattern.shape[1:] not in ((*sizes, *sizes), (count, count)):
        raise InputError(
            f"the pattern has shape {pattern.shape}; for nodes along axes of sizes {sizes} it must "
            f"be (n, {', '.join(map(str, (*sizes, *sizes)))})."
        )
    return pattern.reshape(len(pattern), count, count)


def _aggregated(values: jax.Array, matrices: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Sums over some axes of ``(..., k)``, with one matrix ``(v, v)`` for each of the last."""
    front = tuple(range(len(axes)))
    moved = jnp.moveaxis(values, axes, front)
    flat = moved.reshape(matrices.shape[1], -1, matrices.shape[0])
    precision = jax.lax.Precision.HIGHEST
    summed = jnp.einsum("vrk,kvw->wrk", flat, matrices, precision=precision)
    return jnp.moveaxis(summed.reshape(moved.shape), front, axes)
