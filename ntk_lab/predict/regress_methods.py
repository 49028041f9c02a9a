"""The ways in which `regress` solves."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ntk_lab.checkpoints import Folder, fingerprint
from ntk_lab.errors import InputError
from ntk_lab.kernel import random_features
from ntk_lab.kernel.folder import data_fingerprint
from ntk_lab.kernel.matrix import KernelMatrix, rows_of
from ntk_lab.kernel.sharded import ShardedMatrix
from ntk_lab.kernel.source import identity_of
from ntk_lab.predict.regression import Regression
from ntk_lab.processes import together
from ntk_lab.progress import Progress, Report
from ntk_lab.solve.cholesky import cholesky_solve
from ntk_lab.solve.host import host_conjugate_gradient
from ntk_lab.solve.inducing import (
    Inducing,
    Sums,
    accumulate,
    falkon,
    solve_features,
    solve_sums,
    unexplained,
)
from ntk_lab.solve.pivoted import LowRankInverse, pivoted_cholesky
from ntk_lab.solve.tiled import Tiled, product

# Seconds between two checkpoints.
_SECONDS = 20.0
# Share of the memory for a preconditioner, and the columns that are worth it.
_SHARE, _COLUMNS = 0.15, 4096
# Centres beyond which going through the kernel again is quicker than a matrix of their products.
_SUMMED = 8192
_LOOKED_AT = 512
# Share of the memory for products of random features.
_SUMS = 0.7


@dataclass
class Fitting:
    """A regression problem, and how to solve it; see `regress`."""

    matrix: KernelMatrix
    y: np.ndarray
    ridge: float
    tol: float
    max_iterations: int
    rank: int | None
    seed: int
    start: Any
    checkpoint: Any
    progress: Report | None
    written: float = field(default_factory=time.monotonic)

    def report(self, done: float, total: float, message: str) -> None:
        """Tell how far it is."""
        if self.progress is not None:
            self.progress(Progress(done, total, message))

    def iterated(self, used: int, relative: np.ndarray) -> None:
        """Tell how far iterations are: residuals fall about as fast all the time."""
        worst = min(max(float(relative.max()), self.tol), 1.0)
        share = min(math.log(worst) / math.log(self.tol), 1.0) if self.tol < 1 else 1.0
        self.report(share, 1, f"iteration {used}, residual {worst:.1e}")

    def folder(self, method: str, **more: Any) -> Folder | None:
        """The folder of checkpoints, if there is one."""
        if self.checkpoint is None:
            return None
        settings = {
            **identity_of(self.matrix.job.net, self.matrix.job.x1),
            "x": data_fingerprint(self.matrix.job.x1),
            "y": fingerprint(self.y),
            "ridge": self.ridge,
            "which": self.matrix.which,
            "method": method,
            "dtype": self.matrix.dtype.name,
        }
        place = Path(self.checkpoint)
        return Folder(place, self.checkpoint, settings | more, "regression")

    def write(self, folder: Folder | None, arrays: dict[str, Any]) -> None:
        """Write a checkpoint, unless the last one is recent."""
        if folder is not None and time.monotonic() - self.written > _SECONDS:
            folder.write("state.npz", arrays)
            self.written = time.monotonic()

    def done(
        self, method: str, reason: str, centres: Any, value: np.ndarray, residual: np.ndarray,
        iterations: int, memory: float | None, features: Any = None, **details: Any,
    ) -> Regression:  # fmt: skip
        """The result."""
        sizes = np.linalg.norm(self.y, axis=0) * residual
        exact = method not in ("nystrom", "features")
        bound = sizes / (2 * self.ridge**0.5) if self.ridge > 0 else np.full_like(sizes, np.inf)
        return Regression(
            self.matrix.job.net, self.matrix.which, centres, value, method, reason, self.ridge,
            residual, bound if exact else np.full_like(sizes, np.nan), iterations, details, memory,
            features,
        )  # fmt: skip


def by_cholesky(fitting: Fitting, matrix: Tiled, reason: str, memory: float | None) -> Regression:
    """Exactly, by a factor."""
    fitting.report(0, 1, "factoring the kernel")
    found = cholesky_solve(matrix, fitting.y, fitting.ridge, tol=fitting.tol)
    fitting.report(1, 1, "factoring the kernel")
    return fitting.done(
        "cholesky", reason, fitting.matrix.job.x1, found.value, found.relative_residual,
        2 + found.refinements, memory, smallest_pivot=found.smallest_pivot,
        largest_pivot=found.largest_pivot,
    )  # fmt: skip


def by_cg(fitting: Fitting, matrix: Tiled, reason: str, memory: float | None) -> Regression:
    """Exactly, by iterations."""
    ridge, y = fitting.ridge, fitting.y
    many = isinstance(matrix, ShardedMatrix) and matrix.many
    with together(many):
        folder = fitting.folder("cg") if getattr(matrix, "leads", True) else None
        start, before = _start(fitting, folder)
    fitting.report(0, 1, "preconditioner")
    approximation = pivoted_cholesky(fitting.matrix, _rank(fitting), seed=fitting.seed)
    left = approximation.remaining * float(fitting.matrix.diagonal().mean())
    # What is left acts as its mean: without it, all but the factor would be taken for the ridge.
    inverse = LowRankInverse(approximation.factor, max(ridge + left, 1e-12))

    def times(precise: bool) -> Any:
        return lambda v: product(matrix, v, precise) + ridge * v

    def watch(used: int, value: np.ndarray, relative: np.ndarray) -> None:
        fitting.iterated(used, relative)
        with together(many and fitting.checkpoint is not None):
            fitting.write(folder, {"value": value, "used": np.asarray(used + before)})

    if isinstance(matrix, ShardedMatrix):  # what one process found on its disk, all go on from
        start = matrix.agreed(np.zeros(y.shape) if start is None else start)
        before = int(matrix.agreed(np.asarray(before)))
    found = host_conjugate_gradient(
        times(False), y, precondition=inverse, exact=times(True), start=start, watch=watch,
        tol=fitting.tol, max_iterations=fitting.max_iterations,
    )  # fmt: skip
    value, residual = np.asarray(found.value), np.asarray(found.relative_residual)
    return fitting.done(
        "cg", reason, fitting.matrix.job.x1, value, residual, found.iterations + before, memory,
        rank=len(approximation.pivots), remaining=approximation.remaining,
    )  # fmt: skip


def _rank(fitting: Fitting) -> int:
    """Columns of the preconditioner, within its share of the memory."""
    n, job = len(fitting.y), fitting.matrix.job
    if fitting.rank is not None:
        if not 1 <= fitting.rank <= n:
            raise InputError(f"rank={fitting.rank}; expected between 1 and {n}.")
        return fitting.rank
    room = int(_SHARE * job.memory / (n * job.dtype.itemsize))
    # Its square matrix in double precision counts as well.
    return max(1, min(n // 8, room, _COLUMNS, int((_SHARE * job.memory / 24) ** 0.5)))


def _start(fitting: Fitting, folder: Folder | None) -> tuple[np.ndarray | None, int]:
    """Coefficients to start from, and the iterations that they took."""
    found = folder.read("state.npz") if folder is not None else None
    if found is not None and found["value"].shape == fitting.y.shape:
        return found["value"], int(found["used"])
    if fitting.start is None:
        return None, 0
    start = np.asarray(fitting.start, np.float64)
    if start.shape != fitting.y.shape or not np.isfinite(start).all():
        raise InputError(
            f"start has shape {start.shape}; expected finite coefficients {fitting.y.shape}."
        )
    return start, 0


def by_nystrom(
    fitting: Fitting, picked: np.ndarray, reason: str, memory: float | None
) -> Regression:
    """Least squares on some examples as centres."""
    matrix, m, n = fitting.matrix, len(picked), len(fitting.y)
    needed = 8 * m**2 * 4
    if needed > matrix.job.memory:
        raise InputError(
            f"{m} centres need {needed / 1e9:.3g} GB for their products, but "
            f"memory={matrix.job.memory / 1e9:.3g} GB. Take fewer, or allow more."
        )
    inputs = rows_of(matrix.job.x1, picked)
    centres = np.concatenate([block for _, block in matrix.against(inputs, inputs)])
    centres = (centres + centres.T) / 2
    folder = fitting.folder("nystrom", centres=fingerprint(picked))

    def blocks(first: int) -> Any:
        return matrix.against(inputs, first=first)

    if m <= _SUMMED:
        total = summed(fitting, folder, blocks, m, "products of the centres")
        found = solve_sums(centres, total, fitting.ridge)
    else:
        found = _falkon(fitting, folder, blocks, centres)
    rng = np.random.default_rng(fitting.seed + 1)
    some = rows_of(matrix.job.x1, np.sort(rng.choice(n, min(n, _LOOKED_AT), replace=False)))
    looked = np.concatenate([block for _, block in matrix.against(inputs, some)])
    part = KernelMatrix(type(matrix.job)(matrix.job.net, some, None, memory), matrix.which)
    return fitting.done(
        "nystrom", reason, inputs, found.value, found.relative_residual, found.iterations, memory,
        unexplained=unexplained(centres, looked, part.diagonal().astype(np.float64)),
        train_error=found.train_error, examples=picked,
    )  # fmt: skip


def summed(fitting: Fitting, folder: Folder | None, blocks: Any, m: int, message: str) -> Sums:
    """Sums over all rows, from the checkpoint on."""
    stored = folder.read("state.npz") if folder is not None else None
    sums = None
    if stored is not None:
        sums = Sums(stored["gram"], stored["moments"], stored["square"], int(stored["rows"]))

    def watch(sums: Sums) -> None:
        fitting.report(sums.rows, len(fitting.y), message)
        fitting.write(folder, sums._asdict())

    return accumulate(blocks, fitting.y, m, sums, watch)


def by_features(fitting: Fitting, count: int, reason: str, memory: float | None) -> Regression:
    """Ridge regression on random features."""
    job, sums = fitting.matrix.job, 8 * count**2 * 4
    if sums > _SUMS * job.memory:
        raise InputError(
            f"{count} features need {sums / 1e9:.3g} GB for their products, but at most "
            f"{_SUMS:.0%} of memory={job.memory / 1e9:.3g} GB are for these. Take fewer, or allow "
            "more."
        )
    phi = random_features(
        job.net, job.x1, count=count, key=jax.random.key(fitting.seed),
        which=fitting.matrix.which, memory=job.memory - sums,
    )  # fmt: skip
    # The draws themselves: another release of JAX may draw others from the same seed.
    drawn = fingerprint(*map(np.asarray, jax.tree.leaves(phi.draws)))
    folder = fitting.folder("features", features=count, draws=drawn)
    total = summed(fitting, folder, lambda first: phi.blocks(job.x1, first), phi.count, "features")
    found = solve_features(total, fitting.ridge)
    return fitting.done(
        "features", reason, None, found.value, found.relative_residual, found.iterations, memory,
        phi, kernel_error=phi.relative_error, train_error=found.train_error,
    )  # fmt: skip


def _falkon(fitting: Fitting, folder: Folder | None, blocks: Any, centres: np.ndarray) -> Inducing:
    stored = folder.read("state.npz") if folder is not None else None

    def watch(used: int, value: np.ndarray, relative: np.ndarray) -> None:
        fitting.iterated(used, relative)
        fitting.write(folder, {"value": value})

    return falkon(
        blocks, centres, fitting.y, fitting.ridge, tol=fitting.tol,
        max_iterations=fitting.max_iterations, start=None if stored is None else stored["value"],
        watch=watch,
    )  # fmt: skip
