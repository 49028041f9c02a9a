"""What theory says beforehand, and how to measure it on finite networks."""

from ntk_lab.theory.feature_ansatz import LayerFeatures as LayerFeatures
from ntk_lab.theory.feature_ansatz import feature_ansatz as feature_ansatz
from ntk_lab.theory.kernel_function import kernel_function as kernel_function
from ntk_lab.theory.kernel_function import kernel_lipschitz_bound as kernel_lipschitz_bound
from ntk_lab.theory.kernel_modes import KernelModes as KernelModes
from ntk_lab.theory.kernel_modes import kernel_modes as kernel_modes
from ntk_lab.theory.learning_curve import LearningCurve as LearningCurve
from ntk_lab.theory.learning_curve import learning_curve as learning_curve
from ntk_lab.theory.lipschitz import LipschitzLowerBound as LipschitzLowerBound
from ntk_lab.theory.lipschitz import lipschitz_lower_bound as lipschitz_lower_bound
from ntk_lab.theory.lipschitz_upper import LipschitzUpperBound as LipschitzUpperBound
from ntk_lab.theory.lipschitz_upper import lipschitz_constant as lipschitz_constant
from ntk_lab.theory.lipschitz_upper import lipschitz_upper_bound as lipschitz_upper_bound
from ntk_lab.theory.measured_curve import MeasuredCurve as MeasuredCurve
from ntk_lab.theory.measured_curve import measured_learning_curve as measured_learning_curve
from ntk_lab.theory.power_law import PowerLaw as PowerLaw
from ntk_lab.theory.power_law import fit_power_law as fit_power_law
from ntk_lab.theory.regions_in_plane import PlaneRegions as PlaneRegions
from ntk_lab.theory.regions_in_plane import regions_in_plane as regions_in_plane
from ntk_lab.theory.regions_on_line import LineRegions as LineRegions
from ntk_lab.theory.regions_on_line import expected_regions_on_line as expected_regions_on_line
from ntk_lab.theory.regions_on_line import regions_on_line as regions_on_line
from ntk_lab.theory.robustness import Sensitivity as Sensitivity
from ntk_lab.theory.robustness import predicted_sensitivity as predicted_sensitivity
from ntk_lab.theory.robustness import robustness_law as robustness_law
from ntk_lab.theory.robustness import sensitivity_of_size as sensitivity_of_size
from ntk_lab.theory.sawtooth import sawtooth as sawtooth
from ntk_lab.theory.silent_alignment import SilentAlignment as SilentAlignment
from ntk_lab.theory.silent_alignment import silent_alignment as silent_alignment
from ntk_lab.theory.sphere import SphereSpectrum as SphereSpectrum
from ntk_lab.theory.sphere import sphere_spectrum as sphere_spectrum
from ntk_lab.theory.trajectory import expected_trajectory_lengths as expected_trajectory_lengths
from ntk_lab.theory.trajectory import trajectory_lengths as trajectory_lengths
from ntk_lab.theory.width import WidthTheory as WidthTheory
from ntk_lab.theory.width import width_theory as width_theory

__all__ = [
    "KernelModes",
    "LayerFeatures",
    "LearningCurve",
    "LineRegions",
    "LipschitzLowerBound",
    "LipschitzUpperBound",
    "MeasuredCurve",
    "PlaneRegions",
    "PowerLaw",
    "Sensitivity",
    "SilentAlignment",
    "SphereSpectrum",
    "WidthTheory",
    "expected_regions_on_line",
    "expected_trajectory_lengths",
    "feature_ansatz",
    "fit_power_law",
    "kernel_function",
    "kernel_lipschitz_bound",
    "kernel_modes",
    "learning_curve",
    "lipschitz_constant",
    "lipschitz_lower_bound",
    "lipschitz_upper_bound",
    "measured_learning_curve",
    "predicted_sensitivity",
    "regions_in_plane",
    "regions_on_line",
    "robustness_law",
    "sawtooth",
    "sensitivity_of_size",
    "silent_alignment",
    "sphere_spectrum",
    "trajectory_lengths",
    "width_theory",
]
