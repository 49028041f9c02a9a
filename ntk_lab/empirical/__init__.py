"""Finite-width kernels of any JAX function, and its linearization."""

from ntk_lab.empirical.after_kernels import AfterKernels as AfterKernels
from ntk_lab.empirical.after_kernels import after_kernels as after_kernels
from ntk_lab.empirical.agop import average_gradient_outer_product as average_gradient_outer_product
from ntk_lab.empirical.contributions import contributions as contributions
from ntk_lab.empirical.effective_rank import effective_rank as effective_rank
from ntk_lab.empirical.effective_rank import participation_ratio as participation_ratio
from ntk_lab.empirical.eigenspaces import choose_k as choose_k
from ntk_lab.empirical.evolution import Evolution as Evolution
from ntk_lab.empirical.evolution import kernel_evolution as kernel_evolution
from ntk_lab.empirical.finite import FiniteKernel as FiniteKernel
from ntk_lab.empirical.linearize import linearize as linearize
from ntk_lab.empirical.monte_carlo import MonteCarloKernel as MonteCarloKernel
from ntk_lab.empirical.monte_carlo import monte_carlo_kernel as monte_carlo_kernel
from ntk_lab.empirical.nngp import nngp as nngp
from ntk_lab.empirical.ntk import ntk as ntk
from ntk_lab.empirical.operator import Operator as Operator
from ntk_lab.empirical.operator import operator as operator
from ntk_lab.empirical.plan import EmpiricalPlan as EmpiricalPlan
from ntk_lab.empirical.plan import ParameterPlan as ParameterPlan
from ntk_lab.empirical.plan import plan as plan
from ntk_lab.empirical.prediction_shares import PredictionShares as PredictionShares
from ntk_lab.empirical.prediction_shares import prediction_shares as prediction_shares
from ntk_lab.empirical.pseudo import PseudoKernel as PseudoKernel
from ntk_lab.empirical.pseudo import pseudo_ntk as pseudo_ntk
from ntk_lab.empirical.shares import Shares as Shares
from ntk_lab.empirical.shares import by_layer as by_layer
from ntk_lab.empirical.shares import kernel_shares as kernel_shares
from ntk_lab.empirical.sign_kernel import sign_kernel as sign_kernel
from ntk_lab.empirical.sketched import SketchedKernel as SketchedKernel
from ntk_lab.empirical.sketched import sketched_ntk as sketched_ntk
from ntk_lab.empirical.taylor import taylor_expand as taylor_expand
from ntk_lab.empirical.velocity import kernel_velocity as kernel_velocity

__all__ = [
    "AfterKernels",
    "EmpiricalPlan",
    "Evolution",
    "FiniteKernel",
    "MonteCarloKernel",
    "Operator",
    "ParameterPlan",
    "PredictionShares",
    "PseudoKernel",
    "Shares",
    "SketchedKernel",
    "after_kernels",
    "average_gradient_outer_product",
    "by_layer",
    "choose_k",
    "contributions",
    "effective_rank",
    "kernel_evolution",
    "kernel_shares",
    "kernel_velocity",
    "linearize",
    "monte_carlo_kernel",
    "nngp",
    "ntk",
    "operator",
    "participation_ratio",
    "plan",
    "prediction_shares",
    "pseudo_ntk",
    "sign_kernel",
    "sketched_ntk",
    "taylor_expand",
]
