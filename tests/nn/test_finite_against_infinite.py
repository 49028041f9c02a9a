"""Ensembles of finite networks against the infinite-width kernels of the same description."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk

SHAPE, WIDTH, SEEDS = (2, 3, 1), 256, 96


def hidden(activation, **scales):
    return ntk.nn.Sequential(ntk.nn.Dense(WIDTH, **scales), activation)


def network(activation, **scales):
    """Every kind of layer once, two hidden nonlinearities."""
    block = ntk.nn.Residual(ntk.nn.Sequential(activation, ntk.nn.Dense(WIDTH, 0.7, 0.2)))
    first = ntk.nn.Dense(WIDTH, **scales)
    return ntk.nn.Sequential(
        ntk.nn.Flatten(), first, ntk.nn.Identity(), block, activation, ntk.nn.Dense(1, 1.1, 0.1)
    )


@pytest.fixture(scope="module")
def x():
    points = jax.random.normal(jax.random.key(7), (3, *SHAPE))
    # Beside generic inputs: a near-duplicate, an antipode and zero.
    special = [points[0] * 1.01, -points[1], 0 * points[0]]
    return jnp.concatenate([points, jnp.stack(special)])


def samples(net, x, seeds):
    """NNGP and NTK of single networks, shapes ``(seeds, n, n)``."""

    def one(key):
        params = net.init(key, x.shape[1:])
        f = net.apply(params, x)
        theta = ntk.empirical.ntk(net.apply, params, x, outputs="trace")
        return f @ f.T / f.shape[1], theta

    return jax.lax.map(one, jax.random.split(jax.random.key(0), seeds), batch_size=8)


def z_scores(values, expected, extra):
    mean, error = values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5
    # Finite width biases the mean by order 1/width; `extra` allows for it.
    return np.abs(mean - expected) / np.sqrt(error**2 + (extra * np.abs(expected).max()) ** 2)


@pytest.mark.parametrize(
    "activation",
    [ntk.nn.Relu(), ntk.nn.Erf(), ntk.nn.Gelu(), ntk.nn.Tanh()],
    ids=lambda a: type(a).__name__,
)
def test_ensembles_of_networks_have_the_kernels_as_means(activation, x):
    net = network(activation, w_std=1.3, b_std=0.3)
    nngp, theta = (np.asarray(v, np.float64) for v in samples(net, x, SEEDS))
    kernel = net.kernel(x)
    # Extremes of about 40 correlated normal numbers; one in 10^4 exceeds 4.5.
    assert z_scores(nngp, np.asarray(kernel.nngp), 2 / WIDTH).max() < 4.5
    assert z_scores(theta, np.asarray(kernel.ntk), 2 / WIDTH).max() < 4.5


@pytest.mark.parametrize("name", ["standard", "mean_field", "mup"])
def test_other_parameterizations_have_their_own_kernel_at_their_width(name, x):
    net = network(ntk.nn.Relu(), w_std=1.3, b_std=0.3).with_parameterization(name)
    theta = np.asarray(samples(net, x, SEEDS)[1], np.float64)
    assert z_scores(theta, np.asarray(net.kernel(x).ntk), 2 / WIDTH).max() < 4.5


@pytest.mark.slow
def test_fluctuations_of_the_kernel_fall_as_the_square_root_of_width(x):
    net = network(ntk.nn.Relu(), w_std=1.3, b_std=0.3)
    expected = np.asarray(net.kernel(x).ntk)
    widths, errors = (16, 64, 256), []
    for width in widths:
        theta = np.asarray(samples(net.with_width(width), x, 48)[1])
        errors.append(np.sqrt(((theta - expected) ** 2).mean()))
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4


def test_a_frozen_part_adds_nothing_to_the_kernel(x):
    body = ntk.nn.Sequential(ntk.nn.Flatten(), ntk.nn.Dense(WIDTH, 1.3, 0.3), ntk.nn.Relu())
    readout = ntk.nn.Dense(1, 1.1)
    frozen = ntk.nn.Sequential(ntk.nn.Frozen(body), readout)
    kernel = frozen.kernel(x)
    # Only the readout trains: the NTK is the covariance of the outputs.
    np.testing.assert_allclose(kernel.ntk, kernel.nngp, rtol=1e-6)
    free = ntk.nn.Sequential(body, readout).kernel(x)
    np.testing.assert_allclose(free.nngp, kernel.nngp, rtol=1e-6)
    theta = np.asarray(samples(frozen, x, 24)[1], np.float64)
    assert z_scores(theta, np.asarray(kernel.ntk), 2 / WIDTH).max() < 4.5
    between = ntk.nn.Sequential(
        ntk.nn.Flatten(), ntk.nn.Dense(WIDTH), ntk.nn.Frozen(hidden(ntk.nn.Erf())), readout
    )
    theta = np.asarray(samples(between, x, SEEDS)[1], np.float64)
    assert z_scores(theta, np.asarray(between.kernel(x).ntk), 2 / WIDTH).max() < 4.5
