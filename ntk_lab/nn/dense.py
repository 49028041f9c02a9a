"""Fully connected layer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Gaussian, State, moments
from ntk_lab.nn.module import Module, Params, hyper, module
from ntk_lab.nn.parameterization import PARAMETERIZATIONS, Scales, scales, unknown


@module
class Dense(Module):
    """Fully connected layer over the last axis, ``y = w_std / sqrt(fan_in) x W + b_std b``.

    Parameters
    ----------
    width
        Number of outputs of the finite layer.
    w_std, b_std
        Weight and bias scale; ``b_std=None`` means no bias. Kernels are differentiable in both.
    parameterization
        ``"ntk"`` (default, all parameters standard normal, the formula above), ``"standard"`` or
        ``"mean_field"``: see ``ntk_lab.nn.parameterization``. In the last two the kernel depends
        on the width: it is that of this finite layer to leading order.

    Notes
    -----
    Parameters are ``{"w": (fan_in, width), "b": (width,)}``. With ``q`` the covariance and ``t``
    the NTK before the layer (arXiv:1806.07572), in NTK parameterization::

        q' = w_std^2 q + b_std^2,    t' = q' + w_std^2 t

    and in ``standard`` (arXiv:2001.07301), ``t' = fan_in q + w_std^2 t + 1``.

    Raises
    ------
    InputError
        A width below one, a negative scale, an unknown parameterization.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> layer = ntk.nn.Dense(5, b_std=0.1)
    >>> params = layer.init(jax.random.key(0), (3,))
    >>> layer.apply(params, jnp.ones((2, 3))).shape
    (2, 5)
    """

    width: int
    w_std: float = hyper(default=1.0)
    b_std: float | None = hyper(default=None)
    parameterization: str = "ntk"

    def __post_init__(self):
        if isinstance(self.width, bool) or not isinstance(self.width, int) or self.width < 1:
            raise InputError(
                f"Dense got width {self.width!r}; it must be an integer of at least 1, the number "
                "of neurons of the layer."
            )
        for name in ("w_std", "b_std"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise InputError(f"Dense got {name}={value}; it must be finite and not negative.")
        if self.parameterization not in PARAMETERIZATIONS:
            raise InputError(unknown(self.parameterization))

    def has_width(self) -> bool:
        return True

    def _map_layers(self, change: Callable[[Any, bool], Any], readout: bool = True) -> Any:
        return change(self, readout)

    @property
    def ends_independent(self) -> bool:
        return True

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape or shape[-1] < 1:
            raise InputError(f"Dense needs examples with a channel axis; one has shape {shape}.")
        return (*shape[:-1], self.width)

    def _scales(self, fan_in: int) -> Scales:
        return scales(self.parameterization, fan_in, self.w_std, self.b_std)

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        dtype = jnp.result_type(float) if dtype is None else dtype
        fan_in, s = shape[-1], self._scales(shape[-1])
        key_w, key_b = jax.random.split(key)
        params = {"w": s.weight_init * jax.random.normal(key_w, (fan_in, self.width), dtype)}
        if self.b_std is not None:
            params["b"] = s.bias_init * jax.random.normal(key_b, (self.width,), dtype)
        return params

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        fan_in = params["w"].shape[0]
        if x.shape[-1] != fan_in:
            raise InputError(
                f"Dense was initialized for {fan_in} channels, but its input has shape {x.shape}. "
                "Initialize with the shape of one example, net.init(key, x.shape[1:])."
            )
        s = self._scales(fan_in)
        y = s.weight_scale * (x @ params["w"])
        if "b" not in params:
            return y
        return y + (s.bias_scale * params["b"]).reshape((1,) * (y.ndim - 1) + (-1,))

    def propagate(self, state: State) -> State:
        state = moments(state)
        s = self._scales(state.channels)
        signal = s.signal(state.channels)
        cov = state.cov.scale(signal)
        if self.b_std is not None:
            cov = cov.add_constant(s.constant())
        ntk = s.weight_tangent(state.channels) * state.cov.cov + s.bias_tangent()
        return Gaussian(cov, ntk + signal * state.ntk, self.width)
