"""Absolute value."""

from ntk_lab.nn.module import module
from ntk_lab.nn.two_slopes import TwoSlopes


@module
class Abs(TwoSlopes):
    """``|x|``: an input and its negative are the same to it.

    Formulas and accuracy: :class:`ntk_lab.nn.two_slopes.TwoSlopes` (arXiv:1112.3712).
    """

    def slopes(self) -> tuple[float, float]:
        return -1.0, 1.0
