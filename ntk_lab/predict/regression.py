"""A fitted kernel regression, of any size."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.kernel.computed import Computed
from ntk_lab.kernel.matrix import KernelMatrix

# Rows of kernel blocks that are widened to double precision together.
_WIDENED = 256


@dataclass(frozen=True)
class Regression:
    """What `regress` returns.

    Attributes
    ----------
    network, which
        The kernel.
    centres
        Inputs that the predictor is a sum over, ``(m, *shape)``: the training set, or some of it.
    coefficients
        ``a``, ``(m, C)`` float64: predictions are ``K(x, centres) a``.
    method
        "cholesky", "cg" or "nystrom".
    reason
        Why this method.
    ridge
        Added to the diagonal of the training kernel.
    relative_residual
        ``|y - (K + ridge I) a| / |y|`` of each column, computed from ``a`` in double precision;
        for "nystrom" that of its normal equations.
    error_bound
        For each column: predictions differ from those of an exact solve by at most this times the
        square root of ``K(x, x)``. It is ``|residual| / (2 sqrt(ridge))``, infinite without a
        ridge; for "nystrom" NaN, as the method is not exact.
    iterations
        Times that all tiles were gone through for products.
    details
        Further diagnostics by name, such as ``"smallest_pivot"`` of a factor, ``"unexplained"``
        (share of the kernel that the centres do not span), ``"rank"`` of a preconditioner and
        what it ``"remaining"`` leaves of the trace.
    memory
        Bytes that predictions may take.
    """

    network: Any
    which: str
    centres: Any
    coefficients: np.ndarray
    method: str
    reason: str
    ridge: float
    relative_residual: np.ndarray
    error_bound: np.ndarray
    iterations: int
    details: dict[str, Any]
    memory: float | None = None

    def predict(self, x: Any) -> jax.Array:
        """Outputs on ``x`` of shape ``(n_test, *shape)``, ``(n_test, C)`` in the kernel's dtype.

        The mean over initializations of infinitely wide networks that are trained to the end (of
        the NTK), or the posterior mean of their Gaussian process (of the NNGP). The kernel of test
        and training inputs is computed in blocks within the memory limit and never held.
        """
        job = Computed(self.network, x, self.centres, self.memory)
        kernel = KernelMatrix(job, self.which)
        out = np.empty((job.shape[0], self.coefficients.shape[1]))
        for rows, block in kernel.against(self.centres):
            for start in range(0, len(block), _WIDENED):
                wide = block[start : start + _WIDENED].astype(np.float64, copy=False)
                first = rows.start + start
                out[first : first + len(wide)] = wide @ self.coefficients
        return jnp.asarray(out.astype(job.dtype))

    def __str__(self) -> str:
        worst = float(np.max(self.relative_residual))
        return (
            f"{self.which} regression on {len(self.coefficients)} centres by {self.method} "
            f"({self.reason})\nrelative residual {worst:.2g} after {self.iterations} passes over "
            f"the kernel, ridge {self.ridge:.3g}"
        )
