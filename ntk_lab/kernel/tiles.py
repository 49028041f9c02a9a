"""A kernel computed tile by tile, so that its temporaries fit into memory and into the cache."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.aligned import aligned
from ntk_lab.kernel.plan import Plan
from ntk_lab.kernel.result import Kernel

# Computes the kernel of some rows and columns, told which of their pairs are one example.
Tile = Callable[[Any, Any, jax.Array], Kernel]
Progress = Callable[[int, int], None]


def tiled(tile: Tile, plan: Plan, x1: Any, x2: Any, progress: Progress | None) -> Kernel:
    """Kernel of all rows and columns; ``x2=None`` computes tiles on and above the diagonal only.

    All tiles have one shape, so that one program serves them all: the last row and column of tiles
    repeat their last example, and what is computed twice is dropped. ``progress(done, total)`` is
    called after each tile.
    """
    symmetric, x2 = x2 is None, x1 if x2 is None else x2
    starts = [
        (i, j)
        for i in range(0, len(x1), plan.tile[0])
        for j in range(0, len(x2), plan.tile[1])
        if not symmetric or j >= i
    ]
    entries: list[np.ndarray] = []

    def compute(start: tuple[int, int]) -> tuple[tuple[int, int], list[np.ndarray]]:
        rows, columns = (
            np.minimum(first + np.arange(size), len(x) - 1)
            for first, size, x in zip(start, plan.tile, (x1, x2), strict=True)
        )
        same = symmetric & (rows[:, None] == columns[None, :])
        kernel = tile(x1[rows], x2[columns], jnp.asarray(same))
        return start, [np.asarray(values) for values in kernel]

    with ThreadPoolExecutor(plan.workers) as pool:
        futures = [pool.submit(compute, start) for start in starts]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                (i, j), values = future.result()
                if not entries:
                    shape = (len(x1), len(x2))
                    entries += [aligned((*shape, *v.shape[2:]), v.dtype) for v in values]
                for whole, block in zip(entries, values, strict=True):
                    _place(whole, block, i, j, symmetric)
                if progress is not None:
                    progress(done, len(starts))
        finally:
            for future in futures:
                future.cancel()
    return Kernel(*(jax.device_put(whole) for whole in entries))


def _place(whole: np.ndarray, block: np.ndarray, i: int, j: int, symmetric: bool) -> None:
    """Write a tile, and its mirror image below the diagonal, into the kernel matrix."""
    block = block[: len(whole) - i, : whole.shape[1] - j]
    n1, n2 = block.shape[:2]
    whole[i : i + n1, j : j + n2] = block
    if symmetric and i != j:
        # Exchanging two examples exchanges their positions too.
        order = [axis ^ 1 for axis in range(block.ndim)]
        whole[j : j + n2, i : i + n1] = block.transpose(order)
