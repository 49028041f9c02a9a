"""Gradient flow for given initial outputs: closed form, limits, degenerate kernels."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ntk_lab.predict import gradient_flow
from tests.predict.problems import means, random_problem
from tests.tolerance import assert_close

EPS = float(jnp.finfo(jnp.result_type(float)).eps)


def flow_of(p, **kwargs):
    f0 = {"f0_train": p.f0_train, "f0_test": p.f0_test}
    return gradient_flow(p.train_train.ntk, p.y, p.test_train.ntk, **(f0 | kwargs))


def integrate(p, t, ridge=0.0):
    """The differential equation itself, solved by scipy."""
    n, outputs = p.y.shape
    training = p.train_train.ntk + ridge * np.eye(n)
    kernel = np.concatenate([training, p.test_train.ntk])

    def slope(_, f):
        return (-kernel @ (f.reshape(-1, outputs)[:n] - p.y) / n).ravel()

    start = np.concatenate([p.f0_train, p.f0_test])
    solution = solve_ivp(slope, (0, t), start.ravel(), method="DOP853", rtol=1e-11, atol=1e-12)
    end = solution.y[:, -1].reshape(-1, outputs)
    return end[:n], end[n:]


@pytest.mark.x64
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("t", [0.1, 3.0, 200.0])
def test_closed_form_solves_the_differential_equation(t, ridge):
    p = random_problem()
    train, test = means(flow_of(p, ridge=ridge).at(t))
    expected_train, expected_test = integrate(p, t, ridge)
    np.testing.assert_allclose(train, expected_train, rtol=0, atol=1e-9)
    np.testing.assert_allclose(test, expected_test, rtol=0, atol=1e-9)


def test_time_zero_is_the_initial_function_exactly():
    p = random_problem()
    train, test = means(flow_of(p).at(0.0))
    np.testing.assert_array_equal(train, p.f0_train.astype(train.dtype))
    np.testing.assert_array_equal(test, p.f0_test.astype(test.dtype))


@pytest.mark.parametrize("infinity", [math.inf, jnp.inf, np.float64("inf"), 1e300])
def test_infinite_time_is_kernel_regression(infinity):
    p = random_problem()
    train, test = means(flow_of(p).at(infinity))
    solved = np.linalg.solve(p.train_train.ntk, p.y - p.f0_train)
    assert_close(train, p.y, factor=10)
    assert_close(test, p.f0_test + p.test_train.ntk @ solved, factor=10)


def test_ridge_gives_kernel_ridge_regression_with_the_training_set_as_test_set():
    p = random_problem()
    kernel = p.train_train.ntk
    flow = gradient_flow(kernel, p.y, kernel, ridge=0.2)
    expected = kernel @ np.linalg.solve(kernel + 0.2 * np.eye(len(kernel)), p.y)
    assert_close(flow.at(np.inf).test.mean, expected, factor=10)
    assert flow.diagnostics.ridge == np.asarray(0.2, flow.diagnostics.ridge.dtype)


def test_training_set_as_test_set_is_the_training_prediction_without_ridge():
    p = random_problem()
    flow = gradient_flow(p.train_train.ntk, p.y, p.train_train.ntk)
    train, test = means(flow.at([0.5, 20.0]))
    assert_close(test, train, factor=10)


def test_restarting_from_the_prediction_continues_it():
    p = random_problem()
    whole = flow_of(p, ridge=0.1).at(7.0)
    half = flow_of(p, ridge=0.1).at(2.5)
    rest = flow_of(p, ridge=0.1, f0_train=half.train.mean, f0_test=half.test.mean).at(4.5)
    for actual, expected in zip(means(rest), means(whole), strict=True):
        assert_close(actual, expected, factor=10)


def test_axes_of_times_come_first():
    p = random_problem()
    flow = flow_of(p)
    times = np.array([[0.0, 0.3, 2.0], [5.0, 90.0, np.inf]])
    train, test = means(flow.at(times))
    assert (train.shape, test.shape) == ((2, 3, 8, 2), (2, 3, 5, 2))
    for index in np.ndindex(times.shape):
        for actual, expected in zip((train, test), means(flow.at(times[index])), strict=True):
            assert_close(actual[index], expected)
    assert flow.at([]).train.mean.shape == (0, 8, 2)
    assert_close(flow.at(2).train.mean, flow.at(2.0).train.mean)


def test_initial_outputs_default_to_zero_and_test_set_is_optional():
    p = random_problem()
    prediction = gradient_flow(p.train_train.ntk, p.y).at(1.0)
    zero = flow_of(p, f0_train=0 * p.f0_train, f0_test=0 * p.f0_test).at(1.0)
    assert prediction.test is None
    assert prediction.train.covariance is None
    assert_close(prediction.train.mean, zero.train.mean)


def test_error_halves_in_each_mode_after_log_two_time_scales():
    p = random_problem()
    flow = gradient_flow(p.train_train.ntk, p.y)
    values, vectors = np.linalg.eigh(p.train_train.ntk)
    assert_close(flow.time_scales, len(values) / values, factor=10)
    flow = gradient_flow(p.train_train.ntk, vectors)  # one mode as target of each output
    for mode, scale in enumerate(flow.time_scales):
        left = vectors[:, mode] - flow.at(scale * np.log(2)).train.mean[:, mode]
        assert_close(left, vectors[:, mode] / 2, factor=10)


@pytest.mark.parametrize("t", [1.0, 1e6, 1e30, np.inf])
def test_duplicated_points_learn_the_mean_of_their_targets(t):
    kernel = np.array([[2.0, 2.0, 0.5], [2.0, 2.0, 0.5], [0.5, 0.5, 1.0]])
    y = np.array([[1.0], [3.0], [-1.0]])
    f0 = np.array([[0.5], [-0.5], [0.0]])  # not a function of the input: never unlearnt
    flow = gradient_flow(kernel, y, kernel[:1], f0_train=f0, f0_test=f0[:1])
    train, test = means(flow.at(t))
    assert flow.diagnostics.rank == 2
    assert_close(train[0] - train[1], np.array([1.0]), factor=10)
    assert_close(test, train[:1], factor=10)
    if t >= 1e6:
        assert_close(train, np.array([[2.5], [1.5], [-1.0]]), factor=10)


def test_directions_without_kernel_keep_the_initial_outputs_forever():
    rng = np.random.default_rng(3)
    features, more = rng.normal(size=(9, 4)), rng.normal(size=(3, 4))
    p = random_problem(n=9, n_test=3)
    flow = gradient_flow(
        features @ features.T, p.y, more @ features.T, f0_train=p.f0_train, f0_test=p.f0_test
    )
    train, test = means(flow.at(np.inf))
    weights = np.linalg.lstsq(features, p.y - p.f0_train, rcond=None)[0]
    assert flow.diagnostics.rank == 4
    assert np.isinf(flow.time_scales[:5]).all()
    assert_close(train, p.f0_train + features @ weights, factor=10)
    assert_close(test, p.f0_test + more @ weights, factor=10)


def test_zero_kernel_learns_nothing():
    p = random_problem()
    flow = gradient_flow(0 * p.train_train.ntk, p.y, 0 * p.test_train.ntk)
    for mean in means(flow.at([1.0, np.inf])):
        assert not mean.any()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scaling_the_kernel_scales_time(scale):
    p = random_problem()
    flow = gradient_flow(scale * p.train_train.ntk, p.y, scale * p.test_train.ntk)
    for t in (0.7, np.inf):
        expected = means(gradient_flow(p.train_train.ntk, p.y, p.test_train.ntk).at(t))
        for actual, wanted in zip(means(flow.at(t / scale)), expected, strict=True):
            assert_close(actual, wanted, factor=20)


def test_output_axes_are_flattened_with_the_number_of_examples_unchanged():
    p = random_problem(n=6, n_test=2, outputs=3)
    mixing = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.5]])
    full = [np.einsum("ab,cd->abcd", k.ntk, mixing) for k in (p.train_train, p.test_train)]
    flow = gradient_flow(full[0], p.y, full[1], f0_train=p.f0_train, f0_test=p.f0_test)
    train, test = means(flow.at(3.0))
    values, basis = np.linalg.eigh(mixing)  # in this basis outputs are independent
    for index, value in enumerate(values):
        scaled = gradient_flow(
            value * p.train_train.ntk,
            p.y @ basis[:, [index]],
            value * p.test_train.ntk,
            f0_train=p.f0_train @ basis[:, [index]],
            f0_test=p.f0_test @ basis[:, [index]],
        )
        expected_train, expected_test = means(scaled.at(3.0))
        assert_close(train @ basis[:, [index]].astype(train.dtype), expected_train, factor=10)
        assert_close(test @ basis[:, [index]].astype(test.dtype), expected_test, factor=10)


@pytest.mark.x64
def test_float32_is_a_few_eps_from_float64_on_the_training_set():
    p = random_problem(n=60, condition=1e4, seed=5)
    kernel = p.train_train.ntk.astype(np.float32)
    exact = gradient_flow(kernel.astype(np.float64), p.y)
    flow = gradient_flow(kernel, p.y)
    largest = float(exact.diagnostics.largest_eigenvalue) / len(kernel)
    for t in (0.0, 1e-3, 1.0, 30.0, 1e4, 1e9):
        mean, reference = flow.at(t).train.mean, exact.at(t).train.mean
        assert mean.dtype == jnp.float32
        # The error of an eigenvalue, eps * lambda_max, matters for t * lambda / n of order 1.
        bound = 4 * np.finfo(np.float32).eps * np.linalg.norm(p.y) * (1 + min(t * largest, 1e4))
        assert np.abs(np.asarray(mean, np.float64) - np.asarray(reference)).max() < bound


@pytest.mark.x64
def test_float32_keeps_relative_accuracy_at_early_times():
    p = random_problem(n=30, seed=6)
    blocks = [k.ntk.astype(np.float32) for k in (p.train_train, p.test_train)]
    early = means(gradient_flow(blocks[0], p.y, blocks[1]).at(1e-6))
    slope = [k.astype(np.float64) @ p.y * 1e-6 / 30 for k in blocks]
    for actual, expected in zip(early, slope, strict=True):
        assert_close(actual, expected, factor=2)
