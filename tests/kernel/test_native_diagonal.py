"""Compiled loops over equal positions give the same kernels as the portable way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.kernel import native_diagonal, native_evaluate
from tests.kernel.convolutions import conv, inputs, portable

pytest.importorskip("numba")

RELU, FLAT = ntk.nn.Relu(), ntk.nn.Flatten()


NETWORKS = {
    "same": ntk.nn.Sequential(conv(), RELU, conv(), RELU, FLAT, ntk.nn.Dense(1)),
    "periodic, strides, dilation": ntk.nn.Sequential(
        conv(padding="CIRCULAR", strides=(2, 1)), RELU, conv(dilation=(1, 2)), FLAT
    ),
    "valid, slopes, layers after": ntk.nn.Sequential(
        conv((2, 3), padding="VALID"),
        ntk.nn.LeakyRelu(0.2),
        conv((1, 3), parameterization="standard"),
        ntk.nn.Abs(),
        ntk.nn.Dense(5, 1.2),
        FLAT,
        ntk.nn.Dense(3, 1.1, 0.3),
        RELU,
        ntk.nn.Dense(1),
    ),
    "no bias": ntk.nn.Sequential(ntk.nn.Conv(8, (3, 3)), RELU, ntk.nn.Conv(8, (3, 3)), FLAT),
    "one axis": ntk.nn.Sequential(conv((3,)), RELU, conv((2,)), RELU, FLAT, ntk.nn.Dense(1)),
}


@pytest.fixture
def loops(monkeypatch):
    """Loops for small kernels too, in tiles that do not divide the number of examples."""
    monkeypatch.setattr(native_evaluate, "FEWEST", 1)
    monkeypatch.setattr(native_diagonal, "_EXAMPLES", 32)
    monkeypatch.setattr(native_diagonal, "_CACHED", 2**12)


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_loops_agree_with_the_portable_way(monkeypatch, loops, name, symmetric):
    net = NETWORKS[name]
    x = (inputs(net, 41, 0),) if symmetric else (inputs(net, 3, 0), inputs(net, 35, 1))
    taken = []
    original = native_evaluate.diagonal_means
    monkeypatch.setattr(
        native_evaluate, "diagonal_means", lambda *a: taken.append(original(*a)) or taken[-1]
    )
    actual = net.kernel(*x)
    assert taken[0] is not None
    expected = portable(monkeypatch, net, *x)
    tolerance = 1e-13 if actual.ntk.dtype == jnp.float64 else 1e-6
    for a, b in zip(actual, expected, strict=True):
        # Uncorrelated images have small entries, which are rounded as their norms are.
        scale = np.sqrt(np.diag(a)[:, None] * np.diag(a)) if symmetric else np.abs(b).max()
        assert np.max(np.abs(a - b) / scale) < tolerance
        assert a.dtype == b.dtype


@pytest.mark.slow
def test_nearly_equal_opposite_and_zero_images(monkeypatch, loops):
    net = NETWORKS["same"]
    x = np.asarray(inputs(net, 1, 0), np.float64)
    near = x * (1 + 1e-6 * np.random.default_rng(3).normal(size=x.shape))
    x = jnp.asarray(np.concatenate([x, near, x, -x, 0 * x, 1e3 * x]).astype(np.float32))
    actual, expected = net.kernel(x), portable(monkeypatch, net, x)
    for a, b in zip(actual, expected, strict=True):
        b = np.asarray(b)
        root = np.sqrt(np.diag(b))
        scale = np.maximum(root[:, None] * root, 1e-30)
        assert np.max(np.abs(a - b) / scale) < 2e-6
    k = np.asarray(actual.ntk, np.float64)
    assert abs(k[0, 1] - k[0, 0]) < 2e-6 * k[0, 0]
    assert k[0, 0] == k[0, 2] == k[2, 2]


def test_an_activation_without_weights_before_it_takes_the_portable_way(loops):
    net = ntk.nn.Sequential(conv(), RELU, ntk.nn.Identity(), FLAT)
    steps = [layer.native_step((8, 8, 2)) for layer in (conv(), RELU, RELU)]
    assert native_diagonal.diagonal_means(steps, np.ones((2, 8, 8, 2)), None, None) is None
    assert net.native_steps((8, 8, 2)) is None
    assert net.kernel(inputs(net, 3, 0)).ntk.shape == (3, 3)


def test_progress_reaches_the_number_of_groups(loops):
    seen = []
    net = NETWORKS["same"]
    net.kernel(inputs(net, 41, 0), progress=lambda *done: seen.append(done))
    assert seen[-1] == (3, 3)


def test_kernels_are_symmetric_and_positive(loops):
    net = NETWORKS["same"]
    k = np.asarray(net.kernel(inputs(net, 41, 0)).ntk, np.float64)
    assert np.array_equal(k, k.T)
    assert np.linalg.eigvalsh(k)[0] > -1e-6 * k.max()


def test_gradients_take_the_portable_way(loops):
    net = NETWORKS["same"]
    x = inputs(net, 2, 0)
    assert jnp.isfinite(jax.grad(lambda x: net.kernel(x).ntk.sum())(x)).all()


@pytest.mark.x64
@pytest.mark.parametrize("end", [FLAT, ntk.nn.GlobalAvgPool()], ids=["flat", "pooled"])
@pytest.mark.parametrize("native", ["0", "1"])
def test_zero_tiny_and_huge_images_are_as_accurate_in_float32(monkeypatch, loops, end, native):
    # With one weighting through all layers the bias unbalances the two: 5e-5 instead of 6e-7.
    net = ntk.nn.Sequential(conv(), RELU, conv(), RELU, end, ntk.nn.Dense(1))
    x = np.asarray(inputs(NETWORKS["same"], 1, 0))
    x = np.concatenate([x, -x, 0 * x, 1e-3 * x, 1e3 * x]).astype(np.float32)
    monkeypatch.setenv("NTK_LAB_NATIVE", native)
    exact = net.kernel(jnp.asarray(x, jnp.float64))
    for a, b in zip(net.kernel(jnp.asarray(x)), exact, strict=True):
        assert a.dtype == jnp.float32
        b = np.asarray(b)
        root = np.sqrt(np.diag(b))
        assert np.max(np.abs(np.asarray(a) - b) / (root[:, None] * root)) < 1e-6
