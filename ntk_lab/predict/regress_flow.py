"""Regression stopped at some time: gradient flow by Lanczos functions of a tiled kernel."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import eigh_tridiagonal

from ntk_lab.errors import ConvergenceError, InputError, NumericalError
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
    times = time.reshape(-1)
    room = _room(fitting, len(times))
    most = max(1, min(n, fitting.max_iterations, room))
    depth = min(_FIRST, most)
    apply = on_host(lambda v: product(matrix, v))
    outside = jnp.result_type(float) == jnp.float64
    with jax.enable_x64(True):
        space = krylov(apply, jnp.asarray(fitting.y, jnp.float64), depth)
        while True:
            if not np.isfinite(np.asarray(space.diagonal)).all():
                raise NumericalError("products of the kernel are NaN or infinite: take float64.")
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


def _room(fitting: Fitting, times: int) -> int:
    """Products whose Krylov spaces fit into the memory beside the coefficients of all times."""
    n, outputs = fitting.y.shape
    memory = fitting.matrix.job.memory
    one = 8 * n * outputs
    room = int((_SHARE * memory / one - times) // 2) - 1
    if room < min(n, 2):
        raise InputError(
            f"{n} examples, {outputs} outputs and {times} times take {(times + 6) * one:,} bytes "
            f"at least, but {_SHARE:.0%} of memory={memory:,.0f} are for these. Allow more, or "
            "take fewer times or outputs in a call."
        )
    return room


def _functions(space: KrylovSpace, times: np.ndarray, ridge: float, eps: float) -> _Found:
    depth, columns = space.diagonal.shape
    n = space.basis.shape[1]
    fewer = 3 * depth // 4  # of a single product nothing: all of it is what the last one adds
    shape = len(times), columns
    coordinates = np.zeros((*shape, depth))
    bound, moved, gaps = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for m, size in enumerate(np.asarray(space.sizes)):
        diagonal, off = (np.asarray(a)[:, m] for a in (space.diagonal, space.off_diagonal))
        whole = _tridiagonal(diagonal, off[: depth - 1])
        part = _tridiagonal(diagonal[:fewer], off[: fewer - 1]) if fewer else None
        for k, time in enumerate(times):
            found = _applied(*whole, time / n, ridge, eps)
            gap = found.copy()
            if part is not None:
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
