"""Averages and sums over positions."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError
from ntk_lab.kernel import Need, State, moments
from ntk_lab.kernel.native_steps import Average, Mix, Step
from ntk_lab.kernel.positions import Window, average, mix
from ntk_lab.nn.module import Module, Params, module
from ntk_lab.nn.window import along_axes, check_spatial, check_window, filter_windows


class _Pool(Module):
    """Pooling over windows; ``q' = A q A^T`` and ``t' = A t A^T`` with ``A`` the pooling map."""

    window: tuple[int, ...]
    strides: tuple[int, ...] | None
    padding: str

    @property
    def keeps_independence(self) -> bool:
        return True

    def __post_init__(self):
        sizes = check_window(
            type(self).__name__, self.padding, window=self.window, strides=self.strides
        )
        for name, value in sizes.items():
            object.__setattr__(self, name, value)

    def _windows(self, sizes: tuple[int, ...]) -> list[Window]:
        name = type(self).__name__
        return filter_windows(name, sizes, self.window, self.strides, None, self.padding)

    def _matrices(self, sizes: tuple[int, ...]) -> list[np.ndarray]:
        """The pooling map, one matrix for each spatial axis."""
        return [w.matrix(n) for w, n in zip(self._windows(sizes), sizes, strict=True)]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = check_spatial(type(self).__name__, shape, len(self.window))
        outputs = (w.output(n) for w, n in zip(self._windows(sizes), sizes, strict=True))
        return (*outputs, shape[-1])

    def _shares(self, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Weights of each window on present and on all positions."""
        dtype = jnp.result_type(float)
        matrices = self._matrices(mask.shape[1:])
        whole = along_axes(matrices, jnp.ones((1, *mask.shape[1:]), dtype))
        return along_axes(matrices, mask.astype(dtype)), whole

    def presence(self, mask: jax.Array) -> jax.Array:
        return self._shares(mask)[0] > 0

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return along_axes(self._matrices(x.shape[1:-1]), x)

    def need(self, after: Need) -> Need:
        return after.for_mixing()

    def native_step(self, shape: tuple[int, ...]) -> Step | None:
        return Mix(tuple(self._matrices(shape[:-1]))) if len(shape) <= 3 else None

    def propagate(self, state: State) -> State:
        state = moments(state)
        return mix(state, self._matrices(state.layout.shape))


@module
class AvgPool(_Pool):
    """Mean over windows of positions.

    Parameters
    ----------
    window, strides
        Sizes, one for each spatial axis; ``strides=None`` means ones.
    padding
        ``"VALID"``, ``"SAME"`` or ``"CIRCULAR"``.
    normalize_edges
        With ``"SAME"``: divide by the number of positions inside the image instead of by the size
        of the window.

    Notes
    -----
    The kernel needs the covariance between all positions: time and memory grow with their square.
    Of a :class:`ntk_lab.nn.Masked` input, each window gives the mean over its present positions
    (times the share of the window that is inside the image, without ``normalize_edges``).
    """

    window: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: str = "VALID"
    normalize_edges: bool = False

    def presence(self, mask: jax.Array) -> jax.Array:
        present, whole = self._shares(mask)
        return jnp.where(present > 0, whole / jnp.where(present > 0, present, 1), 0)

    def _matrices(self, sizes: tuple[int, ...]) -> list[np.ndarray]:
        sums = super()._matrices(sizes)
        if self.normalize_edges:
            return [m / m.sum(axis=1, keepdims=True) for m in sums]
        return [m / k for m, k in zip(sums, self.window, strict=True)]


@module
class SumPool(_Pool):
    """Sum over windows of positions; parameters as for :class:`AvgPool`."""

    window: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: str = "VALID"


class _GlobalPool(Module):
    """Pooling over all positions."""

    @property
    def keeps_independence(self) -> bool:
        return True

    def _factor(self, sizes: tuple[int, ...]) -> float:
        """What the mean over all positions is multiplied by."""
        return 1.0

    def presence(self, mask: jax.Array) -> jax.Array:
        return jnp.ones(len(mask), bool)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 2:
            raise InputError(
                f"{type(self).__name__} needs examples with spatial axes and channels; one example "
                f"has shape {shape}."
            )
        return shape[-1:]

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return self._factor(x.shape[1:-1]) * jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))

    def need(self, after: Need) -> Need:
        return after.for_mixing()

    def native_step(self, shape: tuple[int, ...]) -> Step | None:
        return Average(self._factor(shape[:-1])) if len(shape) <= 3 else None

    def propagate(self, state: State) -> State:
        state = moments(state)
        return average(state, self._factor(state.layout.shape))


@module
class GlobalAvgPool(_GlobalPool):
    """Mean over all positions: ``q'`` is the mean of ``q(p, p')`` over both positions.

    Of a :class:`ntk_lab.nn.Masked` input, the mean over the present positions of each example.
    """

    def presence(self, mask: jax.Array) -> jax.Array:
        axes, size = tuple(range(1, mask.ndim)), math.prod(mask.shape[1:])
        count = jnp.sum(mask, axis=axes)
        # Masks may be known while a function that closes over them is being traced.
        if is_concrete(mask) and not np.asarray(mask).any(axis=axes).all():
            empty = np.flatnonzero(~np.asarray(mask).any(axis=axes))
            raise InputError(
                f"GlobalAvgPool has no present position to average over in {len(empty)} of "
                f"{len(mask)} examples, the first of them number {empty[0]}. Leave these examples "
                "out, or use ntk.nn.GlobalSumPool, which gives zero."
            )
        return size / jnp.maximum(count, 1).astype(jnp.result_type(float))


@module
class GlobalSumPool(_GlobalPool):
    """Sum over all positions."""

    def _factor(self, sizes: tuple[int, ...]) -> float:
        return float(math.prod(sizes))
