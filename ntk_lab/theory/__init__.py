"""What theory says beforehand, and how to measure it on finite networks."""

from ntk_lab.theory.attention_heads import AttentionTheory as AttentionTheory
from ntk_lab.theory.attention_heads import HeadMoments as HeadMoments
from ntk_lab.theory.attention_heads import attention_theory as attention_theory
from ntk_lab.theory.attention_heads import head_moments as head_moments
from ntk_lab.theory.bias_variance import BiasVariance as BiasVariance
from ntk_lab.theory.bias_variance import bias_variance as bias_variance
from ntk_lab.theory.coordinates import CoordinateCheck as CoordinateCheck
from ntk_lab.theory.coordinates import coordinate_check as coordinate_check
from ntk_lab.theory.critical import CriticalPoint as CriticalPoint
from ntk_lab.theory.critical import critical_initialization as critical_initialization
from ntk_lab.theory.critical import critical_line as critical_line
from ntk_lab.theory.dichotomy import Dichotomy as Dichotomy
from ntk_lab.theory.dichotomy import Exponents as Exponents
from ntk_lab.theory.dichotomy import abc_exponents as abc_exponents
from ntk_lab.theory.dichotomy import dynamical_dichotomy as dynamical_dichotomy
from ntk_lab.theory.feature_ansatz import LayerFeatures as LayerFeatures
from ntk_lab.theory.feature_ansatz import feature_ansatz as feature_ansatz
from ntk_lab.theory.fixed_points import SignalFixedPoint as SignalFixedPoint
from ntk_lab.theory.fixed_points import phase_diagram as phase_diagram
from ntk_lab.theory.fixed_points import signal_fixed_point as signal_fixed_point
from ntk_lab.theory.fluctuations import FiniteWidthMoments as FiniteWidthMoments
from ntk_lab.theory.fluctuations import MeasuredMoments as MeasuredMoments
from ntk_lab.theory.fluctuations import finite_width_moments as finite_width_moments
from ntk_lab.theory.fluctuations import measure_moments as measure_moments
from ntk_lab.theory.kernel_deviation import HeadLaw as HeadLaw
from ntk_lab.theory.kernel_deviation import KernelDeviation as KernelDeviation
from ntk_lab.theory.kernel_deviation import kernel_deviation as kernel_deviation
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
from ntk_lab.theory.measured_bias_variance import MeasuredBiasVariance as MeasuredBiasVariance
from ntk_lab.theory.measured_bias_variance import (
    measured_bias_variance as measured_bias_variance,
)
from ntk_lab.theory.measured_curve import MeasuredCurve as MeasuredCurve
from ntk_lab.theory.measured_curve import measured_learning_curve as measured_learning_curve
from ntk_lab.theory.optimal_ridge import optimal_ridge as optimal_ridge
from ntk_lab.theory.power_law import PowerLaw as PowerLaw
from ntk_lab.theory.power_law import fit_power_law as fit_power_law
from ntk_lab.theory.random_features import RandomFeatureCurve as RandomFeatureCurve
from ntk_lab.theory.random_features import random_feature_curve as random_feature_curve
from ntk_lab.theory.regions_in_plane import PlaneRegions as PlaneRegions
from ntk_lab.theory.regions_in_plane import regions_in_plane as regions_in_plane
from ntk_lab.theory.regions_on_line import LineRegions as LineRegions
from ntk_lab.theory.regions_on_line import expected_regions_on_line as expected_regions_on_line
from ntk_lab.theory.regions_on_line import regions_on_line as regions_on_line
from ntk_lab.theory.regressors import GradientFeatures as GradientFeatures
from ntk_lab.theory.regressors import RandomFeatureRidge as RandomFeatureRidge
from ntk_lab.theory.regressors import Regressor as Regressor
from ntk_lab.theory.regressors import TrainedNetwork as TrainedNetwork
from ntk_lab.theory.robustness import Sensitivity as Sensitivity
from ntk_lab.theory.robustness import predicted_sensitivity as predicted_sensitivity
from ntk_lab.theory.robustness import robustness_law as robustness_law
from ntk_lab.theory.robustness import sensitivity_of_size as sensitivity_of_size
from ntk_lab.theory.sawtooth import sawtooth as sawtooth
from ntk_lab.theory.signal import MeasuredSignal as MeasuredSignal
from ntk_lab.theory.signal import Signal as Signal
from ntk_lab.theory.signal import measure_signal as measure_signal
from ntk_lab.theory.signal import signal_inputs as signal_inputs
from ntk_lab.theory.signal import signal_propagation as signal_propagation
from ntk_lab.theory.silent_alignment import SilentAlignment as SilentAlignment
from ntk_lab.theory.silent_alignment import silent_alignment as silent_alignment
from ntk_lab.theory.sphere import SphereSpectrum as SphereSpectrum
from ntk_lab.theory.sphere import sphere_spectrum as sphere_spectrum
from ntk_lab.theory.switching import switching_change as switching_change
from ntk_lab.theory.trajectory import expected_trajectory_lengths as expected_trajectory_lengths
from ntk_lab.theory.trajectory import trajectory_lengths as trajectory_lengths
from ntk_lab.theory.width import WidthTheory as WidthTheory
from ntk_lab.theory.width import width_theory as width_theory

__all__ = [
    "BiasVariance",
    "AttentionTheory",
    "CoordinateCheck",
    "CriticalPoint",
    "Dichotomy",
    "Exponents",
    "FiniteWidthMoments",
    "GradientFeatures",
    "HeadLaw",
    "HeadMoments",
    "KernelDeviation",
    "KernelModes",
    "LayerFeatures",
    "LearningCurve",
    "LineRegions",
    "LipschitzLowerBound",
    "LipschitzUpperBound",
    "MeasuredBiasVariance",
    "MeasuredCurve",
    "MeasuredMoments",
    "MeasuredSignal",
    "PlaneRegions",
    "PowerLaw",
    "RandomFeatureCurve",
    "RandomFeatureRidge",
    "Regressor",
    "Sensitivity",
    "Signal",
    "SignalFixedPoint",
    "SilentAlignment",
    "SphereSpectrum",
    "TrainedNetwork",
    "WidthTheory",
    "abc_exponents",
    "bias_variance",
    "attention_theory",
    "coordinate_check",
    "critical_initialization",
    "critical_line",
    "dynamical_dichotomy",
    "expected_regions_on_line",
    "expected_trajectory_lengths",
    "feature_ansatz",
    "finite_width_moments",
    "fit_power_law",
    "head_moments",
    "kernel_deviation",
    "kernel_function",
    "kernel_lipschitz_bound",
    "kernel_modes",
    "learning_curve",
    "lipschitz_constant",
    "lipschitz_lower_bound",
    "lipschitz_upper_bound",
    "measure_moments",
    "measure_signal",
    "measured_bias_variance",
    "measured_learning_curve",
    "optimal_ridge",
    "phase_diagram",
    "predicted_sensitivity",
    "random_feature_curve",
    "regions_in_plane",
    "regions_on_line",
    "robustness_law",
    "sawtooth",
    "sensitivity_of_size",
    "signal_fixed_point",
    "signal_inputs",
    "signal_propagation",
    "silent_alignment",
    "sphere_spectrum",
    "switching_change",
    "trajectory_lengths",
    "width_theory",
]
