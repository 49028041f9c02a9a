"""Finite-width kernels of any JAX function, and its linearization."""

from ntk_lab.empirical.linearize import linearize as linearize
from ntk_lab.empirical.ntk import ntk as ntk

__all__ = ["linearize", "ntk"]
