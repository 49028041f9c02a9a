"""Kernel ridge regression of any size: exact as far as memory and time go, and beyond."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from ntk_lab.errors import InputError
from ntk_lab.kernel.computed import Computed, blocks
from ntk_lab.kernel.matrix import KernelMatrix
from ntk_lab.kernel.sharded import ShardedMatrix
from ntk_lab.kernel.stored import StoredMatrix
from ntk_lab.kernel.to_store import to_store
from ntk_lab.predict.inputs import Which
from ntk_lab.predict.regress_methods import Fitting, by_cg, by_cholesky, by_nystrom
from ntk_lab.predict.regression import Regression
from ntk_lab.progress import Progress, Report
from ntk_lab.solve import InMemory
from ntk_lab.solve.cholesky import LARGEST, cholesky_bytes

Method = Literal["auto", "cholesky", "cg", "nystrom"]
# Examples up to which a factor is quicker than iterations, and an exact solution takes less than
# hours on an ordinary machine.
_FACTORED, _EXACT = 20_000, 200_000
# Share of the memory for half of a kernel; the rest is for tiles and the preconditioner.
_SHARE = 0.6
TOLERANCE = {4: 1e-5, 8: 1e-9}


def regress(
    net: Any,
    x: Any,
    y: ArrayLike,
    *,
    ridge: float,
    which: Which = "ntk",
    method: Method = "auto",
    memory: float | None = None,
    tol: float | None = None,
    max_iterations: int = 500,
    rank: int | None = None,
    centres: int | Sequence[int] | np.ndarray | None = None,
    store: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    start: ArrayLike | None = None,
    mesh: Mesh | None = None,
    seed: int = 0,
    progress: Report | None = None,
) -> Regression:
    """Solve ``(K + ridge I) a = y`` for an infinite-width kernel ``K`` of the training inputs.

    Parameters
    ----------
    net
        The architecture.
    x, y
        Inputs ``(n, *shape)``, also memory maps, Zarr and dask arrays; targets ``(n, C)``.
    ridge
        Added to the diagonal, >= 0. For the loss ``1/(2n) sum |f - y|^2 + decay/2 |theta|^2`` it
        is ``n decay``; for a Gaussian process the variance of the noise.
    which
        "ntk" or "nngp".
    method
        "cholesky": a factor in half of a matrix's memory, with refinement in float64. "cg":
        conjugate gradients with a pivoted Cholesky preconditioner on tiles that are kept in
        memory, on disk (``store``), or computed anew for each product. "nystrom": least squares
        on some of the examples as centres; not exact. "auto" takes the first that is feasible,
        and `Regression.reason` says why.
    memory
        Bytes that everything but the data may take; half of what is free unless given.
    tol
        Bound on the relative residual; 1e-5 in float32 and 1e-9 in float64 unless given.
    max_iterations
        Of conjugate gradients.
    rank
        Columns of the preconditioner.
    centres
        Number of centres, drawn at random, or the numbers of the examples; 4096 unless given.
    store
        Folder for the kernel, see `ntk_lab.kernel.to_store`: a second call finds it there.
    checkpoint
        Folder for the state of a solve that is interrupted; the same call goes on from there. Of
        several processes the first keeps it for all.
    start
        Coefficients to start from, such as those for another ridge ("cg" only).
    mesh
        Devices that compute products of "cg", see `ntk_lab.kernel.ShardedMatrix`; of several
        processes after ``jax.distributed.initialize``, which then all make the same call.
    seed
        Of centres and preconditioner.
    progress
        Called with a `ntk_lab.progress.Progress`.

    Returns
    -------
    Regression
        Its ``predict(x_test)`` gives outputs.

    Raises
    ------
    InputError
        Arguments that do not fit, data that are not finite, duplicated inputs without a ridge, a
        method that does not fit into memory.
    NumericalError
        A kernel that is singular to rounding.
    ConvergenceError
        Residuals above ``tol`` after all iterations; its ``result`` is the solution so far.

    Notes
    -----
    Cost: "cholesky" ``n^3 / 3`` operations and ``n^2 / 2`` numbers; "cg" ``n^2`` for each
    iteration, some tens of them, and ``n rank`` numbers (arXiv:1903.08114); "nystrom"
    ``n m^2`` operations and ``3 m^2`` numbers (arXiv:2006.10350).

    Examples
    --------
    >>> import numpy as np, ntk_lab as ntk
    >>> x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    >>> net = ntk.nn.Sequential(
    ...     ntk.nn.Dense(64, b_std=1.0), ntk.nn.Relu(), ntk.nn.Dense(1)
    ... )
    >>> fitted = ntk.predict.regress(net, x, x**2, ridge=1e-3)
    >>> bool(abs(fitted.predict(x) - x**2).max() < 0.05), fitted.method
    (True, 'cholesky')
    """
    _check_arguments(which, method, ridge, store)
    if mesh is not None and (method not in ("auto", "cg") or store is not None):
        raise InputError(
            'mesh computes the kernel anew for each product of method="cg"; leave out store.'
        )
    job = Computed(net, x, None, memory)
    n, size = job.shape[0], job.dtype.itemsize
    y = _targets(y, n)
    tol = TOLERANCE[size] if tol is None else float(tol)
    chosen, reason = choose(method if mesh is None else "cg", n, size, job.memory)
    if ridge == 0:
        _refuse_duplicates(job.x1)
    fitting = Fitting(
        KernelMatrix(job, which), y, float(ridge), tol, max_iterations, rank, seed, start,
        checkpoint, progress,
    )  # fmt: skip
    if chosen == "nystrom":
        picked = _pick(centres, n, seed)
        return by_nystrom(fitting, picked, reason, memory)
    matrix: Any = fitting.matrix
    if mesh is not None:
        return by_cg(fitting, ShardedMatrix(job, which, mesh), f"{mesh.size} devices", memory)
    if store is not None:
        matrix, reason = _stored(net, x, which, memory, store, progress), f"{reason}; on disk"
    if chosen == "cholesky":
        return by_cholesky(fitting, matrix, reason, memory)
    if store is None and keeps(n, size, job.memory):
        matrix, reason = InMemory(matrix), f"{reason}; kernel in memory"
    elif store is None:
        reason = f"{reason}; kernel computed anew for each product"
    return by_cg(fitting, matrix, reason, memory)


def _check_arguments(which: str, method: str, ridge: float, store: Any) -> None:
    if which not in ("ntk", "nngp"):
        raise InputError(f'which is {which!r}; it must be "ntk" or "nngp".')
    if method not in ("auto", "cholesky", "cg", "nystrom"):
        raise InputError(f'method={method!r}; expected "auto", "cholesky", "cg" or "nystrom".')
    if not 0 <= float(ridge) < float("inf"):
        raise InputError(f"ridge={ridge}; expected a number, 0 <= ridge < inf.")
    if method == "nystrom" and store is not None:
        raise InputError('method="nystrom" keeps no kernel; leave out store.')


def choose(method: str, n: int, size: int, memory: float) -> tuple[str, str]:
    """A method for ``n`` examples of ``size`` bytes a number, and why."""
    needed, fits = cholesky_bytes(n, size), keeps(n, size, memory)
    if method == "cholesky" and not (fits and n <= LARGEST):
        raise InputError(
            f"half of a kernel of {n} examples takes {needed / 1e9:.3g} GB, and factors of at most "
            f"{LARGEST} rows and {_SHARE:.0%} of memory={memory / 1e9:.3g} GB are possible. Allow "
            'more, or take method="cg".'
        )
    if method != "auto":
        return method, "asked for"
    if fits and n <= _FACTORED:
        return "cholesky", f"{n} examples: half of the kernel takes {needed / 1e9:.2g} GB"
    if n <= _EXACT:
        why = "iterations are quicker than a factor" if fits else "a factor exceeds the memory"
        return "cg", f"{n} examples: {why}"
    return "nystrom", f"{n} examples: an exact solution would take hours"


def keeps(n: int, size: int, memory: float) -> bool:
    """Whether half of a kernel is kept in memory."""
    return cholesky_bytes(n, size) <= _SHARE * memory


def _targets(y: Any, n: int) -> np.ndarray:
    y = np.asarray(y)
    if y.dtype.kind not in "fiu" or y.ndim != 2 or len(y) != n or y.shape[1] == 0:
        raise InputError(
            f"y is {y.dtype} of shape {y.shape}; expected numbers of shape ({n}, outputs). Reshape "
            "one output by y[:, None]; for classes take one column each."
        )
    if not np.isfinite(y).all():
        rows = np.flatnonzero(~np.isfinite(y).all(axis=1))
        raise InputError(
            f"y has NaN or infinite values in {len(rows)} of {n} examples, the first of them "
            f"number {rows[0]}. Remove or repair these examples first."
        )
    return y.astype(np.float64)


def _refuse_duplicates(x: Any) -> None:
    seen: dict[bytes, int] = {}
    if not hasattr(x, "__array__"):
        return
    for first, block in blocks(x):
        for i, row in enumerate(np.ascontiguousarray(block).reshape(block.shape[0], -1)):
            earlier = seen.setdefault((row + 0).tobytes(), first + i)
            if earlier != first + i:
                raise InputError(
                    f"examples {earlier} and {first + i} are the same input, so that the kernel is "
                    "singular. Remove duplicates, or give a ridge > 0."
                )


def _pick(centres: Any, n: int, seed: int) -> np.ndarray:
    if centres is None or isinstance(centres, int | np.integer):
        m = min(4096, n) if centres is None else int(centres)
        if not 1 <= m <= n:
            raise InputError(f"centres={m}; expected between 1 and {n}, or numbers of examples.")
        return np.sort(np.random.default_rng(seed).choice(n, m, replace=False))
    picked = np.asarray(centres)
    good = picked.ndim == 1 and picked.dtype.kind in "iu" and picked.size > 0
    if not good or len(np.unique(picked)) < len(picked) or picked.min() < 0 or picked.max() >= n:
        raise InputError(
            f"centres has shape {picked.shape} and dtype {picked.dtype}; expected different "
            f"numbers of examples, from 0 to {n - 1}."
        )
    return picked


def _stored(
    net: Any, x: Any, which: Any, memory: float | None, store: Any, progress: Report | None
) -> StoredMatrix:
    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(done, total, "kernel to disk"))

    kernel = to_store(net, x, None, Path(store), which=which, memory=memory, progress=report)
    return kernel.matrices[which]
