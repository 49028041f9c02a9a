"""Kernels of fully connected networks by loops compiled for this CPU (extra: numba).

For layers with weights, piecewise linear activations, erf, and skip connections over vectors, a
pair of examples needs two numbers: how far it is from colinear, and its NTK. All that depends on
one example alone is computed beforehand, in double precision, so that a layer costs one square root
and a few multiplications a pair, and pairs stay in the cache through all layers. The correlation
of inputs is one matrix product. Other networks, and machines without numba, take the portable way.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.kernel.native import (
    Erf,
    Filter,
    Fork,
    Join,
    Step,
    TwoSlopes,
    half_angle_constants,
)
from ntk_lab.kernel.result import Kernel

# Pairs of a kernel for which compiled loops are worth their start.
FEWEST = 2**16
_TILE = 512
# Where a matrix product leaves fewer digits of the angle than the rest of the computation.
_THRESHOLD = {4: 1e-3, 8: 1e-5}
Progress = Callable[[int, int], None]


def vector_kernels(
    steps: Sequence[Step], x1: jax.Array, x2: jax.Array | None, progress: Progress | None = None
) -> tuple[Kernel, bool] | None:
    """NNGP and NTK after ``steps`` for data ``(n, d)``, and whether all entries are finite.

    None where these loops do not apply.
    """
    symmetric, columns = x2 is None, x1 if x2 is None else x2
    sides = [_Side(x) for x in ([x1] if symmetric else [x1, x2])]
    programs = [p for p in (_program(steps, side) for side in sides) if p is not None]
    if len(programs) < len(sides):
        return None
    (program, numbers), dtype = programs[0], np.dtype(x1.dtype)
    numbers = np.array(numbers, dtype).reshape(-1, 2)
    program = np.array(_specialized(program, numbers), np.int64)
    shape = (len(x1), len(columns))
    nngp, ntk = _aligned(shape, dtype), _aligned(shape, dtype)
    constants = [side.constants(dtype) for side in sides]
    compute = partial(
        _tile, sides, program, numbers, constants, half_angle_constants(dtype), nngp, ntk, symmetric
    )
    height, width = (_even(n) for n in shape)
    starts = [
        (min(i, shape[0] - height), min(j, shape[1] - width))
        for i in range(0, shape[0], height)
        for j in range(0, shape[1], width)
        if not symmetric or j >= i
    ]
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


def _tile(sides, program, numbers, constants, series, nngp, ntk, symmetric, start, size) -> int:
    # Imported where used: numba is an extra, and takes a while.
    from ntk_lab.kernel import native_vector_loops as loops

    first, second = sides[0], sides[-1]
    rho = np.asarray(_correlations(first.units, second.units, *start, size))
    threshold = rho.dtype.type(_THRESHOLD[rho.dtype.itemsize])
    where = start, symmetric
    operations = program, numbers, constants[0], constants[-1], series
    return loops.tile(rho, first.data, second.data, *where, *operations, nngp, ntk, threshold)


@partial(jax.jit, static_argnums=4)
def _correlations(units1, units2, i, j, size):
    rows = jax.lax.dynamic_slice_in_dim(units1, i, size[0])
    columns = jax.lax.dynamic_slice_in_dim(units2, j, size[1])
    return jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)


def _even(n: int) -> int:
    """Size of tiles of nearly equal size."""
    return -(-n // -(-n // _TILE))


def _aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Memory that JAX takes over without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size].view(dtype).reshape(shape)


@jax.jit
def _units(x: jax.Array) -> jax.Array:
    """Examples of unit length, without over- or underflow."""
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    scaled = x / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(scaled * scaled, axis=1, keepdims=True))
    return scaled / jnp.where(length > 0, length, 1)


class _Side:
    """What is computed of each example alone, layer by layer, in double precision."""

    def __init__(self, x: jax.Array):
        self.units, data = _units(x), np.asarray(x)
        squares = np.sum(np.square(data, dtype=np.float64), axis=1)
        inverse = np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
        self.data = data, inverse
        self.var, self.ntk = squares / data.shape[1], np.zeros_like(squares)
        self._rows: list[list[np.ndarray]] = []

    def record(self, *rows: np.ndarray) -> None:
        """Keep the constants of one operation."""
        self._rows.append(list(rows))

    def constants(self, dtype: np.dtype) -> np.ndarray:
        """All constants, and the standard deviations at the end: ``(ops + 1, 5, n)``."""
        everything = np.zeros((len(self._rows) + 1, 5, len(self.var)), dtype)
        for place, rows in zip(everything, [*self._rows, [np.sqrt(self.var)]], strict=True):
            for i, row in enumerate(rows):
                place[i] = row
        return everything


def _program(steps: Sequence[Step], side: _Side) -> tuple[list[str], list[tuple]] | None:
    """Names of the operations and their numbers; None where these loops do not apply.

    Walks the examples of a side through all layers and records their constants. Activations apply
    to Gaussian processes only, and a standard deviation of zero has no NTK to be measured by it.
    """
    names, numbers, gaussian = [], [], False
    stack: list[tuple[np.ndarray, np.ndarray, bool]] = []
    for step in steps:
        if isinstance(step, TwoSlopes | Erf) and not gaussian:
            return None
        if isinstance(step, Filter):
            if not _affine(step, side):
                return None
            plain = step.weight_tangent == step.signal and step.bias_tangent == step.constant
            entry = "plain_affine" if plain else "affine", (0.0, 0.0)
        elif isinstance(step, TwoSlopes):
            mean = (step.a**2 + step.b**2) / 2
            side.var, side.ntk = mean * side.var, mean * side.ntk
            side.record()
            entry = "two_slopes", ((step.a - step.b) ** 2 / (2 * mean), 0.0)
        elif isinstance(step, Erf):
            _erf(step, side)
            entry = "erf", (step.a**2, step.c**2)
        elif isinstance(step, Fork):
            stack.append((side.var, side.ntk, gaussian))
            side.record()
            entry = "fork", (0.0, 0.0)
        else:
            assert isinstance(step, Join)
            *skip, was_gaussian = stack.pop()
            _join(skip, side)
            gaussian = gaussian and was_gaussian
            entry = "join", (0.0, 0.0)
        if isinstance(step, Filter | TwoSlopes | Erf):
            gaussian = isinstance(step, Filter)
        names.append(entry[0])
        numbers.append(entry[1])
    return names, numbers


def _affine(step: Filter, side: _Side) -> bool:
    """Constants of a layer with weights; False where its NTK cannot be measured by its norm."""
    before = np.sqrt(side.var)
    var = step.signal * side.var + step.constant
    after = np.sqrt(var)
    if step.bias_tangent > 0 and (after == 0).any():
        return False
    inverse = np.divide(1, after, out=np.zeros_like(after), where=after > 0)
    turn = np.arctan2(math.sqrt(step.constant), math.sqrt(step.signal) * before)
    weight, bias = math.sqrt(step.weight_tangent), math.sqrt(step.bias_tangent)
    halves = np.sin(turn / 2), np.cos(turn / 2)
    side.record(np.cos(turn), *halves, weight * before * inverse, bias * inverse)
    tangent = step.weight_tangent * side.var + step.bias_tangent
    side.ntk = step.signal * side.ntk + tangent
    side.var = var
    return True


def _erf(step: Erf, side: _Side) -> None:
    double = 2 * step.b**2 * side.var
    turn = np.arctan(np.sqrt(double))
    var = step.a**2 * 2 / np.pi * np.arctan2(double, np.sqrt(1 + 2 * double)) + step.c**2
    inverse = np.divide(1, np.sqrt(var), out=np.zeros_like(var), where=var > 0)
    slope = abs(step.a * step.b) * math.sqrt(4 / math.pi) * np.sqrt(side.var) * np.cos(turn)
    sine, square = np.sin(turn), np.cos(turn) ** 2
    side.record(sine, square, inverse, slope * inverse, square / (2 + 2 * sine))
    side.ntk = side.ntk * step.a**2 * 4 * step.b**2 / math.pi / np.sqrt(1 + 2 * double)
    side.var = var


def _join(skip: Sequence[Any], side: _Side) -> None:
    turn = np.arctan2(np.sqrt(side.var), np.sqrt(skip[0]))
    side.record(np.cos(turn), np.sin(turn), np.sin(turn / 2), np.cos(turn / 2))
    side.var, side.ntk = side.var + skip[0], side.ntk + skip[1]


def _specialized(names: list[str], numbers: np.ndarray) -> list[int]:
    """Operations by number; the cheaper ones where all angles are known to be acute."""
    from ntk_lab.kernel import native_vector_loops as loops

    acute, stack, ops = False, [], []
    for name, (kappa, _) in zip(names, numbers, strict=True):
        if name == "plain_affine":
            name = "acute_affine" if acute else name
        elif name == "two_slopes":
            name = "relu" if acute and kappa == 1 else name
            acute = acute or kappa >= 1
        elif name == "fork":
            stack.append(acute)
        elif name == "join":
            acute = stack.pop() and acute
        ops.append(getattr(loops, name.upper()))
    return ops
