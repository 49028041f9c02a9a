"""Compiled loops over vectors: equal to the portable way and to the oracle, and only where due."""

from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.kernel import native_vectors
from tests.kernel import test_mp_oracle as mp
from tests.kernel.test_mp_oracle import oracle as oracle
from tests.tolerance import assert_close

pytest.importorskip("numba")

nn = ntk.nn
# The package has a function of that name.
evaluation = import_module("ntk_lab.kernel.evaluate")


def dense(b_std=0.3, **options):
    return nn.Dense(16, 1.4, b_std, **options)


def deep(*activations, **options):
    return nn.Sequential(*[m for a in activations for m in (dense(**options), a)], dense(**options))


NETWORKS = {
    "relu": deep(nn.Relu(), nn.Relu()),
    "relu without biases": deep(nn.Relu(), nn.Relu(), nn.Relu(), b_std=None),
    "two slopes of one sign": deep(nn.LeakyRelu(0.2), nn.LeakyRelu(0.4), nn.ABRelu(0.9, 0.8)),
    "two slopes of both signs": deep(nn.Abs(), nn.ABRelu(-0.5, 1.0), nn.LeakyRelu(0.3)),
    "slopes without biases": deep(nn.ABRelu(0.9, 0.8), nn.Abs(), nn.ABRelu(-0.4, -1), b_std=None),
    "erf": deep(nn.Erf(), nn.Erf(1.2, 0.7, 0.3)),
    "erf below relu": deep(nn.Erf(), nn.Relu(), nn.Erf(-0.5, 2.0)),
    "standard": deep(nn.Relu(), nn.Abs(), parameterization="standard"),
    "no bias in standard": deep(nn.Relu(), b_std=None, parameterization="standard"),
    "mean field": deep(nn.Relu(), nn.LeakyRelu(0.1), parameterization="mean_field"),
    "residual": nn.Sequential(
        dense(),
        nn.Residual(nn.Sequential(nn.Relu(), dense())),
        nn.Residual(nn.Sequential(nn.LeakyRelu(0.2), dense(None), nn.Identity())),
        dense(),
    ),
    "residual of data": nn.Sequential(
        nn.Residual(nn.Sequential(nn.Dense(20), nn.Abs(), nn.Dense(20))), dense(), nn.Relu()
    ),
    "nested residual": nn.Sequential(
        dense(),
        nn.Residual(
            nn.Sequential(
                nn.Relu(), dense(), nn.Residual(nn.Sequential(nn.Abs(), dense(None))), dense()
            )
        ),
    ),
    "repeated": nn.Sequential(dense(), nn.Repeat(nn.Sequential(nn.Relu(), dense()), 30)),
}


