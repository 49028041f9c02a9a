"""Linear maps between positions, applied to both sides of a covariance.

Two kinds differ in what they keep. A *shared filter* (convolution with random weights) pairs each
offset with itself, ``k'(p, q) = sum_d k(p + d, q + d)``; it maps distances as it does covariances
and needs no others. A *mixing map* (pooling, resizing) sums over positions of either side alone,
``k' = A k A^T``, and needs the covariance of each example with itself for its variances.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel.apart import apart
from ntk_lab.kernel.covariance import Covariance, balance
from ntk_lab.kernel.layout import (
    Diagonal,
    Full,
    Vector,
    diagonal_of,
    same_position,
    spread1,
    spread2,
)
from ntk_lab.kernel.state import Features
from ntk_lab.kernel.sums import mean


@dataclass(frozen=True)
class Window:
    """A filter along one spatial axis: which inputs each output reads.

    Output ``i`` reads inputs ``i * stride + tap * dilation - before`` for all taps, of the input
    with ``spacing - 1`` zeros between its entries; outside are zeros, or the input again.
    """

    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    spacing: int = 1
    circular: bool = False

    @classmethod
    def single(cls) -> "Window":
        """The window that leaves an axis as it is."""
        return cls(1, 1, 1, 0, 0)

    @property
    def has_zeros(self) -> bool:
        """Whether some taps read zeros that are not of the input."""
        return self.spacing > 1 or (max(self.before, self.after) > 0 and not self.circular)

    def output(self, size: int) -> int:
        """Number of outputs for that many inputs."""
        padded = (size - 1) * self.spacing + 1 + self.before + self.after
        return (padded - (self.taps - 1) * self.dilation - 1) // self.stride + 1

    def firsts(self, size: int) -> np.ndarray:
        """Input that the first tap of each output reads; negative outside."""
        return np.arange(self.output(size)) * self.stride - self.before

    @lru_cache(maxsize=256)  # noqa: B019  (windows are small and few)
    def matrix(self, size: int) -> np.ndarray:
        """The filter with unit weights as a matrix of shape ``(output, size)``."""
        matrix = np.zeros((self.output(size), size))
        for i in range(len(matrix)):
            for tap in range(self.taps):
                source = i * self.stride + tap * self.dilation - self.before
                if self.circular:
                    matrix[i, source % size] += 1
                elif source % self.spacing == 0 and 0 <= source // self.spacing < size:
                    matrix[i, source // self.spacing] += 1
        return matrix


def shared_filter(
    state: Features, windows: Sequence[Window], signal, constant
) -> tuple[Features, jax.Array]:
    """Moments after a layer with the same random weights at every position.

    With ``A`` the mean over offsets within the windows: covariance ``signal A(q) + constant`` and
    NTK ``signal A(t)``; and ``A(q)`` itself.
    """
    if isinstance(state.layout, Vector):
        raise InputError("a filter over positions needs inputs with spatial axes.")
    layout, ndim = state.layout, len(state.layout.shape)
    full = isinstance(layout, Full)
    share = 1 / math.prod(w.taps for w in windows)

    def add_up(values: jax.Array, *sides: int) -> jax.Array:
        """Sum over the windows; the given axes of positions move together."""
        groups = [tuple(side + i for side in sides) for i in range(ndim)]
        return window_sum(values, windows, groups)

    both, second = ((0, ndim), ndim) if full else ((0,), 0)

    def filtered(k: Covariance) -> tuple[Covariance, jax.Array]:
        var1, var2 = add_up(k.var1, 0), add_up(k.var2, second)
        # After the layer: a bias may change the ratio of the two much.
        scaled = (signal * share * v + constant for v in (var1, var2))
        weight = balance(*scaled, pair_axes=1 if full else 2)
        distance = add_up(k.distance(weight), *both)
        if full and any(w.has_zeros for w in windows):
            # Where one side of an offset meets padding, the distance is half the other's variance.
            outside1 = _without_rounding(var1, _sum_inside(k.var1, windows, layout.shape))
            outside2 = _without_rounding(var2, _sum_inside(k.var2, windows, layout.shape))
            distance = distance + (weight * outside1 + outside2 / weight) / 2
        var1, var2, distance = share * var1, share * var2, share * distance
        shift = (weight + 1 / weight - 2) / 2 * constant
        after = Covariance.from_distance(
            signal * var1 + constant, signal * var2 + constant, signal * distance + shift, weight
        )
        return after, (weight * var1 + var2 / weight) / 2 - distance

    cov, averaged = filtered(state.cov)
    shape = tuple(w.output(size) for w, size in zip(windows, layout.shape, strict=True))
    layout = replace(layout.mapped(lambda k: filtered(k)[0]), shape=shape)
    ntk = signal * share * add_up(state.ntk, *both)
    return replace(state, cov=cov, ntk=ntk, layout=layout), averaged


def _sum_inside(variances: jax.Array, windows: Sequence[Window], sizes: Sequence[int]) -> jax.Array:
    """Sum of one side's variances over the offsets for which both positions are of the input."""
    for i, (window, size) in enumerate(zip(windows, sizes, strict=True)):
        axes = (i, len(sizes) + i)
        # Spread over the other side's positions one axis at a time: only the last sum is large.
        shape = [size if a in axes else n for a, n in enumerate(variances.shape)]
        spread = partial(_spread_sum, shape=shape, window=window, axes=axes)
        variances = spread(variances) if i == len(sizes) - 1 else apart(spread, variances)
    return variances


