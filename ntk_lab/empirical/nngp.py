"""Empirical kernel of the outputs of any function."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.empirical.arguments import arguments, cotangents
from ntk_lab.empirical.checks import check_examples, check_finite
from ntk_lab.empirical.ntk import Model, Outputs, Params, Progress
from ntk_lab.empirical.structured.build import build
from ntk_lab.empirical.structured.costs import backward
from ntk_lab.empirical.tiles import default_memory


def nngp(
    f: Model,
    params: Params,
    x1: Any,
    x2: Any = None,
    *,
    outputs: Outputs | jax.Array | np.ndarray = "full",
    memory: float | None = None,
    progress: Progress | None = None,
) -> jax.Array:
    """Empirical kernel of the outputs themselves, ``f(x1) f(x2)^T``.

    Averaged over random parameters it estimates the NNGP kernel.

    Parameters
    ----------
    f, params, x1, x2, outputs
        As for :func:`ntk`, with ``K[i, j, a, b] = f_a(x1_i) f_b(x2_j)`` in place of inner products
        of gradients.
    memory
        Bytes that evaluations of ``f`` may take beside parameters, inputs and the result: it is
        evaluated on as many examples at a time as fit (default: a quarter of what is free).
    progress
        Called with the numbers of evaluations done and in all.

    Returns
    -------
    jax.Array
        Of the shapes that :func:`ntk` returns, in the dtype of the outputs.

    Raises
    ------
    InputError, NumericalError
        As for :func:`ntk`.

    Notes
    -----
    One evaluation of ``f`` on each example and one matrix product.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> ntk.empirical.nngp(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.eye(3), outputs="trace")[0, 0]
    Array(1., dtype=float32)
    """
    args = arguments(f, params, x1, x2, None)
    mode, basis, squeeze = cotangents(outputs, args)
    program = build(f, args.signature(structured=True, merge=True))
    check_examples(program, args)
    limit = default_memory() if memory is None else memory
    # All intermediate arrays at once: what an evaluation that is not compiled may hold.
    one = backward(program.closed)[0] * jnp.dtype(args.dtype).itemsize
    block = max(1, int(limit // max(one, 1)))
    sides = list(zip([x1] if x2 is None else [x1, x2], args.sizes, strict=False))
    total = sum(-(-n // block) for _, n in sides)
    found: list[list[jax.Array]] = []
    for x, n in sides:
        found.append([jnp.zeros((0, len(basis)), args.output_dtype)])
        for start in range(0, n, block):
            rows = min(block, n - start)
            some = jax.tree.map(lambda leaf, i=start, size=rows: leaf[i : i + size], x)
            y = f(params, some).reshape(rows, args.outputs)
            found[-1].append(jnp.matmul(y, basis.T.astype(y.dtype), precision="highest"))
            if progress is not None:
                jax.block_until_ready(found[-1][-1])
                progress(sum(len(side) - 1 for side in found), total)
    f1, f2 = jnp.concatenate(found[0]), jnp.concatenate(found[-1])
    if mode == "full":
        kernel = f1[:, None, :, None] * f2[None, :, None, :]
    elif mode == "diagonal":
        kernel = f1[:, None] * f2[None]
    else:
        kernel = jnp.matmul(f1, f2.T, precision="highest") / max(len(basis), 1)
    check_finite(kernel, args)
    return kernel[:, :, 0, 0] if squeeze else kernel
