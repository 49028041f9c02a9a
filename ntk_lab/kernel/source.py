"""What kernels are of: an architecture in the limit of infinite width, or what computes itself."""

import json
import math
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from ntk_lab.kernel.evaluate import evaluate, plan_kernel
from ntk_lab.kernel.graph import Graph
from ntk_lab.kernel.result import Kernel

# Examples on each side by which operations are counted.
_COUNTED = 256


@runtime_checkable
class Computes(Protocol):
    """A kernel that is not of an architecture, such as `ntk_lab.empirical.FiniteKernel`."""

    @property
    def arrays(self) -> Any:
        """Arrays that :meth:`traced` depends on."""
        ...

    def compute(self, x1: Any, x2: Any, memory: float) -> Kernel:
        """Both kernels of some examples within a memory limit; ``x2=None`` means ``x1``."""
        ...

    def traced(self, arrays: Any, which: str, x1: jax.Array, x2: jax.Array) -> jax.Array:
        """One kernel, inside a compiled program."""
        ...

    def operations(self, x: Any) -> float:
        """Operations for a pair of examples, about."""
        ...

    def identity(self, x: Any) -> dict[str, Any]:
        """What decides its numbers, each part under the name that users know it by, in JSON."""
        ...


def kernels_of(net: Any, x1: Any, x2: Any, memory: float) -> Kernel:
    """Both kernels of some examples, within a memory limit."""
    if isinstance(net, Computes):
        return net.compute(x1, x2, memory)
    return evaluate(net, x1, x2, memory_limit=int(memory))


def check_shape(net: Any, shape: tuple[int, ...]) -> None:
    """Refuse examples that do not fit an architecture."""
    if not isinstance(net, Computes):
        net.output_shape(shape)


def operations_of(net: Any, x: Any, dtype: np.dtype) -> float:
    """Elementwise results, or operations, for a pair of examples of ``x``; about."""
    if isinstance(net, Computes):
        return net.operations(x)
    if isinstance(x, Graph):
        return 1e3
    few = (_COUNTED, *x.shape[1:])
    known = dtype if net.vocabulary_size is None else np.dtype(np.int32)
    return plan_kernel(net, few, few, known, 2**62).operations / math.prod(few[:1]) ** 2


def identity_of(net: Any, x: Any) -> dict[str, Any]:
    """What a kernel is of, for the record of a folder."""
    if isinstance(net, Computes):
        return net.identity(x)
    return {"architecture": json.loads(net.to_json())}
