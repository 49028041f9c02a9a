"""Equal, nearly equal, opposite and zero inputs: where angles are small or undefined."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from tests.tolerance import assert_close

W, D = 2**0.5, 16
NET = ntk.nn.Sequential(*[ntk.nn.Dense(64, W), ntk.nn.Relu()] * 2, ntk.nn.Dense(1))


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope="module")
def special():
    """Kernels of one batch: generic points, then a copy, a negative, a multiple and a zero."""
    x = normal(0, 3, D)
    x = jnp.concatenate([x, x[:1], -x[:1], 1000 * x[:1], jnp.zeros((1, D), x.dtype)])
    return x, NET.kernel(x)


def test_the_diagonal_of_a_relu_kernel_is_exact(special):
    """It is ``|x|^2 / d (w^2/2)^2`` for the NNGP and three times that for the NTK."""
    x, kernel = special
    squares = (np.asarray(x, np.float64) ** 2).mean(1)
    epsilon = np.finfo(x.dtype).eps
    np.testing.assert_allclose(np.diag(kernel.nngp), squares, rtol=4 * epsilon)
    np.testing.assert_allclose(np.diag(kernel.ntk), 3 * squares, rtol=4 * epsilon)


def test_copies_of_an_input_have_its_diagonal_entry_everywhere(special):
    _, kernel = special
    for k in kernel:
        assert_close(k[0, 3], k[0, 0], factor=1e-2)
        assert_close(k[3, 0], k[0, 0], factor=1e-2)


def test_multiples_of_an_input_have_the_exact_kernel_of_colinear_points(special):
    _, kernel = special
    for k in kernel:
        assert_close(k[0, 5], 1000 * k[0, 0], factor=1e-1)


def test_opposite_inputs_have_the_closed_form(special):
    """After one layer the covariance is 0, so that the second sees a right angle."""
    x, kernel = special
    square = np.mean(np.asarray(x[0], np.float64) ** 2)
    assert_close(kernel.nngp[0, 4], square / np.pi)
    # The tangent from the first layer is cut off at angle pi, from the second it passes 0.
    assert_close(kernel.ntk[0, 4], square / np.pi)


def test_zero_inputs_have_zero_kernels_without_biases(special):
    _, kernel = special
    for k in kernel:
        assert not k[6].any()
        assert not k[:, 6].any()


@pytest.mark.parametrize("activation", [ntk.nn.Relu(), ntk.nn.Erf(), ntk.nn.Gelu(), ntk.nn.Tanh()])
def test_zero_inputs_have_finite_kernels_under_every_activation(activation):
    """With biases the first layer's output is the same constant at a zero input as its bias."""
    net = ntk.nn.Sequential(ntk.nn.Dense(64, b_std=0.5), activation, ntk.nn.Dense(1))
    x = jnp.concatenate([normal(0, 3, D), jnp.zeros((1, D))])
    for k in net.kernel(x):
        assert (np.linalg.eigvalsh(np.asarray(k, np.float64)) > 0).all()


@pytest.mark.x64
def test_many_near_duplicates_in_float32_are_as_accurate_as_generic_points():
    """Clusters of 40 points at distances 1e-7 to 1e-1, against float64 on the same inputs.

    More of them in rows and in columns than are corrected in one round. Errors are relative to
    ``sqrt(k11 k22)``.
    """
    rng = np.random.default_rng(1)
    distances = np.logspace(-7, -1, 40)[:, None]
    signs = np.where(np.arange(40) % 5 == 0, -1, 1)[:, None]
    centers, offsets = rng.normal(size=(3, 1, D)), rng.normal(size=(3, 40, D))
    x = (signs * (centers + distances * offsets)).reshape(-1, D).astype(np.float32)
    exact = NET.kernel(x.astype(np.float64))
    for same, split, expected in zip(
        NET.kernel(x), NET.kernel(x[::2], x[1::2]), exact, strict=True
    ):
        expected = np.asarray(expected)
        tolerance = 2e-6 * np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        assert (np.abs(np.asarray(same) - expected) < tolerance).all()
        error = np.abs(np.asarray(split) - expected[::2, 1::2])
        assert (error < tolerance[::2, 1::2]).all()


def test_inputs_of_very_different_norms_are_accurate_in_each_entry():
    """By homogeneity: ``k(a x, b x') = a b k(x, x')``, exactly for powers of two."""
    x = np.random.default_rng(3).normal(size=(8, D))
    factors = 2.0 ** np.arange(-28, 28, 7)
    scaled = NET.kernel(factors[:, None] * x)
    for got, k in zip(scaled, NET.kernel(x), strict=True):
        assert_close(got, np.outer(factors, factors) * k, factor=1e-1, atol=0)


@pytest.mark.x64
@pytest.mark.parametrize("activation", [ntk.nn.Erf(), ntk.nn.Gelu()])
def test_the_diagonal_is_exact_where_a_smooth_layer_precedes_a_kinked_one(activation):
    """Rounding in a correlation of one must not become an angle: its root would be 2e-4."""
    net = ntk.nn.Sequential(
        ntk.nn.Dense(64, 1.2, 0.1), activation, ntk.nn.Dense(64, W), ntk.nn.Relu(), ntk.nn.Dense(1)
    )
    x = np.random.default_rng(4).normal(size=(30, D))
    copies = np.concatenate([x, x])
    # Half of the NNGP of the smooth part, plus its NTK and itself in equal shares.
    smooth = ntk.nn.Sequential(*net.layers[:3]).kernel(x)
    expected = np.diag(smooth.nngp + smooth.ntk) / 2
    for dtype, tolerance in (("float32", 2e-6), ("float64", 1e-12)):
        kernel = net.kernel(copies.astype(dtype))
        for shift in (0, 30):
            entries = np.diag(kernel.ntk, shift)[:30].astype(np.float64)
            np.testing.assert_allclose(entries, expected, rtol=tolerance)
