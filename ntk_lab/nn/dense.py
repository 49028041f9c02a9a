"""Fully connected layer."""

import jax

from ntk_lab.errors import InputError
from ntk_lab.kernel.native_steps import Step
from ntk_lab.nn.module import Params, hyper, module
from ntk_lab.nn.parameterization import Parameterization
from ntk_lab.nn.weighted import Weighted


@module
class Dense(Weighted):
    """Fully connected layer over the last axis, ``y = w_std / sqrt(fan_in) x W + b_std b``.

    Parameters
    ----------
    width
        Number of outputs of the finite layer.
    w_std, b_std
        Weight and bias scale; ``b_std=None`` means no bias. Kernels are differentiable in both.
    parameterization
        ``"ntk"`` (default, all parameters standard normal, the formula above), ``"standard"``,
        ``"mean_field"``, ``"mup"``, :class:`ntk_lab.nn.Standard` or :class:`ntk_lab.nn.ABC`: see
        ``ntk_lab.nn.parameterization``. In all but the first the kernel depends on the width: it
        is that of this finite layer to leading order.

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
    parameterization: Parameterization = "ntk"

    def __post_init__(self):
        self._check_weights()

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape or shape[-1] < 1:
            raise InputError(f"Dense needs examples with a channel axis; one has shape {shape}.")
        return (*shape[:-1], self.outputs)

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        return [self._filter((), shape[-1])] if len(shape) == 1 else None

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        channels = params["w"].shape[0]
        self._check_channels(channels, x)
        s = self._scales(channels)
        return self._add_bias(s, params, s.weight_scale * (x @ params["w"]))
