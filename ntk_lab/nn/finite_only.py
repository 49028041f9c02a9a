"""Layers without a closed-form infinite-width kernel: the finite half alone."""

import math
from typing import NoReturn

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import State
from ntk_lab.kernel.positions import Window
from ntk_lab.nn.module import Module, Params, module
from ntk_lab.nn.window import check_spatial, check_window, filter_windows


class _FiniteOnly(Module):
    """A layer whose kernel can only be sampled."""

    def propagate(self, state: State) -> NoReturn:
        raise InputError(
            f"the infinite-width kernel of {type(self).__name__} has no closed form. Estimate the "
            "kernel of the whole network with its standard error by ntk.monte_carlo_kernel(...), "
            f"or replace the layer: {self._instead}."
        )

    _instead = ""


@module
class MaxPool(_FiniteOnly):
    """Largest value over windows of positions, in each channel.

    The finite half only: the maximum of correlated Gaussian variables has no closed-form kernel.

    Parameters
    ----------
    window, strides
        Sizes, one for each spatial axis; ``strides=None`` means ones.
    padding
        ``"VALID"``, ``"SAME"`` or ``"CIRCULAR"``. Positions outside never are the largest.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> ntk.nn.MaxPool((2, 2), strides=(2, 2)).output_shape((8, 6, 3))
    (4, 3, 3)
    """

    window: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: str = "VALID"

    _instead = "ntk.nn.AvgPool has one"

    def __post_init__(self):
        sizes = check_window("MaxPool", self.padding, window=self.window, strides=self.strides)
        for name, value in sizes.items():
            object.__setattr__(self, name, value)

    def _windows(self, sizes: tuple[int, ...]) -> list[Window]:
        return filter_windows("MaxPool", sizes, self.window, self.strides, None, self.padding)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = check_spatial("MaxPool", shape, len(self.window))
        outputs = (w.output(n) for w, n in zip(self._windows(sizes), sizes, strict=True))
        return (*outputs, shape[-1])

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        windows = self._windows(x.shape[1:-1])
        padding = [(0, 0), *((w.before, w.after) for w in windows), (0, 0)]
        if self.padding == "CIRCULAR":
            x, padding = jnp.pad(x, padding, mode="wrap"), [(0, 0)] * x.ndim
        strides = (1, *(w.stride for w in windows), 1)
        size = (1, *self.window, 1)
        return jax.lax.reduce_window(x, -math.inf, jax.lax.max, size, strides, padding)


@module
class BatchNorm(_FiniteOnly):
    """Each channel shifted and scaled to mean zero and variance one over the batch.

    ``y = scale (x - mean) / sqrt(variance + eps) + shift`` with the mean and variance of each
    channel over all examples and positions of the batch that is passed, at all times: there are no
    running averages. The finite half only: outputs of one example depend on the others.

    Parameters
    ----------
    eps
        Added to the variance.

    Notes
    -----
    Parameters are ``{"scale": (channels,), "shift": (channels,)}``, ones and zeros at first.
    """

    eps: float = 1e-5

    _instead = "ntk.nn.LayerNorm has one"

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        dtype = jnp.result_type(float) if dtype is None else dtype
        return {"scale": jnp.ones(shape[-1:], dtype), "shift": jnp.zeros(shape[-1:], dtype)}

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        axes = tuple(range(x.ndim - 1))
        centred = x - jnp.mean(x, axis=axes, keepdims=True)
        root = jax.lax.rsqrt(jnp.mean(centred**2, axis=axes, keepdims=True) + self.eps)
        scale, shift = (params[name].reshape(*(1,) * len(axes), -1) for name in ("scale", "shift"))
        return scale * root * centred + shift
