"""A pair made of three functions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ntk_lab.nn.module import Pair


@dataclass(frozen=True)
class FunctionPair(Pair):
    """A pair given by its three functions, for networks described elsewhere.

    Parameters
    ----------
    init
        ``init(key, shape) -> params``; ``shape`` is that of one example.
    apply
        ``apply(params, x) -> outputs`` of shape ``(n, outputs)``.
    kernel
        ``kernel(x1, x2=None) -> ntk.kernel.Kernel``.
    """

    init: Callable[..., Any] = field()  # type: ignore[assignment]
    apply: Callable[..., Any] = field()  # type: ignore[assignment]
    kernel: Callable[..., Any] = field()  # type: ignore[assignment]
