"""Compiled loops give the same kernels as the portable way, and are used only where they apply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.kernel import native
from tests.kernel.convolutions import conv, inputs, portable

pytest.importorskip("numba")

RELU, POOL = ntk.nn.Relu(), ntk.nn.GlobalAvgPool()


NETWORKS = {
    "same": ntk.nn.Sequential(conv(), RELU, conv(), RELU, POOL, ntk.nn.Dense(1)),
    "periodic, strides, dilation, sum": ntk.nn.Sequential(
        conv(padding="CIRCULAR", strides=(2, 1)),
        RELU,
        conv(dilation=(1, 2)),
        ntk.nn.GlobalSumPool(),
        ntk.nn.Dense(1),
    ),
    "pooling between, layers after": ntk.nn.Sequential(
        conv(),
        ntk.nn.LeakyRelu(0.2),
        ntk.nn.AvgPool((2, 2), (2, 2)),
        conv(),
        ntk.nn.Abs(),
        ntk.nn.AvgPool((2, 2), (1, 1), "SAME", normalize_edges=True),
        conv((1, 1)),
        RELU,
        POOL,
        ntk.nn.Dense(3),
        RELU,
        ntk.nn.Dense(1),
    ),
    "standard, valid": ntk.nn.Sequential(
        conv((2, 3), padding="VALID", parameterization="standard"),
        RELU,
        conv((1, 3)),
        RELU,
        POOL,
        ntk.nn.Dense(1),
    ),
    "one axis": ntk.nn.Sequential(conv((3,)), RELU, conv((2,)), RELU, POOL, ntk.nn.Dense(1)),
}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_loops_agree_with_the_portable_way(monkeypatch, name, symmetric):
    net = NETWORKS[name]
    x = (inputs(net, 3, 0),) if symmetric else (inputs(net, 3, 0), inputs(net, 2, 1))
    expected = portable(monkeypatch, net, *x)
    actual = net.kernel(*x)
    tolerance = 1e-13 if actual.ntk.dtype == jnp.float64 else 1e-6
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance)
        assert a.dtype == b.dtype


def test_a_network_with_other_layers_takes_the_portable_way():
    shape = (8, 8, 3)
    assert NETWORKS["same"].native_steps(shape) is not None
    assert ntk.nn.Sequential(conv(), ntk.nn.Erf(), POOL).native_steps(shape) is None
    assert ntk.nn.Sequential(conv(), RELU, ntk.nn.Dense(1)).native_steps(shape) is None


def test_it_is_used_on_the_cpu_unless_switched_off(monkeypatch):
    assert native.available() == (jax.default_backend() == "cpu")
    monkeypatch.setenv("NTK_LAB_NATIVE", "0")
    assert not native.available()


def test_progress_reaches_the_number_of_pairs():
    seen = []
    NETWORKS["same"].kernel(
        inputs(NETWORKS["same"], 3, 0), progress=lambda *done: seen.append(done)
    )
    assert seen[-1] == (6, 6)


def test_nearly_equal_images_keep_their_angle_in_float32():
    # Every 1e-4 of the angle is lost where a correlation near one is subtracted from one.
    net = NETWORKS["same"]
    x = np.asarray(inputs(net, 1, 0), np.float64)
    near = x * (1 + 1e-6 * np.random.default_rng(3).normal(size=x.shape))
    both = np.concatenate([x, near]).astype(np.float32)
    k = np.asarray(net.kernel(jnp.asarray(both)).ntk, np.float64)
    assert abs(k[0, 1] - k[0, 0]) < 2e-6 * k[0, 0]
