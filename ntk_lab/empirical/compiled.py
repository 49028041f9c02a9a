"""Compilation on CPUs: in less memory, and past a known fault of one JAX release."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from ntk_lab.concrete import is_concrete

# Left to itself, the CPU compiler orders operations so that as many as possible can run at once,
# and keeps the results of all of them: 35 times the memory for products of 24 transformers'
# factors, and half the speed.
_SEQUENTIAL = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
# jaxlib 0.10 on CPU gives batched float32 Jacobians through LayerNorm that are wrong by up to 10%:
# the smallest case known is that of one dense layer, LayerNorm and a readout of the last of 32
# positions of 128 channels. Without this fusion they are right, as on 0.12.
_FAULTY = (0, 10)
_WITHOUT_FAULT = {"xla_cpu_experimental_ynn_fusion_type": ""}


def compiled(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """``jax.jit(function, **settings)``, with options for CPUs where they may be asked for.

    Inside another ``jit`` they may not: there the options of the outer one count. The result has
    the attribute ``lower`` of what it calls.
    """
    plain = jax.jit(function, **settings)
    if jax.default_backend() != "cpu":
        return plain
    faulty = jax.__version_info__[:2] == _FAULTY
    options = _SEQUENTIAL | (_WITHOUT_FAULT if faulty else {})
    optioned = jax.jit(function, compiler_options=options, **settings)

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        if not is_concrete(args):
            return plain(*args, **named)
        try:
            return optioned(*args, **named)
        except ValueError as error:  # values that are known, but inside another jit
            if "compiler_options" not in str(error):
                raise
            return plain(*args, **named)

    call.lower = optioned.lower  # type: ignore[attr-defined]
    return call
