"""Moments layer by layer: against the kernel, against ensembles, and conditioning with depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError

nn, theory = ntk.nn, ntk.theory
EPS = float(np.finfo(float if jax.config.jax_enable_x64 else np.float32).eps)


def deep(block, times):
    return nn.Sequential(nn.Dense(32, 1.2, 0.2), nn.Repeat(block, times), nn.Dense(3))


NETS = {
    "repeat": (deep(nn.Sequential(nn.Relu(), nn.Dense(32, 1.3, 0.1)), 5), (4,)),
    "residual": (deep(nn.Residual(nn.Sequential(nn.Erf(), nn.Dense(32))), 3), (4,)),
    "convolutions": (
        nn.Sequential(
            nn.Conv(24, (3,), w_std=1.3, b_std=0.1), nn.Relu(), nn.GlobalAvgPool(), nn.Dense(3)
        ),
        (5, 2),
    ),
    "flattened": (nn.Sequential(nn.Flatten(), nn.Dense(32), nn.Relu(), nn.Dense(1)), (2, 2, 2)),
}


@pytest.mark.parametrize("name", NETS)
def test_the_last_layer_is_the_kernel(name):
    net, shape = NETS[name]
    x = jax.random.normal(jax.random.key(0), (3, *shape))
    found, kernel = theory.signal_propagation(net, x), net.kernel(x)
    np.testing.assert_allclose(found.covariance[-1], kernel.nngp, rtol=50 * EPS, atol=50 * EPS)
    np.testing.assert_allclose(found.ntk[-1], kernel.ntk, rtol=200 * EPS, atol=50 * EPS)
    flat = np.asarray(x).reshape(3, -1)
    np.testing.assert_allclose(
        found.covariance[0], flat @ flat.T / flat.shape[1], rtol=50 * EPS, atol=50 * EPS
    )
    assert len(found.layers) == len(found.covariance) - 1
    assert (found.distance >= -8 * EPS).all()
    norm = np.sqrt(found.variance[:, :, None] * found.variance[:, None, :])
    np.testing.assert_allclose(found.correlation * norm, found.covariance, atol=100 * EPS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["repeat", "convolutions"])
def test_finite_networks_do_the_same_within_their_error(name):
    net, shape = NETS[name]
    x = jax.random.normal(jax.random.key(0), (3, *shape))
    found = theory.signal_propagation(net.with_width(192), x)
    measured = theory.measure_signal(net.with_width(192), x, jax.random.key(1), seeds=24)
    assert measured.layers == found.layers
    # From the first layer with weights on; the data have no error.
    np.testing.assert_allclose(
        measured.covariance[0], found.covariance[0], rtol=50 * EPS, atol=50 * EPS
    )
    z = (measured.covariance - found.covariance)[1:] / measured.error[1:]
    rows, columns = np.triu_indices(3)
    assert np.sqrt((z[:, rows, columns] ** 2).mean()) < 2
    assert np.abs(z).max() < 5


def test_correlations_forget_at_the_predicted_rate():
    block = nn.Sequential(nn.Erf(), nn.Dense(32, 1.8, 0.3))
    point = theory.signal_fixed_point(block)
    x = theory.signal_inputs((4,), 1.0, 0.2)
    c = theory.signal_propagation(deep(block, 24), x).correlation[1:-1:2, 0, 1]
    rate = np.log((c[18] - point.correlation) / (c[12] - point.correlation)) / 6
    np.testing.assert_allclose(rate, -1 / point.correlation_depth, rtol=2e-3)


def test_condition_numbers_grow_in_order_and_settle_in_chaos():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 16)))
    x = x / jnp.sqrt((x**2).mean(1, keepdims=True))

    def conditions(w, kernel, times=30):
        net = deep(nn.Sequential(nn.Erf(), nn.Dense(32, w, 0.3)), times)
        return theory.signal_propagation(net, x).condition(kernel)[1:-1:2]

    def point(w):
        return theory.signal_fixed_point(nn.Sequential(nn.Erf(), nn.Dense(1, w, 0.3)))

    # Chaos: the NNGP to its limit, the NTK to one (arXiv:1912.13053, section 3).
    np.testing.assert_allclose(
        conditions(2.5, "nngp", 60)[-1], point(2.5).nngp_condition(6), rtol=1e-3
    )
    assert conditions(2.5, "ntk")[-1] < 1.05
    # Order: as chi_1^-depth, for the NTK with a further 1 / depth.
    nngp, ntk_ = conditions(1.0, "nngp"), conditions(1.0, "ntk")
    growth = np.log(nngp[-1] / nngp[-5]) / 4
    np.testing.assert_allclose(growth, -np.log(point(1.0).chi_1), rtol=0.02)
    depth = len(ntk_)
    relative = np.log(ntk_[-1] * depth / (ntk_[-5] * (depth - 4))) / 4
    np.testing.assert_allclose(relative, -np.log(point(1.0).chi_1), rtol=0.03)


def test_at_criticality_the_ntk_of_relu_has_a_condition_number_of_its_own():
    n = 6
    x = jnp.asarray(np.random.default_rng(0).normal(size=(n, 16)))
    x = x / jnp.sqrt((x**2).mean(1, keepdims=True))
    net = deep(nn.Sequential(nn.Relu(), nn.Dense(32, 2**0.5)), 300)
    net = nn.Sequential(nn.Dense(32), *net.layers[1:])
    found = theory.signal_propagation(net, x)
    # Off-diagonal over diagonal goes to 1/4 (arXiv:1912.13053): (3/4 + n/4) / (3/4).
    assert abs(found.condition("ntk")[-1] / ((n + 3) / 3) - 1) < 0.05


def test_bad_requests_say_what_to_do():
    net = NETS["repeat"][0]
    found = theory.signal_propagation(net, jnp.eye(4))
    assert found.after("Dense").tolist()[:2] == [1, 3]
    with pytest.raises(InputError, match="'Conv'"):
        found.after("Conv")
    with pytest.raises(InputError, match="'nngp' or 'ntk'"):
        found.spectrum("both")
    with pytest.raises(InputError, match="two networks"):
        theory.measure_signal(net, jnp.eye(4), jax.random.key(0), seeds=1)
    with pytest.raises(InputError, match="one channel"):
        theory.signal_inputs((1,), 1.0, 0.5)
    with pytest.raises(InputError, match="correlation"):
        theory.signal_inputs((4,), 1.0, 1.5)
