"""Discrete steps, plain and with momentum, against simulations of themselves."""

import decimal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntk_lab.errors import StabilityError
from ntk_lab.predict import gradient_descent, gradient_flow, max_learning_rate
from ntk_lab.predict.heavy_ball import momentum_factors, plain_factors
from tests.predict.problems import means, random_problem
from tests.tolerance import assert_close


def descent_of(p, **kwargs):
    f0 = {"f0_train": p.f0_train, "f0_test": p.f0_test}
    return gradient_descent(p.train_train.ntk, p.y, p.test_train.ntk, **(f0 | kwargs))


def simulate(p, steps, rate, momentum=0.0, ridge=0.0):
    """Every step of the training of outputs, in float64."""
    n = len(p.y)
    kernel = np.concatenate([p.train_train.ntk + ridge * np.eye(n), p.test_train.ntk])
    f, velocity = np.concatenate([p.f0_train, p.f0_test]), 0.0
    for _ in range(steps):
        velocity = kernel @ (f[:n] - p.y) / n + momentum * velocity
        f = f - rate * velocity
    return f[:n], f[n:]


@pytest.mark.parametrize("momentum", [0.0, 1e-14, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.8, 0.999])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_closed_form_equals_the_loop(momentum, fraction, ridge):
    p = random_problem()
    rate = fraction * float(max_learning_rate(p.train_train.ntk, momentum, ridge=ridge))
    descent = descent_of(p, learning_rate=rate, momentum=momentum, ridge=ridge)
    for steps in (0, 1, 2, 3, 17, 100):
        expected = simulate(p, steps, rate, momentum, ridge)
        for actual, wanted in zip(means(descent.at(steps)), expected, strict=True):
            assert_close(actual, wanted, factor=30)


@pytest.mark.x64
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_closed_form_equals_optax_on_a_linear_model(momentum):
    rng = np.random.default_rng(0)
    x, x_test, y = rng.normal(size=(6, 10)), rng.normal(size=(3, 10)), rng.normal(size=(6, 2))
    weights = start = jnp.asarray(rng.normal(size=(10, 2)))
    rate = 0.7 * float(max_learning_rate(x @ x.T, momentum))
    optimizer = optax.sgd(rate, momentum)
    state = optimizer.init(weights)
    for _ in range(25):
        gradient = jax.grad(lambda w: 0.5 * ((x @ w - y) ** 2).sum() / len(x))(weights)
        updates, state = optimizer.update(gradient, state)
        weights = optax.apply_updates(weights, updates)
    descent = gradient_descent(
        x @ x.T,
        y,
        x_test @ x.T,
        learning_rate=rate,
        momentum=momentum,
        f0_train=x @ start,
        f0_test=x_test @ start,
    )
    train, test = means(descent.at(25))
    assert_close(train, x @ weights, factor=10)
    assert_close(test, x_test @ weights, factor=10)


@pytest.mark.x64
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_halving_the_learning_rate_halves_the_gap_to_the_flow(momentum):
    p = random_problem()
    t, rate = 12.0, 0.002
    flow = gradient_flow(
        p.train_train.ntk, p.y, p.test_train.ntk, f0_train=p.f0_train, f0_test=p.f0_test
    ).at(t)
    gaps = []
    for step in (rate, rate / 2):
        steps = round(t * (1 - momentum) / step)
        descent = descent_of(p, learning_rate=step, momentum=momentum).at(steps)
        gaps.append(
            [np.linalg.norm(a - b) for a, b in zip(means(descent), means(flow), strict=True)]
        )
    ratio = np.array(gaps[0]) / np.array(gaps[1])
    np.testing.assert_allclose(ratio, 2, atol=0.1)


def test_restarting_without_momentum_continues():
    p = random_problem()
    whole = descent_of(p, learning_rate=1.0).at(12)
    half = descent_of(p, learning_rate=1.0).at(5)
    rest = descent_of(p, learning_rate=1.0, f0_train=half.train.mean, f0_test=half.test.mean).at(7)
    for actual, expected in zip(means(rest), means(whole), strict=True):
        assert_close(actual, expected, factor=10)


