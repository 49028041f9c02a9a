"""What theory says beforehand: gaps to the kernel limit against width, robustness against size."""

from ntk_lab.theory.kernel_function import kernel_function as kernel_function
from ntk_lab.theory.kernel_function import kernel_lipschitz_bound as kernel_lipschitz_bound
from ntk_lab.theory.lipschitz import LipschitzLowerBound as LipschitzLowerBound
from ntk_lab.theory.lipschitz import lipschitz_lower_bound as lipschitz_lower_bound
from ntk_lab.theory.lipschitz_upper import LipschitzUpperBound as LipschitzUpperBound
from ntk_lab.theory.lipschitz_upper import lipschitz_constant as lipschitz_constant
from ntk_lab.theory.lipschitz_upper import lipschitz_upper_bound as lipschitz_upper_bound
from ntk_lab.theory.robustness import Sensitivity as Sensitivity
from ntk_lab.theory.robustness import predicted_sensitivity as predicted_sensitivity
from ntk_lab.theory.robustness import robustness_law as robustness_law
from ntk_lab.theory.robustness import sensitivity_of_size as sensitivity_of_size
from ntk_lab.theory.width import WidthTheory as WidthTheory
from ntk_lab.theory.width import width_theory as width_theory

__all__ = [
    "LipschitzLowerBound",
    "LipschitzUpperBound",
    "Sensitivity",
    "WidthTheory",
    "kernel_function",
    "kernel_lipschitz_bound",
    "lipschitz_constant",
    "lipschitz_lower_bound",
    "lipschitz_upper_bound",
    "predicted_sensitivity",
    "robustness_law",
    "sensitivity_of_size",
    "width_theory",
]
