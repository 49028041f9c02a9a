"""A fitted kernel regression, of any size."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel import RandomFeatures
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
        Inputs that the predictor is a sum over, ``(m, *shape)``: the training set, or some of it;
        None for "features".
    coefficients
        ``a``, ``(m, C)`` float64: predictions are ``K(x, centres) a``, or ``features(x) a``. With
        times ``(*times, m, C)``.
    method
        "cholesky", "cg", "nystrom", "features", or "lanczos" for times.
    reason
        Why this method.
    ridge
        Added to the diagonal of the training kernel.
    relative_residual
        ``|y - (K + ridge I) a| / |y|`` of each column, computed from ``a`` in double precision;
        for "nystrom" and "features" that of their normal equations. For "lanczos" the estimated
        relative error of outputs on the training set, ``(*times, C)``.
    error_bound
        For each column: predictions differ from those of an exact solve by at most this times the
        square root of ``K(x, x)``. It is ``|residual| / (2 sqrt(ridge))``, infinite without a
        ridge; for "nystrom" and "features" NaN, as they are not exact. For "lanczos", ``(*times,
        C)``, an estimate: what the last quarter of the Krylov space adds.
    iterations
        Times that all tiles were gone through for products.
    details
        Further diagnostics by name, such as ``"smallest_pivot"`` of a factor, ``"unexplained"``
        (share of the kernel that the centres do not span), ``"rank"`` of a preconditioner and
        what it ``"remaining"`` leaves of the trace.
    memory
        Bytes that predictions may take.
    features
        The map of "features", whose ``relative_error`` is that of the kernel.
    time
        Training times, of any shape; None for training to the end.
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
    features: RandomFeatures | None = None
    time: np.ndarray | None = None

    def predict(self, x: Any) -> jax.Array:
        """Outputs on ``x`` of shape ``(n_test, *shape)``, ``(n_test, C)`` in the kernel's dtype.

        With times ``(*times, n_test, C)``.

        The mean over initializations of infinitely wide networks that are trained to the end (of
        the NTK), or the posterior mean of their Gaussian process (of the NNGP). The kernel of test
        and training inputs is computed in blocks within the memory limit and never held.
        """
        x = x if hasattr(x, "shape") else np.asarray(x)
        *times, m, outputs = self.coefficients.shape
        columns = np.moveaxis(self.coefficients.reshape(-1, m, outputs), 0, 1).reshape(m, -1)
        out = np.empty((x.shape[0], columns.shape[1]))
        dtype = np.dtype(np.float64)
        for rows, block in self._blocks(x):
            dtype = block.dtype
            for start in range(0, len(block), _WIDENED):
                wide = block[start : start + _WIDENED].astype(np.float64, copy=False)
                first = rows.start + start
                out[first : first + len(wide)] = wide @ columns
        found = np.moveaxis(out.reshape(len(out), -1, outputs), 1, 0)
        return jnp.asarray(found.reshape(*times, len(out), outputs).astype(dtype))

    def at_best_time(self, x: Any, y: Any) -> "Regression":
        """Early stopping: the regression at the time of least squared error on ``x``, ``y``.

        Raises
        ------
        InputError
            Without several times; targets that are not ``(n_validation, C)`` or not finite.
        """
        if self.time is None or self.time.size == 0 or self.time.ndim != 1:
            raise InputError("early stopping needs times: regress(..., time=array of some times).")
        predicted, y = np.asarray(self.predict(x), np.float64), np.asarray(y)
        if y.shape != predicted.shape[1:]:
            raise InputError(f"y has shape {y.shape}; expected {predicted.shape[1:]}.")
        if not np.isfinite(y).all():
            raise InputError("y has NaN or infinite values; remove or repair these examples first.")
        best = int(np.square(predicted - y[None]).mean(axis=(1, 2)).argmin())
        kept = {
            name: getattr(self, name)[best]
            for name in ("coefficients", "relative_residual", "error_bound")
        }
        return replace(self, **kept, time=np.asarray(self.time[best]))

    def _blocks(self, x: Any) -> Iterator[tuple[slice, np.ndarray]]:
        """What coefficients are multiplied by, for consecutive rows of ``x``."""
        if self.features is not None:
            return self.features.blocks(x)
        job = Computed(self.network, x, self.centres, self.memory)
        return KernelMatrix(job, self.which).against(self.centres)

    def __str__(self) -> str:
        worst = float(np.max(self.relative_residual))
        on = "features" if self.features is not None else "centres"
        error = "" if self.features is None else f"; {self.features!r}"
        meaning = {
            "lanczos": "estimated relative error of training outputs",
            "nystrom": "relative residual of the normal equations",
            "features": "relative residual of the normal equations",
        }.get(self.method, "relative residual")
        return (
            f"{self.which} regression on {self.coefficients.shape[-2]} {on} by {self.method} "
            f"({self.reason}{error})\n{meaning} {worst:.2g} after {self.iterations} "
            f"passes over the kernel, ridge {self.ridge:.3g}"
        )
