"""Products with Jacobians and their transposes, tile by tile: what matrix-free kernels are of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.arguments import Arguments
from ntk_lab.empirical.structured import program as programs
from ntk_lab.empirical.structured.build import Program
from ntk_lab.empirical.structured.costs import backward
from ntk_lab.errors import InputError

# Fewer tiles than this are unrolled where values are traced: convolutions in loops are slow on CPU.
_UNROLLED = 16
# On CPU, batched gradients of many vectors take about twice as long as one vector after the other
# in one program, which reads each activation once: so many vectors, beyond this many operations.
_GROUP = 4
_LARGE = 1e8
# Bytes of a tile beyond which larger ones only miss the caches of a CPU.
_ENOUGH = 2**26


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values"],
    meta_fields=["program", "selected", "memory", "batch"],
)
@dataclass(frozen=True)
class Network:
    """A function of one example with its constants and parameters, to be differentiated.

    ``memory`` is a limit in bytes, ``batch`` a number of examples at a time (None: as fits).
    """

    values: list[Any]
    program: Program
    selected: tuple[int, ...]
    memory: float
    batch: int | None

    @property
    def offset(self) -> int:
        """Number of constants before the parameters."""
        return len(self.values) - self.program.leaf_count

    @property
    def chosen(self) -> list[Any]:
        """The parameters that are differentiated by."""
        return [self.values[self.offset + i] for i in self.selected]

    def outputs(self, chosen: Sequence[Any], inputs: Sequence[Any]) -> jax.Array:
        """Outputs ``(n, C)`` of a batch with other values of those parameters."""
        values = list(self.values)
        for i, leaf in zip(self.selected, chosen, strict=True):
            values[self.offset + i] = leaf
        closed = self.program.closed
        return jax.vmap(lambda *e: programs.outputs(closed, [*values, *e]))(*inputs)


def network(args: Arguments, program: Program, memory: float, batch: int | None) -> Network:
    """The function of checked arguments; refuses a limit that fits no product at all."""
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise InputError(f"batch={batch!r}; it is a number of examples, at least 1, or None.")
    net = Network([*program.consts, *args.leaves], program, args.selected, memory, batch)
    need = estimate(net, 1, batch or 1)
    if need > memory:
        raise InputError(
            f"one product with the Jacobian takes {need:,.0f} bytes, {batch or 1} "
            f"example{'s' if (batch or 1) > 1 else ''} at a time, but memory={memory:,.0f}. Allow "
            f"at least {need:,.0f} bytes{' or take a smaller batch' if (batch or 1) > 1 else ''}."
        )
    return net


def pull(net: Network, inputs: Sequence[Any], cotangents: jax.Array) -> list[jax.Array]:
    """``J^T d`` for each of ``q`` cotangents ``(q, n, C)``: a list of leaves ``(q, *shape)``."""
    count, n, _ = cotangents.shape
    zeros = [jnp.zeros((count, *leaf.shape), leaf.dtype) for leaf in net.chosen]
    size = tile(net, count, n)
    if n == 0 or count == 0:
        return zeros
    bare, tiles = _bare(net), -(-n // size)
    blocks = [_padded(leaf, size) for leaf in inputs]
    # Repeated examples get cotangents of zero.
    missing = tiles * size - n
    cotangents = jnp.pad(cotangents, ((0, 0), (0, missing), (0, 0))) if missing else cotangents
    if tiles <= _UNROLLED or is_concrete(net.values, inputs, cotangents):
        total = zeros
        for i in range(tiles):
            part = [leaf[i * size : (i + 1) * size] for leaf in blocks]
            total = _pull(bare, part, cotangents[:, i * size : (i + 1) * size], total)
        return total
    stacked = [leaf.reshape(tiles, size, *leaf.shape[1:]) for leaf in blocks]
    cotangents = jnp.moveaxis(cotangents.reshape(count, tiles, size, -1), 1, 0)
    total, _ = jax.lax.scan(lambda t, x: (_pull(bare, *x, t), None), zeros, (stacked, cotangents))
    return total


def push(net: Network, inputs: Sequence[Any], tangents: Sequence[jax.Array]) -> jax.Array:
    """``J g`` for each of ``q`` directions, leaves ``(q, *shape)``: an array ``(q, n, C)``."""
    count, n = len(tangents[0]), len(inputs[0])
    size = tile(net, count, n)
    if n == 0 or count == 0:
        return jnp.zeros((count, n, net.program.outputs), _dtype(net))
    bare, tiles = _bare(net), -(-n // size)
    blocks = [_padded(leaf, size) for leaf in inputs]
    if tiles <= _UNROLLED or is_concrete(net.values, inputs, tangents):
        parts = [
            _push(bare, [leaf[i * size : (i + 1) * size] for leaf in blocks], tangents)
            for i in range(tiles)
        ]
        return (parts[0] if tiles == 1 else jnp.concatenate(parts, axis=1))[:, :n]
    stacked = [leaf.reshape(tiles, size, *leaf.shape[1:]) for leaf in blocks]
    found = jax.lax.map(lambda x: _push(bare, x, tangents), stacked)
    return jnp.moveaxis(found, 1, 0).reshape(count, tiles * size, -1)[:, :n]


def both(
    net: Network, inputs1: Sequence[Any], inputs2: Sequence[Any] | None, cotangents: jax.Array
) -> jax.Array:
    """``J(x1) J(x2)^T d``, in one program where both are one tile of the same examples."""
    count, n, _ = cotangents.shape
    if inputs2 is None and n and count and tile(net, count, n) == n:
        return _both(_bare(net), list(inputs1), cotangents)
    tangents = pull(net, inputs1 if inputs2 is None else inputs2, cotangents)
    return push(net, inputs1, tangents)


def tile(net: Network, count: int, n: int) -> int:
    """Examples at a time for ``count`` directions: the limit in tiles of nearly equal size."""
    if net.batch is not None:
        return min(net.batch, max(n, 1))
    fixed = estimate(net, count, 0)
    left = net.memory - fixed
    left = min(left, _ENOUGH) if jax.default_backend() == "cpu" else left
    most = max(1, int(left // max(estimate(net, count, 1) - fixed, 1)))
    return n if n <= most else -(-n // -(-n // most))


def chunks(net: Network, count: int, n: int) -> list[tuple[int, int]]:
    """Ranges of directions that are within the limit together, of nearly equal size."""
    examples = net.batch or min(n, 8)
    fixed = estimate(net, 0, examples)
    each = estimate(net, 1, examples) - fixed
    most = max(1, int((net.memory - fixed) // max(each, 1)))
    if _one_by_one(net, n) and is_concrete(net.values):
        most = min(most, _GROUP)
    size = -(-count // -(-count // most)) if count else 1
    return [(i, min(i + size, count)) for i in range(0, count, size)]


def estimate(net: Network, count: int, examples: int) -> float:
    """Beside parameters, inputs and the result: gradients, and what a tile holds on the way."""
    itemsize = jnp.dtype(_dtype(net)).itemsize
    total, largest, _ = backward(net.program.closed)
    parameters = sum(math.prod(leaf.shape) for leaf in net.chosen)
    return itemsize * (2 * count * parameters + examples * (total + 4 * count * largest))


def _bare(net: Network) -> Network:
    """Without the limits, on which compiled programs do not depend."""
    return replace(net, memory=math.inf, batch=None)


def _dtype(net: Network) -> Any:
    return net.program.closed.jaxpr.outvars[0].aval.dtype


def _padded(leaf: Any, size: int) -> Any:
    """Examples to a multiple of ``size``, the last one repeated, so that one program serves."""
    missing = -len(leaf) % size
    return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, axis=0)]) if missing else leaf


@compiled(sequential=True)
def _pull(net: Network, inputs: list[Any], cotangents: Any, total: list[Any]) -> list[jax.Array]:
    return [a + b for a, b in zip(total, _pulled(net, inputs, cotangents), strict=True)]


@compiled(sequential=True)
def _push(net: Network, inputs: list[Any], tangents: Sequence[Any]) -> jax.Array:
    return _pushed(net, inputs, tangents)


@compiled(sequential=True)
def _both(net: Network, inputs: list[Any], cotangents: Any) -> jax.Array:
    return _pushed(net, inputs, _pulled(net, inputs, cotangents))


def _pulled(net: Network, inputs: Sequence[Any], cotangents: Any) -> list[jax.Array]:
    _, pullback = jax.vjp(lambda c: net.outputs(c, inputs), net.chosen)
    if len(cotangents) <= _GROUP and _one_by_one(net, len(inputs[0])):
        found = [pullback(d)[0] for d in cotangents]
        return [jnp.stack(leaves) for leaves in zip(*found, strict=True)]
    (gradients,) = jax.vmap(pullback)(cotangents)
    return gradients


def _pushed(net: Network, inputs: Sequence[Any], tangents: Any) -> jax.Array:
    def change(direction):
        return jax.jvp(lambda c: net.outputs(c, inputs), (net.chosen,), (direction,))[1]

    count = len(tangents[0])
    if count <= _GROUP and _one_by_one(net, len(inputs[0])):
        return jnp.stack([change([leaf[i] for leaf in tangents]) for i in range(count)])
    return jax.vmap(change)(list(tangents))


def _one_by_one(net: Network, n: int) -> bool:
    """Whether vectors are better treated one after the other than batched."""
    return jax.default_backend() == "cpu" and backward(net.program.closed)[2] * n > _LARGE
