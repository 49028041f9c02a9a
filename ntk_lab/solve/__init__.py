"""Linear algebra on kernel matrices, with diagnostics instead of silent repairs."""

from ntk_lab.solve.spectrum import Diagnostics as Diagnostics
from ntk_lab.solve.spectrum import Spectrum as Spectrum
from ntk_lab.solve.spectrum import spectrum as spectrum

__all__ = ["Diagnostics", "Spectrum", "spectrum"]
