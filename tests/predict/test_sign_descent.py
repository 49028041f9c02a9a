"""Sign kernels, and what they say of linearized networks under sign descent and Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.losses import mean_loss, read_loss
from ntk_lab.predict import sign_descent
from tests.tolerance import assert_close


def problem(outputs=1, width=200, n=20, n_test=10):
    net = ntk.nn.Sequential(ntk.nn.Dense(width), ntk.nn.Erf(), ntk.nn.Dense(outputs))
    keys = jax.random.split(jax.random.key(1), 3)
    params = net.init(keys[0], (4,))
    x, x_test = (jax.random.normal(k, (m, 4)) for k, m in zip(keys[1:], (n, n_test), strict=True))
    y = jnp.sign(x[:, :1])
    return net.apply, params, x, x_test, y


def flat_gradients(f, params, x):
    jacobian = jax.jacrev(lambda p: f(p, x))(params)
    parts = [leaf.reshape(*f(params, x).shape, -1) for leaf in jax.tree.leaves(jacobian)]
    return np.concatenate([np.asarray(p, np.float64) for p in parts], axis=-1)


@pytest.mark.parametrize("outputs", [1, 3])
def test_it_is_gradients_against_signs_for_any_batch(outputs):
    f, params, x, x_test, _ = problem(outputs, width=8, n=5, n_test=3)
    a, b = (flat_gradients(f, params, z) for z in (x_test, x))
    expected = np.einsum("iap,jbp->ijab", a, np.sign(b))
    expected = expected[..., 0, 0] if outputs == 1 else expected
    for batch in (2, 16):
        assert_close(ntk.empirical.sign_kernel(f, params, x_test, x, batch=batch), expected)
    part = ntk.empirical.sign_kernel(f, params, x, select=lambda path: "2" in path)
    rest = ntk.empirical.sign_kernel(f, params, x, select=lambda path: "2" not in path)
    assert_close(part + rest, ntk.empirical.sign_kernel(f, params, x), factor=10)


def linearized_run(optimizer, order, loss="squared"):
    """Outputs of the linearized network on train and test inputs after each step."""
    f, params, x, x_test, y = problem()
    linear, chosen = ntk.empirical.linearize(f, params), read_loss(loss)

    @jax.jit
    def update(p, state, batch):
        slope = jax.grad(lambda p: mean_loss(chosen, linear(p, x[batch]), y[batch]))(p)
        with jax.numpy_dtype_promotion("standard"):  # for Adam's count of steps
            updates, state = optimizer.update(slope, state, p)
        return optax.apply_updates(p, updates), state

    outputs = jax.jit(lambda p: linear(p, jnp.concatenate([x, x_test])))
    p, state, path = params, optimizer.init(params), [outputs(params)]
    for batch in order:
        p, state = update(p, state, batch)
        path.append(outputs(p))
    return np.asarray(jnp.stack(path), np.float64)


def predicted_run(order, rate, loss="squared"):
    f, params, x, x_test, y = problem()
    kernels = [ntk.empirical.sign_kernel(f, params, z, x) for z in (x, x_test)]
    found = sign_descent(
        kernels[0],
        y,
        kernels[1],
        learning_rate=rate,
        order=order,
        loss=loss,
        f0_train=f(params, x),
        f0_test=f(params, x_test),
    ).at(np.arange(len(order) + 1))
    return np.concatenate([found.train.mean, found.test.mean], axis=1).astype(np.float64)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize(
    "optimizer",
    [optax.sign_sgd(1e-3), optax.adam(1e-3, b1=0.0, b2=0.0, eps=0.0)],
    ids=["sign", "adam"],
)
def test_one_example_at_a_time_is_exactly_linearized_sign_descent(optimizer, loss):
    order = np.random.default_rng(0).integers(20, size=(12, 1))
    actual = predicted_run(order[:, 0], 1e-3, loss)
    assert_close(jnp.asarray(actual), linearized_run(optimizer, order, loss), factor=10)


@pytest.mark.x64
def test_the_first_step_of_adam_is_that_of_the_sign_kernel_and_later_ones_go_the_same_way():
    order = np.random.default_rng(0).permutation(20)[:, None]
    adam = linearized_run(optax.adam(1e-4), order)
    predicted = predicted_run(order, 1e-4)
    moved, expected = adam - adam[0], predicted - predicted[0]
    # Adam adds 1e-8 to the size of a gradient, which stops the parameters that hardly matter.
    assert np.linalg.norm(moved[1] - expected[1]) < 1e-3 * np.linalg.norm(moved[1])
    cosine = [
        (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(moved[1:], expected[1:], strict=True)
    ]
    assert min(cosine) > 0.7
    assert not np.allclose(moved[20], expected[20], rtol=0.1)


def test_steps_and_orders_that_do_not_fit_are_named():
    kernel, y = np.eye(3), np.ones((3, 1))
    for options, message in (
        ({"order": [3]}, r"order names example 3; there are 3"),
        ({"order": [0.5]}, "dtype float64"),
        ({"order": []}, "expected the integer numbers"),
        ({"order": [0], "learning_rate": 0.0}, "learning_rate is 0"),
        ({"order": [0], "f0_train": np.ones((2, 1))}, "f0_train has shape"),
        ({"order": [0], "f0_train": y, "f0_test": y}, "f0_test is given, but"),
        ({"order": [0], "kernel_test_train": np.ones((2, 2))}, r"expected \(n_test, 3\)"),
    ):
        with pytest.raises(InputError, match=message):
            sign_descent(kernel, y, **({"learning_rate": 0.1} | options))
    with pytest.raises(InputError, match="several outputs is not a sum"):
        sign_descent(np.ones((3, 3, 2, 2)), y, learning_rate=0.1, order=[0])
    with pytest.raises(InputError, match=r"y_train.*call for \(3, 1\)"):
        sign_descent(kernel, np.ones((3, 2)), learning_rate=0.1, order=[0])
    with pytest.raises(InputError, match="order has examples for 1"):
        sign_descent(kernel, y, learning_rate=0.1, order=[0]).at(2)
    beyond = jax.jit(sign_descent(kernel, y, learning_rate=0.1, order=[0]).at)(2)
    assert np.isnan(beyond.train.mean).all()
    f, params, x, _, _ = problem(width=4)
    with pytest.raises((InputError, NumericalError), match="NaN"):
        ntk.empirical.sign_kernel(f, params, x * jnp.nan)
