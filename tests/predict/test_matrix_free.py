"""Predictions from products with the kernel equal those from the kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import ConvergenceError, InputError, StabilityError
from ntk_lab.predict import gp_posterior, gradient_descent, gradient_flow, max_learning_rate
from tests.tolerance import assert_close


def network(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"] + params["b"][None]


def problem(n=14, n_test=6, outputs=2, hidden=30):
    rng = np.random.default_rng(0)
    dtype = jnp.result_type(float)
    shapes = {"w": (5, hidden), "v": (hidden, outputs), "b": (outputs,)}
    params = {k: jnp.asarray(rng.normal(size=s) / 3, dtype) for k, s in shapes.items()}
    x, x_test = (jnp.asarray(rng.normal(size=(rows, 5)), dtype) for rows in (n, n_test))
    y = jnp.asarray(rng.normal(size=(n, outputs)), dtype)
    f0 = {"f0_train": network(params, x), "f0_test": network(params, x_test)}
    return params, x, x_test, y, f0


def kernels(params, x, x_test, mode):
    free = [
        ntk.empirical.operator(network, params, *xs, outputs=mode) for xs in ((x,), (x_test, x))
    ]
    dense = [ntk.empirical.ntk(network, params, *xs, outputs=mode) for xs in ((x,), (x_test, x))]
    return free, dense


def both(predict, mode, at, tol, **options):
    """Predictions from products and from arrays."""
    params, x, x_test, y, f0 = problem()
    free, dense = kernels(params, x, x_test, mode)
    options |= f0
    return predict(free[0], y, free[1], **options).at(at, tol=tol), predict(
        dense[0], y, dense[1], **options
    ).at(at)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("full", {}),
        ("trace", {"ridge": 0.1}),
        (
            "full",
            {"weight_decay": 0.01, "decay_to": "initial", "momentum": 0.8, "learning_rate": 0.2},
        ),
    ],
)
def test_flow_from_products_is_the_flow_from_the_kernel(mode, options):
    times = np.array([[0.0, 1.0], [50.0, np.inf if options else 400.0]])
    free, dense = both(gradient_flow, mode, times, None, **options)
    assert free.train.mean.shape == (2, 2, 14, 2)
    assert free.test.mean.shape == (2, 2, 6, 2)
    assert_close(free.train.mean, dense.train.mean, factor=100)
    assert_close(free.test.mean, dense.test.mean, factor=100)
    assert free.error_test.shape == (2, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.8, True)])
def test_descent_from_products_is_the_descent_from_the_kernel(momentum, nesterov):
    options = {"learning_rate": 0.15, "momentum": momentum, "nesterov": nesterov}
    free, dense = both(gradient_descent, "full", [0, 3, 200], None, **options)
    assert_close(free.train.mean, dense.train.mean, factor=100)
    assert_close(free.test.mean, dense.test.mean, factor=100)


@pytest.mark.slow
@pytest.mark.x64
@pytest.mark.parametrize("tol", [1e-2, 1e-5])
def test_estimated_errors_are_above_the_true_ones_and_below_the_tolerance(tol):
    params, x, x_test, y, _ = problem(n=120, n_test=30, hidden=200)
    free, dense = kernels(params, x, x_test, "full")
    times = [1.0, 100.0, 3000.0]
    found = gradient_flow(free[0], y, free[1]).at(times, tol=tol)
    exact = gradient_flow(dense[0], y, dense[1]).at(times)
    assert 16 <= found.products < 240
    for part in ("train", "test"):
        actual, wanted = (np.asarray(getattr(p, part).mean) for p in (found, exact))
        size = np.linalg.norm(wanted, axis=(1, 2))
        error = np.linalg.norm(actual - wanted, axis=(1, 2)) / size
        estimate = np.asarray(getattr(found, f"error_{part}"))
        assert (error <= estimate + 1e-12).all()
        assert (estimate <= tol).all()


@pytest.mark.slow
@pytest.mark.x64
def test_ridge_regression_from_products_is_the_solution_by_conjugate_gradients():
    params, x, x_test, y, _ = problem(n=60)
    (train, test), _ = kernels(params, x, x_test, "full")
    found = gradient_flow(train, y, test, ridge=0.05).at(np.inf, tol=1e-10)
    weights = train.solve(y, 0.05, tol=1e-12).value
    np.testing.assert_allclose(found.test.mean, test @ weights, rtol=1e-8, atol=1e-9)


def test_training_set_alone_and_targets_already_met():
    params, x, x_test, y, f0 = problem()
    (train, test), _ = kernels(params, x, x_test, "full")
    assert gradient_flow(train, y).at(1.0).test is None
    still = gradient_flow(train, f0["f0_train"], test, **f0).at([0.0, 9.0])
    np.testing.assert_array_equal(still.test.mean[1], f0["f0_test"])
    assert not np.asarray(still.error_test).any()


@pytest.mark.x64
def test_products_that_run_out_keep_what_was_found():
    params, x, x_test, y, _ = problem(n=120)
    (train, test), dense = kernels(params, x, x_test, "full")
    with pytest.raises(ConvergenceError, match=r"after 20 products.*Raise max_products") as stop:
        gradient_flow(train, y, test).at([0.1, 1e5], max_products=20)
    exact = gradient_flow(dense[0], y, dense[1]).at(0.1)
    assert_close(stop.value.result.test.mean[0], exact.test.mean, factor=1e3)
    rate = 1.01 * float(max_learning_rate(dense[0]))
    with pytest.raises(StabilityError, match="above the limit"):
        gradient_descent(train, y, test, learning_rate=rate).at(1)


def test_what_operators_cannot_do_is_named():
    params, x, x_test, y, f0 = problem()
    (train, test), dense = kernels(params, x, x_test, "full")
    for options, message in (
        ({"loss": "huber"}, "means for squared error"),
        ({"weight_decay": 0.1}, "decay towards zero needs"),
        ({"weight_decay": np.inf, "decay_to": "initial"}, "one finite number"),
        ({"weight_decay": 0.1, "decay_to": "start"}, "must be 'zero' or 'initial'"),
        ({"ridge": np.ones(2)}, "one number is needed"),
        ({"which": "both"}, "which is 'both'"),
        ({"f0_train": f0["f0_train"]}, "given together"),
    ):
        with pytest.raises(InputError, match=message):
            gradient_flow(train, y, test, **options)
    with pytest.raises(InputError, match="f0_test is given, but"):
        gradient_flow(train, y, **f0)
    with pytest.raises(InputError, match="max_products=0"):
        gradient_flow(train, y).at(1.0, max_products=0)
    with pytest.raises(InputError, match="there is no time"):
        gradient_flow(train, y).at(np.zeros(0))
    with pytest.raises(InputError, match="is an operator, kernel_test_train is not"):
        gradient_flow(train, y, dense[1])
    with pytest.raises(InputError, match=r"has shape \(12, 12\).*x_test, x_train"):
        gradient_flow(train, y, ntk.empirical.operator(network, params, x_test))
    with pytest.raises(InputError, match="one batch with itself"):
        gradient_flow(test, y)
    with pytest.raises(InputError, match="y_train has shape"):
        gradient_flow(train, y[:, :1])
    with pytest.raises(InputError, match="here the kernel is needed as an array"):
        gp_posterior(train, y, test)
    with pytest.raises(InputError, match="Call them outside"):
        jax.jit(lambda t: gradient_flow(train, y).at(t).train.mean)(1.0)
