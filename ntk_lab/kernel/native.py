"""Kernels of convolutional networks with pooling by loops compiled for this CPU (extra: numba).

The covariance between all positions of a pair of examples is what makes these kernels slow. For
networks made of convolutions, piecewise linear activations and pooling over at most two spatial
axes, each pair is computed by itself in loops that stay in the cache, and pairs are shared among
the cores. Everything else, and every machine without numba, takes the portable way; both give the
same numbers to rounding.
"""

import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import jax
import numpy as np

from ntk_lab.kernel.arccosine import half_angle_series
from ntk_lab.kernel.native_steps import Average, Filter, Mix, Step, TwoSlopes


def available() -> bool:
    """Whether kernels can be computed by compiled loops on this machine.

    They can where numba is installed and JAX computes on the CPU, unless the environment variable
    ``NTK_LAB_NATIVE`` is ``0``.
    """
    return (
        os.environ.get("NTK_LAB_NATIVE", "1") != "0"
        and jax.default_backend() == "cpu"
        and _installed()
    )


@cache
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None


@cache
def shared_pool(workers: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay: starting them takes as long as a small kernel.

    ``process`` is ``os.getpid()``: threads do not live on in a forked process.
    """
    return ThreadPoolExecutor(workers, thread_name_prefix=f"ntk_lab-{process}")


@lru_cache(maxsize=2)
def half_angle_constants(dtype: np.dtype) -> tuple[tuple, tuple]:
    """``half_angle_series`` as loops take them."""
    angle, bent = half_angle_series(8 * dtype.itemsize)
    return tuple(dtype.type(c) for c in angle), tuple(dtype.type(c) for c in bent)


def _loops() -> Any:
    # Imported where used: numba is an extra, and takes a while.
    from ntk_lab.kernel import native_loops

    return native_loops


@dataclass
class _Pair:
    """What is known of one pair of examples on the way; see ``Covariance.distance``."""

    distance: np.ndarray
    ntk: np.ndarray
    var1: np.ndarray
    var2: np.ndarray
    weight: Any
    spare: tuple[np.ndarray, np.ndarray] | None = None

    def room(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays to write to: fresh memory costs about as much as a layer."""
        if self.spare is not None and self.spare[0].shape == shape:
            return self.spare
        return np.empty(shape, self.ntk.dtype), np.empty(shape, self.ntk.dtype)


def average_kernels(
    steps: Sequence[Step],
    x1: np.ndarray,
    x2: np.ndarray | None,
    own: bool,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Covariance and NTK after ``steps``, ``(n1, n2)``, and the variances ``(n1,)``, ``(n2,)``.

    ``x2=None`` means ``x1``. The last step is an :class:`Average`. Without ``own`` the variances
    after it are NaN.
    """
    examples = x1 if x2 is None else np.concatenate([x1, x2])
    examples = examples if examples.ndim == 4 else examples[:, None]
    n1 = len(x1)
    offset, n2 = (0, n1) if x2 is None else (n1, len(x2))
    own = own or any(isinstance(step, Mix) for step in steps)
    with ThreadPoolExecutor(workers) as pool:
        single = list(pool.map(lambda x: _variances(steps, x, own), examples))
        pairs = [(i, j) for i in range(n1) for j in range(n2) if x2 is not None or j >= i]

        def compute(pair: tuple[int, int]) -> tuple[tuple[int, int], tuple[Any, Any]]:
            i, j = pair[0], pair[1] + offset
            return pair, _pair(steps, examples[i], examples[j], single[i], single[j], i == j)

        cov, ntk = (np.empty((n1, n2), examples.dtype) for _ in range(2))
        futures = [pool.submit(compute, pair) for pair in pairs]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                (i, j), (cov[i, j], ntk[i, j]) = future.result()
                if x2 is None:
                    cov[j, i], ntk[j, i] = cov[i, j], ntk[i, j]
                if progress is not None:
                    progress(done, len(pairs))
        finally:
            for future in futures:
                future.cancel()
    last = np.array([variances[-1].item() for variances in single], examples.dtype)
    return cov, ntk, last[:n1], last[offset : offset + n2]


def _variances(steps: Sequence[Step], x: np.ndarray, own: bool) -> list[np.ndarray]:
    """Variances of one example before the first step and after each; NaN where not needed."""
    variances = [np.mean(x * x, axis=-1, dtype=x.dtype)]
    if own:
        _walk(steps, x, x, variances, variances, True, grow=True)
        return variances
    for step in steps:
        variances.append(_after(step, variances[-1]))
    return variances


def _after(step: Step, var: np.ndarray) -> np.ndarray:
    if isinstance(step, Filter):
        return var.dtype.type(step.signal) * _window_mean(step, var) + var.dtype.type(step.constant)
    if isinstance(step, TwoSlopes):
        return var.dtype.type((step.a**2 + step.b**2) / 2) * var
    return np.full((1, 1), np.nan, var.dtype)


def _window_mean(step: Filter, var: np.ndarray) -> np.ndarray:
    first, second = (w.matrix(n) for w, n in zip(step.windows_of_two, var.shape, strict=True))
    share = 1 / math.prod(w.taps for w in step.windows)
    return (share * first @ var.astype(np.float64) @ second.T).astype(var.dtype)


def _pair(steps, x1, x2, var1, var2, same: bool) -> tuple[Any, Any]:
    pair = _walk(steps, x1, x2, var1, var2, same)
    return pair.distance.item(), pair.ntk.item()


def _walk(steps, x1, x2, var1, var2, same: bool, grow: bool = False) -> _Pair:
    """All steps for one pair; ``grow`` appends the variances of an example paired with itself."""
    weight = _weight_before(0, steps, var1, var2)
    root = np.sqrt(weight)
    (h, w), dtype = x1.shape[:2], x1.dtype.type
    distance = np.empty((h, h, w, w), dtype)
    _loops().distances(root * x1, x2 / root, dtype(0.5 / x1.shape[2]), distance)
    pair = _Pair(distance, np.zeros_like(distance), var1[0], var2[0], weight)
    i = 0
    while i < len(steps):
        step, taken = steps[i], 1
        if isinstance(step, Filter):
            follows = steps[i + 1] if i + 1 < len(steps) else None
            if isinstance(follows, TwoSlopes):
                taken = 2
            if grow:
                var1 += _afters(steps[i : i + taken], pair.var1)
            then = follows if taken == 2 else None
            new = _weight_before(i + taken, steps, var1, var2)
            _filter(step, pair, then, var1[i + 1], var2[i + 1], new)
        elif isinstance(step, TwoSlopes):
            if grow:
                var1.append(_after(step, pair.var1))
            new = _weight_before(i + 1, steps, var1, var2)
            constants = _slopes(step, pair.var1, pair.var2, pair.weight, new)
            _loops().activation(pair.distance, pair.ntk, *constants)
            pair.weight = new
        else:
            _mix(step, pair)
            if grow:
                var1.append(np.einsum("iijj->ij", pair.distance).copy())
        i += taken
        pair.var1, pair.var2 = var1[i], var2[i]
        if isinstance(step, Mix):
            _to_distance(pair, same, _weight_before(i, steps, var1, var2))
    return pair


def _weight_before(i: int, steps, var1: list[np.ndarray], var2: list[np.ndarray]) -> Any:
    """Weight of distances before step ``i``: a filter's bias may change the ratio of two examples.

    An example paired with itself, whose variances are found on the way, has weight one.
    """
    ahead = i + 1 if i < len(steps) and isinstance(steps[i], Filter) and i + 1 < len(var1) else i
    return _weight(var1[ahead], var2[ahead])


def _afters(steps: Sequence[Step], var: np.ndarray) -> list[np.ndarray]:
    after = []
    for step in steps:
        var = _after(step, var)
        after.append(var)
    return after


def _weight(var1: np.ndarray, var2: np.ndarray) -> Any:
    mean1, mean2 = var1.mean(), var2.mean()
    usable = mean1 > 0 and mean2 > 0
    return np.sqrt(mean2) / np.sqrt(mean1) if usable else var1.dtype.type(1)


def _filter(
    step: Filter, pair: _Pair, then: TwoSlopes | None, var1: np.ndarray, var2: np.ndarray, new
) -> None:
    """A filter and the activation after it; ``var1, var2`` are the variances between them."""
    dtype = pair.distance.dtype.type
    half = dtype(0.5)
    before = [half * pair.weight * pair.var1, half / pair.weight * pair.var2]
    windows = step.windows_of_two
    taps = [
        (w.firsts(n), w.dilation, w.taps, w.circular)
        for w, n in zip(windows, pair.var1.shape, strict=True)
    ]
    matrix = windows[0].matrix(pair.var1.shape[0]).astype(dtype)
    halves = (*before, *(matrix @ h for h in before))
    after = (
        half * pair.weight * _window_mean(step, pair.var1),
        half / pair.weight * _window_mean(step, pair.var2),
    )
    shift = (pair.weight + 1 / pair.weight - 2) / 2 * dtype(step.constant)
    share = 1 / math.prod(w.taps for w in step.windows)
    scales = (share, step.signal, shift, step.weight_tangent, step.bias_tangent)
    h, w = var1.shape
    out, out_ntk = pair.room((h, h, w, w))
    # Without an activation its arguments are not read.
    slopes, roots, series = _slopes(then or TwoSlopes(1, 1), var1, var2, pair.weight, new)
    slopes = () if then is None else slopes
    constants = tuple(dtype(s) for s in scales)
    _loops().layer(
        pair.distance,
        pair.ntk,
        halves,
        *taps,
        after,
        constants,
        slopes,
        roots,
        series,
        out,
        out_ntk,
    )
    pair.spare = (pair.distance, pair.ntk)
    pair.distance, pair.ntk = out, out_ntk
    if then is not None:
        pair.weight = new


def _slopes(step: TwoSlopes, var1: np.ndarray, var2: np.ndarray, weight, new) -> tuple:
    """Constants and standard deviations as the loops of an activation take them."""
    dtype = var1.dtype.type
    roots = [np.sqrt(weight * var1), np.sqrt(var2 / weight)]
    roots += [np.divide(1, r, out=np.zeros_like(r), where=r > 0) for r in roots]
    roots += [np.sqrt(new * var1), np.sqrt(var2 / new)]
    both, square, mean = step.a * step.b, (step.b - step.a) ** 2, (step.a**2 + step.b**2) / 2
    constants = tuple(dtype(c) for c in (0, 0.5, 1, both, square, mean))
    return constants, tuple(roots), half_angle_constants(var1.dtype)


def _mix(step: Mix | Average, pair: _Pair) -> None:
    """Covariances after pooling, in the place of distances."""
    dtype = pair.distance.dtype.type
    half1, half2 = dtype(0.5) * pair.weight * pair.var1, dtype(0.5) / pair.weight * pair.var2
    if isinstance(step, Average):
        factor = dtype(step.factor**2)
        sides = half1.mean(dtype=np.float64) + half2.mean(dtype=np.float64)
        means = sides - pair.distance.mean(dtype=np.float64), pair.ntk.mean(dtype=np.float64)
        pair.distance, pair.ntk = (np.full((1, 1, 1, 1), factor * mean, dtype) for mean in means)
        return
    rows, columns = (_ranged(m.astype(dtype)) for m in step.matrices_of_two)
    (h, _), (w, _) = rows[0].shape, columns[0].shape
    out, out_ntk = np.empty((h, h, w, w), dtype), np.empty((h, h, w, w), dtype)
    _loops().pool(pair.distance, pair.ntk, (half1, half2), rows, columns, out, out_ntk)
    pair.distance, pair.ntk = out, out_ntk


def _ranged(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix, and in each line the range of the entries that are not zero."""
    used = matrix != 0
    first, last = used.argmax(1), matrix.shape[1] - used[:, ::-1].argmax(1)
    return matrix, np.stack([first, np.where(used.any(1), last, first)], axis=1)


def _to_distance(pair: _Pair, same: bool, weight) -> None:
    """Distances from the covariances that stand in their place, zero on an exact diagonal."""
    half = pair.distance.dtype.type(0.5)
    cov = pair.distance
    pair.weight = weight
    sides = (half * pair.weight * pair.var1)[:, None, :, None] + (half / pair.weight * pair.var2)[
        None, :, None
    ]
    var1, var2 = pair.var1[:, None, :, None], pair.var2[None, :, None]
    distance = np.where((cov == var1) & (var1 == var2), 0, sides - cov)
    if same:
        np.einsum("iijj->ij", distance)[:] = 0
    pair.distance = np.maximum(distance, 0).astype(cov.dtype)
