"""Convolution with shared weights."""

import math
from collections.abc import Sequence

import jax

from ntk_lab.kernel import Need
from ntk_lab.kernel.positions import Window
from ntk_lab.nn.module import Params, hyper, module
from ntk_lab.nn.parameterization import Parameterization
from ntk_lab.nn.weighted import Weighted
from ntk_lab.nn.window import check_spatial, check_window, filter_windows


@module
class Conv(Weighted):
    """Convolution over any number of spatial axes, channels last.

    ``y(p) = w_std / sqrt(fan_in) sum_d x(p + d) W(d) + b_std b`` with ``fan_in = channels *
    prod(window)``, the full window also at the edges.

    Parameters
    ----------
    width
        Number of output channels of the finite layer.
    window
        Filter sizes, one for each spatial axis.
    strides, dilation
        One number for each spatial axis; ``None`` means ones.
    padding
        ``"SAME"`` (zeros, sizes as XLA chooses them), ``"VALID"``, or ``"CIRCULAR"`` (periodic).
    w_std, b_std, parameterization
        As for :class:`ntk_lab.nn.Dense`.

    Notes
    -----
    Parameters are ``{"w": (*window, channels, width), "b": (width,)}``. With ``A(k)(p, q)`` the
    mean of ``k(p + d, q + d)`` over the window (arXiv:1810.05148, arXiv:1904.11955)::

        q' = w_std^2 A(q) + b_std^2,    t' = q' + w_std^2 A(t)

    Cost for each pair of examples: two passes per filter tap over as many numbers as there are
    positions, or pairs of positions where a later layer mixes them (pooling).

    Raises
    ------
    InputError
        Sizes that do not fit the input, or an unknown padding or parameterization.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(
    ...     ntk.nn.Conv(64, (3, 3)), ntk.nn.Relu(), ntk.nn.GlobalAvgPool(), ntk.nn.Dense(10)
    ... )
    >>> net.kernel(jnp.ones((2, 8, 8, 3))).ntk.shape
    (2, 2)
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
            "Conv", self.padding, window=self.window, strides=self.strides, dilation=self.dilation
        )
        for name, value in sizes.items():
            object.__setattr__(self, name, value)
        self._check_weights()

    def windows(self, sizes: tuple[int, ...]) -> list[Window]:
        return filter_windows("Conv", sizes, self.window, self.strides, self.dilation, self.padding)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = check_spatial("Conv", shape, len(self.window))
        outputs = (w.output(n) for w, n in zip(self.windows(sizes), sizes, strict=True))
        return (*outputs, self.outputs)

    def fan_in(self, channels: int) -> int:
        return channels * math.prod(self.window)

    def weight_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*self.window, shape[-1], self.outputs)

    def need(self, after: Need) -> Need:
        return after.for_activation()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        w = params["w"]
        self._check_channels(w.shape[-2], x)
        s = self._scales(w.shape[-2])
        y = convolve(x, w, self.windows(x.shape[1:-1]))
        return self._add_bias(s, params, s.weight_scale * y)


def convolve(x: jax.Array, w: jax.Array, windows: Sequence[Window]) -> jax.Array:
    """Convolution of ``(n, *S, channels)`` with ``(*window, channels, width)``."""
    padding = [(k.before, k.after) for k in windows]
    if any(k.circular for k in windows):
        x = jax.numpy.pad(x, [(0, 0), *padding, (0, 0)], mode="wrap")
        padding = [(0, 0)] * len(windows)
    axes = tuple(range(1, len(windows) + 1))
    return jax.lax.conv_general_dilated(
        x,
        w,
        window_strides=[k.stride for k in windows],
        padding=padding,
        lhs_dilation=[k.spacing for k in windows],
        rhs_dilation=[k.dilation for k in windows],
        dimension_numbers=jax.lax.ConvDimensionNumbers(
            (0, len(axes) + 1, *axes),
            (len(axes) + 1, len(axes), *(a - 1 for a in axes)),
            (0, len(axes) + 1, *axes),
        ),
    )
