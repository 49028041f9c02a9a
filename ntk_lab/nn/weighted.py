"""What all layers with weights and a width share: scales, parameters, the kernel rule."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Features, State, moments
from ntk_lab.kernel.covariance import Covariance
from ntk_lab.kernel.native_steps import Filter, Step
from ntk_lab.kernel.positions import Window, shared_filter
from ntk_lab.nn.module import Module, Params
from ntk_lab.nn.parameterization import (
    Parameterization,
    Scales,
    check_parameterization,
    outputs,
    scales,
)
from ntk_lab.nn.window import middles


class Weighted(Module):
    """A layer with weights; subclasses have the fields ``width, w_std, b_std, parameterization``.

    They give :meth:`fan_in`, :meth:`windows` and ``apply``. With ``A(k)`` the mean of ``k`` over
    the window (``k`` itself for ``Dense``), in NTK parameterization::

        q' = w_std^2 A(q) + b_std^2,    t' = q' + w_std^2 A(t)

    and in ``standard``, ``t' = fan_in A(q) + w_std^2 A(t) + 1``.
    """

    width: int
    w_std: float
    b_std: float | None
    parameterization: Parameterization

    def _check_weights(self) -> None:
        name = type(self).__name__
        if isinstance(self.width, bool) or not isinstance(self.width, int) or self.width < 1:
            raise InputError(
                f"{name} got width {self.width!r}; it must be an integer of at least 1, the number "
                "of neurons (output channels) of the layer."
            )
        for field in ("w_std", "b_std"):
            value = getattr(self, field)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise InputError(f"{name} got {field}={value}; it must be finite and not negative.")
        check_parameterization(self.parameterization)

    def has_width(self) -> bool:
        return True

    def _map_layers(self, change: Callable[[Any, bool], Any], readout: bool = True) -> Any:
        return change(self, readout)

    @property
    def ends_independent(self) -> bool:
        return True

    def fan_in(self, channels: int) -> int:
        """Number of weights that add up to one output."""
        return channels

    @property
    def outputs(self) -> int:
        """Number of channels of the output."""
        return outputs(self.parameterization, self.width)

    def windows(self, sizes: tuple[int, ...]) -> list[Window]:
        """Filter windows over the spatial axes."""
        return [Window.single() for _ in sizes]

    def presence(self, mask: jax.Array) -> jax.Array:
        return middles(self.windows(mask.shape[1:]), mask)

    def weight_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the weights for examples of that shape."""
        return (shape[-1], self.outputs)

    def bias_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the biases for examples of that shape."""
        return (self.outputs,)

    def _scales(self, channels: int) -> Scales:
        fans = self.fan_in(channels), self.fan_in(self.outputs)
        return scales(self.parameterization, *fans, self.outputs, self.w_std, self.b_std)

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        dtype = jnp.result_type(float) if dtype is None else dtype
        s = self._scales(shape[-1])
        key_w, key_b = jax.random.split(key)
        params = {"w": s.weight_init * jax.random.normal(key_w, self.weight_shape(shape), dtype)}
        if self.b_std is not None:
            params["b"] = s.bias_init * jax.random.normal(key_b, self.bias_shape(shape), dtype)
        return params

    def _check_channels(self, channels: int, x: jax.Array) -> None:
        if x.shape[-1] != channels:
            raise InputError(
                f"{type(self).__name__} was initialized for {channels} channels, but its input has "
                f"shape {x.shape}. Initialize with the shape of one example, "
                "net.init(key, x.shape[1:])."
            )

    def _add_bias(self, s: Scales, params: Params, y: jax.Array) -> jax.Array:
        if "b" not in params:
            return y
        bias = s.bias_scale * params["b"]
        return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)

    def native_step(self, shape: tuple[int, ...]) -> Step | None:
        windows = tuple(self.windows(shape[:-1]))
        if any(w.spacing > 1 for w in windows) or not 1 <= len(windows) <= 2:
            return None
        return self._filter(windows, shape[-1])

    def _filter(self, windows: tuple[Window, ...], channels: int) -> Filter:
        s, fan_in = self._scales(channels), self.fan_in(channels)
        tangents = s.weight_tangent(fan_in), s.bias_tangent()
        return Filter(windows, s.signal(fan_in), s.constant(), *tangents)

    def propagate(self, state: State) -> State:
        state = moments(state)
        s, fan_in = self._scales(state.channels), self.fan_in(state.channels)
        after, mean = self._filtered(state, s.signal(fan_in), s.constant())
        ntk = after.ntk + s.weight_tangent(fan_in) * mean + s.bias_tangent()
        return after.mapped(lambda k: k, ntk).gaussian(self.outputs)

    def _filtered(self, state: Features, signal, constant) -> tuple[Features, jax.Array]:
        """Moments after the layer, the NTK being ``signal A(t)``; and ``A(q)``."""
        windows = self.windows(state.layout.shape)
        if any(window != Window.single() for window in windows):
            return shared_filter(state, windows, signal, constant)

        def rule(k: Covariance) -> Covariance:
            k = k.scale(signal)
            return k if self.b_std is None else k.add_constant(constant)

        return state.mapped(rule, signal * state.ntk), state.cov.cov
