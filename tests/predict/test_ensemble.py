"""Means and covariances over random initializations."""

import numpy as np
import pytest

from ntk_lab.kernel.result import Kernel
from ntk_lab.predict import gp_posterior, gradient_descent, gradient_flow
from tests.predict.problems import random_problem
from tests.tolerance import assert_close

WHICH = pytest.mark.parametrize("which", ["ntk", "nngp"])


def flow_of(p, **kwargs):
    return gradient_flow(p.train_train, p.y, p.test_train, p.test_test, **kwargs)


def draws_of_initial_outputs(p, count, seed=0):
    nngp = np.block(
        [[p.train_train.nngp, p.test_train.nngp.T], [p.test_train.nngp, p.test_test.nngp]]
    )
    normal = np.random.default_rng(seed).normal(size=(len(nngp), count))
    return np.split(np.linalg.cholesky(nngp) @ normal, [len(p.y)])


@pytest.mark.x64
@WHICH
@pytest.mark.parametrize("t", [0.0, 4.0, 60.0, np.inf])
def test_moments_are_those_of_trained_draws(which, t):
    p = random_problem(outputs=1)
    count = 40_000
    f0_train, f0_test = draws_of_initial_outputs(p, count)
    y = np.broadcast_to(p.y, f0_train.shape)
    theta = [getattr(k, which) for k in (p.train_train, p.test_train)]
    drawn = gradient_flow(theta[0], y, theta[1], f0_train=f0_train, f0_test=f0_test).at(t)
    predicted = flow_of(p, which=which).at(t)
    for moments, draws in zip(predicted, drawn, strict=True):
        samples, covariance = np.asarray(draws.mean), np.asarray(moments.covariance)
        variance = np.diag(covariance)
        z = (samples.mean(axis=1) - moments.mean[:, 0]) / np.sqrt(variance / count + 1e-20)
        assert np.abs(z).max() < 4
        error = np.sqrt((np.outer(variance, variance) + covariance**2) / count + 1e-20)
        assert np.abs((np.cov(samples) - covariance) / error).max() < 4.5


def test_time_zero_is_the_prior():
    p = random_problem()
    prediction = flow_of(p).at(0.0)
    assert_close(prediction.train.covariance, p.train_train.nngp)
    assert_close(prediction.test.covariance, p.test_test.nngp)
    assert not np.asarray(prediction.test.mean).any()


@WHICH
def test_mean_is_that_of_zero_initial_outputs(which):
    p = random_problem()
    theta = [getattr(k, which) for k in (p.train_train, p.test_train)]
    expected = gradient_flow(theta[0], p.y, theta[1]).at([1.0, np.inf])
    actual = flow_of(p, which=which).at([1.0, np.inf])
    assert_close(actual.train.mean, expected.train.mean)
    assert_close(actual.test.mean, expected.test.mean)


@WHICH
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_covariances_are_symmetric_and_positive_semidefinite(which, ridge):
    p = random_problem(condition=1e3, seed=2)
    prediction = flow_of(p, which=which, ridge=ridge).at([0.0, 0.1, 10.0, 1e4, np.inf])
    for moments in prediction:
        covariance = np.asarray(moments.covariance)
        np.testing.assert_array_equal(covariance, covariance.swapaxes(-1, -2))
        noise = 30 * np.finfo(covariance.dtype).eps * np.abs(covariance[0]).max()
        condition = float(flow_of(p, which=which, ridge=ridge).diagnostics.condition_number)
        assert np.linalg.eigvalsh(covariance).min() > -noise * condition


def test_training_the_last_layer_to_the_end_is_bayesian_inference():
    p = random_problem()
    trained = flow_of(p, which="nngp", ridge=0.05).at(np.inf).test
    nngp = [k.nngp for k in (p.train_train, p.test_train, p.test_test)]
    posterior = gp_posterior(nngp[0], p.y, *nngp[1:], noise=0.05)
    assert_close(trained.mean, posterior.mean)
    assert_close(trained.covariance, posterior.covariance)


def test_training_all_layers_on_the_nngp_equals_training_the_last():
    p = random_problem()
    equal = p._replace(
        train_train=p.train_train._replace(ntk=p.train_train.nngp),
        test_train=p.test_train._replace(ntk=p.test_train.nngp),
    )
    first, second = (flow_of(equal, which=w).at(3.0) for w in ("ntk", "nngp"))
    assert_close(first.test.covariance, second.test.covariance, factor=10)
    assert_close(first.train.covariance, second.train.covariance, factor=10)


def test_duplicated_points_stay_perfectly_correlated():
    kernel = np.array([[2.0, 2.0, 0.5], [2.0, 2.0, 0.5], [0.5, 0.5, 1.0]])
    both = Kernel(kernel, 1.5 * kernel)
    y = np.array([[1.0], [3.0], [-1.0]])
    prediction = gradient_flow(both, y, both, both).at([5.0, np.inf])
    for covariance in (prediction.train.covariance, prediction.test.covariance):
        spread = covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1]
        np.testing.assert_allclose(spread, 0, atol=1e-5)
        np.testing.assert_allclose(covariance[1], 0, atol=1e-5)


def test_descent_at_a_small_rate_has_the_covariance_of_the_flow():
    p = random_problem()
    flow = flow_of(p).at(10.0)
    descent = gradient_descent(
        p.train_train, p.y, p.test_train, p.test_test, learning_rate=1e-4
    ).at(100_000)
    np.testing.assert_allclose(descent.test.covariance, flow.test.covariance, atol=1e-4)
    np.testing.assert_allclose(descent.train.covariance, flow.train.covariance, atol=1e-4)


def test_given_initial_outputs_leave_no_covariance():
    p = random_problem()
    prediction = flow_of(p, f0_train=p.f0_train, f0_test=p.f0_test).at(1.0)
    assert prediction.train.covariance is None
    assert prediction.test.covariance is None


def test_covariance_on_the_test_set_needs_its_kernel():
    p = random_problem()
    prediction = gradient_flow(p.train_train, p.y, p.test_train).at(1.0)
    assert prediction.train.covariance is not None
    assert prediction.test.covariance is None


def test_covariance_with_output_axes_keeps_them():
    p = random_problem(n=4, n_test=3, outputs=2)
    mixing = np.array([[1.0, 0.0], [0.0, 2.0]])
    full = [
        Kernel(*(np.einsum("ab,cd->abcd", part, mixing) for part in kernel))
        for kernel in (p.train_train, p.test_train, p.test_test)
    ]
    prediction = gradient_flow(full[0], p.y, *full[1:]).at([1.0, 2.0])
    assert prediction.test.covariance.shape == (2, 3, 3, 2, 2)
    for output in range(2):
        alone = [Kernel(*(part[..., output, output] for part in k)) for k in full]
        expected = gradient_flow(alone[0], p.y[:, [output]], *alone[1:]).at([1.0, 2.0])
        actual = prediction.test.covariance[..., output, output]
        assert_close(actual, expected.test.covariance, factor=10)
