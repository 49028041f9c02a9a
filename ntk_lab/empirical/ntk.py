"""Empirical NTK of any function by Jacobian contraction, in tiles that fit a memory limit."""

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError, NumericalError

Params = Any
Model = Callable[[Params, Any], jax.Array]
Outputs = Literal["full", "trace", "diagonal"]


class Tiling(NamedTuple):
    """How many examples, and how many outputs of each, have their Jacobian held at once."""

    examples: int
    outputs: int


def ntk(
    f: Model,
    params: Params,
    x1: jax.Array,
    x2: jax.Array | None = None,
    *,
    outputs: Outputs = "full",
    memory: float | None = None,
) -> jax.Array:
    """Empirical (finite-width) neural tangent kernel, ``Theta = J(x1) J(x2)^T``.

    Parameters
    ----------
    f
        Any ``f(params, x)`` from a batch ``x`` of shape ``(n, *shape)`` to outputs ``(n, ...)``,
        each row a function of its own example only. Outputs are flattened to ``(n, C)``.
    params
        Pytree of floating-point arrays.
    x1, x2
        Batches of shapes ``(n1, *shape)`` and ``(n2, *shape)``; ``x2=None`` means ``x1`` and
        costs half.
    outputs
        ``"full"``: ``Theta[i, j, a, b] = <df_a(x1_i), df_b(x2_j)>``, shape ``(n1, n2, C, C)``.
        ``"diagonal"``: only ``a = b``, shape ``(n1, n2, C)``. ``"trace"``: the mean of the
        diagonal over outputs, shape ``(n1, n2)``, which estimates the infinite-width NTK.
    memory
        Bytes that the Jacobians held at once may take; default a quarter of the memory that is
        free. The result is the same for every limit.

    Returns
    -------
    jax.Array
        In the dtype of the parameters.

    Raises
    ------
    InputError
        Inputs without examples or of unequal shapes, an ``f`` whose outputs do not have one row
        an example, or a limit under the memory of the Jacobian of one output of one example.
    NumericalError
        Kernel values that are not finite.

    Notes
    -----
    Cost ``O(n1 n2 C^2 P)`` operations for ``P`` parameters (``C`` instead of ``C^2`` for trace
    and diagonal), plus ``n C`` backward passes, repeated once a row of tiles. arXiv:1806.07572;
    on the cost of alternatives arXiv:2206.08720.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> ntk.empirical.ntk(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.eye(3), outputs="trace")[0, 0]
    Array(1., dtype=float32)
    """
    if outputs not in ("full", "trace", "diagonal"):
        raise InputError(f"outputs={outputs!r}; choose 'full', 'trace' or 'diagonal'.")
    count = _check(f, params, x1, x2)
    tiling = plan_tiles(params, count, memory)
    symmetric = x2 is None
    rows = _split(x1, tiling.examples)
    columns = rows if symmetric else _split(x2, tiling.examples)
    tiles: list[list[jax.Array]] = []
    for i, a in enumerate(rows):
        mirrored = [_mirror(tiles[j][i]) for j in range(i)] if symmetric else []
        computed = [
            _tile(f, outputs, count, tiling.outputs, params, a, b) for b in columns[len(mirrored) :]
        ]
        tiles.append(mirrored + computed)
    kernel = jnp.concatenate([jnp.concatenate(row, axis=1) for row in tiles], axis=0)
    if is_concrete(kernel) and not bool(jnp.isfinite(kernel).all()):
        raise NumericalError(
            f"{int((~jnp.isfinite(kernel)).sum())} of {kernel.size} entries of the empirical NTK "
            "are not finite: the function or its gradient over- or underflows, or parameters or "
            "inputs hold NaN. Look at f(params, x) and its gradient on single examples."
        )
    return kernel


