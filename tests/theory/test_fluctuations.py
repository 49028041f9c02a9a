"""Exact moments at finite width: closed forms, ensembles, and training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError

nn, theory = ntk.nn, ntk.theory
X = jnp.asarray([[1.0, -0.5, 2.0]])
NAMES = ("output_square", "output_fourth", "ntk", "ntk_square", "ntk_output_square")


def relu(widths, activation=None, w_std=2**0.5):
    activation = nn.Relu() if activation is None else activation
    hidden = [part for n in widths for part in (nn.Dense(n, w_std), activation)]
    return nn.Sequential(*hidden, nn.Dense(1, w_std))


@pytest.mark.parametrize("n", [1, 3, 10])
def test_two_linear_layers_have_moments_in_closed_form(n):
    # f = a.b / sqrt(n), K = (|a|^2 + |b|^2) / n at an input of mean square one.
    found = theory.finite_width_moments(relu((n,), nn.Identity(), 1.0), np.ones((1, 4)))
    np.testing.assert_allclose(found.ntk, 2, rtol=1e-14)
    np.testing.assert_allclose(found.ntk_square, 4 + 4 / n, rtol=1e-14)
    np.testing.assert_allclose(found.ntk_output_square, 2 + 4 / n, rtol=1e-14)
    np.testing.assert_allclose(found.output_fourth, 3 * (1 + 2 / n), rtol=1e-14)
    # dK/dt = -4 f^2 / n, and K(infinity) - K(0) = (y^2 - 1) / n to first order.
    np.testing.assert_allclose(found.ntk_velocity, -4 / n, rtol=1e-12)
    np.testing.assert_allclose(found.ntk_change(np.inf, 2.0), 3 / n, rtol=1e-12)


def test_relu_outputs_are_a_product_of_one_plus_five_over_n():
    widths = (4, 7, 5)
    found = theory.finite_width_moments(relu(widths), X)
    factors = np.prod([1 + 5 / n for n in widths])
    np.testing.assert_allclose(found.output_kurtosis, 3 * factors, rtol=1e-13)


def test_wide_networks_have_the_kernel_of_the_limit():
    net = relu((10**7, 10**7))
    found, kernel = theory.finite_width_moments(net, X), net.kernel(X)
    np.testing.assert_allclose(found.output_square, kernel.nngp[0], rtol=1e-5)
    np.testing.assert_allclose(found.ntk, kernel.ntk[0], rtol=1e-5)
    np.testing.assert_allclose(found.ntk_ratio, 1, atol=1e-5)
    assert found.kinked


def test_the_ratio_grows_as_the_exponential_of_five_depths_over_width():
    # arXiv:1909.05989: log of the ratio over sum 1/n_l goes to 5 as networks get deep.
    def log_ratio(depth, n=100):
        return np.log(theory.finite_width_moments(relu((n,) * depth), X).ntk_ratio[0])

    np.testing.assert_allclose((log_ratio(800) - log_ratio(400)) / 4, 5, rtol=0.05)


@pytest.mark.parametrize(
    ("widths", "activation"),
    [((5, 5, 5), nn.Relu()), ((3, 8), nn.LeakyRelu(0.3)), ((4, 4), nn.Abs())],
    ids=["relu", "leaky", "abs"],
)
def test_ensembles_agree_within_their_errors(widths, activation):
    net = relu(widths, activation, 1.2)
    found = theory.finite_width_moments(net, X)
    measured = theory.measure_moments(net, X, jax.random.key(0), seeds=8000)
    for name in NAMES:
        mean, error = measured.mean(name)
        assert abs((mean - getattr(found, name)) / error)[0] < 4, name
    ratio, error = measured.ntk_ratio
    assert abs(ratio - found.ntk_ratio)[0] < 4 * error[0]


def changes_in_training(net, target, seeds, rate, steps):
    """Change of the kernel at one input, mean over networks and standard error."""
    x = jnp.ones((1, 4))
    params = jax.vmap(lambda k: net.init(k, (4,)))(jax.random.split(jax.random.key(0), seeds))
    run = ntk.train.ensemble(
        net.apply, params, x, jnp.full((1, 1), target), optimizer=optax.sgd(rate), steps=steps,
        record=(0, steps), kernel_points=x, kernel="trace",
    )  # fmt: skip
    change = (run.ntk[:, 1] - run.ntk[:, 0])[:, 0, 0]
    return change.mean(), change.std(ddof=1) / seeds**0.5


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.0, 2.0])
def test_training_moves_the_kernel_of_linear_networks_as_predicted(target):
    net = relu((32, 32), nn.Identity(), 1.0)
    mean, error = changes_in_training(net, target, 1000, 0.02, 60)
    predicted = theory.finite_width_moments(net, jnp.ones((1, 4))).ntk_change(1.2, target)[0]
    # First order in 1/width: a fifth is left to the orders that follow.
    assert abs(mean - predicted) < 4 * error + 0.2 * abs(predicted)
    assert abs(mean) > 4 * error
    assert np.sign(mean) == np.sign(predicted)


@pytest.mark.slow
def test_neurons_that_switch_off_take_their_part_of_the_kernel_with_them():
    net = nn.Sequential(nn.Dense(400, 2**0.5), nn.Relu(), nn.Dense(1))
    mean, error = changes_in_training(net, 0.0, 600, 0.02, 100)
    predicted = theory.switching_change(net, jnp.ones((1, 4)), 2.0)[0]
    # The next order is smaller by width^-1/2, with factors of order one.
    assert abs(mean - predicted) < 4 * error + 0.2 * abs(predicted)
    assert abs(mean) > 4 * error
    with pytest.raises(InputError, match="switch off"):
        theory.finite_width_moments(net, X).ntk_change(1.0)
    with pytest.raises(InputError, match="known for one"):
        theory.switching_change(relu((4, 4)), X, 1.0)
    with pytest.raises(InputError, match="both signs"):
        theory.switching_change(relu((4,), nn.Abs()), X, 1.0)


def test_other_networks_are_refused():
    for net, match in (
        (nn.Sequential(nn.Dense(4, b_std=0.1), nn.Relu(), nn.Dense(1)), "no bias"),
        (nn.Sequential(nn.Dense(4), nn.Erf(), nn.Dense(1)), "Erf"),
        (nn.Sequential(nn.Dense(4), nn.Relu(), nn.Dense(2)), "one output"),
        (nn.Sequential(nn.Dense(4), nn.Relu(), nn.Abs(), nn.Dense(1)), "Abs"),
    ):
        with pytest.raises(InputError, match=match):
            theory.finite_width_moments(net, X)
    with pytest.raises(InputError, match="needs one"):
        theory.measure_moments(nn.Dense(2), X, jax.random.key(0))
    measured = theory.measure_moments(nn.Dense(1), X, jax.random.key(0), seeds=3)
    with pytest.raises(InputError, match="unknown"):
        measured.mean("skewness")
