"""Finite-width kernels of any JAX function, and its linearization."""

from ntk_lab.empirical.after_kernels import AfterKernels as AfterKernels
from ntk_lab.empirical.after_kernels import after_kernels as after_kernels
from ntk_lab.empirical.linearize import linearize as linearize
from ntk_lab.empirical.monte_carlo import MonteCarloKernel as MonteCarloKernel
from ntk_lab.empirical.monte_carlo import monte_carlo_kernel as monte_carlo_kernel
from ntk_lab.empirical.nngp import nngp as nngp
from ntk_lab.empirical.ntk import contributions as contributions
from ntk_lab.empirical.ntk import ntk as ntk
from ntk_lab.empirical.operator import Operator as Operator
from ntk_lab.empirical.operator import operator as operator
from ntk_lab.empirical.plan import EmpiricalPlan as EmpiricalPlan
from ntk_lab.empirical.plan import ParameterPlan as ParameterPlan
from ntk_lab.empirical.plan import plan as plan
from ntk_lab.empirical.pseudo import PseudoKernel as PseudoKernel
from ntk_lab.empirical.pseudo import pseudo_ntk as pseudo_ntk
from ntk_lab.empirical.sketched import SketchedKernel as SketchedKernel
from ntk_lab.empirical.sketched import sketched_ntk as sketched_ntk
from ntk_lab.empirical.taylor import taylor_expand as taylor_expand
from ntk_lab.empirical.velocity import kernel_velocity as kernel_velocity

__all__ = [
    "AfterKernels",
    "EmpiricalPlan",
    "MonteCarloKernel",
    "Operator",
    "ParameterPlan",
    "after_kernels",
    "PseudoKernel",
    "SketchedKernel",
    "contributions",
    "kernel_velocity",
    "linearize",
    "monte_carlo_kernel",
    "nngp",
    "ntk",
    "operator",
    "plan",
    "taylor_expand",
    "pseudo_ntk",
    "sketched_ntk",
]
