"""Convolution with weights of its own at every position."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ntk_lab.kernel import Need, State
from ntk_lab.kernel.blocks import decouple
from ntk_lab.kernel.positions import Window
from ntk_lab.nn.module import Params, hyper, module
from ntk_lab.nn.parameterization import Parameterization
from ntk_lab.nn.weighted import Weighted
from ntk_lab.nn.window import check_spatial, check_window, filter_windows


@module
class ConvLocal(Weighted):
    """Locally connected layer: a convolution whose weights and biases are not shared.

    ``y(p) = w_std / sqrt(fan_in) sum_d x(p + d) W(p, d) + b_std b(p)`` with ``fan_in = channels *
    prod(window)``.

    Parameters
    ----------
    width, window, strides, dilation, padding, w_std, b_std, parameterization
        As for :class:`ntk_lab.nn.Conv`.

    Notes
    -----
    Parameters are ``{"w": (*outputs, *window, channels, width), "b": (*outputs, width)}``. At
    equal positions covariance and NTK are those of ``Conv``; between different positions they are
    zero, the weights there being independent (arXiv:1810.05148). Cost as for ``Conv``.

    Raises
    ------
    InputError
        Sizes that do not fit the input, or an unknown padding or parameterization.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> k = ntk.nn.ConvLocal(8, (3,)).kernel(jnp.ones((1, 4, 2)))
    >>> bool((k.ntk[0, 0] == jnp.diag(jnp.diag(k.ntk[0, 0]))).all())
    True
    """

    width: int
    window: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    dilation: tuple[int, ...] | None = None
    padding: str = "SAME"
    w_std: float = hyper(default=1.0)
    b_std: float | None = hyper(default=None)
    parameterization: Parameterization = "ntk"

    def __post_init__(self):
        sizes = check_window(
            "ConvLocal",
            self.padding,
            window=self.window,
            strides=self.strides,
            dilation=self.dilation,
        )
        for name, value in sizes.items():
            object.__setattr__(self, name, value)
        self._check_weights()

    def windows(self, sizes: tuple[int, ...]) -> list[Window]:
        return filter_windows(
            "ConvLocal", sizes, self.window, self.strides, self.dilation, self.padding
        )

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = check_spatial("ConvLocal", shape, len(self.window))
        outputs = (w.output(n) for w, n in zip(self.windows(sizes), sizes, strict=True))
        return (*outputs, self.outputs)

    def fan_in(self, channels: int) -> int:
        return channels * math.prod(self.window)

    def weight_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*self.output_shape(shape)[:-1], *self.window, shape[-1], self.outputs)

    def bias_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.output_shape(shape)

    def need(self, after: Need) -> Need:
        return after.for_activation()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        w = params["w"]
        self._check_channels(w.shape[-2], x)
        s = self._scales(w.shape[-2])
        seen = patches(x, self.windows(x.shape[1:-1]))
        taps_and_channels = w.reshape(*seen.shape[1:], w.shape[-1])
        y = jnp.einsum("n...k,...ko->n...o", seen, taps_and_channels)
        return self._add_bias(s, params, s.weight_scale * y)

    def native_step(self, shape: tuple[int, ...]) -> None:
        # Compiled loops know filters with shared weights only.
        return None

    def propagate(self, state: State) -> State:
        return decouple(super().propagate(state))


def patches(x: jax.Array, windows: Sequence[Window]) -> jax.Array:
    """What each output position reads: ``(n, *outputs, taps * channels)``, channels fastest."""
    edges = [(0, 0), *((w.before, w.after) for w in windows), (0, 0)]
    circular = any(w.circular for w in windows)
    padded = jnp.pad(x, edges, mode="wrap" if circular else "constant")
    outputs = [w.output(size) for w, size in zip(windows, x.shape[1:-1], strict=True)]

    def tap(offsets: tuple[int, ...]) -> jax.Array:
        slices = (
            slice(start := offset * w.dilation, start + (size - 1) * w.stride + 1, w.stride)
            for offset, w, size in zip(offsets, windows, outputs, strict=True)
        )
        return padded[(slice(None), *slices)]

    taps = [tap(offsets) for offsets in itertools.product(*(range(w.taps) for w in windows))]
    return jnp.concatenate(taps, axis=-1)
