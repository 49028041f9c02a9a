"""Kernel states, duals of activations, and the evaluation of infinite-width kernels."""

from ntk_lab.kernel.check import check_inputs as check_inputs
from ntk_lab.kernel.covariance import Covariance as Covariance
from ntk_lab.kernel.evaluate import evaluate as evaluate
from ntk_lab.kernel.evaluate import is_gaussian as is_gaussian
from ntk_lab.kernel.evaluate import plan_kernel as plan_kernel
from ntk_lab.kernel.feature_map import RandomFeatures as RandomFeatures
from ntk_lab.kernel.feature_map import random_features as random_features
from ntk_lab.kernel.layout import Need as Need
from ntk_lab.kernel.matrix import KernelMatrix as KernelMatrix
from ntk_lab.kernel.plan import Plan as Plan
from ntk_lab.kernel.result import Kernel as Kernel
from ntk_lab.kernel.sharded import ShardedMatrix as ShardedMatrix
from ntk_lab.kernel.state import Features as Features
from ntk_lab.kernel.state import Gaussian as Gaussian
from ntk_lab.kernel.state import Inputs as Inputs
from ntk_lab.kernel.state import State as State
from ntk_lab.kernel.state import moments as moments
from ntk_lab.kernel.stored import StoredKernel as StoredKernel
from ntk_lab.kernel.stored import StoredMatrix as StoredMatrix
from ntk_lab.kernel.stored import open_store as open_store
from ntk_lab.kernel.to_store import to_store as to_store

__all__ = [
    "Covariance",
    "Features",
    "Gaussian",
    "Inputs",
    "Kernel",
    "KernelMatrix",
    "Need",
    "Plan",
    "RandomFeatures",
    "ShardedMatrix",
    "State",
    "StoredKernel",
    "StoredMatrix",
    "check_inputs",
    "evaluate",
    "is_gaussian",
    "moments",
    "open_store",
    "plan_kernel",
    "random_features",
    "to_store",
]
