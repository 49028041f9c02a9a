"""What theory says beforehand of a network, and how to measure it on finite ones."""

from ntk_lab.theory.critical import CriticalPoint as CriticalPoint
from ntk_lab.theory.critical import critical_initialization as critical_initialization
from ntk_lab.theory.critical import critical_line as critical_line
from ntk_lab.theory.fixed_points import SignalFixedPoint as SignalFixedPoint
from ntk_lab.theory.fixed_points import phase_diagram as phase_diagram
from ntk_lab.theory.fixed_points import signal_fixed_point as signal_fixed_point
from ntk_lab.theory.signal import MeasuredSignal as MeasuredSignal
from ntk_lab.theory.signal import Signal as Signal
from ntk_lab.theory.signal import measure_signal as measure_signal
from ntk_lab.theory.signal import signal_inputs as signal_inputs
from ntk_lab.theory.signal import signal_propagation as signal_propagation
from ntk_lab.theory.width import WidthTheory as WidthTheory
from ntk_lab.theory.width import width_theory as width_theory

__all__ = [
    "CriticalPoint",
    "MeasuredSignal",
    "Signal",
    "SignalFixedPoint",
    "WidthTheory",
    "critical_initialization",
    "critical_line",
    "measure_signal",
    "phase_diagram",
    "signal_fixed_point",
    "signal_inputs",
    "signal_propagation",
    "width_theory",
]
