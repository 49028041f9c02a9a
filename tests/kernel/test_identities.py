"""What holds of every kernel: symmetry, positivity, order of the inputs, independence of width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from tests.tolerance import assert_close

D = 8
RELU = ntk.nn.Sequential(ntk.nn.Dense(32, 2**0.5), ntk.nn.Relu(), ntk.nn.Dense(1))
MIXED = ntk.nn.Sequential(
    ntk.nn.Dense(32, 1.3, 0.2),
    ntk.nn.Residual(ntk.nn.Sequential(ntk.nn.Erf(), ntk.nn.Dense(32, 0.7))),
    ntk.nn.Gelu(),
    ntk.nn.Dense(32, 1.1, 0.1),
    ntk.nn.Relu(),
    ntk.nn.Dense(1),
)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(scope="module")
def x():
    return normal(0, 20, D)


@pytest.fixture(scope="module")
def mixed(x):
    return MIXED.kernel(x)


@pytest.fixture(scope="module")
def crowd():
    """300 points of which many nearly coincide, with copies inside a row panel and across."""
    x = normal(1, 30, 1, D) + np.logspace(-9, 0, 10)[:, None] * normal(2, 30, 10, D)
    x = x.reshape(300, D)
    x[7], x[299], x[150] = x[3], x[3], -x[4]
    return x, RELU.kernel(x)


def test_kernels_of_one_batch_are_symmetric(mixed, crowd):
    for k in (*mixed, *crowd[1]):
        assert_close(k, k.T, factor=0.01)


def test_leaving_out_the_second_batch_means_the_first(x, mixed):
    for one, two in zip(mixed, MIXED.kernel(x, x), strict=True):
        assert_close(one, two, factor=0.1)


def test_row_panels_of_large_batches_give_the_kernel_of_two_batches(crowd):
    x, kernel = crowd
    for one, two in zip(kernel, RELU.kernel(x, x), strict=True):
        assert_close(one, two, factor=0.1)
        assert_close(one[3, 7], one[3, 3], factor=0.01)
        assert_close(one[3, 299], one[3, 3], factor=0.01)
        assert_close(one[150, 299], one[150, 3], factor=0.01)


def test_kernels_of_nearly_equal_points_are_positive_to_rounding(crowd):
    """No eigenvalue below ``-n eps`` times the largest: the size of rounding in the entries."""
    for k in crowd[1]:
        values = np.linalg.eigvalsh(np.asarray(k, np.float64))
        assert values[0] > -len(k) * np.finfo(k.dtype).eps * values[-1] / 10


def test_reordering_the_inputs_reorders_the_kernel(x, mixed):
    order = np.random.default_rng(5).permutation(len(x))
    for got, k in zip(MIXED.kernel(x[order]), mixed, strict=True):
        assert_close(got, k[order][:, order], factor=0.1)


def test_the_kernel_of_a_pair_does_not_depend_on_its_batch(x, mixed):
    for got, k in zip(MIXED.kernel(x[:3], x[11:13]), mixed, strict=True):
        assert_close(got, k[:3, 11:13], factor=0.1)


def test_relu_kernels_without_biases_are_homogeneous_of_degree_two(x):
    for got, k in zip(RELU.kernel(3 * x, x[:5]), RELU.kernel(x, x[:5]), strict=True):
        assert_close(got, 3 * k, factor=0.1)


def test_rotating_the_inputs_changes_nothing(x, mixed):
    rotation, _ = np.linalg.qr(normal(6, D, D))
    for got, k in zip(MIXED.kernel(x @ rotation), mixed, strict=True):
        assert_close(got, k)


def test_kernels_do_not_depend_on_width(x, mixed):
    for got, k in zip(MIXED.with_width(7).kernel(x), mixed, strict=True):
        assert_close(got, k, factor=0.01)


def test_the_ntk_exceeds_the_nngp(mixed):
    """Their difference is the NTK of the hidden layers, a positive kernel itself."""
    difference = np.asarray(mixed.ntk - mixed.nngp, np.float64)
    assert np.linalg.eigvalsh(difference)[0] > 0


def test_adding_identity_layers_changes_nothing(x):
    padded = ntk.nn.Sequential(ntk.nn.Identity(), *RELU.layers, ntk.nn.Identity())
    nested = ntk.nn.Sequential(ntk.nn.Sequential(*RELU.layers[:2]), RELU.layers[2])
    for net in (padded, nested):
        for got, k in zip(net.kernel(x), RELU.kernel(x), strict=True):
            assert_close(got, k, factor=0.01)


def test_images_have_the_kernel_of_their_flattened_vectors(x):
    net = ntk.nn.Sequential(ntk.nn.Flatten(), *RELU.layers)
    for got, k in zip(net.kernel(x.reshape(20, 2, 2, 2)), RELU.kernel(x), strict=True):
        assert_close(got, k, factor=0.01)


def test_whole_numbers_are_taken_in_the_default_precision():
    kernel = RELU.kernel(np.eye(3, dtype=np.int32))
    assert kernel.ntk.dtype == jnp.result_type(float)
    assert_close(kernel.ntk, RELU.kernel(jnp.eye(3)).ntk)


def test_kernels_keep_the_precision_of_the_inputs(x):
    assert all(k.dtype == jnp.float32 for k in RELU.kernel(jnp.asarray(x, jnp.float32)))
    assert all(isinstance(k, jax.Array) for k in RELU.kernel(x))
