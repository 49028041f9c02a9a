"""Regression with initial and after-kernels against regression by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.compare import after_kernel_regression
from ntk_lab.errors import InputError
from tests.tolerance import assert_close

KEYS = jax.random.split(jax.random.key(0), 6)
X, X_TEST = jax.random.normal(KEYS[0], (12, 4)), jax.random.normal(KEYS[1], (9, 4))
Y, Y_TEST = (jnp.stack([jnp.sin(2 * x[:, 0]), x[:, 1] ** 2], axis=1) for x in (X, X_TEST))
BEFORE = {"a": jax.random.normal(KEYS[2], (4, 16)), "c": jax.random.normal(KEYS[3], (16, 2)) / 4}
AFTER = jax.tree.map(lambda p: p + 0.3 * jnp.cos(3 * p), BEFORE)


def f(p, x):
    return jnp.tanh(x @ p["a"]) @ p["c"]


def by_hand(params, f0, f0_test, ridge, outputs="full"):
    """Kernel regression as a linear system, in float64."""
    kernels = [ntk.empirical.ntk(f, params, x, X, outputs=outputs) for x in (X, X_TEST)]
    kernels = [np.asarray(k, np.float64) for k in kernels]
    if outputs == "full":
        kernels = [k.transpose(0, 2, 1, 3).reshape(2 * len(k), 24) for k in kernels]
    error = np.asarray(Y - f0, np.float64)
    error = error.reshape(24, 1) if outputs == "full" else error
    weights = np.linalg.solve(kernels[0] + ridge * np.eye(len(kernels[0])), error)
    return np.asarray(f0_test) + (kernels[1] @ weights).reshape(9, 2)


@pytest.mark.parametrize("outputs", ["full", "trace"])
@pytest.mark.parametrize("start", ["initial", "zero"])
def test_both_kernels_predict_what_linear_systems_say(outputs, start):
    found = after_kernel_regression(
        f, BEFORE, AFTER, (X, Y), (X_TEST, Y_TEST), outputs=outputs, start=start, ridge=0.5
    )
    scale = 1.0 if start == "initial" else 0.0
    starts = scale * f(BEFORE, X), scale * f(BEFORE, X_TEST)
    for name, params in (("initial kernel", BEFORE), ("after kernel", AFTER)):
        assert_close(found.outputs[name], by_hand(params, *starts, 0.5, outputs), factor=30)
        assert float(found.diagnostics[name].ridge) == 0.5
    assert_close(found.outputs["network"], f(AFTER, X_TEST))


def test_losses_distances_and_drift_are_those_of_the_outputs():
    found = after_kernel_regression(f, BEFORE, AFTER, (X, Y), (X_TEST, Y_TEST), ridge=0.1)
    network, before = (np.asarray(f(p, X_TEST), np.float64) for p in (AFTER, BEFORE))
    y = np.asarray(Y_TEST, np.float64)
    for name, values in found.outputs.items():
        each = ((values - y) ** 2).sum(1) / 2
        assert float(found.test_loss[name].value) == pytest.approx(each.mean(), rel=1e-5)
        error = each.std(ddof=1) / 3
        assert float(found.test_loss[name].standard_error) == pytest.approx(error, rel=1e-4)
        distance = np.linalg.norm(values - network) / np.linalg.norm(network - before)
        assert found.distance[name] == pytest.approx(distance, rel=1e-5)
    kernels = [np.asarray(ntk.empirical.ntk(f, p, X), np.float64) for p in (BEFORE, AFTER)]
    drift = np.linalg.norm(kernels[1] - kernels[0]) / np.linalg.norm(kernels[0])
    assert found.drift == pytest.approx(drift, rel=1e-5)
    pair = found.difference("after kernel", "network")
    each = found.losses["after kernel"] - found.losses["network"]
    assert float(pair.value) == pytest.approx(each.mean())
    assert float(pair.standard_error) == pytest.approx(each.std(ddof=1) / 3)
    assert found.accuracy is None
    assert str(found).splitlines()[-1].startswith("kernel drift")


def test_the_linearized_network_at_any_time_is_its_initial_kernel():
    linearized = ntk.empirical.linearize(f, BEFORE)
    params, rate, steps = BEFORE, 0.01, 400
    gradient = jax.jit(jax.grad(lambda p: ((linearized(p, X) - Y) ** 2).sum() / 24))
    for _ in range(steps):
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradient(params))
    found = after_kernel_regression(
        linearized, BEFORE, params, (X, Y), (X_TEST, Y_TEST), t=rate * steps
    )
    assert found.drift < 1e-5
    assert found.distance["initial kernel"] < 0.02  # the discretization of gradient flow
    assert found.distance["after kernel"] == pytest.approx(
        found.distance["initial kernel"], abs=1e-3
    )


def test_a_network_that_learns_features_has_a_better_kernel_after_than_before():
    keys = jax.random.split(jax.random.key(3), 4)
    x, x_test = (jax.random.normal(k, (n, 10)) for k, n in zip(keys, (80, 300), strict=False))
    labels, labels_test = (np.asarray(v[:, 0] * v[:, 1] > 0, int) for v in (x, x_test))
    params0 = {
        "a": jax.random.normal(keys[2], (10, 64)) / 10**0.5,
        "c": 0.01 * jax.random.normal(keys[3], (64, 2)),
    }

    def g(p, x):
        return jax.nn.silu(2 * x @ p["a"]) @ p["c"]

    y = jax.nn.one_hot(labels, 2) - 0.5
    optimizer = optax.adam(0.01)

    @jax.jit
    def step(params, state):
        slope = jax.grad(lambda p: ((g(p, x) - y) ** 2).sum() / 160)(params)
        update, state = optimizer.update(slope, state)
        return optax.apply_updates(params, update), state

    params, state = params0, optimizer.init(params0)
    with jax.numpy_dtype_promotion("standard"):  # which optax's Adam relies on
        for _ in range(400):
            params, state = step(params, state)
    found = after_kernel_regression(g, params0, params, (x, labels), (x_test, labels_test))
    assert found.drift > 0.3
    assert found.distance["after kernel"] < found.distance["initial kernel"]
    better = found.difference("initial kernel", "after kernel")
    assert float(better.value) > 3 * float(better.standard_error)
    right = (found.outputs["network"].argmax(1) == labels_test).mean()
    assert float(found.accuracy["network"].value) == pytest.approx(right)
    assert len(str(found).splitlines()) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": "random"}, "'initial' or 'zero'"),
        ({"outputs": "diagonal"}, "'full' or 'trace'"),
        ({"params": BEFORE}, "same before and after"),
        ({"train": (X, Y[:, :1]), "test": (X_TEST, Y_TEST[:, :1])}, "they must be equal"),
        ({"memory": 100}, "Choose outputs='trace'"),
        ({"memory": 100, "outputs": "trace"}, "Allow more"),
        ({"loss": lambda f, y: ((f - y) ** 2).mean()}, "one number an example"),
    ],
)
def test_what_cannot_be_compared_is_explained(change, words):
    given = {"params": AFTER, "train": (X, Y), "test": (X_TEST, Y_TEST), **change}
    with pytest.raises(InputError, match=words):
        after_kernel_regression(f, BEFORE, given.pop("params"), **given)


def test_predictors_that_are_not_there_are_explained():
    found = after_kernel_regression(f, BEFORE, AFTER, (X, Y), (X_TEST, Y_TEST), ridge=0.1)
    with pytest.raises(InputError, match="no predictor 'kernel'"):
        found.difference("kernel", "network")
