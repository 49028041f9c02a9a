"""What theory says beforehand: gaps to the kernel limit with width, errors with data."""

from ntk_lab.theory.kernel_modes import KernelModes as KernelModes
from ntk_lab.theory.kernel_modes import kernel_modes as kernel_modes
from ntk_lab.theory.learning_curve import LearningCurve as LearningCurve
from ntk_lab.theory.learning_curve import learning_curve as learning_curve
from ntk_lab.theory.measured_curve import MeasuredCurve as MeasuredCurve
from ntk_lab.theory.measured_curve import measured_learning_curve as measured_learning_curve
from ntk_lab.theory.power_law import PowerLaw as PowerLaw
from ntk_lab.theory.power_law import fit_power_law as fit_power_law
from ntk_lab.theory.sphere import SphereSpectrum as SphereSpectrum
from ntk_lab.theory.sphere import sphere_spectrum as sphere_spectrum
from ntk_lab.theory.width import WidthTheory as WidthTheory
from ntk_lab.theory.width import width_theory as width_theory

__all__ = [
    "KernelModes",
    "LearningCurve",
    "MeasuredCurve",
    "PowerLaw",
    "SphereSpectrum",
    "WidthTheory",
    "fit_power_law",
    "kernel_modes",
    "learning_curve",
    "measured_learning_curve",
    "sphere_spectrum",
    "width_theory",
]
