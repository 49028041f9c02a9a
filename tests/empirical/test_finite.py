"""Kernels of a finite network go where those of architectures go, and are the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from tests.tolerance import assert_close

SINGLE = not jax.config.jax_enable_x64
DTYPE = np.dtype("float32" if SINGLE else "float64")
RNG = np.random.default_rng(0)
X, X_TEST = (RNG.normal(size=(n, 3)).astype(DTYPE) for n in (30, 7))
Y = np.stack([np.sin(2 * X[:, 0]), X[:, 1] * X[:, 2]], axis=1)
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(3, 16)), DTYPE),
    "v": jnp.asarray(RNG.normal(size=(16, 2)), DTYPE),
}
RIDGE = 1e-2


def f(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"] / 4


KERNEL = ntk.empirical.FiniteKernel(f, PARAMS)


def dense(x1, x2=None, which="ntk", outputs="trace"):
    return np.asarray(getattr(ntk.empirical, which)(f, PARAMS, x1, x2, outputs=outputs))


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr("ntk_lab.kernel.computed._LARGEST", 8)


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("zarr")
    return tmp_path / "k.zarr"


def test_a_store_holds_the_empirical_kernels(folder, small_tiles):
    calls = []
    stored = ntk.kernel.to_store(KERNEL, X, None, folder, progress=lambda *p: calls.append(p))
    assert stored.complete
    assert len(calls) == 10  # 4 x 4 tiles, one half of them
    assert_close(np.asarray(stored.ntk), dense(X))
    assert_close(np.asarray(stored.nngp), dense(X, which="nngp"))
    first = stored.ntk.file(0, 1).stat().st_mtime_ns
    ntk.kernel.to_store(KERNEL, X, None, folder)
    assert stored.ntk.file(0, 1).stat().st_mtime_ns == first  # kept, not computed again


def test_an_interrupted_store_goes_on_with_the_same_bits(folder, tmp_path, small_tiles):
    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ntk.kernel.to_store(KERNEL, X, None, folder, progress=stop)
    assert not ntk.kernel.open_store(folder).complete
    again = ntk.kernel.to_store(ntk.empirical.FiniteKernel(f, PARAMS), X, None, folder)
    whole = ntk.kernel.to_store(KERNEL, X, None, tmp_path / "whole.zarr")
    np.testing.assert_array_equal(np.asarray(again.ntk), np.asarray(whole.ntk))


def test_full_outputs_and_two_batches(folder, small_tiles):
    full = ntk.empirical.FiniteKernel(f, PARAMS, outputs="full")
    stored = ntk.kernel.to_store(full, X_TEST, X, folder, which="ntk")
    assert_close(stored.ntk[2:5, 3], dense(X_TEST, X, outputs="full")[2:5, 3])
    half = ntk.kernel.to_store(full, X, None, folder.with_name("h.zarr"), which="ntk")
    assert_close(half.ntk[20:25, :3], dense(X, outputs="full")[20:25, :3])
    with pytest.raises(InputError, match='outputs="trace"'):
        ntk.predict.regress(full, X, Y, ridge=RIDGE)


CHANGES = {
    "params": (ntk.empirical.FiniteKernel(f, {**PARAMS, "v": PARAMS["v"] + 1}), X),
    "f": (ntk.empirical.FiniteKernel(lambda p, x: 2 * f(p, x), PARAMS), X),
    "outputs": (ntk.empirical.FiniteKernel(f, PARAMS, outputs=np.eye(2, dtype=DTYPE)[0]), X),
    "select": (ntk.empirical.FiniteKernel(f, PARAMS, select=lambda path: path == "v"), X),
    "x1": (KERNEL, X + 1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_store_of_something_else_is_refused(folder, name):
    ntk.kernel.to_store(KERNEL, X, None, folder)
    kernel, x = CHANGES[name]
    with pytest.raises(InputError, match=rf"holds another kernel: {name} differ"):
        ntk.kernel.to_store(kernel, x, None, folder)


# The kernel of the two outputs has rank two, too few for centres.
CASES = [(m, w) for m in ("cholesky", "cg", "store", "mesh") for w in ("ntk", "nngp")]


@pytest.mark.parametrize(("method", "which"), [*CASES, ("nystrom", "ntk")])
def test_regressions_are_those_of_dense_algebra(folder, small_tiles, method, which):
    options = {
        "store": {"method": "cg", "store": folder},
        "mesh": {"mesh": jax.make_mesh((jax.device_count(),), ("rows",))},
        "nystrom": {"method": "nystrom", "centres": 30},
    }.get(method, {"method": method})
    found = ntk.predict.regress(KERNEL, X, Y, ridge=RIDGE, which=which, **options)
    train = dense(X, which=which).astype(np.float64)
    a = np.linalg.solve(train + RIDGE * np.eye(30), Y)
    expected = dense(X_TEST, X, which).astype(np.float64) @ a
    # Of coefficients to rounding / ridge, and the tolerance of iterations.
    np.testing.assert_allclose(found.predict(X_TEST), expected, atol=5e-3 if SINGLE else 1e-6)


def test_a_flow_is_that_of_the_closed_form_and_needs_the_start_subtracted():
    start, start_test = (np.asarray(f(PARAMS, x)) for x in (X, X_TEST))
    found = ntk.predict.regress(KERNEL, X, Y - start, ridge=0, time=30.0)
    flow = ntk.predict.gradient_flow(
        dense(X), Y.astype(DTYPE), dense(X_TEST, X), f0_train=start, f0_test=start_test
    )
    expected = flow.at(30.0).test.mean
    outputs = np.asarray(found.predict(X_TEST)) + start_test
    np.testing.assert_allclose(outputs, expected, atol=1e-4 if SINGLE else 1e-8)


def test_a_checkpoint_of_other_parameters_is_refused(tmp_path):
    options = {"ridge": RIDGE, "method": "cg", "checkpoint": tmp_path / "c"}
    ntk.predict.regress(KERNEL, X, Y, **options)
    other = ntk.empirical.FiniteKernel(f, {**PARAMS, "w": 2 * PARAMS["w"]})
    with pytest.raises(InputError, match="another regression: params differ"):
        ntk.predict.regress(other, X, Y, **options)


def test_tokens_and_limits():
    table = {"e": jnp.asarray(RNG.normal(size=(11, 4)), DTYPE)}
    tokens = RNG.integers(0, 11, size=(20, 5))
    kernel = ntk.empirical.FiniteKernel(lambda p, x: jnp.tanh(p["e"][x]).sum(axis=(1, 2)), table)
    found = ntk.predict.regress(kernel, tokens, np.ones((20, 1)), ridge=1.0)
    assert found.predict(tokens).shape == (20, 1)
    with pytest.raises(InputError, match="memory"):
        ntk.predict.regress(KERNEL, X, Y, ridge=RIDGE, memory=100)
    with pytest.raises(InputError, match="of an architecture"):
        ntk.predict.regress(KERNEL, X, Y, ridge=RIDGE, method="features")


def straight_through(slope):
    @jax.custom_vjp
    def act(u):
        return jnp.sign(u)

    act.defvjp(lambda u: (act(u), None), lambda _, g: (g * jnp.asarray(slope, g.dtype),))
    return lambda p, x: act(x @ p["w"]) @ p["v"]


def test_a_store_of_other_rules_of_derivatives_is_refused(folder, tmp_path):
    one, two = (ntk.empirical.FiniteKernel(straight_through(s), PARAMS) for s in (1.0, 2.0))
    assert one.identity(X) == ntk.empirical.FiniteKernel(straight_through(1.0), PARAMS).identity(X)
    ntk.kernel.to_store(one, X, None, folder)
    with pytest.raises(InputError, match="f"):
        ntk.kernel.to_store(two, X, None, folder)
    ntk.empirical.ntk(straight_through(1.0), PARAMS, X, path=tmp_path / "dense")
    with pytest.raises(InputError, match="f"):
        ntk.empirical.ntk(straight_through(2.0), PARAMS, X, path=tmp_path / "dense")
