"""Transposed convolution."""

import math

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Need
from ntk_lab.kernel.positions import Window
from ntk_lab.nn.conv import convolve
from ntk_lab.nn.module import Params, hyper, module
from ntk_lab.nn.parameterization import Parameterization
from ntk_lab.nn.weighted import Weighted
from ntk_lab.nn.window import along_axes, check_spatial, check_window, transposed_windows


@module
class ConvTranspose(Weighted):
    """Transposed (fractionally strided) convolution: strides enlarge the spatial axes.

    A convolution of the input with ``strides - 1`` zeros between its positions, in the
    conventions of ``jax.lax.conv_transpose`` without flipping the filter; weights are divided by
    ``sqrt(channels * prod(window))`` as in :class:`ntk_lab.nn.Conv`, although the zeros leave
    fewer terms to add up.

    Parameters
    ----------
    width, window, strides, w_std, b_std, parameterization
        As for :class:`ntk_lab.nn.Conv`.
    padding
        ``"SAME"`` (the output is ``strides`` times as large) or ``"VALID"``.

    Notes
    -----
    Parameters are ``{"w": (*window, channels, width), "b": (width,)}``. Kernel rule and cost are
    those of ``Conv`` on the input with zeros in between (arXiv:1810.05148, arXiv:1904.11955).

    Raises
    ------
    InputError
        ``padding="CIRCULAR"``, and what ``Conv`` raises.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> ntk.nn.ConvTranspose(4, (3, 3), strides=(2, 2)).output_shape((5, 6, 1))
    (10, 12, 4)
    """

    width: int
    window: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: str = "SAME"
    w_std: float = hyper(default=1.0)
    b_std: float | None = hyper(default=None)
    parameterization: Parameterization = "ntk"

    def __post_init__(self):
        if self.padding == "CIRCULAR":
            raise InputError(
                "ConvTranspose takes padding 'SAME' or 'VALID': what a periodic transposed "
                "convolution is differs between libraries. Enlarge with ntk.nn.ImageResize and "
                "follow it with ntk.nn.Conv(..., padding='CIRCULAR') instead."
            )
        sizes = check_window(
            "ConvTranspose", self.padding, window=self.window, strides=self.strides
        )
        for name, value in sizes.items():
            object.__setattr__(self, name, value)
        self._check_weights()

    def windows(self, sizes: tuple[int, ...]) -> list[Window]:
        return transposed_windows("ConvTranspose", sizes, self.window, self.strides, self.padding)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = check_spatial("ConvTranspose", shape, len(self.window))
        outputs = (w.output(n) for w, n in zip(self.windows(sizes), sizes, strict=True))
        return (*outputs, self.outputs)

    def fan_in(self, channels: int) -> int:
        return channels * math.prod(self.window)

    def presence(self, mask: jax.Array) -> jax.Array:
        sizes = mask.shape[1:]
        matrices = [w.matrix(n) for w, n in zip(self.windows(sizes), sizes, strict=True)]
        read, inside = (
            along_axes(matrices, m.astype(jnp.result_type(float)))
            for m in (mask, jnp.ones_like(mask[:1]))
        )
        # Where nothing is read, with or without a mask, there is the bias.
        return (read > 0) | (inside == 0)

    def weight_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*self.window, shape[-1], self.outputs)

    def need(self, after: Need) -> Need:
        return after.for_activation()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        w = params["w"]
        self._check_channels(w.shape[-2], x)
        s = self._scales(w.shape[-2])
        return self._add_bias(
            s, params, s.weight_scale * convolve(x, w, self.windows(x.shape[1:-1]))
        )