def plan_tiles(params: Params, outputs: int, memory: float | None = None) -> Tiling:
    """Tile sizes whose Jacobians, two of them and a copy, fit ``memory`` bytes."""
    memory = free_memory() / 4 if memory is None else memory
    row = sum(leaf.size * leaf.dtype.itemsize for leaf in map(jnp.asarray, jax.tree.leaves(params)))
    affordable = int(memory // (4 * row))
    if affordable < 1:
        raise InputError(
            f"the Jacobian of one output of one example takes {row:,} bytes and four are held at "
            f"once, but memory={memory:,.0f}. Allow at least {4 * row:,} bytes."
        )
    return Tiling(max(affordable // outputs, 1), min(affordable, outputs))


def free_memory() -> float:
    """Bytes of main memory that are free now, as the operating system tells; 4e9 if it does not."""
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return 4e9


def _check(f: Model, params: Params, x1: Any, x2: Any) -> int:
    """Number of outputs of one example."""
    for name, x in (("x1", x1), ("x2", x2)):
        if x is not None and (np.ndim(x) < 1 or len(x) == 0):
            raise InputError(
                f"{name} has shape {np.shape(x)}; expected a batch (n, *shape), n >= 1."
            )
    if x2 is not None and np.shape(x1)[1:] != np.shape(x2)[1:]:
        raise InputError(
            f"x1 has examples of shape {np.shape(x1)[1:]} and x2 of {np.shape(x2)[1:]}; they must "
            "be equal."
        )
    shape = jax.eval_shape(f, params, x1).shape
    if not shape or shape[0] != len(x1):
        raise InputError(
            f"f(params, x) maps a batch of {len(x1)} examples to outputs of shape {shape}; "
            "expected one row an example. Wrap it, e.g. lambda p, x: f(p, x)[:, None]."
        )
    return math.prod(shape[1:])


def _split(x: Any, size: int) -> list[Any]:
    return [x[i : i + size] for i in range(0, len(x), size)]


def _mirror(tile: jax.Array) -> jax.Array:
    """The tile at the transposed place; output axes, where there are two, swap as well."""
    return jnp.moveaxis(tile, (0, 1), (1, 0)) if tile.ndim < 4 else tile.transpose(1, 0, 3, 2)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _tile(
    f: Model, outputs: Outputs, count: int, chunk: int, params: Params, x1: Any, x2: Any
) -> jax.Array:
    """Kernel of two blocks of examples, over chunks of outputs whose Jacobians fit."""
    chunks = [(c, min(c + chunk, count)) for c in range(0, count, chunk)]
    if outputs == "full":
        parts = [
            [_contract(_rows(f, params, x1, a), _rows(f, params, x2, b), "full") for b in chunks]
            for a in chunks
        ]
        return jnp.concatenate([jnp.concatenate(row, axis=3) for row in parts], axis=2)
    diagonal = jnp.concatenate(
        [_contract(_rows(f, params, x1, c), _rows(f, params, x2, c), "diagonal") for c in chunks],
        axis=2,
    )
    return diagonal.mean(axis=2) if outputs == "trace" else diagonal


def _rows(f: Model, params: Params, x: Any, chunk: tuple[int, int]) -> list[jax.Array]:
    """Jacobian of outputs ``chunk`` of each example: leaves of shape ``(n, outputs, size)``."""
    start, stop = chunk

    def one(example):
        flat, pullback = jax.vjp(lambda p: f(p, example[None]).reshape(-1), params)
        basis = jnp.eye(stop - start, len(flat), start, flat.dtype)
        return jax.vmap(lambda v: pullback(v)[0])(basis)

    jacobian = jax.vmap(one)(x)
    return [j.reshape(*j.shape[:2], -1) for j in jax.tree.leaves(jacobian)]


def _contract(j1: list[jax.Array], j2: list[jax.Array], outputs: str) -> jax.Array:
    precision = jax.lax.Precision.HIGHEST
    pairs = list(zip(j1, j2, strict=True))
    if outputs == "diagonal":
        parts = [jnp.einsum("iap,jap->ija", a, b, precision=precision) for a, b in pairs]
    else:
        # One matrix product a leaf: contracting four axes by einsum is many times slower on CPU.
        parts = [
            jnp.matmul(_merge(a), _merge(b).T, precision=precision)
            .reshape(*a.shape[:2], *b.shape[:2])
            .transpose(0, 2, 1, 3)
            for a, b in pairs
        ]
    return sum(parts[1:], start=parts[0])


def _merge(j: jax.Array) -> jax.Array:
    return j.reshape(-1, j.shape[-1])