def _spread_sum(
    values: jax.Array, shape: Sequence[int], window: Window, axes: tuple[int, ...]
) -> jax.Array:
    return _sum_taps(jnp.broadcast_to(values, shape), window, axes)


def _without_rounding(total: jax.Array, part: jax.Array) -> jax.Array:
    """``total - part``, and exactly zero where they differ by rounding only."""
    rest = total - part
    return jnp.where(rest > 8 * jnp.finfo(total.dtype).eps * total, rest, 0)


def window_sum(
    values: jax.Array, windows: Sequence[Window], groups: Sequence[tuple[int, ...]]
) -> jax.Array:
    """Sum over the taps of each window, the axes of one group moving together."""
    last = len(windows) - 1
    for i, (window, axes) in enumerate(zip(windows, groups, strict=True)):
        if window == Window.single():
            continue
        if i < last or last == 0:
            values = apart(partial(_sum_taps, window=window, axes=axes), values)
        else:
            values = _sum_taps(values, window, axes)
    return values


def _sum_taps(values: jax.Array, window: Window, axes: tuple[int, ...]) -> jax.Array:
    sizes = [window.output(values.shape[a]) for a in axes]
    if window.circular:
        pad = [(window.before, window.after) if a in axes else (0, 0) for a in range(values.ndim)]
        values = jnp.pad(values, pad, mode="wrap")
    else:
        edges = (window.before, window.after, window.spacing - 1)
        config = [edges if a in axes else (0, 0, 0) for a in range(values.ndim)]
        values = jax.lax.pad(values, jnp.zeros((), values.dtype), config)

    def tap(offset: int) -> jax.Array:
        start, stop, step = [0] * values.ndim, list(values.shape), [1] * values.ndim
        for a, size in zip(axes, sizes, strict=True):
            start[a] = offset * window.dilation
            stop[a] = start[a] + (size - 1) * window.stride + 1
            step[a] = window.stride
        return jax.lax.slice(values, start, stop, step)

    total = tap(0)
    for offset in range(1, window.taps):
        total = total + tap(offset)
    return total


def mix(state: Features, matrices: Sequence[np.ndarray | jax.Array | None]) -> Features:
    """Covariance and NTK after a linear map of the positions: one matrix for each spatial axis.

    Each matrix is ``(output, size)``; None leaves an axis as it is.
    """
    layout = _mixable(state)
    sides = [m for _ in range(2) for m in matrices]

    def apply(values: jax.Array) -> jax.Array:
        for axis, matrix in enumerate(sides):
            if matrix is not None:
                values = _along(values, jnp.asarray(matrix, values.dtype), axis)
        return values

    shape = tuple(
        size if m is None else m.shape[0] for m, size in zip(matrices, layout.shape, strict=True)
    )
    return mixed(state, apply, apply, shape)


