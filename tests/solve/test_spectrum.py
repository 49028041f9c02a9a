"""The eigendecomposition of a kernel and what its diagnostics catch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab.errors import InputError, NumericalError
from ntk_lab.solve import spectrum
from tests.tolerance import assert_close

FLOAT = jnp.result_type(float)
EPS = float(jnp.finfo(FLOAT).eps)


def matrix(eigenvalues, seed=0):
    n = len(eigenvalues)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    kernel = (basis * np.asarray(eigenvalues)) @ basis.T
    return ((kernel + kernel.T) / 2).astype(FLOAT)


def test_eigenvalues_and_vectors_rebuild_the_kernel():
    kernel = matrix([0.1, 1.0, 2.0, 5.0])
    values, vectors, diagnostics = spectrum(kernel)
    assert_close(values, np.array([0.1, 1.0, 2.0, 5.0]))
    assert_close((vectors * values[None, :]) @ vectors.T, kernel)
    assert diagnostics.condition_number == pytest.approx(50.0, rel=1e3 * EPS)
    assert diagnostics.rank == 4
    assert values.dtype == FLOAT


def test_ridge_shifts_every_eigenvalue_and_is_reported():
    kernel = matrix([0.0, 1.0, 2.0])
    values, _, diagnostics = spectrum(kernel, ridge=0.5)
    assert_close(values, np.array([0.5, 1.5, 2.5]))
    assert diagnostics.ridge == 0.5
    assert diagnostics.rank == 3
    assert spectrum(kernel).diagnostics.ridge == 0


@pytest.mark.parametrize("n", [2, 10, 100])
def test_rank_does_not_count_rounding_noise(n):
    x = np.random.default_rng(n).normal(size=(n, max(n // 3, 1))) + 1
    diagnostics = spectrum((x @ x.T).astype(FLOAT)).diagnostics
    assert diagnostics.rank == x.shape[1]


def test_small_but_true_eigenvalues_count_in_large_kernels():
    eigenvalues = np.geomspace(1e3 * EPS, 1, 300)
    assert spectrum(matrix(eigenvalues)).diagnostics.rank == 300


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_changes_no_diagnosis(scale):
    diagnostics = spectrum(scale * matrix([0.01, 1.0, 3.0])).diagnostics
    assert diagnostics.condition_number == pytest.approx(300.0, rel=1e4 * EPS)
    assert diagnostics.rank == 3


def test_zero_kernel_has_rank_zero():
    diagnostics = spectrum(np.zeros((3, 3), FLOAT)).diagnostics
    assert (diagnostics.rank, diagnostics.condition_number) == (0, np.inf)


def test_nan_is_an_error():
    kernel = matrix([1.0, 2.0])
    kernel[0, 1] = np.nan
    with pytest.raises(NumericalError, match=r"1 of 4 kernel entries are NaN"):
        spectrum(kernel)


def test_asymmetry_is_an_error_beyond_rounding():
    kernel = matrix([1.0, 2.0, 3.0])
    kernel[0, 1] *= 1 + 4 * EPS
    assert spectrum(kernel).diagnostics.asymmetry < 10 * EPS
    kernel[0, 1] += 0.1
    with pytest.raises(NumericalError, match="not symmetric"):
        spectrum(kernel)


def test_negative_eigenvalue_is_an_error_that_says_value_and_remedy():
    with pytest.raises(NumericalError, match=r"smallest eigenvalue is -0\.1.*ridge above 0\.1"):
        spectrum(matrix([-0.1, 1.0, 2.0]))
    assert spectrum(matrix([-0.1, 1.0, 2.0]), ridge=0.2).diagnostics.rank == 3


def test_negative_rounding_noise_is_forgiven():
    diagnostics = spectrum(matrix([-0.5 * EPS, 1.0, 2.0])).diagnostics
    assert diagnostics.rank == 2


@pytest.mark.parametrize("shape", [(2, 3), (3,), (0, 0), (2, 2, 2)])
def test_wrong_shapes_are_errors(shape):
    with pytest.raises(InputError, match="square matrix"):
        spectrum(np.ones(shape, FLOAT))


def test_half_precision_is_an_error():
    with pytest.raises(InputError, match="float16"):
        spectrum(jnp.eye(2, dtype=jnp.float16))


def test_jit_skips_checks_and_still_diagnoses():
    diagnostics = jax.jit(spectrum)(matrix([-0.1, 1.0, 2.0])).diagnostics
    assert_close(diagnostics.smallest_eigenvalue, np.array(-0.1), factor=10)
    diagnostics = jax.jit(spectrum)(np.full((2, 2), np.nan, FLOAT)).diagnostics
    assert np.isnan(diagnostics.asymmetry)
