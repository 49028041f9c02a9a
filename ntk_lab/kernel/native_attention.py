"""Kernels of networks with attention by loops compiled for this CPU (extra: numba).

With scaling ``1/d`` attention is a number for each two positions of an example, in the limit. The
examples' own moments are found first, layer by layer, and with them all attention weights and all
that layers between need of each position alone. Then each pair of examples goes through all layers
by itself: two matrix products a layer of attention, and loops over pairs of positions in between
that stay in the cache. Rows of pairs are shared among the cores.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ntk_lab.kernel.native import half_angle_constants, shared_pool
from ntk_lab.kernel.native_sides import THRESHOLD, Side, named_operations, specialized
from ntk_lab.kernel.native_steps import Attend, Average, Filter, Step, TwoSlopes
from ntk_lab.kernel.positions import Window

# Pairs of examples of one task, about.
_PAIRS = 128
Progress = Callable[[int, int], None]


class Means(NamedTuple):
    """Means over positions: covariance and NTK of pairs, and variances of either side."""

    cov: np.ndarray
    ntk: np.ndarray
    var1: np.ndarray
    var2: np.ndarray


def attention_means(
    steps: Sequence[Step], x1: np.ndarray, x2: np.ndarray | None, progress: Progress | None
) -> Means | None:
    """Moments after ``steps`` for data ``(n, *S, channels)``; ``x2=None`` means ``x1``.

    The last step is an :class:`Average`. None where these loops do not apply: between layers of
    attention, only layers that act on each position by itself; no variance may vanish there.
    """
    runs = _runs(steps[:-1])
    if runs is None:
        return None
    x = x1 if x2 is None else np.concatenate([x1, x2])
    x = x.reshape(len(x), -1, x.shape[-1])
    own = _Own(x)
    for stage, attend in runs:
        if not own.advance(stage, attend):
            return None
    assert isinstance(steps[-1], Average)
    return _all_means(own, len(x1), x2 is None, steps[-1].factor ** 2, progress)


def bytes_needed(steps: Sequence[Step], examples: int, positions: int, dtype: np.dtype) -> int:
    """Memory for what is kept of each example alone."""
    layers = sum(isinstance(step, Attend) for step in steps)
    # Moments and weights, and in double precision what weights are made of.
    return examples * positions**2 * (np.dtype(dtype).itemsize * (2 + 4 * layers) + 4 * 8)


Run = tuple[list[Step], Attend | None]


def _runs(steps: Sequence[Step]) -> list[Run] | None:
    """Operations on single positions, each time with the layer of attention after them."""
    runs: list[Run] = []
    current: list[Step] = []
    for step in steps:
        if isinstance(step, Attend):
            runs.append((current, step))
            current = []
        elif _acts_on_positions(step):
            current.append(step)
        else:
            return None
    return [*runs, (current, None)]


def _acts_on_positions(step: Step) -> bool:
    """Whether each position is by itself."""
    if isinstance(step, Filter):
        return all(window == Window.single() for window in step.windows)
    return isinstance(step, TwoSlopes) and (step.a, step.b) != (0, 0)


def _loops() -> Any:
    # Imported where used: numba is an extra, and takes a while.
    from ntk_lab.kernel import native_attention_loops

    return native_attention_loops


class _Own:
    """Moments of each example with itself, and what pairs need of it at each stage.

    A stage is a run of operations on single positions. ``var`` are the variances of all positions
    of all examples before the next one.
    """

    def __init__(self, x: np.ndarray):
        n, s, channels = x.shape
        # A copy: loops are compiled once more for arrays that may not be written to.
        x = np.array(x.reshape(n * s, channels), order="C")
        squares = np.sum(np.square(x, dtype=np.float64), axis=1)
        inverse = _inverse(np.sqrt(squares))
        units = (x * inverse[:, None]).astype(x.dtype)
        self.data: Any = units, np.ascontiguousarray(units.T), (x, inverse)
        self.dtype, self.var, self.acute = x.dtype, squares / channels, False
        self.moments = np.empty((n, s, 2, s), x.dtype)
        self.constants = half_angle_constants(x.dtype), x.dtype.type(THRESHOLD[x.itemsize])
        self.stages: list[tuple] = []
        self.attention: list[tuple] = []

    def advance(self, steps: Sequence[Step], attend: Attend | None) -> bool:
        """Go through one stage and the attention after it; False where loops do not apply."""
        is_first, dtype, s = not self.stages, self.dtype, self.moments.shape[1]
        if not is_first and not (self.var > 0).all():
            return False
        side = Side(self.var.astype(np.float64))
        before = side.var, _inverse(np.sqrt(side.var))
        named = named_operations(steps, side, gaussian=not is_first)
        if named is None:
            return False
        numbers = np.array(named[1], dtype).reshape(-1, 2)
        program, self.acute = specialized(named[0], numbers, self.acute)
        factor, constant = (1.0, np.zeros((s, s))) if attend is None else attend.values
        constants = side.constants(dtype), np.stack(before).astype(dtype)[None]
        values = np.array([factor], dtype), constant.astype(dtype)[None]
        self.stages.append((np.array(program, np.int64), numbers, *constants, *values))
        stage = _together(self.stages[-1:])
        _loops().own(is_first, self.data, stage, *self.constants, self.moments)
        if attend is not None:
            self._attend(attend)
        return True

    def _attend(self, attend: Attend) -> None:
        weights = attend.weights(self.moments[:, :, 0])
        turned = np.ascontiguousarray(np.swapaxes(weights, 1, 2))
        bias = self.dtype.type(attend.bias)
        self.attention.append((weights[None], turned[None], np.array([bias])))
        _loops().own_attention(weights, turned, bias, self.moments)
        self.var = np.einsum("npp->np", self.moments[:, :, 0]).ravel()


def _inverse(values: np.ndarray) -> np.ndarray:
    return np.divide(1, values, out=np.zeros_like(values), where=values > 0)


def _together(stages: list[tuple]) -> tuple:
    """Some stages as the loops take them; see ``native_attention_loops.rows``."""
    ends = np.cumsum([0, *(len(stage[0]) for stage in stages)])
    programs, numbers, *rest = (_concatenated(arrays) for arrays in zip(*stages, strict=True))
    return programs, numbers, ends, *rest


def _concatenated(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _all_means(own: _Own, n1: int, symmetric: bool, factor: float, progress) -> Means:
    """Means over positions of all pairs, times ``factor``; rows are shared among the cores."""
    n, workers, loops = len(own.moments), os.cpu_count() or 1, _loops()
    shape = (n1, n1) if symmetric else (n1, n - n1)
    cov, ntk = np.empty(shape, own.dtype), np.empty(shape, own.dtype)
    attention = tuple(_concatenated(arrays) for arrays in zip(*own.attention, strict=True))
    arguments = own.data, _together(own.stages), attention, *own.constants, cov, ntk
    # Rows of a symmetric kernel become shorter: each task takes some from everywhere.
    tasks = min(n1, max(workers, math.prod(shape) // _PAIRS))
    submit = shared_pool(workers, os.getpid()).submit
    futures = [submit(loops.rows, i, tasks, n1, symmetric, *arguments) for i in range(tasks)]
    try:
        for done, future in enumerate(futures, start=1):
            future.result()
            if progress is not None:
                progress(done, tasks)
    finally:
        for future in futures:
            future.cancel()
    with np.errstate(invalid="ignore", over="ignore"):
        # What is not finite is reported by those who return a kernel.
        means = own.moments.mean((1, 3), dtype=np.float64).astype(own.dtype)
    if symmetric:
        for whole, diagonal in zip((cov, ntk), means.T, strict=True):
            np.fill_diagonal(whole, diagonal)
    var = own.dtype.type(factor) * means[:, 0]
    return Means(factor * cov, factor * ntk, var[:n1], var[:n1] if symmetric else var[n1:])
