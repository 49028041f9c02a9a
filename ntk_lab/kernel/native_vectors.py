"""Kernels of fully connected networks by loops compiled for this CPU (extra: numba).

For layers with weights, piecewise linear activations, erf, and skip connections over vectors, a
pair of examples needs two numbers: how far it is from colinear, and its NTK. All that depends on
one example alone is computed beforehand, in double precision, so that a layer costs one square root
and a few multiplications a pair, and pairs stay in the cache through all layers. The correlations
of inputs are a matrix product, by BLAS where threadpoolctl can keep each tile's on one core: on two
cores with AVX-512 that is 2.4 times as fast as XLA's. Other networks, and machines without numba,
take the portable way.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.aligned import aligned
from ntk_lab.compiled import compiled
from ntk_lab.kernel.native import half_angle_constants
from ntk_lab.kernel.native_sides import THRESHOLD, Side, named_operations, specialized
from ntk_lab.kernel.native_steps import Step
from ntk_lab.kernel.result import Kernel

# Pairs of a kernel for which compiled loops are worth their start.
FEWEST = 2**16
_TILE = 512
Progress = Callable[[int, int], None]


def vector_kernels(
    steps: Sequence[Step], x1: jax.Array, x2: jax.Array | None, progress: Progress | None = None
) -> tuple[Kernel, bool] | None:
    """NNGP and NTK after ``steps`` for data ``(n, d)``, and whether all entries are finite.

    None where these loops do not apply.
    """
    symmetric, columns = x2 is None, x1 if x2 is None else x2
    sides = [_Side(x) for x in ([x1] if symmetric else [x1, x2])]
    programs = [p for p in (named_operations(steps, side) for side in sides) if p is not None]
    if len(programs) < len(sides):
        return None
    (names, numbers), dtype = programs[0], np.dtype(x1.dtype)
    numbers = np.array(numbers, dtype).reshape(-1, 2)
    program = np.array(specialized(names, numbers)[0], np.int64)
    shape = (len(x1), len(columns))
    nngp, ntk = aligned(shape, dtype), aligned(shape, dtype)
    constants = [side.constants(dtype) for side in sides]
    compute = partial(
        _tile, sides, program, numbers, constants, half_angle_constants(dtype), nngp, ntk, symmetric
    )
    height, width = (_even(n) for n in shape)
    starts = [
        (i, j)
        for i in range(0, shape[0], height)
        for j in range(0, shape[1], width)
        if not symmetric or j >= i
    ]
    by_blas = _blas() is not None
    compute = partial(compute, _correlations_by_blas if by_blas else _correlations)
    with _one_core_each if by_blas else contextlib.nullcontext():
        unusable = _all(lambda start: compute(start, (height, width)), starts, progress)
    if symmetric:
        np.fill_diagonal(nngp, sides[0].var)
        np.fill_diagonal(ntk, sides[0].ntk)
    return Kernel(jax.device_put(nngp), jax.device_put(ntk)), not unusable


def _all(compute: Callable[[Any], int], starts: list, progress: Progress | None) -> int:
    """Sum of what is returned for all starts."""
    total = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        futures = [pool.submit(compute, start) for start in starts]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                total += future.result()
                if progress is not None:
                    progress(done, len(starts))
        finally:
            for future in futures:
                future.cancel()
    return total


@functools.cache
def _blas() -> Any:
    """What controls the threads of NumPy's BLAS, None if nothing does."""
    try:
        import threadpoolctl
    except ImportError:
        return None
    _ = np.ones((2, 2)) @ np.ones((2, 2))  # it is found once it is loaded
    found = threadpoolctl.ThreadpoolController().select(user_api="blas")
    return found if found.lib_controllers else None


class _OneCoreEach:
    """Keeps BLAS to one core a product; kernels in several threads share it, the last ends it."""

    def __init__(self) -> None:
        self.lock, self.users, self.limit = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                self.limit = _blas().limit(limits=1)
            self.users += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0 and self.limit is not None:
                self.limit.restore_original_limits()


_one_core_each = _OneCoreEach()


def _correlations_by_blas(units1, units2, i, j, size):
    return np.asarray(units1)[i : i + size[0]] @ np.asarray(units2)[j : j + size[1]].T


def _tile(
    sides, program, numbers, constants, series, nngp, ntk, symmetric, products, start, size
) -> int:
    # Imported where used: numba is an extra, and takes a while.
    from ntk_lab.kernel import native_vector_loops as loops

    first, second = sides[0], sides[-1]
    rho = _rho(products, first.units, second.units, start, size)
    threshold = rho.dtype.type(THRESHOLD[rho.dtype.itemsize])
    where = start, symmetric
    operations = program, numbers, constants[0], constants[-1], series
    return loops.tile(rho, first.data, second.data, *where, *operations, nngp, ntk, threshold)


def _rho(products, units1, units2, start, size) -> np.ndarray:
    """Correlations of a tile; of one at the edge, those that no other tile has.

    All are computed in one size, those at the edge from further back. Entries that two tiles share
    differ by rounding, and which of them is written last would be chance.
    """
    begin = [min(s, len(u) - n) for s, u, n in zip(start, (units1, units2), size, strict=True)]
    rho = np.asarray(products(units1, units2, *begin, size))
    if list(start) == begin:
        return rho
    rho = np.ascontiguousarray(rho[start[0] - begin[0] :, start[1] - begin[1] :])
    rho.flags.writeable = False  # as those of JAX: another type would be compiled anew
    return rho


@compiled(static_argnums=4)
def _correlations(units1, units2, i, j, size):
    rows = jax.lax.dynamic_slice_in_dim(units1, i, size[0])
    columns = jax.lax.dynamic_slice_in_dim(units2, j, size[1])
    return jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)


def _even(n: int) -> int:
    """Size of tiles of nearly equal size."""
    return -(-n // -(-n // _TILE))


@compiled
def _units(x: jax.Array) -> jax.Array:
    """Examples of unit length, without over- or underflow."""
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    scaled = x / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(scaled * scaled, axis=1, keepdims=True))
    return scaled / jnp.where(length > 0, length, 1)


class _Side(Side):
    """Vectors that are given as data, ``(n, d)``."""

    def __init__(self, x: jax.Array):
        self.units, data = _units(x), np.asarray(x)
        # Without an array of the squares in double precision.
        squares = np.einsum("ij,ij->i", data, data, dtype=np.float64)
        super().__init__(squares / data.shape[1])
        inverse = np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
        self.data = data, inverse
