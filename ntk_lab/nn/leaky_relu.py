"""Leaky rectified linear unit."""

from ntk_lab.nn.module import hyper, module
from ntk_lab.nn.two_slopes import TwoSlopes


@module
class LeakyRelu(TwoSlopes):
    """``x`` for positive ``x``, ``alpha x`` for negative; kernels are differentiable in ``alpha``.

    Formulas and accuracy: :class:`ntk_lab.nn.two_slopes.TwoSlopes` (arXiv:1112.3712).
    """

    alpha: float = hyper(default=0.01)

    def slopes(self) -> tuple[float, float]:
        return self.alpha, 1.0
