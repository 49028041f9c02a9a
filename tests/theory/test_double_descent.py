"""Double descent: regression on random features against brute force, and models against both."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError
from tests.tolerance import assert_close

VALUES = np.arange(1, 301.0) ** -1.5
POWER = np.arange(1, 301.0) ** -2.0
theory = ntk.theory


def curve(n, p, **more):
    return theory.random_feature_curve(jnp.asarray(VALUES), POWER, n, p, **more)


def test_infinitely_many_features_are_kernel_regression():
    n = np.array([1.0, 50.0, 290.0])
    for ridge in (0.0, 1e-3, 2.0):
        many = curve(n, np.inf, ridge=ridge, noise=0.3)
        one = theory.learning_curve(jnp.asarray(VALUES), POWER, n, ridge=ridge, noise=0.3)
        for field in ("kappa", "test_error", "train_error"):
            assert_close(getattr(many, field), getattr(one, field), factor=10)
        assert_close(many.gamma, many.kappa)
        for part in (many.parts.initialization, many.parts.noise_initialization):
            assert not part.any()


def test_infinitely_many_examples_leave_what_features_cannot_express():
    for p in (3.0, 80.0):

        def excess(log, p=p):
            return (VALUES / (VALUES + np.exp(log))).sum() - p

        gamma = np.exp(optimize.brentq(excess, -40, 10, xtol=1e-14))
        found = curve(1e12, p)
        assert_close(found.gamma, gamma, factor=20)
        assert_close(found.test_error, (gamma / (VALUES + gamma) * POWER).sum(), factor=20)


@pytest.mark.x64  # the published form cancels
def test_the_published_form_and_its_equations():
    grid = [np.ravel(g) for g in np.meshgrid([5.0, 60.0, 200.0], [8.0, 60.0, 150.0], [1e-4, 0.3])]
    n, p, ridge = grid
    noise = 0.2
    found = curve(n, p, ridge=ridge, noise=noise)
    kappa, gamma = np.asarray(found.kappa)[:, None], np.asarray(found.gamma)[:, None]
    learnt = VALUES / (VALUES + gamma)
    z, q = learnt.sum(1), (learnt**2).sum(1)
    assert_close(z + ridge / kappa[:, 0], n, factor=20)
    assert_close(z + p * kappa[:, 0] / gamma[:, 0], p, factor=20)
    share = (p / (p - q))[:, None]
    bracket = (gamma / (VALUES + gamma) - kappa * VALUES / (VALUES + gamma) ** 2 * share) @ POWER
    expected = (bracket + noise) / (1 - (q * (p - 2 * z) + z**2) / (n * (p - q)))
    assert_close(found.test_error, expected, factor=1e3)
    assert_close(found.parts.error + noise, found.test_error, factor=10)
    assert all((np.asarray(part) >= 0).all() for part in found.parts)


def test_without_ridge_the_peak_is_where_features_are_as_many_as_examples():
    p = jnp.array([20.0, 59.0, 60.0, 61.0, 200.0])
    error = np.asarray(curve(60.0, p, noise=0.1).test_error)
    assert np.isinf(error[2])
    assert error[0] < error[1]
    assert error[3] > error[4]
    # Least squares in fewer dimensions than examples: n / (n - p) of what is left over.
    left = curve(60.0, 59.0, noise=0.1).parts
    expected = (left.bias + left.initialization + 0.1) * 60 / (60 - 59)
    assert_close(error[1], expected, factor=1e3)


def test_at_the_peak_only_what_is_not_there_stays_finite():
    for noise, total in ((0.0, 0.0), (0.3, np.inf)):
        found = theory.random_feature_curve(VALUES, 0 * POWER, 60.0, 60.0, noise=noise)
        assert found.test_error == total
        assert found.parts.noise_initialization == total
        for part in (found.parts.bias, found.parts.initialization, found.parts.data_initialization):
            assert part == 0
    with pytest.raises(InputError, match="ridge must be finite; the greatest is inf"):
        curve(60.0, 50.0, ridge=np.inf)


def test_the_error_is_linear_in_the_noise_from_none_on():
    def error(noise):
        return curve(60.0, 50.0, ridge=0.1, noise=noise).parts.noise_initialization

    assert_close(jax.grad(error)(0.0), error(1.0))


def test_multiplicities_are_repeated_modes():
    counts = np.array([1, 4, 12])
    values, power = jnp.array([1.0, 0.3, 0.02]), jnp.array([0.5, 1.0, 0.6])
    each = power / counts.astype(power.dtype)
    settings = {"ridge": 0.05, "noise": 0.1}
    short = theory.random_feature_curve(values, power, 9.0, 7.0, multiplicity=counts, **settings)
    long = theory.random_feature_curve(
        np.repeat(values, counts), np.repeat(each, counts), 9.0, 7.0, **settings
    )
    for one, other in zip(jax.tree.leaves(short), jax.tree.leaves(long), strict=True):
        assert_close(one, other, factor=10)


def gaussian_predictors(rng, n, p, ridge, noise):
    """Coefficients over ``(inputs, noises, initializations, modes, 1)``, in modes of norm 1."""
    drawn = [rng.standard_normal((p, len(VALUES))) * (VALUES / p) ** 0.5 for _ in range(2)]
    found = np.empty((2, 2, 2, len(VALUES), 1))
    for i in range(2):
        inputs = rng.standard_normal((n, len(VALUES)))
        y = inputs @ POWER[:, None] ** 0.5 + noise**0.5 * rng.standard_normal((2, n, 1))
        for r, features in enumerate(drawn):
            z = inputs @ features.T
            weights = np.linalg.solve(z.T @ z + ridge * np.eye(p), z.T @ y)
            found[i, :, r] = features.T @ weights
    return found


def test_gaussian_features_have_the_predicted_parts_of_the_error():
    # The theory's own assumption, by brute force.
    rng, n, noise, repeats = np.random.default_rng(0), 60, 0.2, 100
    target = POWER[:, None] ** 0.5
    for p, ridge in ((25, 1e-12), (60, 0.05)):
        drawn = np.array([gaussian_predictors(rng, n, p, ridge, noise) for _ in range(repeats)])
        # Means over modes become sums.
        scale = len(VALUES) ** 0.5
        measured = theory.bias_variance(drawn * scale, target * scale)
        expected = curve(n, p, ridge=ridge, noise=noise).parts
        for name in expected._fields:
            parts, value = np.asarray(getattr(measured, name)), float(getattr(expected, name))
            error = parts.std(ddof=1) / repeats**0.5
            # Corrections to the limit are of relative order 1/n, of the whole error.
            allowed = 4 * error + 0.5 / n * float(expected.error)
            assert abs(parts.mean() - value) < allowed, name


def test_parts_are_products_of_pairs_that_share_what_is_named():
    values = np.random.default_rng(1).standard_normal((3, 2, 4, 5, 2))
    targets = np.random.default_rng(2).standard_normal((5, 2))
    found = theory.bias_variance(values, targets)
    errors = (values - targets).reshape(24, 10)
    places = list(itertools.product(range(3), range(2), range(4)))
    sums = {}
    for (i, a), (j, b) in itertools.product(enumerate(places), repeat=2):
        same = a[0] == b[0], a[:2] == b[:2], a[2] == b[2]
        sums.setdefault(same, []).append(errors[i] @ errors[j] / 5)
    mean = {same: np.mean(products) for same, products in sums.items()}
    bias = mean[False, False, False]
    assert_close(found.bias, bias)
    assert_close(found.bias + found.initialization, mean[False, False, True])
    assert_close(found.bias + found.data, mean[True, False, False])
    assert_close(found.bias + found.data + found.noise, mean[True, True, False])
    without_noise = found.bias + found.data + found.initialization + found.data_initialization
    assert_close(without_noise, mean[True, False, True])
    assert_close(found.error, mean[True, True, True])
    assert_close(found.variance, mean[True, True, True] - bias)
    # One draw of noise: it counts as data.
    single = theory.bias_variance(values[:, :1], targets)
    assert not single.noise.any()
    assert_close(single.error, (errors.reshape(3, 2, 4, 10)[:, 0] ** 2).sum(-1).mean() / 5)


def test_the_best_ridge_is_a_minimum_under_which_more_is_better():
    p, n = jnp.array([10.0, 50.0, 60.0, 70.0, 300.0, jnp.inf]), jnp.array([30.0, 60.0, 120.0])
    best = theory.optimal_ridge(jnp.asarray(VALUES), POWER, n[:, None], p, noise=0.2)
    error = curve(n[:, None], p, ridge=best, noise=0.2).test_error
    for factor in (0.5, 0.99, 1.01, 2.0):
        off = curve(n[:, None], p, ridge=factor * best, noise=0.2).test_error
        assert (off >= error * (1 - 1e-6)).all()
        if factor in (0.5, 2.0):
            assert (off > error * (1 + 1e-3)).all()
    assert (np.diff(error, axis=0) < 0).all()
    assert (np.diff(error, axis=1) < 0).all()


@pytest.mark.x64
def test_gradients_are_those_of_differences_and_programs_compile():
    def error(ridge, n, p):
        return curve(n, p, ridge=ridge, noise=0.3).test_error

    at = np.array([0.1, 50.0, 70.0])
    gradient = jax.jit(jax.grad(error, argnums=(0, 1, 2)))(*at)
    for place, step in enumerate(np.diag([1e-5, 1e-3, 1e-3])):
        difference = (error(*(at + step)) - error(*(at - step))) / (2 * step.sum())
        assert_close(gradient[place], difference, factor=1e5)


@pytest.mark.slow
def test_relu_features_on_the_sphere_err_as_their_kernel_says(key):
    d, n, noise, ridge = 20, 40, 0.2, 0.02
    x = jax.random.normal(key, (500, d))
    x = x * (d**0.5 / jnp.linalg.norm(x, axis=1, keepdims=True))
    y = x[:, :1] + 0.5 * x[:, 1:2] * x[:, 2:3]
    layout = ntk.nn.Sequential(ntk.nn.Dense(8, w_std=2**0.5, b_std=0.5), ntk.nn.Relu())
    modes = theory.kernel_modes(layout.kernel(x).nngp, y)
    for p in (20, 40, 200):
        net = ntk.nn.Sequential(ntk.nn.Dense(p, w_std=2**0.5, b_std=0.5), ntk.nn.Relu())
        measured = theory.measured_bias_variance(
            theory.RandomFeatureRidge(net, ridge),
            (x, y),
            (x, y),
            n,
            key=key,
            repeats=12,
            noise=noise,
        )
        expected = theory.random_feature_curve(*modes, n, p, ridge=ridge, noise=noise)
        total = float(expected.parts.error)
        value, error = measured.error
        # A twelfth of the population is in a training set, and n is not infinite: some per cent.
        assert abs(value - total) < 4 * error + 0.05 * total
        for name in expected.parts._fields:
            found, scatter = getattr(measured.mean, name), getattr(measured.standard_error, name)
            assert abs(found - float(getattr(expected.parts, name))) < 4 * scatter + 0.03 * total
        train = measured.train_error
        allowed = 0.1 * train.mean() + 4 * train.std(ddof=1) / len(train) ** 0.5
        assert abs(train.mean() - float(expected.train_error)) < allowed


def test_gradient_features_are_the_ntk_and_fit_as_many_labels_as_are_independent(key):
    d, width = 3, 4
    net = ntk.nn.Sequential(ntk.nn.Dense(width), ntk.nn.Relu(), ntk.nn.Dense(1))
    x = jax.random.normal(key, (40, d))
    y = jax.random.normal(jax.random.key(1), (40, 1))
    params = net.init(key, (d,))
    theta = np.asarray(ntk.empirical.ntk(net.apply, params, x))[..., 0, 0]
    theta = theta.reshape(40, 40) if theta.ndim != 2 else theta
    ridge = 0.1
    for n in (10, 30):  # either system of equations
        k = theta[:n, :n] + ridge * np.eye(n)
        expected = theta[:, :n] @ np.linalg.solve(k, np.asarray(y[:n]))
        found = theory.GradientFeatures(net, ridge)(key, x[:n], y[:n])(x)
        assert_close(found, expected, factor=100)
    # The readout's gradients are in the span of the hidden layer's: d * width, not (d + 1) * width.
    assert np.linalg.matrix_rank(theta, hermitian=True, rtol=1e-5) == d * width


def test_trained_networks_are_those_of_an_ensemble(key):
    x = jax.random.normal(key, (20, 3))
    y, net = x[:, :1], ntk.nn.Sequential(ntk.nn.Dense(16), ntk.nn.Relu(), ntk.nn.Dense(1))
    optimizer = optax.adam(0.05)
    params = jax.tree.map(lambda p: p[None], net.init(key, (3,)))
    run = ntk.train.ensemble(net.apply, params, x, y, x, optimizer=optimizer, steps=10)
    found = theory.TrainedNetwork(net, optimizer, 10)(key, x, y)(x)
    assert_close(found, run.test[0, -1], factor=100)


def test_bad_input_is_named(key):
    with pytest.raises(InputError, match="whichever are fewer"):
        theory.random_feature_curve(jnp.ones(3), np.ones(3), 3.0, 5.0)
    with pytest.raises(InputError, match="one entry a mode"):
        theory.random_feature_curve(jnp.ones(3), np.ones(2), 1.0, 1.0)
    with pytest.raises(InputError, match="features positive"):
        theory.random_feature_curve(jnp.ones(3), np.ones(3), 1.0, 0.0)
    with pytest.raises(InputError, match="ridge must not be negative"):
        theory.random_feature_curve(jnp.ones(3), np.ones(3), 1.0, 2.0, ridge=-1.0)
    with pytest.raises(InputError, match="positive eigenvalue"):
        theory.optimal_ridge(jnp.zeros(3), np.ones(3), 1.0)
    with pytest.raises(InputError, match="at least 2 sets"):
        theory.bias_variance(np.ones((1, 1, 2, 3, 1)), np.ones((3, 1)))
    with pytest.raises(InputError, match="targets"):
        theory.bias_variance(np.ones((2, 1, 2, 3, 1)), np.ones((4, 1)))
    net, x = ntk.nn.Sequential(ntk.nn.Dense(4), ntk.nn.Relu()), jnp.ones((5, 2))
    with pytest.raises(InputError, match="must be positive"):
        theory.RandomFeatureRidge(net, 0.0)
    fit = theory.RandomFeatureRidge(net, 1.0)
    with pytest.raises(InputError, match="N = 5"):
        theory.measured_bias_variance(fit, (x, x), (x, x), 6, key=key)
    with pytest.raises(InputError, match="differ in shape"):
        theory.measured_bias_variance(fit, (x, x), (x, x[:, :1]), 3, key=key)
    with pytest.raises(InputError, match="one output"):
        theory.measured_bias_variance(theory.GradientFeatures(net, 1.0), (x, x), (x, x), 3, key=key)
    with pytest.raises(InputError, match="multiplicity must not be negative"):
        theory.random_feature_curve(
            jnp.ones(2), np.ones(2), 1.0, 2.0, ridge=1.0, multiplicity=np.array([1.0, -1.0])
        )
    with pytest.raises(InputError, match=r"outputs have shape \(4,\)"):
        theory.GradientFeatures(net, 1.0)(key, x, x[:, :1])
    with pytest.raises(InputError, match=r"outputs have shape \(4,\)"):
        theory.TrainedNetwork(net, optax.sgd(1.0), 1)(key, x, x[:, :1])
    data, linear = (x, jnp.ones((5, 4))), ntk.nn.Sequential(ntk.nn.Dense(4))
    unstable = theory.TrainedNetwork(linear, optax.sgd(1e6), 100)
    with pytest.raises(NumericalError, match="not finite"):
        theory.measured_bias_variance(unstable, data, data, 3, key=key)
