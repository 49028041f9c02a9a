"""Kernel ridge regression of any size: exact as far as memory and time go, and beyond."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from ntk_lab.errors import InputError
from ntk_lab.kernel.computed import Computed
from ntk_lab.kernel.matrix import KernelMatrix
from ntk_lab.kernel.sharded import ShardedMatrix, memory_of_all
from ntk_lab.kernel.stored import StoredMatrix
from ntk_lab.kernel.to_store import to_store
from ntk_lab.predict.inputs import Which
from ntk_lab.predict.regress_arguments import (
    Method,
    check_arguments,
    check_start,
    pick_centres,
    read_targets,
    read_training_times,
    refuse_duplicates,
)
from ntk_lab.predict.regress_flow import by_flow
from ntk_lab.predict.regress_methods import (
    Fitting,
    by_cg,
    by_cholesky,
    by_features,
    by_nystrom,
)
from ntk_lab.predict.regression import Regression
from ntk_lab.processes import read_mesh
from ntk_lab.progress import Progress, Report
from ntk_lab.solve import InMemory
from ntk_lab.solve.cholesky import LARGEST, cholesky_bytes

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
    features: int = 4096,
    time: ArrayLike | None = None,
    store: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    start: ArrayLike | None = None,
    mesh: Mesh | None = None,
    seed: int = 0,
    progress: Report | None = None,
) -> Regression:
    """Solve ``(K + ridge I) a = y`` for an infinite-width kernel ``K`` of the training inputs.

    Or train on it for some ``time``: ``a = (1 - exp(-(K + ridge I) time / n)) (K + ridge I)^-1 y``.

    Parameters
    ----------
    net
        The architecture; or `ntk_lab.empirical.FiniteKernel`, for the kernel of a finite network.
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
        on some of the examples as centres; not exact. "features": ridge regression on random
        features, see `ntk_lab.kernel.random_features`; not exact. "lanczos": for ``time``, on
        tiles as for "cg". "auto" takes the first of "cholesky", "cg" and "nystrom" that is
        feasible, and `Regression.reason` says why.
    memory
        Bytes that everything but the data may take; half of what is free unless given.
    tol
        Bound on the relative residual; 1e-5 in float32 and 1e-9 in float64 unless given. With
        ``time``, on the estimated relative error of outputs on the training set.
    max_iterations
        Of conjugate gradients; products of "lanczos".
    rank
        Columns of the preconditioner.
    centres
        Number of centres, drawn at random, or the numbers of the examples; 4096 unless given.
    features
        Number of random features.
    time
        Learning rate times steps of gradient flow from zero outputs on the loss
        ``1/(2n) sum |f - y|^2``, with decay ``ridge / n`` towards the initial parameters: a number
        or an array of them, which share all products; `Regression.at_best_time` stops early. None
        trains to the end.
    store
        Folder for the kernel, see `ntk_lab.kernel.to_store`: a second call finds it there.
    checkpoint
        Folder for the state of a solve that is interrupted; the same call goes on from there. Of
        several processes the first keeps it for all. Not for "cholesky": where "auto" takes that,
        nothing is kept.
    start
        Coefficients to start from, such as those for another ridge ("cg" only).
    mesh
        Devices that compute products of "cg", see `ntk_lab.kernel.ShardedMatrix`; of several
        processes after ``jax.distributed.initialize``, which then all make the same call.
    seed
        Of centres, preconditioner and features.
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
    ``n m^2`` operations and ``3 m^2`` numbers (arXiv:2006.10350); "features" ``n m^2`` operations,
    about as many more for each activation, and ``4 m^2`` numbers (arXiv:2106.07880); "lanczos"
    ``n^2`` for each product, about ``sqrt(time lambda_max / n)`` times the digits of them, and two
    numbers of 8 bytes for each product, example and output. Centres follow the data, which random
    features do not: on 4,000 sequences of mnist1d (three hidden layers, ridge 1) accuracy was 0.64
    exactly, 0.54 with 1,024 centres, and 0.42 (0.49) with 1,024 (4,096) features. As in
    `gradient_flow`, what targets have in eigenspaces that are zero to rounding is not learnt.

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
    >>> stopped = ntk.predict.regress(net, x, x**2, ridge=0, time=np.array([1.0, 100.0]))
    >>> stopped.predict(x[:3]).shape, float(stopped.at_best_time(x, x**2).time)
    ((2, 3, 1), 100.0)
    """
    check_arguments(which, method, ridge, store, mesh, checkpoint)
    times = read_training_times(time, method, start, checkpoint)
    memory = memory if mesh is None else memory_of_all(read_mesh(mesh, "rows"), memory)
    job = Computed(net, x, None, memory)
    n, size = job.shape[0], job.dtype.itemsize
    y = read_targets(y, n)
    tol = TOLERANCE[size] if tol is None else float(tol)
    asked = "lanczos" if times is not None else method if mesh is None else "cg"
    chosen, reason = choose(asked, n, size, job.memory)
    check_start(start, chosen)
    if ridge == 0 and times is None:
        refuse_duplicates(job.x1)
    fitting = Fitting(
        KernelMatrix(job, which), y, float(ridge), tol, max_iterations, rank, seed, start,
        checkpoint, progress,
    )  # fmt: skip
    if chosen == "nystrom":
        picked = pick_centres(centres, n, seed)
        return by_nystrom(fitting, picked, reason, memory)
    if chosen == "features":
        return by_features(fitting, features, reason, memory)
    matrix, reason = _kept(fitting, reason, chosen, store, memory, mesh)
    if times is not None:
        return by_flow(fitting, matrix, times, reason, memory)
    if chosen == "cholesky":
        return by_cholesky(fitting, matrix, reason, memory)
    return by_cg(fitting, matrix, reason, memory)


def _kept(
    fitting: Fitting, reason: str, chosen: str, store: Any, memory: float | None, mesh: Mesh | None
) -> tuple[Any, str]:
    """Where the tiles of the kernel come from."""
    matrix, job, which = fitting.matrix, fitting.matrix.job, fitting.matrix.which
    if mesh is not None:
        return ShardedMatrix(job, which, mesh), f"{mesh.size} devices"
    if store is not None:
        stored = _stored(job.net, job.x1, which, memory, store, fitting.progress)
        return stored, f"{reason}; on disk"
    if chosen == "cholesky":
        return matrix, reason
    if keeps(job.shape[0], job.dtype.itemsize, job.memory):
        return InMemory(matrix), f"{reason}; kernel in memory"
    return matrix, f"{reason}; kernel computed anew for each product"


def choose(method: str, n: int, size: int, memory: float) -> tuple[str, str]:
    """A method for ``n`` examples of ``size`` bytes a number, and why.

    EigenPro (arXiv:1703.10622) is not among them: with the same exact top 30 (100) eigenvectors as
    preconditioner, its iteration took 125 (39) passes over the NTK of 800 sequences of mnist1d to
    a residual of 1e-4 at ridge 0.1 where conjugate gradients took 20 (11), and 28 (11) against 9
    (5) at ridge 3.
    """
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


def _stored(
    net: Any, x: Any, which: Any, memory: float | None, store: Any, progress: Report | None
) -> StoredMatrix:
    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(done, total, "kernel to disk"))

    kernel = to_store(net, x, None, Path(store), which=which, memory=memory, progress=report)
    return kernel.matrices[which]
