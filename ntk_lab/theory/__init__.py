"""What theory says beforehand, and how to measure it on finite networks."""

from ntk_lab.theory.feature_ansatz import LayerFeatures as LayerFeatures
from ntk_lab.theory.feature_ansatz import feature_ansatz as feature_ansatz
from ntk_lab.theory.regions_in_plane import PlaneRegions as PlaneRegions
from ntk_lab.theory.regions_in_plane import regions_in_plane as regions_in_plane
from ntk_lab.theory.regions_on_line import LineRegions as LineRegions
from ntk_lab.theory.regions_on_line import expected_regions_on_line as expected_regions_on_line
from ntk_lab.theory.regions_on_line import regions_on_line as regions_on_line
from ntk_lab.theory.sawtooth import sawtooth as sawtooth
from ntk_lab.theory.silent_alignment import SilentAlignment as SilentAlignment
from ntk_lab.theory.silent_alignment import silent_alignment as silent_alignment
from ntk_lab.theory.trajectory import expected_trajectory_lengths as expected_trajectory_lengths
from ntk_lab.theory.trajectory import trajectory_lengths as trajectory_lengths
from ntk_lab.theory.width import WidthTheory as WidthTheory
from ntk_lab.theory.width import width_theory as width_theory

__all__ = [
    "LayerFeatures",
    "LineRegions",
    "PlaneRegions",
    "SilentAlignment",
    "WidthTheory",
    "expected_regions_on_line",
    "expected_trajectory_lengths",
    "feature_ansatz",
    "regions_in_plane",
    "regions_on_line",
    "sawtooth",
    "silent_alignment",
    "trajectory_lengths",
    "width_theory",
]
