"""BLAS and LAPACK by the names of their routines, which no type checker knows."""

from typing import Any

import scipy.linalg

blas: Any = scipy.linalg.blas
lapack: Any = scipy.linalg.lapack
