"""Does kernel regression predict this training run, how far, until when, and if not, why."""

from ntk_lab.compare.after import AfterKernelRegression as AfterKernelRegression
from ntk_lab.compare.after import after_kernel_regression as after_kernel_regression
from ntk_lab.compare.comparison import Comparison as Comparison
from ntk_lab.compare.horizon import Horizon as Horizon
from ntk_lab.compare.model import compare_model as compare_model
from ntk_lab.compare.phase import PhaseDiagram as PhaseDiagram
from ntk_lab.compare.phase import phase_diagram as phase_diagram
from ntk_lab.compare.process import EnsembleFit as EnsembleFit
from ntk_lab.compare.run import compare as compare
from ntk_lab.compare.scaling import Exponent as Exponent
from ntk_lab.compare.scaling import RequiredWidth as RequiredWidth
from ntk_lab.compare.statistics import Verdict as Verdict
from ntk_lab.progress import Progress as Progress

__all__ = [
    "AfterKernelRegression",
    "Comparison",
    "EnsembleFit",
    "Exponent",
    "Horizon",
    "PhaseDiagram",
    "Progress",
    "RequiredWidth",
    "Verdict",
    "after_kernel_regression",
    "compare",
    "compare_model",
    "phase_diagram",
]
