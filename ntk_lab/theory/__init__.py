"""What theory says beforehand of a network, and how to measure it on finite ones."""

from ntk_lab.theory.coordinates import CoordinateCheck as CoordinateCheck
from ntk_lab.theory.coordinates import coordinate_check as coordinate_check
from ntk_lab.theory.critical import CriticalPoint as CriticalPoint
from ntk_lab.theory.critical import critical_initialization as critical_initialization
from ntk_lab.theory.critical import critical_line as critical_line
from ntk_lab.theory.dichotomy import Dichotomy as Dichotomy
from ntk_lab.theory.dichotomy import Exponents as Exponents
from ntk_lab.theory.dichotomy import abc_exponents as abc_exponents
from ntk_lab.theory.dichotomy import dynamical_dichotomy as dynamical_dichotomy
from ntk_lab.theory.fixed_points import SignalFixedPoint as SignalFixedPoint
from ntk_lab.theory.fixed_points import phase_diagram as phase_diagram
from ntk_lab.theory.fixed_points import signal_fixed_point as signal_fixed_point
from ntk_lab.theory.fluctuations import FiniteWidthMoments as FiniteWidthMoments
from ntk_lab.theory.fluctuations import MeasuredMoments as MeasuredMoments
from ntk_lab.theory.fluctuations import finite_width_moments as finite_width_moments
from ntk_lab.theory.fluctuations import measure_moments as measure_moments
from ntk_lab.theory.signal import MeasuredSignal as MeasuredSignal
from ntk_lab.theory.signal import Signal as Signal
from ntk_lab.theory.signal import measure_signal as measure_signal
from ntk_lab.theory.signal import signal_inputs as signal_inputs
from ntk_lab.theory.signal import signal_propagation as signal_propagation
from ntk_lab.theory.switching import switching_change as switching_change
from ntk_lab.theory.width import WidthTheory as WidthTheory
from ntk_lab.theory.width import width_theory as width_theory

__all__ = [
    "CoordinateCheck",
    "CriticalPoint",
    "Dichotomy",
    "Exponents",
    "FiniteWidthMoments",
    "MeasuredMoments",
    "MeasuredSignal",
    "Signal",
    "SignalFixedPoint",
    "WidthTheory",
    "abc_exponents",
    "coordinate_check",
    "critical_initialization",
    "critical_line",
    "dynamical_dichotomy",
    "finite_width_moments",
    "measure_moments",
    "measure_signal",
    "phase_diagram",
    "signal_fixed_point",
    "signal_inputs",
    "signal_propagation",
    "switching_change",
    "width_theory",
]
