"""Marginal likelihood, and scales, depth and noise fitted by it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy.stats import multivariate_normal

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.predict import fit, gp_posterior, log_marginal_likelihood
from tests.predict.problems import random_problem
from tests.tolerance import assert_close


def network(depth=1, w_std=1.0, b_std=0.5):
    layers = []
    for _ in range(depth):
        layers += [ntk.nn.Dense(16, w_std=w_std, b_std=b_std), ntk.nn.Erf()]
    return ntk.nn.Sequential(*layers, ntk.nn.Dense(1, w_std=w_std))


def drawn(net, n=40, noise=0.04, outputs=3, seed=0):
    """Inputs, and targets drawn from the network's own Gaussian process."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(n, 2)), jnp.result_type(float))
    kernel = np.asarray(net.kernel(x).nngp, np.float64)
    root = np.linalg.cholesky(kernel + noise * np.eye(n))
    return x, jnp.asarray(root @ rng.normal(size=(n, outputs)), x.dtype)


def test_it_is_the_density_of_the_targets():
    p = random_problem()
    kernel = p.train_train.nngp
    found = log_marginal_likelihood(kernel, p.y, noise=0.05)
    density = multivariate_normal(np.zeros(8), kernel + 0.05 * np.eye(8))
    assert_close(found, density.logpdf(p.y.T).sum(), factor=10)
    posterior = gp_posterior(kernel, p.y, kernel, noise=0.05)
    assert_close(found, posterior.log_marginal_likelihood, factor=10)


@pytest.mark.x64
def test_derivatives_exist_for_repeated_eigenvalues():
    y = jnp.asarray(random_problem().y)

    def likelihood(scale, noise):
        return log_marginal_likelihood(scale * jnp.eye(8), y, noise=noise)

    check_grads(likelihood, (jnp.asarray(2.0), jnp.asarray(0.3)), order=1, rtol=1e-6)


def test_no_density_is_said_and_nothing_is_added():
    y = np.array([[1.0], [2.0]])
    with pytest.raises(NumericalError, match=r"occur twice.*pass noise > 0"):
        log_marginal_likelihood(np.ones((2, 2)), y)
    assert np.isfinite(log_marginal_likelihood(np.ones((2, 2)), y, noise=0.1))
    with pytest.raises(NumericalError, match="smallest eigenvalue is -1"):
        log_marginal_likelihood(np.array([[1.0, 2.0], [2.0, 1.0]]), y)


@pytest.mark.x64
def test_a_fit_ends_where_the_likelihood_is_flat_and_is_no_worse_than_the_truth():
    truth = network(w_std=1.5, b_std=0.3)
    x, y = drawn(truth)
    calls = []
    found = fit(
        network(),
        x,
        y,
        noise=0.5,
        steps=150,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.15, 150)),
        progress=lambda *a: calls.append(a),
    )
    true = float(log_marginal_likelihood(truth.kernel(x).nngp, y, noise=0.04))
    assert found.log_marginal_likelihood > true
    assert found.noise == pytest.approx(0.04, rel=0.5)

    def cost(net, noise):
        return log_marginal_likelihood(net.kernel(x).nngp, y, noise=noise)

    value, slopes = jax.value_and_grad(cost, argnums=(0, 1))(found.network, found.noise)
    assert found.log_marginal_likelihood == pytest.approx(float(value), rel=1e-10)
    scaled = [
        s * v
        for s, v in zip(
            jax.tree.leaves(slopes), [*jax.tree.leaves(found.network), found.noise], strict=True
        )
    ]
    assert np.abs(scaled).max() < 0.05
    assert [c[:2] for c in calls] == [(k, 150) for k in range(1, 151)]
    np.testing.assert_allclose(
        [c[2] for c in calls], found.trajectory["log_marginal_likelihood"][1:]
    )
    assert sorted(found.trajectory) == [
        "layers/0/b_std", "layers/0/w_std", "layers/2/w_std", "log_marginal_likelihood", "noise",
    ]  # fmt: skip
    assert found.trajectory["noise"][0] == pytest.approx(0.5)
    assert float(found.diagnostics.ridge) == pytest.approx(found.noise)


@pytest.mark.slow
@pytest.mark.x64
def test_depth_is_chosen_among_those_given():
    truth = network(depth=3, w_std=3.0)
    x, y = drawn(truth, n=60, noise=0.01, outputs=8)
    networks = [network(depth) for depth in (1, 3)]
    found = fit(networks, x, y, steps=60, optimizer=optax.adam(0.1))
    assert found.chosen == 1
    assert found.network.layers[2].width == 16
    assert found.log_marginal_likelihood == max(found.candidates)
    assert found.candidates[1] > found.candidates[0] + 3


def test_float32_fits_raise_the_likelihood_and_give_networks_of_numbers():
    x, y = drawn(network(w_std=1.5), n=12)
    found = fit(network(), x, y, steps=10, which="ntk")
    values = found.trajectory["log_marginal_likelihood"]
    assert found.log_marginal_likelihood > values[0]
    assert type(found.network.layers[0].w_std) is float
    assert found.network.layers[2].b_std is None
    only = fit(network(), x, y, steps=2, select=lambda path: path == "layers/0/b_std")
    assert only.network.layers[0].w_std == 1.0
    assert only.network.layers[0].b_std != 0.5


def test_fits_that_cannot_start_are_named():
    x, y = drawn(network(), n=6)
    for arguments, options, message in (
        (([], x, y), {}, "a sequence of some"),
        ((network, x, y), {}, "must be a network"),
        ((network(), x, y[:3]), {}, r"y has shape \(3, 3\)"),
        ((network(), x, y), {"noise": 0.0}, "starts from a positive"),
        ((network(), x, y), {"steps": -1}, "steps=-1"),
        ((network(), x, y), {"which": "both"}, "which is 'both'"),
        ((network(), x, y), {"select": lambda path: False}, "no positive scale of layers/0/w_std"),
    ):
        with pytest.raises(InputError, match=message):
            fit(*arguments, **options)
    same = jnp.ones((50, 2), x.dtype)
    with pytest.raises(NumericalError, match="not positive definite to rounding at the start"):
        fit(network(), same, jnp.ones((50, 1), x.dtype), noise=1e-30)
