"""The kernel column by column: one backward and one forward pass each, no Jacobian."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.compiled import compiled
from ntk_lab.empirical.arguments import Arguments
from ntk_lab.empirical.engine import Job
from ntk_lab.empirical.structured.build import Program
from ntk_lab.empirical.structured.costs import backward, cost
from ntk_lab.empirical.structured.factors import Mode
from ntk_lab.errors import InputError

Progress = Callable[[int, int], Any]

# Products read every parameter once a column and a batch; the larger products of gradients are that
# much faster an operation.
_MARGIN = 8
_SMALL = 1e7  # operations of a kernel for which any way is good


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
    one = _bytes(args, program, k)
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


def cheaper(job: Job, memory: float) -> bool:
    """Whether products, within ``memory``, take far fewer operations than the job.

    That is where parameters whose gradients have to be formed entry by entry, or by the general
    rule, are long, and outputs many: weights that are normalized, orthogonalized or squared first.
    Forward passes of derivatives cannot go through a function with its own backward rule.
    """
    args, program, problem = job.args, job.program, job.problem
    if all(p.kind not in ("opaque", "direct") for p in job.parts):
        return False
    costs = [cost(p, args.leaves[p.leaf].shape, problem) for p in job.parts]
    operations = sum(c.operations(problem) for c in costs)
    return (
        operations > _SMALL
        and _MARGIN * columns(args, program, problem.outputs) < operations
        and _bytes(args, program, problem.outputs) <= memory
        and not _backward_only(program.closed.jaxpr)
    )


def _backward_only(jaxpr: Any) -> bool:
    """Whether a function with its own backward rule is called somewhere."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("custom_vjp_call"):
            return True
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(value) and _backward_only(getattr(value, "jaxpr", value)):
                return True
    return False


def _is_program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def columns(args: Arguments, program: Program, k: int) -> float:
    """Operations: of each column one backward pass, and one forward pass of all examples."""
    n1, n2 = args.sizes
    return 2 * backward(program.closed)[2] * n2 * k * (1 + n1)


def _bytes(args: Arguments, program: Program, k: int) -> int:
    """Of one column."""
    n1, _ = args.sizes
    parameters = sum(args.leaves[i].size for i in args.selected)
    total = sum(v.aval.size for e in program.closed.jaxpr.eqns for v in e.outvars)
    return jnp.dtype(args.dtype).itemsize * (2 * parameters + 2 * total * n1 + 2 * n1 * k)


@compiled(sequential=True, static_argnums=(0, 1, 2))
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
