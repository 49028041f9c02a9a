"""Kernel ridge regression by every method: the same predictions, bounds that hold, clear errors."""

import importlib

import jax
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import ConvergenceError, InputError, NumericalError
from ntk_lab.predict import regress_methods as methods

entry = importlib.import_module(
    "ntk_lab.predict.regress"
)  # the package has a function of that name
SINGLE = not jax.config.jax_enable_x64
DTYPE = np.dtype("float32" if SINGLE else "float64")
RNG = np.random.default_rng(0)
X, X_TEST = (RNG.normal(size=(n, 3)).astype(DTYPE) for n in (40, 9))
Y = np.stack([np.sin(2 * X[:, 0]), X[:, 1] * X[:, 2]], axis=1)
NET = ntk.nn.Sequential(ntk.nn.Dense(8, b_std=0.5), ntk.nn.Relu(), ntk.nn.Dense(1))
RIDGE, TOL = 1e-2, 1e-5 if SINGLE else 1e-9


def fit(x=X, y=Y, net=NET, **options):
    return ntk.predict.regress(net, x, y, **{"ridge": RIDGE, **options})


def exact(which="ntk", x_test=X_TEST, ridge=RIDGE):
    k = np.asarray(getattr(NET.kernel(X), which), np.float64)
    a = np.linalg.solve(k + ridge * np.eye(len(k)), Y)
    return np.asarray(getattr(NET.kernel(x_test, X), which), np.float64) @ a


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr("ntk_lab.kernel.computed._LARGEST", 16)


@pytest.mark.parametrize("which", ["ntk", "nngp"])
@pytest.mark.parametrize("method", ["cholesky", "cg"])
def test_exact_methods_agree_with_dense_algebra(method, which, small_tiles):
    found = fit(which=which, method=method)
    predicted = found.predict(X_TEST)
    assert isinstance(predicted, jax.Array)
    assert predicted.dtype == DTYPE
    assert found.method == method
    assert found.relative_residual.shape == (2,)
    assert (found.relative_residual < TOL).all()
    variances = np.diag(np.asarray(getattr(NET.kernel(X_TEST), which)))
    bound = found.error_bound[None, :] * np.sqrt(variances)[:, None]
    rounding = 200 * np.finfo(DTYPE).eps
    assert (np.abs(predicted - exact(which)) <= bound + rounding).all()
    assert bound.max() < (1e-3 if SINGLE else 1e-7)
    assert method in str(found)


def test_where_tiles_come_from_does_not_matter(tmp_path, monkeypatch, small_tiles):
    expected = fit(method="cg")
    assert "kernel in memory" in expected.reason
    pytest.importorskip("zarr")
    stored = fit(method="cg", store=tmp_path / "k.zarr")
    assert "on disk" in stored.reason
    np.testing.assert_array_equal(stored.coefficients, expected.coefficients)
    assert ntk.kernel.open_store(tmp_path / "k.zarr").complete
    monkeypatch.setattr(entry, "_SHARE", 0.0)
    anew = fit(method="cg")
    assert "computed anew" in anew.reason
    np.testing.assert_array_equal(anew.coefficients, expected.coefficients)


def test_auto_takes_what_is_feasible_and_says_why(monkeypatch):
    assert fit(method="auto").method == "cholesky"
    monkeypatch.setattr(entry, "_FACTORED", 39)
    assert (fit().method, "iterations are quicker" in fit().reason) == ("cg", True)
    monkeypatch.setattr(entry, "_EXACT", 39)
    assert "would take hours" in fit().reason
    assert fit().method == "nystrom"
    monkeypatch.setattr(entry, "_SHARE", 0.0)
    with pytest.raises(InputError, match=r'take method="cg"'):
        fit(method="cholesky")


def test_all_examples_as_centres_are_exact_and_fewer_are_not():
    whole = fit(method="nystrom", centres=40)
    tolerance = 2e-3 if SINGLE else 1e-6  # of coefficients to rounding / ridge
    np.testing.assert_allclose(whole.predict(X_TEST), exact(), atol=tolerance)
    assert whole.details["unexplained"] < 1e-3
    some = fit(method="nystrom", centres=[0, 7, 9, 20])
    assert some.coefficients.shape == (4, 2)
    k = np.asarray(NET.kernel(X, X[[0, 7, 9, 20]]).ntk, np.float64)
    error = np.linalg.norm(Y - k @ some.coefficients, axis=0) / np.linalg.norm(Y, axis=0)
    np.testing.assert_allclose(some.details["train_error"], error, rtol=1e-4)
    assert 0.01 < some.details["unexplained"] < 1
    assert np.isnan(some.error_bound).all()


def test_many_centres_go_by_iterations(monkeypatch):
    expected = fit(method="nystrom", centres=20)
    monkeypatch.setattr(methods, "_SUMMED", 10)
    found = fit(method="nystrom", centres=20, tol=1e-8)
    assert found.iterations > 2
    np.testing.assert_allclose(found.predict(X_TEST), expected.predict(X_TEST), atol=1e-4)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("method", ["cg", "nystrom", "falkon"])
