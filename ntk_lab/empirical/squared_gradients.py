"""Squares of derivatives, number by number of the parameters: what shares of a kernel are of."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.empirical import products
from ntk_lab.empirical.arguments import Arguments
from ntk_lab.empirical.structured.build import Program
from ntk_lab.empirical.structured.costs import backward
from ntk_lab.empirical.tiles import default_memory
from ntk_lab.errors import InputError

_ENOUGH = 2**26  # bytes of gradients beyond which larger blocks only miss the caches of a CPU


def squared(
    args: Arguments, program: Program, basis: jax.Array, memory: float | None, progress: Any
) -> dict[int, np.ndarray]:
    """``sum_i,a (df_a(x_i) / dtheta_j)^2`` of each number, float64 arrays by number of the leaf."""
    n, count = args.sizes[0], len(basis)
    size = _block_size(args, program, count, default_memory() if memory is None else memory)
    chosen = [args.leaves[i] for i in args.selected]
    total = [np.zeros(leaf.shape) for leaf in chosen]
    for start in range(0, n, size):
        batch = [leaf[start : start + size] for leaf in args.inputs1]
        found = _squares(program, args.selected, args.leaves, batch, basis)
        for whole, part in zip(total, found, strict=True):
            whole += np.asarray(part, np.float64)
        if progress is not None:
            progress(min(start + size, n), n)
    return dict(zip(args.selected, total, strict=True))


def directional(
    args: Arguments, program: Program, cotangent: jax.Array, memory: float | None
) -> dict[int, np.ndarray]:
    """``(sum_i,a d_ia df_a(x_i) / dtheta_j)^2`` of each number, for one cotangent ``(n, C)``."""
    net = products.network(args, program, default_memory() if memory is None else memory, None)
    found = products.pull(net, args.inputs1, cotangent[None])
    return {
        i: np.asarray(leaf[0], np.float64) ** 2
        for i, leaf in zip(args.selected, found, strict=True)
    }


def _block_size(args: Arguments, program: Program, count: int, memory: float) -> int:
    """Examples at a time: each has the gradients of ``count`` outputs."""
    itemsize = jnp.dtype(args.output_dtype).itemsize
    total, largest, _ = backward(program.closed)
    gradients = sum(args.leaves[i].nbytes for i in args.selected)
    one = 2 * count * gradients + itemsize * (total + 4 * count * largest)
    if one > memory:
        raise InputError(
            f"the gradients of one example take {one:,.0f} bytes, but memory={memory:,.0f}. Allow "
            "at least that, select fewer parameters, or give an array of fewer outputs."
        )
    fast = min(memory, _ENOUGH) if jax.default_backend() == "cpu" else memory
    return max(1, int(min(args.sizes[0], fast // one)))


@compiled(sequential=True, static_argnums=(0, 1))
def _squares(program, selected, leaves, batch, basis) -> list[jax.Array]:
    chosen = [leaves[i] for i in selected]

    def outputs(values, example):
        full = list(leaves)
        for i, value in zip(selected, values, strict=True):
            full[i] = value
        return program.evaluate(full, example)

    def gradients(*example):
        _, pullback = jax.vjp(lambda values: outputs(values, example), chosen)
        return jax.vmap(lambda row: pullback(row)[0])(basis)

    return [jnp.sum(g * g, axis=(0, 1)) for g in jax.vmap(gradients)(*batch)]
