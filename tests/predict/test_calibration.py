"""Coverage and scores of predictions whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from ntk_lab.errors import InputError
from ntk_lab.predict import Moments, calibration, gp_posterior
from tests.tolerance import assert_close


def test_targets_drawn_from_the_prediction_are_covered_as_promised():
    rng = np.random.default_rng(0)
    mean, deviation = rng.normal(size=(5000, 2)), rng.uniform(0.5, 2, size=5000)
    y = mean + np.sqrt(deviation[:, None] ** 2 + 0.3) * rng.normal(size=mean.shape)
    moments = Moments(mean, np.diag(deviation**2))
    found = calibration(moments, y, noise=0.3)
    z = (found.coverage.value - found.levels) / found.coverage.standard_error
    assert np.abs(z).max() < 4
    assert abs(found.spread.value - 1) < 4 * found.spread.standard_error
    expected = stats.norm(mean, np.sqrt(deviation[:, None] ** 2 + 0.3)).logpdf(y).mean()
    assert_close(found.log_score.value, np.asarray(expected))
    assert found.count == 10_000
    too_sure = calibration(moments._replace(covariance=0.25 * moments.covariance), y)
    assert (too_sure.coverage.value < found.coverage.value).all()
    assert too_sure.log_score.value < found.log_score.value
    assert too_sure.spread.value > 3


def test_a_posterior_is_calibrated_on_draws_from_its_own_prior():
    rng = np.random.default_rng(1)
    x = rng.uniform(-3, 3, size=(60, 1))
    kernel = np.exp(-((x - x.T) ** 2) / 2)
    outputs, n, noise = 400, 20, 0.1
    root = np.linalg.cholesky(kernel + 1e-9 * np.eye(60))
    y = root @ rng.normal(size=(60, outputs)) + noise**0.5 * rng.normal(size=(60, outputs))
    posterior = gp_posterior(kernel[:n, :n], y[:n], kernel[n:, :n], kernel[n:, n:], noise=noise)
    found = calibration(posterior, y[n:], noise=noise, levels=[0.5, 0.9])
    # Test points are correlated: there are fewer than 40 independent ones for each output.
    np.testing.assert_allclose(found.coverage.value, [0.5, 0.9], atol=0.03)


def test_output_axes_use_the_variance_of_each_output():
    covariance = np.einsum("ab,cd->abcd", np.diag([1.0, 4.0]), np.diag([1.0, 9.0]))
    y = np.array([[1.0, 3.0], [2.0, 6.0]])  # each one deviation from the mean
    found = calibration(Moments(np.zeros((2, 2)), covariance), y, levels=[0.68, 0.69])
    np.testing.assert_array_equal(found.coverage.value, [0.0, 1.0])
    assert_close(found.spread.value, np.asarray(1.0))


def test_what_cannot_be_calibrated_is_named():
    mean, one = np.zeros((2, 1)), np.eye(2)
    for arguments, options, message in (
        ((Moments(mean, None), mean), {}, "no covariance"),
        ((Moments(mean[None], one[None]), mean), {}, "expected one time"),
        ((Moments(mean, one), mean[:1]), {}, "y has shape"),
        ((Moments(mean, 0 * one), mean), {}, "2 of 2 predicted variances are not positive"),
        ((Moments(mean, one), mean), {"levels": [0.0]}, "between 0 and 1"),
        ((Moments(mean, one), mean), {"noise": -1.0}, "noise is -1"),
        ((Moments(mean, one), mean), {"noise": np.ones(2)}, "noise has shape"),
        ((Moments(mean * np.nan, one), mean), {}, "mean has 2 NaN"),
    ):
        with pytest.raises(InputError, match=message):
            calibration(*arguments, **options)
