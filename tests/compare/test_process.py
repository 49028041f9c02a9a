"""Ensembles over initializations: draws of the predicted process pass, others do not."""

import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.compare.process import fit_of_ensemble, predict_process
from tests.compare.problems import hidden, regression

STEPS = np.asarray([3, 30])


@pytest.fixture(scope="module")
def process():
    (x, y), (x_test, _) = regression(2)
    net = hidden(2)
    kernels = net.kernel(x), net.kernel(x_test, x), net.kernel(x_test)
    return kernels, predict_process(kernels, y, 0.5, STEPS)


def draws(kernels, count, scale=1.0, shift=0.0):
    """Test outputs drawn from the predicted distribution, ``(count, T, m, C)``."""
    (_, y), _ = regression(2)
    test = ntk.predict.gradient_descent(kernels[0], y, *kernels[1:], learning_rate=0.5)
    mean, covariance = (np.asarray(v, np.float64) for v in test.at(STEPS).test)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))[:, None]
    noise = np.random.default_rng(0).standard_normal((count, *mean.shape))
    return mean * (1 + shift) + scale * np.einsum("tmk,stkc->stmc", root, noise)


def fits(process, f):
    measured = [process.measure(one) for one in f]
    return [
        fit_of_ensemble(*(np.asarray([m[f"ensemble/{n}"][j] for m in measured]) for n in
                          ("z", "spread", "coverage")))
        for j in range(len(STEPS))
    ]  # fmt: skip


@pytest.mark.x64
def test_draws_of_the_process_have_unit_scores_and_nominal_coverage(process):
    kernels, predicted = process
    f = draws(kernels, 4000)
    z = np.asarray([predicted.measure(one)["ensemble/z"] for one in f])
    np.testing.assert_allclose(z.std(axis=0), 1, atol=3 * (2 * 4000) ** -0.5 * 1.5)
    for fit in fits(predicted, f):
        assert abs(fit.z) < 3
        assert abs(fit.spread - 1) < 4 * fit.spread_error
        assert abs(fit.coverage - fit.level) < 4 * fit.coverage_error
        assert fit.calibrated(0.999)


@pytest.mark.x64
def test_another_mean_or_spread_is_found_out(process):
    kernels, predicted = process
    shifted = fits(predicted, draws(kernels, 100, shift=1.0))
    assert all(abs(fit.z) > 4 for fit in shifted)
    assert not any(fit.calibrated(0.95) for fit in shifted)
    wide = fits(predicted, draws(kernels, 100, scale=1.5))
    assert all(fit.spread == pytest.approx(2.25, rel=0.2) for fit in wide)
    assert not any(fit.calibrated(0.95) for fit in wide)


def test_wide_networks_are_the_predicted_ensemble():
    c = ntk.compare(
        hidden(2), *regression(2), widths=(256,), seeds=24, steps=20, record=(20,),
        learning_rate=0.15,
    )  # fmt: skip
    fit = c.ensemble()
    assert fit.calibrated(0.99)
    assert "as predicted (mean off by" in str(c)
    assert c.dataset["ensemble"].dims == ("statistic", "width", "seed", "step")


def test_there_is_no_ensemble_of_one_seed():
    c = ntk.compare(hidden(1), *regression(1), widths=(8,), seeds=1, steps=3, learning_rate=0.1)
    assert c.ensemble() is None


def test_directions_without_predicted_spread_do_not_count():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(14, 2))
    net = ntk.nn.Sequential(ntk.nn.Dense(4), ntk.nn.Dense(1))  # a covariance of rank 2
    kernels = net.kernel(x[:8]), net.kernel(x[8:], x[:8]), net.kernel(x[8:])
    process = predict_process(kernels, x[:8, :1] * x[:8, 1:], 0.01, STEPS)
    assert (process.white.any(axis=1).sum(axis=1) == 2).all()
    values, vectors = np.linalg.eigh(np.asarray(kernels[2].nngp, np.float64))
    draw = (vectors[:, -2:] * np.sqrt(values[-2:])).sum(axis=1)[:, None]
    assert (process.measure(process.mean + draw)["ensemble/spread"] < 4).all()


def test_an_ensemble_that_fits_is_called_calibrated_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for seeds in (2, 4, 8):
        spread = (rng.standard_normal((2000, seeds, 10)) ** 2).mean(axis=2)
        runs = [fit_of_ensemble(np.zeros(seeds), s, np.full(seeds, 0.9)) for s in spread]
        wrong = np.mean([not run.calibrated(0.9) for run in runs])
        assert wrong < 0.08  # 0.05, more as squares of normal numbers are skewed