def test_an_interrupted_solve_goes_on(tmp_path, monkeypatch, method, small_tiles):
    monkeypatch.setattr(methods, "_SECONDS", -1.0)
    if method == "falkon":
        monkeypatch.setattr(methods, "_SUMMED", 10)
    options = {"method": "cg" if method == "cg" else "nystrom", "rank": 2, "centres": 20}
    expected, calls = fit(**options), []

    def stop(p):
        calls.append(p)
        if len(calls) == 5:
            raise Stopped

    with pytest.raises(Stopped):
        fit(**options, checkpoint=tmp_path / "c", progress=stop)
    calls.clear()
    resumed = fit(**options, checkpoint=tmp_path / "c", progress=lambda p: calls.append(p))
    first = next(p for p in calls if "preconditioner" not in p.message)
    if method == "nystrom":
        assert first.done > 16  # rows that were seen before
        np.testing.assert_array_equal(resumed.coefficients, expected.coefficients)
    np.testing.assert_allclose(
        resumed.predict(X_TEST),
        expected.predict(X_TEST),
        atol=1e-4 if SINGLE else 1e-8,
    )
    with pytest.raises(InputError, match="holds runs of another regression: y differ"):
        fit(**options, y=Y + 1, checkpoint=tmp_path / "c")


def test_a_warm_start_saves_iterations():
    options = {"method": "cg", "rank": 1}
    near = fit(**options, ridge=1.02e-2)
    cold, warm = fit(**options), fit(**options, start=near.coefficients)
    assert warm.iterations < cold.iterations
    with pytest.raises(InputError, match="start has shape"):
        fit(**options, start=np.ones((3, 2)))


def test_no_ridge_and_a_singular_kernel():
    twice = np.concatenate([X, X[3:4]])
    y = np.concatenate([Y, Y[3:4]])
    with pytest.raises(InputError, match="examples 3 and 40 are the same input"):
        fit(twice, y, ridge=0.0)
    assert (fit(twice, y).relative_residual < TOL).all()
    assert (fit(ridge=0.0, method="cholesky").relative_residual < 1e-3).all()
    assert np.isinf(fit(ridge=0.0, method="cholesky").error_bound).all()
    linear = ntk.nn.Sequential(ntk.nn.Dense(1))  # of rank 3
    with pytest.raises(NumericalError, match="depend on each other"):
        fit(net=linear, ridge=0.0, method="cholesky")
    with pytest.raises(ConvergenceError) as caught:
        fit(net=linear, ridge=0.0, method="cg", max_iterations=30)
    assert np.isfinite(caught.value.result.value).all()


BAD = {
    "y has NaN": {"y": np.where(np.arange(80).reshape(40, 2) == 7, np.nan, Y)},
    "y is float64 of shape": {"y": Y[:, 0].astype(np.float64)},
    "x1 has NaN": {"x": np.where(np.arange(120).reshape(40, 3) == 7, np.nan, X).astype(DTYPE)},
    "0 <= ridge": {"ridge": -1.0},
    "ridge=nan": {"ridge": float("nan")},
    "method=": {"method": "guess"},
    "which is": {"which": "gram"},
    "centres=41": {"method": "nystrom", "centres": 41},
    "different numbers": {"method": "nystrom", "centres": [1, 1]},
    "expected between 1 and 40": {"method": "cg", "rank": 0},
    "leave checkpoint out": {"method": "cholesky", "checkpoint": "c"},
    'the method is "cholesky", which starts': {"start": Y},
    'the method is "nystrom", which starts': {"start": Y, "method": "nystrom"},
    'the method is "features", which starts': {"start": Y, "method": "features"},
    "expected one of auto, cholesky, cg, nystrom, features, lanczos": {"method": "lu"},
    "mesh is int": {"method": "cg", "mesh": 2},
    "leave out store": {"method": "nystrom", "store": "k.zarr"},
    "memory": {"memory": 20},
    "centres need": {"method": "nystrom", "memory": 40_000},
    "outputs have positions": {
        "net": ntk.nn.Sequential(ntk.nn.Conv(4, (2,)), ntk.nn.Relu(), ntk.nn.Conv(1, (1,))),
        "x": X[:, :, None],
    },
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_refused(words):
    with pytest.raises(InputError, match=words):
        fit(**BAD[words])


def test_images_and_pooling():
    images = RNG.normal(size=(12, 3, 3, 2)).astype(DTYPE)
    net = ntk.nn.Sequential(
        ntk.nn.Conv(4, (2, 2)), ntk.nn.Relu(), ntk.nn.GlobalAvgPool(), ntk.nn.Dense(1)
    )
    y = images.mean((1, 2))[:, :1]
    k = np.asarray(net.kernel(images).ntk, np.float64)
    expected = k @ np.linalg.solve(k + 0.1 * np.eye(12), y)
    found = fit(images, y, net=net, ridge=0.1, method="cg")
    np.testing.assert_allclose(found.predict(images), expected, atol=1e-4)
