"""The diagonal of the empirical kernel, from structured derivatives of one example at a time."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.compiled import compiled
from ntk_lab.empirical.products import Network
from ntk_lab.empirical.structured.costs import Problem, backward, choose, cost
from ntk_lab.empirical.structured.factors import Factor, contract
from ntk_lab.empirical.structured.program import Part


def diagonal(net: Network, inputs: Sequence[Any], basis: Any, dtype: Any) -> jax.Array:
    """``Theta[i, i, a, a]`` for all examples and rows of ``basis`` (None: all outputs), ``(n, k)``.

    One forward pass an example and one backward pass an output; gradients are formed only where
    the product of their norms is not cheaper.
    """
    count = net.program.outputs if basis is None else len(basis)
    leaves, n = net.values[net.offset :], len(inputs[0])
    if n == 0 or count == 0 or not net.program.parts:
        return jnp.zeros((n, count), dtype)
    parts, examples, outputs = _plan(net, n, count)
    columns = []
    for start in range(0, count, outputs):
        rows = _rows(net, basis, start, min(start + outputs, count))
        blocks = []
        for first in range(0, n, examples):
            tile = [leaf[first : first + examples] for leaf in inputs]
            blocks.append(_norms(net.program.features(parts, leaves, tile, rows), str(dtype)))
        columns.append(jnp.concatenate(blocks))
    return jnp.concatenate(columns, axis=1)


def _plan(net: Network, n: int, count: int) -> tuple[list[Part], int, int]:
    """Forms of all parts, and examples and outputs at a time."""
    shapes = [leaf.shape for leaf in net.values[net.offset :]]
    itemsize = jnp.dtype(net.program.closed.jaxpr.outvars[0].aval.dtype).itemsize
    total, largest, _ = backward(net.program.closed)
    while True:
        problem = Problem(1, 1, True, count, "diagonal", itemsize)
        parts = choose(net.program.parts, shapes, problem)
        costs = [cost(p, shapes[p.leaf], problem) for p in parts]
        formed = sum(c.held for c in costs) + 2 * max(c.late for c in costs)
        one = itemsize * (total + 4 * count * largest + formed)
        if one <= net.memory or count == 1:
            examples = min(n, max(1, int(net.memory // one)), net.batch or n)
            return parts, examples, count
        count = -(-count // 2)


def _rows(net: Network, basis: Any, start: int, stop: int) -> jax.Array:
    if basis is not None:
        return basis[start:stop]
    out = net.program.closed.jaxpr.outvars[0].aval
    return jax.nn.one_hot(jnp.arange(start, stop), out.shape[0], dtype=out.dtype)


@compiled(static_argnames="dtype")
def _norms(factors: list[Factor], dtype: str) -> jax.Array:
    def one(example):
        parts = [jax.tree.map(lambda v: v[None], f) for f in example]
        found = [contract(f, f, "diagonal")[0, 0].astype(dtype) for f in parts]
        return sum(found[1:], start=found[0])

    return jax.vmap(one)(factors)
