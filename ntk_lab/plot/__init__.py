"""Figures. Each draws into an ``ax`` and returns what it drew.

Colours mean the same in every figure: one for each cause in the error budget (Okabe and Ito's
palette, safe for colour-blind readers), black for the total. matplotlib is imported when the
first figure is made (extra ``report``); its global settings are left alone.
"""

from ntk_lab.plot.accuracy import accuracy as accuracy
from ntk_lab.plot.budget import budget as budget
from ntk_lab.plot.calibration import calibration as calibration
from ntk_lab.plot.drift import drift as drift
from ntk_lab.plot.evolution import eigenvalues as eigenvalues
from ntk_lab.plot.evolution import evolution as evolution
from ntk_lab.plot.kernel import kernel as kernel
from ntk_lab.plot.landscape import curvature as curvature
from ntk_lab.plot.landscape import learning_rate_phases as learning_rate_phases
from ntk_lab.plot.landscape import loss_line as loss_line
from ntk_lab.plot.landscape import loss_plane as loss_plane
from ntk_lab.plot.modes import learnt_modes as learnt_modes
from ntk_lab.plot.motion import motion as motion
from ntk_lab.plot.overview import overview as overview
from ntk_lab.plot.phase import phase as phase
from ntk_lab.plot.scaling import scaling as scaling
from ntk_lab.plot.shares import neurons as neurons
from ntk_lab.plot.shares import shares as shares
from ntk_lab.plot.sharpness import sharpness as sharpness
from ntk_lab.plot.verdict import verdict as verdict

__all__ = [
    "accuracy",
    "budget",
    "calibration",
    "curvature",
    "drift",
    "eigenvalues",
    "evolution",
    "kernel",
    "learning_rate_phases",
    "learnt_modes",
    "loss_line",
    "loss_plane",
    "motion",
    "neurons",
    "overview",
    "phase",
    "scaling",
    "shares",
    "sharpness",
    "verdict",
]
