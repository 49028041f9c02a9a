"""Solvers for matrices that are known tile by tile: against dense algebra; their diagnostics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab.errors import ConvergenceError, InputError, NumericalError
from ntk_lab.solve import (
    InMemory,
    LowRankInverse,
    cholesky_solve,
    conjugate_gradient,
    pivoted_cholesky,
    product,
    tiled,
)
from ntk_lab.solve.host import host_conjugate_gradient
from ntk_lab.solve.inducing import Sums, accumulate, falkon, solve_sums, unexplained

RNG = np.random.default_rng(0)
DTYPES = ["float32", "float64"]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(tiled, "_SIDE", 7)
    monkeypatch.setattr(tiled, "_WIDENED", 3)


def positive(n, dtype="float64", power=1.0):
    """A matrix with eigenvalues ``1 / k^power``."""
    vectors, _ = np.linalg.qr(RNG.normal(size=(n, n)))
    matrix = vectors / np.arange(1, n + 1) ** power @ vectors.T
    return ((matrix + matrix.T) / 2).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_tiles_are_those_of_the_whole(dtype):
    a, v = positive(20, dtype), RNG.normal(size=(20, 3))
    matrix, exact = InMemory(a), a.astype(np.float64) @ v
    assert len(list(matrix.tiles())) == 6
    np.testing.assert_allclose(product(matrix, v), exact, rtol=1e-12, atol=1e-14)
    rough = product(matrix, v, precise=False)
    assert rough.dtype == np.float64
    np.testing.assert_allclose(rough, exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(matrix.diagonal(), np.diag(a))
    np.testing.assert_array_equal(matrix.columns(np.array([19, 3])), a[:, [19, 3]])
    np.testing.assert_array_equal(product(InMemory(matrix), v), product(matrix, v))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 20, 21])
def test_a_packed_factor_solves_to_double_precision(n, dtype):
    a, y = positive(n, dtype), RNG.normal(size=(n, 2))
    found = cholesky_solve(InMemory(a), y, 0.3, tol=1e-12)
    shifted = a.astype(np.float64) + 0.3 * np.eye(n)
    np.testing.assert_allclose(found.value, np.linalg.solve(shifted, y), rtol=1e-11)
    left = np.linalg.norm(y - shifted @ found.value, axis=0) / np.linalg.norm(y, axis=0)
    np.testing.assert_allclose(found.relative_residual, left, atol=1e-15)  # rounding of residuals
    pivots = np.diag(np.linalg.cholesky(shifted)) ** 2
    np.testing.assert_allclose(found.smallest_pivot, pivots.min(), rtol=1e-5)
    np.testing.assert_allclose(found.largest_pivot, pivots.max(), rtol=1e-5)
    assert found.refinements <= (4 if dtype == "float32" else 2)


def test_factors_refuse_what_they_cannot_do(monkeypatch):
    singular = InMemory(np.ones((9, 9), np.float32))
    with pytest.raises(NumericalError, match=r"first 2 rows depend on each other. Raise the ridge"):
        cholesky_solve(singular, np.ones((9, 1)), 0.0, tol=1e-5)
    monkeypatch.setattr("ntk_lab.solve.cholesky.LARGEST", 8)
    with pytest.raises(InputError, match="at most 8"):
        cholesky_solve(singular, np.ones((9, 1)), 1.0, tol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pivoted_factors_are_exact_on_their_pivots_and_near_the_best(dtype):
    a = positive(120, dtype, power=2.0)
    found = pivoted_cholesky(InMemory(a), 30)
    left = a - found.factor @ found.factor.T
    scale = np.abs(a).max()
    eps = float(np.finfo(dtype).eps)
    assert np.abs(left[:, found.pivots]).max() < 1e3 * eps * scale
    assert len(set(found.pivots.tolist())) == found.factor.shape[1]
    np.testing.assert_allclose(found.remaining, np.trace(left) / np.trace(a), rtol=1e-3)
    best = (1 / np.arange(1.0, 121) ** 2)[30:].sum() / np.trace(a)
    assert found.remaining < 4 * best
    assert np.linalg.eigvalsh(left.astype(np.float64)).min() > -1e2 * eps


def test_pivoting_stops_where_rounding_decides():
    low = RNG.normal(size=(50, 6))
    found = pivoted_cholesky(InMemory(low @ low.T), 40)
    assert found.factor.shape == (50, 6)
    assert found.remaining < 1e-12
    with pytest.raises(InputError, match="1 to 50 columns"):
        pivoted_cholesky(InMemory(low @ low.T), 51)


def test_the_inverse_of_a_factor_and_a_ridge_below_its_rounding():
    factor, v = (1e3 * RNG.normal(size=(40, 5))).astype(np.float32), RNG.normal(size=(40, 2))
    inverse = LowRankInverse(factor, 1e-3)
    wide = factor.astype(np.float64)
    back = wide @ (wide.T @ inverse(v)) + 1e-3 * inverse(v)
    np.testing.assert_allclose(back, v, atol=1e-4)  # eps * 1e9 / 1e-3, the condition number


def test_refining_cheap_products_reaches_what_they_cannot():
    a, y = positive(60, power=1.5) + 1e-4 * np.eye(60), RNG.normal(size=(60, 3))
    rough = (a + 1e-5 * RNG.normal(size=a.shape)) @ np.eye(60)
    rough = (rough + rough.T) / 2
    options = {"precondition": lambda v: v, "tol": 1e-8, "max_iterations": 2000}
    found = host_conjugate_gradient(lambda v: rough @ v, y, exact=lambda v: a @ v, **options)
    assert found.relative_residual.max() < 1e-8
    assert found.value.dtype == np.float64
    np.testing.assert_allclose(a @ found.value, y, atol=1e-7)
    unrefined = host_conjugate_gradient(lambda v: rough @ v, y, **options)
    assert np.linalg.norm(a @ unrefined.value - y) > 1e-4


def test_a_warm_start_and_what_is_watched():
    a, y = positive(40) + 0.1 * np.eye(40), RNG.normal(size=(40, 2))
    seen = []
    options = {
        "precondition": lambda v: v,
        "tol": 1e-9,
        "max_iterations": 200,
        "watch": lambda used, value, left: seen.append((used, value, left)),
    }
    cold = host_conjugate_gradient(lambda v: a @ v, y, **options)
    assert [used for used, _, _ in seen] == list(range(1, len(seen) + 1))
    _, value, left = seen[10]
    true = np.linalg.norm(y - a @ value, axis=0) / np.linalg.norm(y, axis=0)
    np.testing.assert_allclose(left, true, rtol=1e-6)
    warm = host_conjugate_gradient(lambda v: a @ v, y, start=value, **options)
    assert warm.iterations < cold.iterations
    np.testing.assert_allclose(warm.value, cold.value, atol=1e-7)
    again = host_conjugate_gradient(lambda v: a @ v, y, start=cold.value, **options)
    assert again.iterations <= 2
    with pytest.raises(ConvergenceError, match="iterations are used up") as caught:
        host_conjugate_gradient(lambda v: a @ v, y, **{**options, "max_iterations": 2})
    assert caught.value.result.iterations == 3
    assert bool(jax.config.jax_enable_x64) == (jnp.zeros(1, float).dtype == jnp.float64)


def test_device_solves_take_the_same_options():
    a = jnp.asarray(positive(20) + np.eye(20), float)
    y = jnp.ones((20, 1))
    found = conjugate_gradient(lambda v: a @ v, y, start=y, tol=1e-5, max_iterations=50)
    np.testing.assert_allclose(a @ found.value, y, atol=1e-4)


N, M, RIDGE = 90, 12, 0.05
KERNEL = positive(N, power=1.0)
PICKED = np.arange(0, N, 8)[:M]
CROSS, CENTRES = KERNEL[:, PICKED], KERNEL[np.ix_(PICKED, PICKED)]
Y = RNG.normal(size=(N, 2))


def blocks(first):
    for start in range(first, N, 25):
        yield slice(start, min(start + 25, N)), CROSS[start : start + 25]


def normal_equations():
    return np.linalg.solve(CROSS.T @ CROSS + RIDGE * CENTRES, CROSS.T @ Y)


def test_streamed_least_squares_are_those_of_the_normal_equations():
    seen = []

    def watch(sums):  # in place: what was seen is gone at the next block
        seen.append(Sums(*(np.array(part) for part in sums[:3]), sums.rows))

    sums = accumulate(blocks, Y, M, None, watch)
    found = solve_sums(CENTRES, sums, RIDGE)
    np.testing.assert_allclose(found.value, normal_equations(), rtol=1e-7)
    error = np.linalg.norm(Y - CROSS @ found.value, axis=0) / np.linalg.norm(Y, axis=0)
    np.testing.assert_allclose(found.train_error, error, rtol=1e-10)
    assert found.relative_residual.max() < 1e-12
    # From where an interrupted run had come.
    assert seen[1].rows == 50
    resumed = accumulate(blocks, Y, M, seen[1], watch)
    np.testing.assert_array_equal(resumed.gram, sums.gram)


def test_falkon_solves_the_same_equations():
    found = falkon(blocks, CENTRES, Y, RIDGE, tol=1e-11, max_iterations=100)
    np.testing.assert_allclose(found.value, normal_equations(), rtol=1e-6)
    assert found.iterations < 40


def test_centres_that_are_everything_give_the_exact_solution():
    def everything(first):
        yield slice(0, N), KERNEL

    sums = accumulate(everything, Y, N, None, lambda s: None)
    found = solve_sums(KERNEL, sums, RIDGE)
    exact = np.linalg.solve(KERNEL + RIDGE * np.eye(N), Y)
    np.testing.assert_allclose(KERNEL @ found.value, KERNEL @ exact, atol=1e-9)


def test_what_centres_do_not_explain():
    half = np.linalg.solve(np.linalg.cholesky(CENTRES), CROSS.T)
    left = 1 - np.square(half).sum() / np.trace(KERNEL)
    np.testing.assert_allclose(unexplained(CENTRES, CROSS, np.diag(KERNEL)), left, rtol=1e-9)
    with pytest.raises(NumericalError, match="not positive definite to rounding"):
        unexplained(-CENTRES, CROSS, np.diag(KERNEL))
