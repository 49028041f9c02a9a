"""What theory says beforehand: here, how gaps to the kernel limit scale with width."""

from ntk_lab.theory.width import WidthTheory as WidthTheory
from ntk_lab.theory.width import width_theory as width_theory

__all__ = ["WidthTheory", "width_theory"]
