"""Linear algebra on kernel matrices, with diagnostics instead of silent repairs."""

from ntk_lab.solve.cholesky import Factored as Factored
from ntk_lab.solve.cholesky import cholesky_solve as cholesky_solve
from ntk_lab.solve.conjugate_gradient import Solution as Solution
from ntk_lab.solve.conjugate_gradient import conjugate_gradient as conjugate_gradient
from ntk_lab.solve.eigenpairs import Eigenpairs as Eigenpairs
from ntk_lab.solve.eigenpairs import top_eigenpairs as top_eigenpairs
from ntk_lab.solve.estimate import Estimate as Estimate
from ntk_lab.solve.krylov import KrylovSpace as KrylovSpace
from ntk_lab.solve.krylov import extended as extended
from ntk_lab.solve.krylov import krylov as krylov
from ntk_lab.solve.nystrom import Nystrom as Nystrom
from ntk_lab.solve.nystrom import nystrom as nystrom
from ntk_lab.solve.pivoted import LowRankInverse as LowRankInverse
from ntk_lab.solve.pivoted import PivotedCholesky as PivotedCholesky
from ntk_lab.solve.pivoted import pivoted_cholesky as pivoted_cholesky
from ntk_lab.solve.quadrature import gauss as gauss
from ntk_lab.solve.quadrature import lanczos as lanczos
from ntk_lab.solve.quadrature import radau as radau
from ntk_lab.solve.spectrum import Diagnostics as Diagnostics
from ntk_lab.solve.spectrum import Spectrum as Spectrum
from ntk_lab.solve.spectrum import diagnose as diagnose
from ntk_lab.solve.spectrum import spectrum as spectrum
from ntk_lab.solve.tiled import InMemory as InMemory
from ntk_lab.solve.tiled import Tiled as Tiled
from ntk_lab.solve.tiled import product as product

__all__ = [
    "Diagnostics",
    "Eigenpairs",
    "Estimate",
    "Factored",
    "InMemory",
    "KrylovSpace",
    "LowRankInverse",
    "Nystrom",
    "PivotedCholesky",
    "Solution",
    "Spectrum",
    "Tiled",
    "cholesky_solve",
    "conjugate_gradient",
    "diagnose",
    "extended",
    "gauss",
    "krylov",
    "lanczos",
    "nystrom",
    "pivoted_cholesky",
    "product",
    "radau",
    "spectrum",
    "top_eigenpairs",
]
