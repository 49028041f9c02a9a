"""Ensembles of real networks and their linearizations, trained in one compiled program."""

from ntk_lab.train.batches import batch_order as batch_order
from ntk_lab.train.ensemble import ensemble as ensemble
from ntk_lab.train.ensemble import squared_loss as squared_loss
from ntk_lab.train.record import Sketch as Sketch
from ntk_lab.train.schedule import log_spaced as log_spaced
from ntk_lab.train.sharpness import TopEigenvalue as TopEigenvalue
from ntk_lab.train.sharpness import sharpness as sharpness
from ntk_lab.train.sharpness import top_ntk as top_ntk
from ntk_lab.train.trajectory import Trajectory as Trajectory

__all__ = [
    "Sketch",
    "TopEigenvalue",
    "Trajectory",
    "batch_order",
    "ensemble",
    "log_spaced",
    "sharpness",
    "squared_loss",
    "top_ntk",
]
