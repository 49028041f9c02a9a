"""Ensembles of real networks and their linearizations, trained in one compiled program."""

from ntk_lab.train.ensemble import Trajectory as Trajectory
from ntk_lab.train.ensemble import ensemble as ensemble
from ntk_lab.train.ensemble import squared_loss as squared_loss
from ntk_lab.train.schedule import log_spaced as log_spaced

__all__ = ["Trajectory", "ensemble", "log_spaced", "squared_loss"]
