"""Regressions of linear cost on random features, and regressions that are stopped at some time."""

import jax
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import ConvergenceError, InputError
from ntk_lab.predict import regress_methods as methods
from tests.predict.test_regress import DTYPE, NET, SINGLE, X_TEST, Stopped, X, Y, exact, fit
from tests.tolerance import assert_close

TIMES = np.array([0.0, 3.0, 40.0, 1000.0])
# The closed form's own accuracy in the kernel's dtype, over outputs of order one.
ROUNDING = 2e-4 if SINGLE else 1e-8


def closed_form(times=TIMES, ridge=0.0, which="ntk"):
    train, test = (getattr(k, which) for k in (NET.kernel(X), NET.kernel(X_TEST, X)))
    flow = ntk.predict.gradient_flow(train, Y.astype(DTYPE), test, ridge=ridge)
    return np.asarray(flow.at(times).test.mean, np.float64)


@pytest.mark.parametrize(("which", "ridge"), [("ntk", 0.0), ("nngp", 0.3)])
def test_a_stopped_flow_is_that_of_the_closed_form(which, ridge):
    found = fit(which=which, ridge=ridge, time=TIMES)
    predicted = found.predict(X_TEST)
    assert isinstance(predicted, jax.Array)
    assert predicted.shape == (4, 9, 2)
    assert predicted.dtype == DTYPE
    expected = closed_form(ridge=ridge, which=which)
    np.testing.assert_allclose(predicted, expected, atol=ROUNDING, rtol=0)
    assert found.method == "lanczos"
    assert found.coefficients.shape == (4, 40, 2)
    assert found.relative_residual.shape == found.error_bound.shape == (4, 2)
    assert (found.relative_residual <= (1e-5 if SINGLE else 1e-9)).all()
    np.testing.assert_array_equal(found.coefficients[0], 0)
    assert "estimated relative error of training outputs" in str(found)
    assert "residual" not in str(found)


def test_one_time_and_training_to_the_end():
    found = fit(time=np.inf)
    assert found.predict(X_TEST).shape == (9, 2)
    np.testing.assert_allclose(found.predict(X_TEST), exact(), atol=1e-3 if SINGLE else 1e-6)


def test_estimated_errors_are_of_the_size_of_the_errors():
    with pytest.raises(ConvergenceError, match="after 8 products") as caught:
        fit(ridge=0.0, time=TIMES[1:], max_iterations=8)
    found = caught.value.result
    rough, right = found.predict(X), fit(ridge=0.0, time=TIMES[1:]).predict(X)
    error = np.linalg.norm(rough - right, axis=1) / np.linalg.norm(right, axis=1)
    assert error[-1].max() > 1e-3  # there is something to estimate
    large = error > 1e-4
    ratio = found.relative_residual[large] / error[large]
    assert (ratio > 0.5).all()
    assert (ratio < 50).all()
    variances = np.diag(np.asarray(NET.kernel(X_TEST).ntk))
    gap = np.abs(found.predict(X_TEST) - closed_form(TIMES[1:]))
    bound = found.error_bound[:, None, :] * np.sqrt(variances)[None, :, None]
    assert (gap <= 3 * bound + ROUNDING).all()


def test_where_tiles_come_from_does_not_matter_to_a_flow(tmp_path, monkeypatch):
    monkeypatch.setattr("ntk_lab.kernel.computed._LARGEST", 16)
    expected = fit(time=TIMES)
    assert "kernel in memory" in expected.reason
    pytest.importorskip("zarr")
    stored = fit(time=TIMES, store=tmp_path / "k.zarr")
    assert "on disk" in stored.reason
    np.testing.assert_array_equal(stored.coefficients, expected.coefficients)
    spread = fit(time=TIMES, mesh=jax.make_mesh((jax.device_count(),), ("rows",)))
    np.testing.assert_allclose(spread.predict(X_TEST), expected.predict(X_TEST), atol=ROUNDING)


