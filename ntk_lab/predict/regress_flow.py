"""Regression stopped at some time: gradient flow by Lanczos functions of a tiled kernel."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import eigh_tridiagonal

from ntk_lab.errors import ConvergenceError
from ntk_lab.predict.regress_methods import Fitting
from ntk_lab.predict.regression import Regression
from ntk_lab.solve.host import on_host
from ntk_lab.solve.krylov import KrylovSpace, extended, krylov
from ntk_lab.solve.tiled import Tiled, product

# Products before errors are first estimated; share of the memory for the Krylov spaces.
_FIRST, _SHARE = 16, 0.3


@dataclass(frozen=True)
class _Found:
    """Coordinates in the Krylov basis ``(T, C, depth)``, and errors ``(T, C)`` of each column."""

    coordinates: np.ndarray
    relative: np.ndarray
    bound: np.ndarray


def by_flow(
    fitting: Fitting, matrix: Tiled, time: np.ndarray, reason: str, memory: float | None
) -> Regression:
    """Coefficients ``g_t(K) y`` with ``g_t(v) = (1 - exp(-(v + ridge) t / n)) / (v + ridge)``.

    The spaces grow until what their last quarter adds is small.
    """
    n, outputs = fitting.y.shape
    room = int(_SHARE * fitting.matrix.job.memory / (2 * 8 * n * outputs)) - 1
    most = max(1, min(n, fitting.max_iterations, room))
    depth = min(_FIRST, most)
    apply = on_host(lambda v: product(matrix, v))
    outside = jnp.result_type(float) == jnp.float64
    times = time.reshape(-1)
    with jax.enable_x64(True):
        space = krylov(apply, jnp.asarray(fitting.y, jnp.float64), depth)
        while True:
            found = _functions(space, times, fitting.ridge, np.finfo(matrix.dtype).eps)
            worst = float(found.relative.max(initial=0.0))
            with jax.enable_x64(outside):
                fitting.iterated(depth, found.relative.reshape(-1))
            if worst <= fitting.tol or depth == most:
                break
            depth = min(2 * depth, most)
            space = extended(apply, space, depth)
        basis = np.asarray(space.basis[:-1])
    sizes = np.asarray(space.sizes)
    value = np.einsum("tmi,inm->tnm", found.coordinates * sizes[:, None], basis, optimize=True)
    result = Regression(
        fitting.matrix.job.net, fitting.matrix.which, fitting.matrix.job.x1,
        value.reshape(*time.shape, n, outputs), "lanczos", reason, fitting.ridge,
        found.relative.reshape(*time.shape, outputs),
        (found.bound * sizes).reshape(*time.shape, outputs), depth, {}, memory, time=time,
    )  # fmt: skip
    if worst > fitting.tol and depth < n:
        limit = ", as many as the memory allows," if room < fitting.max_iterations else ""
        raise ConvergenceError(
            f"after {depth} products{limit} the estimated relative error is {worst:.2g}, above "
            f"tol={fitting.tol:.1g}. Raise max_iterations, memory, tol or the ridge, or ask for "
            "shorter times. This error's `result` holds the regression so far.",
            result,
        )
    return result


def _functions(space: KrylovSpace, times: np.ndarray, ridge: float, eps: float) -> _Found:
    depth, columns = space.diagonal.shape
    n = space.basis.shape[1]
    fewer = max(1, 3 * depth // 4)
    shape = len(times), columns
    coordinates = np.zeros((*shape, depth))
    bound, moved, gaps = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for m, size in enumerate(np.asarray(space.sizes)):
        diagonal, off = (np.asarray(a)[:, m] for a in (space.diagonal, space.off_diagonal))
        whole, part = (_tridiagonal(diagonal[:d], off[: d - 1]) for d in (depth, fewer))
        for k, time in enumerate(times):
            found = _applied(*whole, time / n, ridge, eps)
            gap = found.copy()
            gap[:fewer] -= _applied(*part, time / n, ridge, eps)
            coordinates[k, m] = found
            outputs, moves = (_product(diagonal, off, v) for v in (found, gap))
            bound[k, m] = math.sqrt(max(gap @ moves, 0.0))
            gaps[k, m], moved[k, m] = size * np.linalg.norm(moves), size * np.linalg.norm(outputs)
    left_out = float(depth < n)  # of a whole space nothing is
    return _Found(coordinates, left_out * gaps / np.where(moved > 0, moved, 1), left_out * bound)


def _tridiagonal(diagonal: np.ndarray, off: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(diagonal) == 1:
        return diagonal, np.ones((1, 1))
    values, vectors = eigh_tridiagonal(diagonal, off)
    return np.asarray(values), np.asarray(vectors)


def _applied(
    values: np.ndarray, vectors: np.ndarray, slow: float, ridge: float, eps: float
) -> np.ndarray:
    """Coordinates of ``g_t(K)`` times the first basis vector; ``slow`` is ``t / n``."""
    rates = values + ridge
    # Below, eigenvalues of a rounded kernel mean nothing: that part of the targets is not learnt.
    learnable = rates > eps * np.abs(values).max()
    safe = np.where(learnable, rates, 1.0)
    gone = -np.expm1(-safe * slow)
    return vectors @ (np.where(learnable, gone / safe, 0.0) * vectors[0])


def _product(diagonal: np.ndarray, off: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The tridiagonal matrix times ``v``."""
    out = diagonal * v
    out[1:] += off[:-1] * v[:-1]
    out[:-1] += off[:-1] * v[1:]
    return out
