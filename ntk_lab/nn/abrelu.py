"""Piecewise linear unit with two slopes."""

from ntk_lab.nn.module import hyper, module
from ntk_lab.nn.two_slopes import TwoSlopes


@module
class ABRelu(TwoSlopes):
    """``a min(x, 0) + b max(x, 0)``; kernels are differentiable in both slopes.

    Formulas and accuracy: :class:`ntk_lab.nn.two_slopes.TwoSlopes` (arXiv:1112.3712).
    """

    a: float = hyper()
    b: float = hyper()

    def slopes(self) -> tuple[float, float]:
        return self.a, self.b