def _along(values: jax.Array, matrix: jax.Array, axis: int) -> jax.Array:
    moved = jnp.tensordot(matrix, values, axes=((1,), (axis,)), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(moved, 0, axis)


def mixed(
    state: Features,
    between: Callable[[jax.Array], jax.Array],
    within: Callable[[jax.Array], jax.Array],
    shape: tuple[int, ...],
) -> Features:
    """State after a mixing map, given as what it does to entries of pairs and of own examples."""
    layout = _mixable(state)
    pairs, ndim = layout.pairs, len(shape)
    cov, ntk = between(state.cov.cov), between(state.ntk)
    if layout.own is None:
        # Nothing that follows reads variances: see Need. NaN, so that nothing can by mistake.
        unknown = jnp.full((*shape, cov.shape[-1]), jnp.nan, cov.dtype)
        var1, var2 = spread1(unknown, ndim), spread2(unknown, ndim)
        after = Covariance(var1, var2, cov, jnp.full_like(cov, jnp.nan))
        return replace(state, cov=after, ntk=ntk, layout=replace(layout, shape=shape))
    own = within(layout.own.cov)
    variances = diagonal_of(own, ndim)
    same = same_position(shape, own) > 0
    own_after = with_exact_diagonal(spread1(variances, ndim), spread2(variances, ndim), own, same)
    var1 = spread1(variances[..., pairs.first], ndim)
    var2 = spread2(variances[..., pairs.second], ndim)
    diagonal = same & _known(state.same).reshape(*(1,) * 2 * ndim, -1)
    after = with_exact_diagonal(var1, var2, cov, diagonal)
    return replace(state, cov=after, ntk=ntk, layout=replace(layout, shape=shape, own=own_after))


def _known(same: jax.Array | None) -> jax.Array:
    return jnp.zeros((1,), bool) if same is None else same


def with_exact_diagonal(var1, var2, cov, diagonal) -> Covariance:
    """Covariance whose gap is found by subtraction, and is zero where a value meets itself."""
    cov = cov + jax.lax.stop_gradient(jnp.where(diagonal, var1 - cov, 0))
    same = diagonal | ((cov == var1) & (cov == var2))
    norm = jnp.sqrt(jax.lax.stop_gradient(var1)) * jnp.sqrt(jax.lax.stop_gradient(var2))
    gap = jnp.maximum(norm - jnp.abs(jax.lax.stop_gradient(cov)), 0)
    return Covariance(var1, var2, cov, jnp.where(same, 0, gap))


def _mixable(state: Features) -> Full:
    if not isinstance(state.layout, Full):
        raise InputError(
            "this layer mixes positions, but the covariance between positions is not carried "
            f"(layout {type(state.layout).__name__}). Layers that follow each other must pass on "
            "what is needed: see Module.need."
        )
    return state.layout


def select(state: Features, slices: Sequence[slice]) -> Features:
    """State at some of the positions, one slice for each spatial axis."""
    if isinstance(state.layout, Vector):
        raise InputError("positions can be selected only of inputs with spatial axes.")
    both = (*slices, *slices) if isinstance(state.layout, Full) else tuple(slices)

    def cut(values: jax.Array) -> jax.Array:
        # Variances of one side have axes of size one for the positions of the other.
        return values[
            tuple(s if n > 1 else slice(None) for s, n in zip(both, values.shape, strict=False))
        ]

    def rule(k: Covariance) -> Covariance:
        return Covariance(cut(k.var1), cut(k.var2), cut(k.cov), cut(k.gap))

    shape = tuple(
        len(range(*s.indices(n))) for s, n in zip(slices, state.layout.shape, strict=True)
    )
    state = state.mapped(rule, cut(state.ntk))
    return replace(state, layout=replace(state.layout, shape=shape))


def flatten(state: Features) -> Features:
    """State of the vector of all positions and channels: means over equal positions."""
    state = _to_diagonal(state)
    if isinstance(state.layout, Vector):
        return state
    k, axes = state.cov, tuple(range(len(state.layout.shape)))
    var1, var2, ntk = (_squeezed_mean(v, axes) for v in (k.var1, k.var2, state.ntk))
    weight = balance(k.var1, k.var2, pair_axes=2)
    distance = _squeezed_mean(k.distance(weight), axes)
    cov = Covariance.from_distance(var1, var2, distance, weight.reshape(distance.shape))
    # The covariance itself needs no variances, which may not be known after pooling.
    cov = replace(cov, cov=_squeezed_mean(k.cov, axes))
    channels = state.channels * math.prod(state.layout.shape)
    return replace(state, cov=cov, ntk=ntk, channels=channels, layout=Vector())


def _squeezed_mean(values: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return jnp.squeeze(mean(values, axes), axes)


def average(state: Features, factor: float = 1.0) -> Features:
    """State of ``factor`` times the mean over all positions."""
    layout = _mixable(state)
    axes = tuple(range(2 * len(layout.shape)))

    def apply(values: jax.Array) -> jax.Array:
        return factor**2 * mean(values, axes)

    return replace(
        flatten(mixed(state, apply, apply, (1,) * len(layout.shape))), channels=state.channels
    )


def _to_diagonal(state: Features) -> Features:
    """State at equal positions only."""
    if not isinstance(state.layout, Full):
        return state
    pairs, ndim = state.layout.pairs, len(state.layout.shape)
    # Variances are read from one pair that each example is in.
    rows, columns = (np.unique(side, return_index=True)[1] for side in (pairs.first, pairs.second))

    def matrix(values: jax.Array) -> jax.Array:
        return pairs.matrix(diagonal_of(values, ndim))

    shape = state.layout.shape
    k = state.cov
    cov = Covariance(
        k.var1.reshape(*shape, -1)[..., rows, None],
        k.var2.reshape(*shape, -1)[..., None, columns],
        matrix(k.cov),
        matrix(k.gap),
    )
    same = None if state.same is None else pairs.matrix(state.same)
    return replace(state, cov=cov, ntk=matrix(state.ntk), layout=Diagonal(shape), same=same)


def between_examples(values: jax.Array, layout: Full) -> jax.Array:
    """Entries ``(*S, *S, pairs)`` as ``(n1, n2, h, h', w, w', ...)``."""
    ndim, pairs = len(layout.shape), layout.pairs
    entries = pairs.matrix(values)
    if pairs.symmetric:
        # Below the diagonal the entries of (j, i) stand, with their positions exchanged.
        swapped = jnp.moveaxis(entries, layout.axes2, layout.axes1)
        below = jnp.tri(pairs.n1, k=-1, dtype=bool).reshape((1,) * 2 * ndim + (pairs.n1,) * 2)
        entries = jnp.where(below, swapped, entries)
    order = [axis for both in zip(layout.axes1, layout.axes2, strict=True) for axis in both]
    return jnp.transpose(entries, (2 * ndim, 2 * ndim + 1, *order))
