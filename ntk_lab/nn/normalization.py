"""Layers that normalize activations: LayerNorm and RMSNorm."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Features, Gaussian, Inputs, Need, State, moments
from ntk_lab.kernel.rescale import rescale
from ntk_lab.nn.module import Module, Params, module


class _Norm(Module):
    """Division by the root of a second moment over channels and, if asked for, positions."""

    axis: tuple[int, ...]
    eps: float
    trainable: bool

    def __post_init__(self):
        name = type(self).__name__
        axis = (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
        if not axis or not all(isinstance(a, int) for a in axis) or 0 in axis:
            raise InputError(
                f"{name} got axis={self.axis!r}; give axes of the batch (n, *spatial, channels), "
                "without axis 0: -1 are the channels, 1 the first spatial axis."
            )
        if not 0 <= self.eps < float("inf"):
            raise InputError(f"{name} got eps={self.eps}; it must be finite and not negative.")
        object.__setattr__(self, "axis", axis)

    def _axes(self, ndim: int) -> tuple[int, ...]:
        """Axes as positive numbers, for batches with ``ndim`` axes."""
        axes = tuple(sorted({a % ndim if -ndim <= a < ndim else ndim for a in self.axis}))
        if axes[-1] != ndim - 1 or axes[0] == 0:
            raise InputError(
                f"{type(self).__name__} got axis={self.axis} for batches with {ndim} axes; it must "
                "name existing axes, never the batch (0) and always the channels (-1): only over "
                "many channels does the normalization converge as networks become wide."
            )
        return axes

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self._axes(len(shape) + 1)
        return shape

    def presence(self, mask: jax.Array) -> jax.Array:
        if len(self._axes(mask.ndim + 1)) > 1:
            raise InputError(
                f"{type(self).__name__} got axis={self.axis} and an ntk.nn.Masked input: moments "
                "over positions would count those that are absent. Use axis=-1, the channels."
            )
        return mask

    @property
    def keeps_independence(self) -> bool:
        # In the limit each example is divided by a number.
        return True

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        dtype = jnp.result_type(float) if dtype is None else dtype
        return {"scale": jnp.ones(shape[-1:], dtype)} if self.trainable else ()

    def _normalize(self, x: jax.Array) -> jax.Array:
        square = jnp.mean(x * x, axis=self._axes(x.ndim), keepdims=True)
        return x * self._factor(square)

    def _factor(self, square: jax.Array) -> jax.Array:
        total = square + self.eps
        return jnp.where(total > 0, 1 / jnp.sqrt(jnp.where(total > 0, total, 1)), 0)

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        y = self._normalize(x)
        for name in ("scale", "bias") if params else ():
            if name in params:
                value = params[name].reshape((1,) * (x.ndim - 1) + (-1,))
                y = y * value if name == "scale" else y + value
        return y

    def need(self, after: Need) -> Need:
        return after.for_activation()

    def _rescaled(self, state: Features) -> Features:
        ndim = len(state.layout.shape)
        # Without the batch axis, variances are (*S, examples).
        axes = tuple(a - 1 for a in self._axes(ndim + 2)[:-1])

        def factor(variances: jax.Array) -> jax.Array:
            return self._factor(jnp.mean(variances, axis=axes, keepdims=True))

        return self._trained(rescale(state, factor))

    def _on_data(self, state: Inputs) -> State:
        """Normalized data, which are data again unless something is trained."""
        if not jnp.issubdtype(state.x1.dtype, jnp.floating):
            # Tokens: say what they need.
            return moments(state)
        x1, x2 = (self._normalize(x) for x in (state.x1, state.x2))
        state = replace(state, x1=x1, x2=x2)
        return self._trained(moments(state)) if self.trainable else state

    def _trained(self, state: Features) -> Features:
        """State with the NTK of the layer's own parameters added, if it has any."""
        if not self.trainable:
            return state
        # A scale's gradient is the channel itself: the NTK is a number only after averaging over
        # channels, which a layer with weights does and an activation does not.
        state = state.features() if isinstance(state, Gaussian) else state
        return replace(state, ntk=state.ntk + state.cov.cov)


@module
class LayerNorm(_Norm):
    """``y = (x - mean) / sqrt(var + eps)``, moments over channels and perhaps positions.

    Parameters
    ----------
    axis
        Axes of the batch ``(n, *spatial, channels)`` to take moments over: ``-1``, the channels,
        always; ``(1, -1)`` also over the first spatial axis; never ``0``.
    eps
        Added to the variance.
    trainable
        Multiply by a trainable scale and add a trainable bias, one for each channel, initially
        one and zero.

    Notes
    -----
    Parameters are ``()``, or ``{"scale": (channels,), "bias": (channels,)}``. Over many channels
    of a centred process the mean vanishes and the variance is the kernel's own; with ``v`` the
    variance averaged over the spatial axes in ``axis`` (arXiv:1607.06450, 2006.10540)::

        q'(x, y) = q(x, y) / sqrt((eps + v(x)) (eps + v(y))),    t' the same of t

    and ``t' + q' + 1`` with trainable parameters, after which a layer with weights must come before
    the next activation. Angles are unchanged, to full precision. Data
    are normalized as they are, with their own mean. Cost: elementwise.

    Raises
    ------
    InputError
        Axes that name the batch, do not exist or leave out the channels; a kernel where the input
        is neither data nor Gaussian, as after an activation: its mean over channels is not zero
        there. :class:`RMSNorm` may stand anywhere.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64, b_std=1.0), ntk.nn.LayerNorm(), ntk.nn.Dense(1))
    >>> round(float(net.kernel(jnp.eye(2)).nngp[0, 0]), 6)
    1.0
    """

    axis: tuple[int, ...] = (-1,)
    eps: float = 1e-12
    trainable: bool = False

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        params = super().init(key, shape, dtype)
        return params | {"bias": jnp.zeros_like(params["scale"])} if self.trainable else params

    def _normalize(self, x: jax.Array) -> jax.Array:
        return super()._normalize(x - jnp.mean(x, axis=self._axes(x.ndim), keepdims=True))

    def propagate(self, state: State) -> State:
        if isinstance(state, Inputs):
            return self._on_data(state)
        if not isinstance(state, Gaussian):
            raise InputError(
                "LayerNorm stands where its input is not a centred Gaussian process in the "
                "infinite-width limit, as after an activation: the mean over channels, which it "
                "subtracts, is unknown there. Put ntk.nn.Dense(...) before it, or use "
                "ntk.nn.RMSNorm."
            )
        return self._rescaled(state)

    def _trained(self, state: Features) -> Features:
        after = super()._trained(state)
        return replace(after, ntk=after.ntk + 1) if self.trainable else after


@module
class RMSNorm(_Norm):
    """``y = x / sqrt(mean(x^2) + eps)``, the mean over channels and perhaps positions.

    Parameters
    ----------
    axis, eps
        As for :class:`LayerNorm`.
    trainable
        Multiply by a trainable scale, one for each channel, initially one.

    Notes
    -----
    Parameters are ``()``, or ``{"scale": (channels,)}``. The kernel rule is that of
    :class:`LayerNorm` with ``v`` the second moment (arXiv:1910.07467); no mean is subtracted, so
    that it may stand after an activation as well. A trainable scale adds ``q'`` to ``t'``, and
    a layer with weights must come before the next activation.
    """

    axis: tuple[int, ...] = (-1,)
    eps: float = 1e-12
    trainable: bool = False

    def propagate(self, state: State) -> State:
        if isinstance(state, Inputs):
            return self._on_data(state)
        return self._rescaled(state)
