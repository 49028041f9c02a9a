"""The kernel column by column: one backward and one forward pass each, no Jacobian."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.empirical.arguments import Arguments
from ntk_lab.empirical.compiled import compiled
from ntk_lab.empirical.structured.build import Program
from ntk_lab.empirical.structured.factors import Mode
from ntk_lab.errors import InputError

Progress = Callable[[int, int], Any]


def by_vector_products(
    args: Arguments,
    program: Program,
    mode: Mode,
    basis: Any,
    memory: float,
    progress: Progress | None,
) -> jax.Array:
    """Kernel by ``n2 C`` products ``Theta v``, as many at once as the limit allows."""
    (n1, n2), k = args.sizes, len(basis)
    shape = (n1, n2, *{"full": (k, k), "diagonal": (k,), "trace": ()}[mode])
    if 0 in shape:
        return jnp.zeros(shape, args.dtype)
    chosen = [args.leaves[i] for i in args.selected]
    itemsize = jnp.dtype(args.dtype).itemsize
    parameters = sum(leaf.size for leaf in chosen)
    total = sum(v.aval.size for e in program.closed.jaxpr.eqns for v in e.outvars)
    one = itemsize * (2 * parameters + 2 * total * n1 + 2 * n1 * k)
    size = int(memory // one)
    if size < 1:
        raise InputError(
            f"one product with the kernel takes {one:,} bytes, but memory={memory:,.0f}. Allow at "
            f"least {one:,} bytes, or choose method='structured'."
        )
    examples, vectors = jnp.repeat(jnp.arange(n2), k), jnp.tile(jnp.arange(k), n2)
    inputs2 = args.inputs1 if args.inputs2 is None else args.inputs2
    columns = []
    for start in range(0, n2 * k, size):
        chosen_rows = examples[start : start + size]
        batch = [leaf[chosen_rows] for leaf in inputs2]
        which = vectors[start : start + size]
        columns.append(
            _columns(program, args.selected, mode, args.leaves, args.inputs1, batch, basis, which)
        )
        if progress is not None:
            jax.block_until_ready(columns[-1])
            progress(len(columns), -(-n2 * k // size))
    result = jnp.concatenate(columns, axis=0).astype(args.dtype)
    if mode == "full":
        return result.reshape(n2, k, n1, k).transpose(2, 0, 3, 1)
    result = result.reshape(n2, k, n1).transpose(2, 0, 1)
    return result if mode == "diagonal" else result.mean(axis=2)


@partial(compiled, static_argnums=(0, 1, 2))
def _columns(program, selected, mode, leaves, inputs1, batch, basis, which) -> jax.Array:
    """``(columns, n1, k)``, or of ``k`` only the output of the column itself."""

    def filled(chosen):
        full = list(leaves)
        for i, leaf in zip(selected, chosen, strict=True):
            full[i] = leaf
        return full

    chosen = [leaves[i] for i in selected]

    def column(example, number):
        _, pullback = jax.vjp(lambda c: program.evaluate(filled(c), example), chosen)
        (tangent,) = pullback(basis[number])

        def outputs(c):
            full = filled(c)
            return jax.vmap(lambda *e: program.evaluate(full, e))(*inputs1)

        _, change = jax.jvp(outputs, (chosen,), (tangent,))
        if mode == "full":
            return jnp.matmul(change, basis.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.matmul(change, basis[number], precision=jax.lax.Precision.HIGHEST)

    return jax.vmap(column)(batch, which)
