"""Vectors for tokens."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Inputs, State
from ntk_lab.kernel.tokens import check_tokens, token_moments
from ntk_lab.nn.module import Module, Params, hyper, module
from ntk_lab.nn.parameterization import (
    Parameterization,
    Scales,
    check_parameterization,
    outputs,
    scales,
)


@module
class Embedding(Module):
    """A trained vector for each token: ``y[n, p] = w_std W[token[n, p]]``.

    The first layer of a network whose input is integers of shape ``(n, *S)``, without a channel
    axis; ``net.init`` takes the shape ``S`` of one example.

    Parameters
    ----------
    width
        Number of channels of the finite layer.
    vocabulary
        Number of tokens, which are ``0, ..., vocabulary - 1``.
    w_std, parameterization
        As for :class:`ntk_lab.nn.Dense`, with a fan-in of one.

    Notes
    -----
    Parameters are ``{"w": (vocabulary, width)}``. It is a ``Dense`` layer without bias on one-hot
    vectors: in NTK parameterization ``q'(p, p') = t'(p, p') = w_std^2`` where the tokens are equal
    and zero elsewhere. Kernels are of the default floating-point type.

    Raises
    ------
    InputError
        Inputs that are not integers, or tokens out of range.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Embedding(64, 10), ntk.nn.GlobalAvgPool())
    >>> float(net.kernel(jnp.array([[1, 2], [2, 3]])).nngp[0, 1])
    0.25
    """

    width: int
    vocabulary: int
    w_std: float = hyper(default=1.0)
    parameterization: Parameterization = "ntk"

    def __post_init__(self):
        for name in ("width", "vocabulary"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(
                    f"Embedding got {name}={value!r}; it must be an integer of at least 1."
                )
        check_parameterization(self.parameterization)

    def has_width(self) -> bool:
        return True

    def _map_layers(self, change: Callable[[Any, bool], Any], readout: bool = True) -> Any:
        return change(self, readout)

    @property
    def ends_independent(self) -> bool:
        return True

    @property
    def vocabulary_size(self) -> int | None:
        return self.vocabulary

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape, self._outputs())

    def _outputs(self) -> int:
        return outputs(self.parameterization, self.width)

    def _scales(self) -> Scales:
        return scales(self.parameterization, 1, self._outputs(), self._outputs(), self.w_std, None)

    def presence(self, mask: jax.Array) -> jax.Array:
        return mask

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        dtype = jnp.result_type(float) if dtype is None else dtype
        w = jax.random.normal(key, (self.vocabulary, self._outputs()), dtype)
        return {"w": self._scales().weight_init * w}

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        x = check_tokens(x, self.vocabulary)
        return self._scales().weight_scale * params["w"][x]

    def propagate(self, state: State) -> State:
        if not isinstance(state, Inputs):
            raise InputError("Embedding must be the first layer: its input is integer tokens.")
        check_tokens(state.x1, self.vocabulary)
        s, tokens = self._scales(), token_moments(state)
        signal, tangent = s.signal(1), s.weight_tangent(1)
        after = tokens.mapped(lambda k: k.scale(signal), tangent * tokens.cov.cov)
        return after.gaussian(self._outputs())
