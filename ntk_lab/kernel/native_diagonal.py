"""Kernels of convolutional networks without pooling by loops compiled for this CPU (extra: numba).

Such a network ends in :class:`~ntk_lab.nn.Flatten` and needs equal positions of two images only.
Filters and piecewise linear activations of one image and a block of others run in loops over
arrays that stay in the cache; what belongs to one image alone is computed in double precision.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ntk_lab.kernel.native import half_angle_constants
from ntk_lab.kernel.native_steps import Filter, Step, TwoSlopes

# Examples whose constants are in memory at a time, on each side, and rows of one task.
_EXAMPLES, _ROWS = 512, 8
# Bytes of one of the four arrays of a block.
_CACHED = 2**17
_WIDTHS = 16, 128
_ALIGNED = 16
Progress = Callable[[int, int], None]


class Means(NamedTuple):
    """What is known of pairs of examples after all steps, as means over positions.

    ``distance`` (see ``Covariance.distance``, ``weight`` being ``m2 / m1``) and ``ntk`` are ``(n1,
    n2)`` and divided by ``m1 m2``. ``var1``, ``var2`` are variances, ``(n1,)`` and ``(n2,)``, and
    ``m1``, ``m2`` their roots, or one instead of zero.
    """

    distance: np.ndarray
    ntk: np.ndarray
    var1: np.ndarray
    var2: np.ndarray
    m1: np.ndarray
    m2: np.ndarray


def diagonal_means(
    steps: Sequence[Step], x1: np.ndarray, x2: np.ndarray | None, progress: Progress | None
) -> Means | None:
    """Moments after ``steps`` for images ``(n, h, w, channels)``; ``x2=None`` means ``x1``.

    None where these loops do not apply: an activation must follow a layer with weights.
    """
    operations = _operations(steps)
    if operations is None:
        return None
    symmetric, columns = x2 is None, x1 if x2 is None else x2
    shape, dtype = (len(x1), len(columns)), x1.dtype
    out = tuple(np.empty(shape, dtype) for _ in range(2))
    table = _Table(operations, x1.shape[1:3], dtype)
    constants = tuple(np.empty(n, dtype) for n in (*shape, *shape))
    starts = [
        (i, j)
        for i in range(0, shape[0], _EXAMPLES)
        for j in range(0, shape[1], _EXAMPLES)
        if not symmetric or j >= i
    ]
    for done, (i, j) in enumerate(starts, start=1):
        rows, others = slice(i, i + _EXAMPLES), slice(j, j + _EXAMPLES)
        first = _Side(operations, x1[rows])
        second = first if symmetric and i == j else _Side(operations, columns[others])
        for k, (side, where) in enumerate([(first, rows), (second, others)]):
            constants[k][where], constants[k + 2][where] = side.var, side.m
        parts = tuple(a[rows, others] for a in out)
        _fill(table, first, second, symmetric and i == j, parts)
        if progress is not None:
            progress(done, len(starts))
    if symmetric:
        for a in out:
            below = np.tril_indices(shape[0], -1)
            a[below] = a.T[below]
    return Means(*out, *constants)


Operation = tuple[Filter, TwoSlopes | None]


def _operations(steps: Sequence[Step]) -> list[Operation] | None:
    """Filters, each with the activation after it."""
    operations: list[Operation] = []
    for step in steps:
        if isinstance(step, Filter) and step.signal > 0:
            operations.append((step, None))
        elif isinstance(step, TwoSlopes) and operations and operations[-1][1] is None:
            operations[-1] = operations[-1][0], step
        else:
            return None
    return operations or None


class _Side:
    """What is computed of each example alone.

    ``m`` are root mean squares over positions after the filter of each operation, and at the end:
    a bias may change the ratio of two examples' much, and angles are found after filters.
    """

    def __init__(self, operations: list[Operation], x: np.ndarray):
        var = np.square(x, dtype=np.float64).mean(-1)
        filtered, activated = [], []
        for step, follows in operations:
            windows = step.windows_of_two
            first, second = (w.matrix(n) for w, n in zip(windows, var.shape[1:], strict=True))
            share = step.signal / math.prod(w.taps for w in windows)
            var = share * (first @ var @ second.T) + step.constant
            filtered.append(var)
            if follows is not None:
                var = (follows.a**2 + follows.b**2) / 2 * var
            activated.append(var)
        m, dtype = np.stack([_root_mean(v) for v in [*filtered, var]]), x.dtype
        self.examples, self.var, self.m = len(x), var.mean((1, 2)), m[-1]
        self.before, self.after = (
            np.concatenate(
                [_rows(np.sqrt(v)) / one[:, None] for v, one in zip(variances, ones, strict=True)],
                axis=1,
            ).astype(dtype)
            for variances, ones in ((filtered, m[:-1]), (activated, m[1:]))
        )
        self.inverse, self.change = (1 / m).astype(dtype), (m[:-1] / m[1:]).astype(dtype)
        self.data = (x.reshape(len(x), -1, x.shape[-1]) / m[0][:, None, None]).astype(dtype)

    def as_columns(self) -> tuple[np.ndarray, ...]:
        """Data and constants with examples last, the last one repeated to fill whole vectors."""
        index = np.minimum(np.arange(_aligned(self.examples)), self.examples - 1)
        sides = self.data[index].transpose(1, 2, 0), self.before[index].T, self.after[index].T
        return tuple(
            np.ascontiguousarray(a) for a in (*sides, self.inverse[:, index], self.change[:, index])
        )


def _root_mean(var: np.ndarray) -> np.ndarray:
    m = np.sqrt(var.mean((1, 2)))
    return np.where(m > 0, m, 1)


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


class _Table:
    """Operations as the loops take them; see ``native_diagonal_loops.block``."""

    def __init__(self, operations: list[Operation], sizes: tuple[int, int], dtype: np.dtype):
        entries, numbers, slopes, offset, largest = [], [], [], 0, math.prod(sizes)
        for step, follows in operations:
            windows, before = step.windows_of_two, sizes
            sizes = windows[0].output(sizes[0]), windows[1].output(sizes[1])
            axes = [(w.taps, w.dilation, w.stride, w.before, w.circular) for w in windows]
            entries.append([*before, *sizes, follows is not None, offset, *axes[0], *axes[1]])
            offset, largest = offset + math.prod(sizes), max(largest, math.prod(sizes))
            share, ratio = 1 / math.prod(w.taps for w in windows), step.weight_tangent / step.signal
            rest = step.bias_tangent - ratio * step.constant
            numbers.append([share * step.signal, ratio, rest, math.sqrt(step.constant)])
            a, b = (1.0, 1.0) if follows is None else (follows.a, follows.b)
            slopes.append([a * b, (b - a) ** 2, (a**2 + b**2) / 2])
        self.operations = np.array(entries, np.int64)
        self.numbers, self.slopes = np.array(numbers, dtype), np.array(slopes, dtype)
        self.series = half_angle_constants(dtype)
        fitting = _CACHED // (largest * dtype.itemsize) // _ALIGNED * _ALIGNED
        self.width = min(max(fitting, _WIDTHS[0]), _WIDTHS[1])


def _fill(table: _Table, first: _Side, second: _Side, mirror: bool, out: tuple) -> None:
    """Pairs of two groups of examples, the rows shared among the cores."""
    # Imported where used: numba is an extra, and takes a while.
    from ntk_lab.kernel import native_diagonal_loops as loops

    data2, *columns = second.as_columns()
    rows = first.before, first.after, first.inverse, first.change
    examples: Any = tuple(zip(rows, columns, strict=True))
    width = columns[0].shape[1]
    padded = tuple(np.empty((first.examples, width), a.dtype) for a in out)
    rest = table.operations, table.numbers, table.slopes, table.series, padded
    compute = partial(_block, loops.block, mirror, ((first.data, data2), examples, *rest))
    tasks = [
        (i, min(i + _ROWS, first.examples), j, min(j + table.width, width))
        for i in range(0, first.examples, _ROWS)
        for j in range(0, width, table.width)
        if not mirror or j + table.width > i
    ]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        futures = [pool.submit(compute, task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
        finally:
            for future in futures:
                future.cancel()
    for whole, part in zip(out, padded, strict=True):
        whole[:] = part[:, : second.examples]


def _aligned(n: int) -> int:
    """The next multiple of what fills whole vectors."""
    return -(-n // _ALIGNED) * _ALIGNED


def _block(loop: Callable, mirror: bool, arguments: tuple, task: tuple[int, int, int, int]) -> None:
    loop(*task, mirror, *arguments)
