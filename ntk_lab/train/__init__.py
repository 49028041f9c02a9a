"""Training real networks and their linearizations, and the landscape that they train in."""

from ntk_lab.train.batches import batch_order as batch_order
from ntk_lab.train.catapult import Phase as Phase
from ntk_lab.train.catapult import phase_of as phase_of
from ntk_lab.train.curvature import Curvature as Curvature
from ntk_lab.train.curvature import curvature_along as curvature_along
from ntk_lab.train.directions import random_direction as random_direction
from ntk_lab.train.ensemble import ensemble as ensemble
from ntk_lab.train.ensemble import squared_loss as squared_loss
from ntk_lab.train.hessian import HessianEigenpairs as HessianEigenpairs
from ntk_lab.train.hessian import hessian_eigenvalues as hessian_eigenvalues
from ntk_lab.train.landscape import LossLine as LossLine
from ntk_lab.train.landscape import LossPlane as LossPlane
from ntk_lab.train.landscape import loss_along_line as loss_along_line
from ntk_lab.train.landscape import loss_plane as loss_plane
from ntk_lab.train.linear import linearized_descent as linearized_descent
from ntk_lab.train.phases import LearningRatePhases as LearningRatePhases
from ntk_lab.train.phases import learning_rate_phases as learning_rate_phases
from ntk_lab.train.record import Sketch as Sketch
from ntk_lab.train.schedule import log_spaced as log_spaced
from ntk_lab.train.sharpness import TopEigenvalue as TopEigenvalue
from ntk_lab.train.sharpness import sharpness as sharpness
from ntk_lab.train.sharpness import top_ntk as top_ntk
from ntk_lab.train.trajectory import Trajectory as Trajectory

__all__ = [
    "Curvature",
    "HessianEigenpairs",
    "LearningRatePhases",
    "LossLine",
    "LossPlane",
    "Phase",
    "Sketch",
    "TopEigenvalue",
    "Trajectory",
    "batch_order",
    "curvature_along",
    "ensemble",
    "hessian_eigenvalues",
    "learning_rate_phases",
    "linearized_descent",
    "log_spaced",
    "loss_along_line",
    "loss_plane",
    "phase_of",
    "random_direction",
    "sharpness",
    "squared_loss",
    "top_ntk",
]
