"""What theory says beforehand, and how to measure it on finite networks."""

from ntk_lab.theory.feature_ansatz import LayerFeatures as LayerFeatures
from ntk_lab.theory.feature_ansatz import feature_ansatz as feature_ansatz
from ntk_lab.theory.silent_alignment import SilentAlignment as SilentAlignment
from ntk_lab.theory.silent_alignment import silent_alignment as silent_alignment
from ntk_lab.theory.width import WidthTheory as WidthTheory
from ntk_lab.theory.width import width_theory as width_theory

__all__ = [
    "LayerFeatures",
    "SilentAlignment",
    "WidthTheory",
    "feature_ansatz",
    "silent_alignment",
    "width_theory",
]