def test_early_stopping_takes_the_best_of_the_times():
    found = fit(ridge=0.0, time=TIMES)
    outputs = np.asarray(found.predict(X_TEST))
    truth = outputs[2] + 0.1 * (outputs[1] - outputs[2])
    stopped = found.at_best_time(X_TEST, truth)
    assert stopped.time == TIMES[2]
    assert stopped.error_bound.shape == (2,)
    assert_close(stopped.predict(X_TEST), outputs[2])
    with pytest.raises(InputError, match="needs times"):
        stopped.at_best_time(X_TEST, truth)
    with pytest.raises(InputError, match="y has shape"):
        found.at_best_time(X_TEST, truth[:, :1])


@pytest.mark.slow
@pytest.mark.parametrize("which", ["ntk", "nngp"])
def test_random_features_tend_to_the_kernel(which):
    found = fit(ridge=0.5, which=which, method="features", features=500)
    assert found.method == "features"
    assert found.centres is None
    phi, test = (np.asarray(found.features(x), np.float64) for x in (X, X_TEST))
    dense = test @ np.linalg.solve(phi.T @ phi + 0.5 * np.eye(500), phi.T @ Y)
    np.testing.assert_allclose(found.predict(X_TEST), dense, atol=1e-4 if SINGLE else 1e-10)
    error = np.linalg.norm(Y - phi @ found.coefficients, axis=0) / np.linalg.norm(Y, axis=0)
    np.testing.assert_allclose(found.details["train_error"], error, rtol=1e-4)
    assert "RandomFeatures(500 of the" in str(found)
    gaps = []
    for count in (125, 8000):
        near = fit(ridge=0.5, which=which, method="features", features=count).predict(X_TEST)
        gaps.append(np.linalg.norm(near - exact(which, ridge=0.5)))
    assert gaps[1] < gaps[0] / 3  # 8 expected


def test_residuals_are_named_for_what_they_are():
    assert "\nrelative residual " in str(fit(method="cg"))
    for options in ({"method": "nystrom", "centres": 20}, {"method": "features", "features": 50}):
        assert "\nrelative residual of the normal equations " in str(fit(**options))


def test_an_interrupted_regression_on_features_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "_SECONDS", -1.0)
    monkeypatch.setattr("ntk_lab.kernel.feature_map._ENTRIES", 3000)
    options = {"method": "features", "features": 200}
    expected, calls = fit(**options), []

    def stop(p):
        calls.append(p)
        if len(calls) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        fit(**options, checkpoint=tmp_path / "c", progress=stop)
    calls.clear()
    resumed = fit(**options, checkpoint=tmp_path / "c", progress=calls.append)
    assert calls[0].done > 16
    np.testing.assert_allclose(
        resumed.predict(X_TEST), expected.predict(X_TEST), atol=1e-3 if SINGLE else 1e-8
    )
    with pytest.raises(InputError, match="another regression: draws differ"):
        fit(**options, seed=1, checkpoint=tmp_path / "c")


BAD = {
    "give time": {"method": "lanczos"},
    "numbers >= 0": {"time": -1.0},
    'the method is "lanczos"': {"time": 1.0, "method": "nystrom"},
    "no checkpoint": {"time": 1.0, "checkpoint": "c"},
    "features need": {"method": "features", "features": 2000, "memory": 1e8},
    "leave out store": {"method": "features", "store": "k.zarr"},
    "are not known": {
        "method": "features",
        "net": ntk.nn.Sequential(ntk.nn.Dense(8), ntk.nn.Erf(), ntk.nn.Dense(1)),
    },
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_refused(words):
    with pytest.raises(InputError, match=words):
        fit(**BAD[words])


def test_a_flow_of_one_product_claims_no_accuracy():
    with pytest.raises(ConvergenceError) as caught:
        fit(ridge=0.1, time=100.0, max_iterations=1)
    assert (caught.value.result.relative_residual == 1).all()
    assert (caught.value.result.error_bound > 0).all()


def test_times_beyond_the_memory_and_targets_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="fewer times"):
        fit(ridge=0.1, time=np.full(100_000, 1.0), memory=1e7)
    found = fit(ridge=0.1, time=TIMES)
    with pytest.raises(InputError, match="NaN"):
        found.at_best_time(X, np.full_like(Y, np.nan))
