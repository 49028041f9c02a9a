"""Compilation of this package's programs: on CPUs past a fault of XLA, and in less memory."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from ntk_lab.concrete import is_concrete

# XLA hands groups of operations on CPUs to a library (YNN). jaxlib 0.10.2 and 0.12.0.1 then give
# wrong numbers without a word: batched float32 Jacobians through LayerNorm off by up to 10%
# (0.10.2: one dense layer, LayerNorm and a readout of the last of 32 positions of 128 channels),
# and on a busy machine about one compilation in twenty of two layers of attention gives garbage,
# the same at every call. It also crashes (github.com/jax-ml/jax/issues/39257). Without these
# fusions all of this is gone: none of 109 compilations, where 7 of 105 failed with them.
_WITHOUT_FAULT = {"xla_cpu_experimental_ynn_fusion_type": ""}
# Left to itself, the CPU compiler orders operations so that as many as possible can run at once,
# and keeps the results of all of them: 35 times the memory for products of 24 transformers'
# factors, and half the speed.
_SEQUENTIAL = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
# Half the time to compile, for a program that runs once on little.
_HASTY = {"xla_backend_optimization_level": 0}


class Compiled:
    """What :func:`compiled` returns."""

    def __init__(
        self, function: Callable[..., Any], sequential: bool, once: bool, settings: dict[str, Any]
    ):
        functools.update_wrapper(self, function)
        self._function, self._settings = function, settings
        self._sequential, self._once = sequential, once
        self._plain = jax.jit(function, **settings)

    @functools.cached_property
    def _optioned(self) -> Any:
        """Asked for at the first call: which devices there are is not settled at import."""
        options = _options(self._sequential, self._once)
        if not options:
            return self._plain
        return jax.jit(self._function, compiler_options=options, **self._settings)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """The function's value."""
        return (self.known if is_concrete(args, named) else self._plain)(*args, **named)

    def known(self, *args: Any, **named: Any) -> Any:
        """The function's value where nothing is being traced, without looking whether it is."""
        try:
            return self._optioned(*args, **named)
        except ValueError as error:  # values that are known, but inside another jit
            if "compiler_options" not in str(error):
                raise
            return self._plain(*args, **named)

    def lower(self, *args: Any, **named: Any) -> jax.stages.Lowered:
        """As of ``jax.jit``, with the options."""
        return self._optioned.lower(*args, **named)


def compiled(
    function: Callable[..., Any] | None = None,
    /,
    *,
    sequential: bool = False,
    once: bool = False,
    **settings: Any,
) -> Any:
    """``jax.jit(function, **settings)``, with options for CPUs where they may be asked for.

    ``sequential``: in little memory, one operation after the other. ``once``: compiled in haste.
    Inside another ``jit`` options may not be asked for: there those of the outer one count. Without
    a function, a decorator.
    """
    if function is None:
        return functools.partial(compiled, sequential=sequential, once=once, **settings)
    return Compiled(function, sequential, once, settings)


@functools.cache
def _options(sequential: bool, once: bool) -> dict[str, Any]:
    """Options that this release of JAX knows."""
    if jax.default_backend() != "cpu":
        return {}
    wanted = _WITHOUT_FAULT | (_SEQUENTIAL if sequential else {}) | (_HASTY if once else {})
    return {name: value for name, value in wanted.items() if _is_known(name, value)}


def _is_known(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True