def test_axes_of_steps_come_first():
    p = random_problem()
    descent = descent_of(p, learning_rate=0.5)
    steps = np.array([[0, 1], [5, 1000]])
    train, test = means(descent.at(steps))
    assert (train.shape, test.shape) == ((2, 2, 8, 2), (2, 2, 5, 2))
    assert_close(test[1, 0], means(descent.at(5))[1])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_directions_without_kernel_never_move(momentum):
    rng = np.random.default_rng(3)
    features = rng.normal(size=(9, 4))
    kernel, y = features @ features.T, rng.normal(size=(9, 1))
    rate = 0.5 * float(max_learning_rate(kernel, momentum))
    descent = gradient_descent(kernel, y, kernel, learning_rate=rate, momentum=momentum)
    train, test = means(descent.at(1_000_000))
    fitted = features @ np.linalg.lstsq(features, y, rcond=None)[0]
    assert_close(train, fitted, factor=10)
    assert_close(test, fitted, factor=10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_limit_of_stability_is_where_the_error_stops_shrinking(momentum):
    p = random_problem()
    limit = float(max_learning_rate(p.train_train.ntk, momentum))

    def growth(rate):
        loop = [simulate(p, steps, rate, momentum)[0] - p.y for steps in (400, 440)]
        return np.linalg.norm(loop[1]) / np.linalg.norm(loop[0])

    assert growth(1.01 * limit) > 1
    assert growth(0.99 * limit) < 1
    descent_of(p, learning_rate=limit, momentum=momentum)  # the limit itself is allowed
    with pytest.raises(StabilityError, match=r"limit of stability .*Use 0\.99"):
        descent_of(p, learning_rate=1.01 * limit, momentum=momentum)


def test_limit_counts_the_ridge_and_is_infinite_without_kernel():
    assert_close(max_learning_rate(np.eye(4), ridge=3.0), np.array(2.0))
    assert max_learning_rate(np.zeros((2, 2))) == np.inf


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_divergence_is_predicted_under_jit_where_it_cannot_be_refused(momentum):
    p = random_problem()
    rate = 1.02 * float(max_learning_rate(p.train_train.ntk, momentum))
    predicted = jax.jit(
        lambda rate: descent_of(p, learning_rate=rate, momentum=momentum).at(60).train.mean
    )(rate)
    assert_close(predicted, simulate(p, 60, rate, momentum)[0], factor=30)


def exact_factors(x, steps, momentum):
    """What is left and learnt of a mode, step by step in 40 digits."""
    with decimal.localcontext(prec=40):
        x, m = np.array([decimal.Decimal(float(v)) for v in x]), decimal.Decimal(momentum)
        learnt = velocity = 0 * x
        rows = []
        for k in range(max(steps) + 1):
            if k in steps:
                rows.append([1 - learnt, learnt])
            velocity = 1 - learnt + m * velocity
            learnt = learnt + x * velocity
        return np.array(rows).swapaxes(0, 1).astype(float)


@pytest.mark.parametrize("momentum", [0.0, 1e-3, 0.3, 0.9, 0.99])
def test_modes_are_exact_for_a_learning_rate_off_by_rounding(momentum):
    root = momentum**0.5
    critical = [(1 - root) ** 2, (1 + root) ** 2, 1 + momentum, 1.999 * (1 + momentum)]
    x = jnp.asarray(np.concatenate([np.geomspace(1e-6, 1.99, 40), critical]))
    eps = float(jnp.finfo(x.dtype).eps)
    steps = [0, 1, 2, 7, 50, 3000]
    left, learnt = exact_factors(x, steps, momentum)
    double, delta = np.asarray(x, np.float64), 1e-7
    shifted = [exact_factors(double * (1 + d), steps, momentum)[0] for d in (delta, -delta)]
    sensitivity = np.abs(shifted[0] - shifted[1]) / (2 * delta)
    slow = double < 1e-3 * (1 - root) ** 2
    for row, count in enumerate(steps):
        count = jnp.asarray(count, jnp.int32)
        actual = momentum_factors(x, count, momentum) if momentum else plain_factors(x, count)
        tolerance = 30 * eps * (1 + sensitivity[row])
        assert (np.abs(actual[0] - left[row]) <= tolerance).all()
        assert (np.abs(actual[1] - learnt[row]) <= tolerance).all()
        relative = 30 * eps / (1 - momentum)
        np.testing.assert_allclose(actual[1][slow], learnt[row][slow], rtol=relative)


@pytest.mark.x64
def test_float32_does_not_lose_small_steps():
    p = random_problem(n=20, condition=10.0)
    kernel = p.train_train.ntk.astype(np.float32)
    # Each step is below the resolution of float32; two thousand million of them are not.
    descent = gradient_descent(kernel, p.y, learning_rate=1e-8).at(2_000_000_000)
    flow = gradient_flow(kernel.astype(np.float64), p.y).at(20.0)
    assert descent.train.mean.dtype == jnp.float32
    assert_close(descent.train.mean, flow.train.mean)