def inputs(n, seed, dtype=None):
    """Vectors with equal, opposite, nearly equal, nearly opposite, colinear and zero pairs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 20)) * np.geomspace(0.1, 10, n)[:, None]
    x[1], x[2], x[3], x[4] = x[0], -x[0], 3 * x[0], 0
    x[5] = x[0] * (1 + 1e-6 * rng.normal(size=20))
    x[6] = -x[0] * (1 + 1e-5 * rng.normal(size=20))
    return jnp.asarray(x, dtype or jnp.result_type(float))


def portable(monkeypatch, net, *x):
    monkeypatch.setenv("NTK_LAB_NATIVE", "0")
    kernel = net.kernel(*x)
    monkeypatch.setenv("NTK_LAB_NATIVE", "1")
    return kernel


@pytest.fixture
def always(monkeypatch):
    """Small kernels too, in tiles that do not divide them evenly."""
    monkeypatch.setattr(evaluation, "FEWEST", 1)
    monkeypatch.setattr(native_vectors, "_TILE", 32)


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_loops_agree_with_the_portable_way(always, monkeypatch, name, symmetric):
    net = NETWORKS[name]
    x = (inputs(70, 0),) if symmetric else (inputs(45, 0), inputs(61, 0) * 0.9)
    actual, expected = net.kernel(*x), portable(monkeypatch, net, *x)
    own = [portable(monkeypatch, net, y) for y in (x[0], x[-1])]
    # After a smooth function both find the angle of near-duplicates by a subtraction.
    smooth = 1e3 if name == "erf below relu" else 1
    tolerance = smooth * (1e-13 if actual.ntk.dtype == jnp.float64 else 3e-6)
    for a, b, k1, k2 in zip(actual, expected, *own, strict=True):
        assert a.dtype == b.dtype
        norm = np.sqrt(np.outer(np.diag(k1), np.diag(k2)))
        assert (np.abs(np.asarray(a) - np.asarray(b)) <= tolerance * norm).all()


@pytest.mark.parametrize("dtype", mp.DTYPES)
@pytest.mark.parametrize("name", mp.RELU)
def test_relu_is_right_to_rounding_at_every_angle_norm_and_depth(always, oracle, name, dtype):
    for depth in mp.DEPTHS:
        error = mp.largest_pair_error(oracle, name, depth, dtype)
        assert error <= mp.relu_tolerance(depth, dtype), depth


@pytest.mark.parametrize("dtype", mp.DTYPES)
@pytest.mark.parametrize("name", mp.ERF)
def test_erf_is_no_worse_than_in_neural_tangents(always, oracle, name, dtype):
    for depth in mp.DEPTHS:
        error = mp.largest_pair_error(oracle, name, depth, dtype)
        # Norms of 1e5 beside 1e-2 cost some digits of float64.
        floor = 64 * np.finfo(np.float64).eps
        assert error <= max(mp.incumbent_tolerance(oracle, name, depth, dtype), floor), depth


def test_gram_matrices_of_near_duplicates_are_semidefinite(always):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 12)) + 1e-4 * rng.normal(size=(600, 12))
    for net in (NETWORKS["relu"], NETWORKS["two slopes of both signs"]):
        for k in net.kernel(jnp.asarray(x, jnp.float32)):
            values = np.linalg.eigvalsh(np.asarray(k, np.float64))
            assert values.min() >= -2e-6 * values.max()


def test_images_that_are_flattened_first_take_the_loops(always, monkeypatch):
    net = nn.Sequential(nn.Flatten(), *NETWORKS["relu"].layers)
    called = []
    original = native_vectors.vector_kernels
    monkeypatch.setattr(evaluation, "vector_kernels", lambda *a: called.append(1) or original(*a))
    x = inputs(40, 0)
    for a, b in zip(net.kernel(x.reshape(40, 4, 5)), NETWORKS["relu"].kernel(x), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(called) == 2


@pytest.mark.parametrize(
    "net",
    [
        deep(nn.Tanh()),
        nn.Sequential(dense(), nn.LayerNorm(), nn.Relu()),
        nn.Sequential(dense(), nn.Dropout(0.5), dense(), nn.Relu()),
    ],
    ids=lambda net: type(net.layers[1]).__name__,
)
def test_networks_with_other_layers_have_no_such_loops(net):
    assert net.vector_steps((20,)) is None


def test_an_activation_of_what_is_not_gaussian_is_still_refused(always):
    for net in (
        nn.Sequential(nn.Relu(), dense()),
        nn.Sequential(dense(), nn.Relu(), nn.Erf()),
        nn.Sequential(dense(), nn.Relu(), nn.Residual(dense()), nn.Relu()),
    ):
        with pytest.raises(InputError, match="Gaussian"):
            net.kernel(inputs(10, 0))


def test_a_zero_variance_with_a_trained_bias_has_its_kernel(always, monkeypatch):
    net = deep(nn.Relu(), b_std=0.0, parameterization="standard")
    actual, expected = net.kernel(inputs(10, 0)), portable(monkeypatch, net, inputs(10, 0))
    assert actual.ntk[4, 4] > 0
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_result_beyond_the_memory_limit_is_refused_and_progress_reaches_the_end(always):
    net, seen = NETWORKS["relu"], []
    with pytest.raises(InputError, match="memory_limit"):
        net.kernel(inputs(70, 0), memory_limit=1000)
    net.kernel(inputs(70, 0), progress=lambda *done: seen.append(done))
    assert len(seen) == seen[-1][0] == seen[-1][1] > 1


def test_derivatives_do_not_take_the_loops(always):
    net, x = NETWORKS["relu"], inputs(9, 0)
    gradient = jax.grad(lambda net: net.kernel(x).ntk.sum())(net)
    assert all(jnp.isfinite(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("second", [None, 150])
def test_products_by_xla_and_by_blas_give_the_same_kernels(monkeypatch, second):
    x = jax.random.normal(jax.random.key(0), (300, 20))
    x2 = None if second is None else x[:second] + 0.1
    monkeypatch.setattr(native_vectors, "FEWEST", 1)
    found = []
    for controller in (native_vectors._blas(), None):
        monkeypatch.setattr(native_vectors, "_blas", lambda it=controller: it)
        found.append(NETWORKS["relu"].kernel(x, x2))
    assert_close(found[0].ntk, found[1].ntk)
    assert_close(found[0].nngp, found[1].nngp)


def test_kernels_in_several_threads_leave_blas_as_it_was():
    controller = native_vectors._blas()
    if controller is None:
        pytest.skip("threadpoolctl controls no BLAS here")
    before = [library["num_threads"] for library in controller.info()]
    with native_vectors._one_core_each:
        with native_vectors._one_core_each:
            assert {library["num_threads"] for library in controller.info()} == {1}
        assert {library["num_threads"] for library in controller.info()} == {1}
    assert [library["num_threads"] for library in controller.info()] == before
