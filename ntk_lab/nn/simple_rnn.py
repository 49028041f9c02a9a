"""Recurrent network with the same weights at every step."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Need, State, moments
from ntk_lab.kernel.layout import Carry
from ntk_lab.kernel.positions import flatten, select
from ntk_lab.kernel.recurrent import Step, recurrence, recurrence_of_present
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.erf import Erf
from ntk_lab.nn.graph import nodes
from ntk_lab.nn.masked import mask_of
from ntk_lab.nn.module import Module, Params, hyper, module, submodules
from ntk_lab.nn.parameterization import (
    Parameterization,
    Scales,
    Standard,
    check_parameterization,
    scales,
)


@module
class SimpleRNN(Module):
    """Hidden states of a recurrent network over sequences ``(n, time, channels)``.

    ``h_t = phi(w_std / sqrt(width) h_(t-1) W + u_std / sqrt(channels) x_t U + b_std b)`` from
    ``h_0 = 0``, with the same ``W, U, b`` at every step.

    Parameters
    ----------
    width
        Number of hidden neurons of the finite network.
    w_std, u_std, b_std
        Scales of the recurrent and the input weights, and of the bias (``None``: no bias).
    activation
        An activation of this library.
    outputs
        ``"last"``: the last hidden state, ``(n, width)``; ``"all"``: those at all times,
        ``(n, time, width)``.
    parameterization
        As for :class:`ntk_lab.nn.Dense`, for both kinds of weights.

    Notes
    -----
    Parameters are ``{"w": (width, width), "u": (channels, width), "b": (width,)}``. For times
    ``s, t`` of two examples, with ``q`` and ``t`` of the pre-activations (arXiv:2006.10246,
    arXiv:2006.14548; shared weights do not correlate steps of different distance from the ends)::

        q(s, t) = w_std^2 E[phi phi](s-1, t-1) + u_std^2 <x_s, x'_t> / channels + b_std^2
        t(s, t) = q(s, t) + w_std^2 E[phi' phi'](s-1, t-1) t(s-1, t-1)

    What all steps contribute to the NTK thus adds up. Cost for each pair of examples: one dual for
    each step with ``"last"`` or where nothing mixes times later, else one for each two times.

    Raises
    ------
    InputError
        A width below one, negative scales, another activation, or inputs without a time axis.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.SimpleRNN(64, w_std=0.9), ntk.nn.Dense(1))
    >>> net.kernel(jnp.ones((2, 5, 3))).ntk.shape
    (2, 2)
    """

    width: int
    w_std: float = hyper(default=1.0)
    u_std: float = hyper(default=1.0)
    b_std: float | None = hyper(default=None)
    activation: Activation = submodules(default=Erf())
    outputs: str = "last"
    parameterization: Parameterization = "ntk"

    def __post_init__(self):
        if isinstance(self.width, bool) or not isinstance(self.width, int) or self.width < 1:
            raise InputError(f"SimpleRNN got width {self.width!r}; it must be at least 1.")
        if not isinstance(self.activation, Activation):
            raise InputError(
                f"SimpleRNN got the activation {self.activation!r}; give one of this library, such "
                "as ntk.nn.Erf()."
            )
        for field in ("w_std", "u_std", "b_std"):
            value = getattr(self, field)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise InputError(
                    f"SimpleRNN got {field}={value}; it must be finite and not negative."
                )
        if self.outputs not in ("last", "all"):
            raise InputError(f"SimpleRNN got outputs={self.outputs!r}; choose 'last' or 'all'.")
        check_parameterization(self.parameterization)
        if isinstance(self.parameterization, Standard):
            raise InputError("SimpleRNN takes parameterization='standard', without factors s.")

    def has_width(self) -> bool:
        return True

    def _map_layers(self, change: Callable[[Any, bool], Any], readout: bool = True) -> Any:
        return change(self, readout)

    @property
    def independent(self) -> bool:
        return True

    def _scales(self, channels: int) -> tuple[Scales, Scales]:
        """Scales of the recurrent weights, and of the input weights with the bias."""
        name, width = self.parameterization, self.width
        recurrent = scales(name, width, width, width, self.w_std, None)
        return recurrent, scales(name, channels, width, width, self.u_std, self.b_std)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 2:
            raise InputError(
                f"SimpleRNN needs examples of shape (time, channels); one has shape {shape}."
            )
        return (self.width,) if self.outputs == "last" else (shape[0], self.width)

    @property
    def takes_masks(self) -> bool:
        return True

    def presence(self, mask: jax.Array) -> jax.Array:
        return jnp.any(mask, axis=1) if self.outputs == "last" else mask

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        dtype = jnp.result_type(float) if dtype is None else dtype
        recurrent, inputs = self._scales(shape[-1])
        w, u, b = jax.random.split(key, 3)
        params = {
            "w": recurrent.weight_init * jax.random.normal(w, (self.width, self.width), dtype),
            "u": inputs.weight_init * jax.random.normal(u, (shape[-1], self.width), dtype),
        }
        if self.b_std is not None:
            params["b"] = inputs.bias_init * jax.random.normal(b, (self.width,), dtype)
        return params

    def apply(self, params: Params, x: Any) -> jax.Array:
        recurrent, inputs = self._scales(params["u"].shape[0])
        driven = inputs.weight_scale * (nodes(x) @ params["u"])
        if "b" in params:
            driven = driven + (inputs.bias_scale * params["b"]).reshape(1, 1, -1)

        def step(h: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
            drive, present = inputs
            after = self.activation.function(recurrent.weight_scale * (h @ params["w"]) + drive)
            h = after if present is None else jnp.where(present, after, h)
            return h, h

        start = jnp.zeros_like(driven[:, 0])
        mask = mask_of(x, -1, 1)
        steps = jax.tree.map(lambda v: jnp.moveaxis(v, 1, 0), (driven, mask))
        last, states = jax.lax.scan(step, start, steps)
        return last if self.outputs == "last" else jnp.moveaxis(states, 0, 1)

    def need(self, after: Need) -> Need:
        carry = Carry.DIAGONAL if self.outputs == "last" else after.carry
        if after.ragged:
            # Equal times of two examples are steps of different number.
            carry = max(carry, Carry.FULL)
        return replace(after, carry=carry, variances=True)

    def propagate(self, state: State) -> State:
        state = moments(state)
        if len(state.layout.shape) != 1:
            raise InputError(
                "SimpleRNN needs sequences, one axis of times; there are positions "
                f"{state.layout.shape}."
            )
        recurrent, inputs = self._scales(state.channels)
        channels, width = state.channels, self.width
        step = Step(
            dual=self.activation.dual,
            signals=(recurrent.signal(width), inputs.signal(channels)),
            tangents=(recurrent.weight_tangent(width), inputs.weight_tangent(channels)),
            constant=None if self.b_std is None else inputs.constant(),
            constant_tangent=inputs.bias_tangent(),
        )
        last = self.outputs == "last"
        if state.masks is None:
            after = recurrence(state, step)
            after = select(after, [slice(-1, None)]) if last else after
        else:
            after = recurrence_of_present(state, state.masks, step, last)
        after = replace(after.features(), channels=width)
        return flatten(after) if last else after
