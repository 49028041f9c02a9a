"""Kernels from the factors of two sets of examples, or of one, compiled."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntk_lab.compiled import compiled
from ntk_lab.empirical.structured.factors import Factor, Mode, contract, formed, slabs, take

Groups = tuple[tuple[int, ...], ...]

# Rows of panels above the diagonal in one compiled tile: 3/4 of the work of the square. Four would
# be 5/8, in products of which more time goes to arranging their operands.
_PANELS = 2
_SMALL = 2**19  # entries of a kernel below which copying the panels takes longer than it saves


class Contraction(NamedTuple):
    """One kernel for each group of parts, from the factors of one set of examples or of two."""

    mode: Mode
    groups: Groups
    dtype: str

    def __call__(self, left: Sequence[Factor], right: Sequence[Factor] | None) -> list[jax.Array]:
        """Of one set where ``right`` is None."""
        if right is None:
            return _square(left, *self)
        return _rectangle(left, right, *self)


def _rectangle(
    left: Sequence[Factor], right: Sequence[Factor], mode: Mode, groups: Groups, dtype: str
) -> list[jax.Array]:
    """All pairs of two sets of examples."""
    results = []
    for group in groups:
        parts = [_pair(left[i], right[i], mode).astype(dtype) for i in group]
        total = sum(parts[1:], start=parts[0])
        results.append(_ordered(total, mode))
    return results


rectangle = compiled(sequential=True, static_argnames=("mode", "groups", "dtype"))(_rectangle)


def _square(factors: Sequence[Factor], mode: Mode, groups: Groups, dtype: str) -> list[jax.Array]:
    """All pairs of one set of examples, from panels above the diagonal."""
    shape = jax.tree.leaves(factors[0])[0].shape
    n = shape[0]
    k = 1 if mode == "trace" else jax.tree.leaves(factors[0])[-1].shape[1]
    panels = _PANELS if n >= 2 * _PANELS and n * n * k * k >= _SMALL else 1
    edges = [round(n * i / panels) for i in range(panels + 1)]
    return [_upper([factors[i] for i in group], mode, edges, dtype) for group in groups]


def _upper(factors: Sequence[Factor], mode: Mode, edges: list[int], dtype: str) -> jax.Array:
    """Sum of the kernels of some parts, from panels above the diagonal."""
    n = edges[-1]
    bands: list[Any] = [0] * (len(edges) - 1)
    whole: Any = 0
    for factor in factors:
        if factor.form == "mixed":
            whole = whole + contract(factor, factor, mode, upper=True).astype(dtype)
            continue
        for slab in slabs(factor, n):
            ready = formed(slab)
            for band, start in enumerate(edges[:-1]):
                left, right = take(ready, start, edges[band + 1]), take(ready, start, edges[-1])
                bands[band] = bands[band] + contract(left, right, mode).astype(dtype)
    if not isinstance(whole, int):
        for band, start in enumerate(edges[:-1]):
            bands[band] = bands[band] + whole[start : edges[band + 1], :, start:]
    bands = jax.lax.optimization_barrier(bands)
    return _assemble([_ordered(band, mode) for band in bands], edges)


def _pair(left: Factor, right: Factor, mode: Mode) -> jax.Array:
    most = max(len(jax.tree.leaves(side)[0]) for side in (left, right))
    both = zip(slabs(left, most), slabs(right, most), strict=True)
    parts = [contract(a, b, mode) for a, b in both]
    return sum(parts[1:], start=parts[0])


def _ordered(kernel: Any, mode: Mode) -> jax.Array:
    return kernel.transpose(0, 2, 1, 3) if mode == "full" else kernel


def _assemble(bands: list[jax.Array], edges: list[int]) -> jax.Array:
    """The whole from its upper bands."""
    rows = []
    for i, band in enumerate(bands):
        below = [
            mirror(bands[j][:, edges[i] - edges[j] : edges[i + 1] - edges[j]]) for j in range(i)
        ]
        rows.append(jnp.concatenate([*below, band], axis=1))
    return jnp.concatenate(rows, axis=0)


def mirror(tile: Any) -> Any:
    """The tile at the transposed place; output axes, where there are two, swap as well."""
    return tile.transpose(1, 0, 3, 2) if tile.ndim == 4 else jnp.moveaxis(tile, 0, 1)
