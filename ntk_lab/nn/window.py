"""Filter windows: sizes, strides and paddings of convolutions and pooling."""

import operator
from collections.abc import Sequence
from itertools import repeat

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel.positions import Window

PADDINGS = ("SAME", "VALID", "CIRCULAR")


def check_window(
    layer: str, padding: str, **sizes: Sequence[int] | None
) -> dict[str, tuple | None]:
    """Sizes, one for each spatial axis, as tuples of positive integers; None stays None.

    Raises InputError for anything else, unequal lengths, or an unknown padding.
    """
    if padding not in PADDINGS:
        raise InputError(f"{layer} got padding {padding!r}; choose one of {', '.join(PADDINGS)}.")
    checked = {name: _positive(layer, name, value) for name, value in sizes.items()}
    lengths = {name: len(value) for name, value in checked.items() if value is not None}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"{layer} got {lengths} numbers; give one for each spatial axis to each of them."
        )
    return checked


def _positive(layer: str, name: str, value: Sequence[int] | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        numbers = tuple(operator.index(v) for v in value)
    except TypeError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise InputError(
            f"{layer} got {name}={value!r}; it must be a tuple of integers of at least 1, one for "
            "each spatial axis, e.g. (3, 3) for images."
        )
    return numbers


def check_spatial(layer: str, shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Spatial sizes of an example of that shape; InputError if it has not ``ndim`` of them."""
    if len(shape) != ndim + 1:
        raise InputError(
            f"{layer} has windows over {ndim} spatial axes and needs examples of shape "
            f"(*{ndim} sizes, channels), but one example has shape {shape}."
        )
    return shape[:-1]


def filter_windows(
    layer: str,
    sizes: Sequence[int],
    taps: Sequence[int],
    strides: Sequence[int] | None,
    dilation: Sequence[int] | None,
    padding: str,
) -> list[Window]:
    """Windows of a convolution or of pooling, one for each spatial axis."""
    windows = [
        _window(size, k, stride, rate, padding)
        for size, k, stride, rate in zip(
            sizes, taps, strides or repeat(1), dilation or repeat(1), strict=False
        )
    ]
    _check_outputs(layer, windows, sizes)
    return windows


def transposed_windows(
    layer: str,
    sizes: Sequence[int],
    taps: Sequence[int],
    strides: Sequence[int] | None,
    padding: str,
) -> list[Window]:
    """Windows of a transposed convolution, in the conventions of ``jax.lax.conv_transpose``."""
    windows = []
    for k, stride in zip(taps, strides or repeat(1), strict=False):
        if padding == "SAME":
            total = k + stride - 2
            before = k - 1 if stride > k - 1 else -(-total // 2)
        else:
            total, before = k + stride - 2 + max(k - stride, 0), k - 1
        windows.append(Window(k, 1, 1, before, total - before, spacing=stride))
    _check_outputs(layer, windows, sizes)
    return windows


def _window(size: int, taps: int, stride: int, dilation: int, padding: str) -> Window:
    if padding == "VALID":
        return Window(taps, stride, dilation, 0, 0)
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
    return Window(taps, stride, dilation, total // 2, total - total // 2, 1, padding == "CIRCULAR")


def _check_outputs(layer: str, windows: Sequence[Window], sizes: Sequence[int]) -> None:
    for window, size in zip(windows, sizes, strict=True):
        if window.output(size) < 1:
            raise InputError(
                f"{layer} has a window of {window.taps} over an axis of size {size}, which leaves "
                "nothing. Make the window smaller, or choose padding='SAME'."
            )
        if window.circular and max(window.before, window.after) > size:
            raise InputError(
                f"{layer} pads an axis of size {size} periodically by more than its own size: "
                "make the window or the dilation smaller."
            )


def middles(windows: Sequence[Window], mask: jax.Array) -> jax.Array:
    """Values ``(n, *S)`` at the middle of the window of each output, ``(n, *outputs)``."""
    for axis, (window, size) in enumerate(zip(windows, mask.shape[1:], strict=True), start=1):
        if window == Window.single():
            continue
        places = window.firsts(size) + (window.taps - 1) * window.dilation // 2
        mask = jnp.take(mask, jnp.asarray(places % size), axis=axis)
    return mask


def along_axes(matrices: Sequence[np.ndarray], x: jax.Array) -> jax.Array:
    """Linear maps of the spatial axes of ``(n, *S, ...)``, one matrix for each."""
    for axis, matrix in enumerate(matrices, start=1):
        x = jnp.moveaxis(jnp.tensordot(x, jnp.asarray(matrix.T, x.dtype), (axis, 0)), -1, axis)
    return x
