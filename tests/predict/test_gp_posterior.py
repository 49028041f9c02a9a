"""Gaussian process regression against textbook formulas."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from ntk_lab.errors import InputError
from ntk_lab.predict import gp_posterior
from tests.predict.problems import random_problem
from tests.tolerance import assert_close


def nngp_of(p):
    return p.train_train.nngp, p.test_train.nngp, p.test_test.nngp


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_posterior_conditions_the_joint_gaussian(noise):
    p = random_problem()
    dd, td, tt = nngp_of(p)
    posterior = gp_posterior(dd, p.y, td, tt, noise=noise)
    noisy = dd + noise * np.eye(len(dd))
    assert_close(posterior.mean, td @ np.linalg.solve(noisy, p.y), factor=10)
    assert_close(posterior.covariance, tt - td @ np.linalg.solve(noisy, td.T), factor=30)
    density = multivariate_normal(np.zeros(len(dd)), noisy)
    assert_close(posterior.log_marginal_likelihood, density.logpdf(p.y.T).sum(), factor=10)
    condition = np.linalg.cond(noisy)
    assert float(posterior.diagnostics.condition_number) == pytest.approx(condition, rel=1e-3)


def test_marginal_likelihood_is_the_product_of_predictive_densities():
    p = random_problem(outputs=1)
    dd, td, _ = nngp_of(p)
    before = gp_posterior(dd[:-1, :-1], p.y[:-1], dd[-1:, :-1], dd[-1:, -1:], noise=0.1)
    after = gp_posterior(dd, p.y, td, noise=0.1)
    variance = before.covariance[0, 0] + 0.1
    residual = p.y[-1, 0] - before.mean[0, 0]
    predictive = -0.5 * (residual**2 / variance + np.log(2 * np.pi * variance))
    expected = before.log_marginal_likelihood + predictive
    assert_close(after.log_marginal_likelihood, np.asarray(expected), factor=10)


def test_singular_kernel_has_a_posterior_but_no_density():
    kernel = np.array([[1.0, 1.0], [1.0, 1.0]])
    posterior = gp_posterior(kernel, np.array([[2.0], [2.0]]), kernel[:1], kernel[:1, :1])
    assert_close(posterior.mean, np.array([[2.0]]))
    np.testing.assert_allclose(posterior.covariance, 0, atol=1e-6)
    assert np.isnan(posterior.log_marginal_likelihood)
    assert posterior.diagnostics.rank == 1


def test_which_kernel_must_be_said():
    p = random_problem()
    with pytest.raises(InputError, match=r"Pass its \.nngp or its \.ntk"):
        gp_posterior(p.train_train, p.y, p.test_train)
