"""A symmetric kernel as a matrix whose entries are computed anew wherever they are needed."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel.computed import Computed
from ntk_lab.kernel.result import Kernel

# Examples whose variances are taken from one small kernel: of positions, pairs are dear.
_TOGETHER, _POSITIONS = 256, 4


class KernelMatrix:
    """Kernel of one set of inputs, ``(n, n)``, for `ntk_lab.solve`: never held as a whole.

    Parameters
    ----------
    job
        What is computed, in which tiles and within which memory.
    which
        "ntk" or "nngp".
    """

    def __init__(self, job: Computed, which: str):
        if job.trailing:
            raise InputError(
                f"outputs have positions of their own (a kernel of shape (n, n, "
                f"{', '.join(map(str, job.trailing))})); regression needs one number for each "
                "pair of examples. End the network in Flatten or a pooling layer, and Dense; of a "
                'FiniteKernel take outputs="trace".'
            )
        self.job, self.which = job, which
        self.shape, self.dtype = job.shape, job.dtype

    def tiles(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """All tiles on and above the diagonal, each computed when it is asked for."""
        for i, j in self.job.places:
            yield self.job.span(i, 0), self.job.span(j, 1), self._take(self.job.tile(i, j))

    def diagonal(self) -> np.ndarray:
        """Entries of the diagonal, ``(n,)``."""
        x, n = self.job.x1, self.shape[0]
        some = _TOGETHER if len(x.shape) == 2 else _POSITIONS
        parts = [
            self._take(self.job.piece(x[start : start + some], None)).diagonal()
            for start in range(0, n, some)
        ]
        return np.concatenate(parts)

    def columns(self, chosen: np.ndarray) -> np.ndarray:
        """Some columns, ``(n, len(chosen))``."""
        found = np.empty((self.shape[0], len(chosen)), self.dtype)
        for rows, block in self.against(rows_of(self.job.x1, chosen)):
            found[rows] = block
        return found

    def against(
        self, others: Any, x: Any = None, first: int = 0
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Kernel of consecutive rows of ``x`` (the matrix's inputs) with some ``others``.

        From row ``first`` on, ``(rows, len(others))`` at a time, within the memory limit.
        """
        x = self.job.x1 if x is None else x
        n, m = x.shape[0], others.shape[0]
        step = max(1, min(n, self.job.side**2 // m))
        for start in range(first, n, step):
            rows = slice(start, min(start + step, n))
            yield rows, self._take(self.job.piece(x[rows], others))

    def _take(self, kernel: Kernel) -> np.ndarray:
        return np.asarray(getattr(kernel, self.which))


def rows_of(x: Any, chosen: np.ndarray) -> Any:
    """Some examples of data of any kind, in memory."""
    return jax.tree.map(lambda a: np.asarray(a[chosen]), x)
