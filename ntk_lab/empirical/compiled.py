"""Compilation that a known fault of one JAX release does not reach."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from ntk_lab.concrete import is_concrete

# jaxlib 0.10 on CPU gives batched float32 Jacobians through LayerNorm that are wrong by up to 10%:
# the smallest case known is that of one dense layer, LayerNorm and a readout of the last of 32
# positions of 128 channels. Without this fusion they are right, as on 0.12.
_FAULTY = (0, 10)
_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


def compiled(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """``jax.jit(function, **settings)``, without the faulty fusion where that may be asked for.

    Inside another ``jit`` it may not: there the options of the outer one count.
    """
    plain = jax.jit(function, **settings)
    if jax.__version_info__[:2] != _FAULTY or jax.default_backend() != "cpu":
        return plain
    safe = jax.jit(function, compiler_options=_OPTIONS, **settings)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        if not is_concrete(args):
            return plain(*args)
        try:
            return safe(*args)
        except ValueError as error:  # values that are known, but inside another jit
            if "compiler_options" not in str(error):
                raise
            return plain(*args)

    return call
