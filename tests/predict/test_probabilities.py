"""Class probabilities of single networks and of ensembles."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from ntk_lab.errors import InputError
from ntk_lab.kernel.result import Kernel
from ntk_lab.predict import Moments, gradient_flow
from tests.predict.problems import random_problem
from tests.tolerance import assert_close


def test_without_key_it_is_the_softmax_of_the_mean():
    p = random_problem(outputs=3)
    moments = gradient_flow(p.train_train, p.y, p.test_train, p.test_test).at([1.0, 9.0]).test
    found = moments.probabilities()
    assert_close(found.value, special.softmax(moments.mean, axis=-1))
    assert not np.asarray(found.standard_error).any()


@pytest.mark.parametrize("variance", [0.0, 0.5, 30.0])
def test_one_output_is_the_mean_sigmoid(key, variance):
    moments = Moments(jnp.array([[1.5]]), jnp.array([[variance]]))
    found = moments.probabilities(key, samples=20_000)
    expected = special.expit(1.5)
    if variance:
        normal = stats.norm(1.5, variance**0.5)
        expected = integrate.quad(lambda f: special.expit(f) * normal.pdf(f), -40, 40)[0]
    z = (float(found.value[0, 0]) - expected) / (float(found.standard_error[0, 0]) + 1e-6)
    assert abs(z) < 4


def test_the_mean_softmax_over_initializations_is_that_of_draws(key):
    p = random_problem(outputs=2)
    mixing = np.array([[1.0, 0.8], [0.8, 1.0]])
    axes = [
        Kernel(*(np.einsum("ab,cd->abcd", part, mixing) for part in k))
        for k in (p.train_train, p.test_train, p.test_test)
    ]
    moments = gradient_flow(axes[0], p.y, *axes[1:]).at([0.5, 4.0]).test
    found = moments.probabilities(key, samples=20_000)
    n, count = len(p.f0_test), 20_000
    for time in range(2):
        covariance = np.asarray(moments.covariance[time], np.float64)
        flat = covariance.transpose(0, 2, 1, 3).reshape(2 * n, 2 * n)
        draws = np.random.default_rng(0).multivariate_normal(
            np.ravel(moments.mean[time]), flat, count, method="eigh"
        )
        soft = special.softmax(draws.reshape(count, n, 2), axis=-1)
        error = np.hypot(soft.std(axis=0) / count**0.5, found.standard_error[time])
        assert np.abs((soft.mean(axis=0) - found.value[time]) / error).max() < 4
    np.testing.assert_allclose(found.value.sum(axis=-1), 1, rtol=1e-5)


def test_a_key_needs_a_covariance_and_two_samples(key):
    moments = Moments(jnp.ones((3, 2)), None)
    with pytest.raises(InputError, match="there is no covariance"):
        moments.probabilities(key)
    with pytest.raises(InputError, match="at least 2"):
        moments._replace(covariance=jnp.eye(3)).probabilities(key, samples=1)
