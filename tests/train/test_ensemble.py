"""Compiled training loops against plain ones, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from tests.tolerance import assert_close

N, D, C, SEEDS, STEPS = 12, 3, 2, 3, 6


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(1), 3)
    x, y = jax.random.normal(keys[0], (N, D)), jax.random.normal(keys[1], (N, C))
    return x, y, jax.random.normal(keys[2], (5, D))


@pytest.fixture(scope="module")
def net():
    return ntk.nn.Sequential(ntk.nn.Dense(7, b_std=0.3), ntk.nn.Tanh(), ntk.nn.Dense(C))


@pytest.fixture(scope="module")
def params(net):
    keys = jax.random.split(jax.random.key(0), SEEDS)
    return jax.vmap(lambda key: net.init(key, (D,)))(keys)


def loop(f, params, x, y, optimizer, steps, batches=None):
    """Outputs on ``x`` after each step of a plain Python loop."""
    state, outputs = optimizer.init(params), []

    @jax.jit
    def update(params, state, x, y):
        grads = jax.grad(lambda p: ((f(p, x) - y) ** 2).sum() / (2 * len(x)))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(steps):
        chosen = slice(None) if batches is None else batches[step]
        params, state = update(params, state, x[chosen], y[chosen])
        outputs.append((params, f(params, x)))
    return outputs


def seed(params, s):
    return jax.tree.map(lambda p: p[s], params)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.3), optax.adamw(0.05)], ids=["sgd", "adamw"])
def test_full_batch_training_equals_a_plain_loop(problem, net, params, optimizer):
    # optax's own bias correction mixes dtypes, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        check_full_batch_training(problem, net, params, optimizer)


def check_full_batch_training(problem, net, params, optimizer):
    x, y, x_test = problem
    run = ntk.train.ensemble(
        net.apply, params, x, y, x_test, optimizer=optimizer, steps=STEPS, record=(0, 2, STEPS)
    )
    assert run.train.shape == (SEEDS, 3, N, C)
    assert run.test.shape == (SEEDS, 3, 5, C)
    np.testing.assert_array_equal(run.steps, [0, 2, STEPS])
    for s in range(SEEDS):
        start = seed(params, s)
        expected = loop(net.apply, start, x, y, optimizer, STEPS)
        assert_close(run.train[s, 0], net.apply(start, x))
        for at, step in ((1, 2), (2, STEPS)):
            trained, outputs = expected[step - 1]
            assert_close(run.train[s, at], outputs, factor=5)
            assert_close(run.test[s, at], net.apply(trained, x_test), factor=5)
            assert_close(run.loss[s, at], ((outputs - y) ** 2).sum() / (2 * N), factor=5)
            difference = jax.tree.map(jnp.subtract, trained, start)
            moved = optax.tree.norm(difference) / optax.tree.norm(start)
            assert_close(run.motion[s, at], moved, factor=20)


def test_a_seed_trains_the_same_alone_as_in_an_ensemble(problem, net, params):
    x, y, _ = problem
    kwargs = {"optimizer": optax.sgd(0.3), "steps": STEPS, "record": (STEPS,)}
    together = ntk.train.ensemble(net.apply, params, x, y, **kwargs)
    alone = ntk.train.ensemble(net.apply, jax.tree.map(lambda p: p[1:2], params), x, y, **kwargs)
    assert together.test is None
    assert_close(alone.train[0], together.train[1])


def test_mini_batches_cover_every_example_once_an_epoch(net):
    # One-hot inputs to a linear model: an update touches the weights of the batch's examples only.
    x, y = jnp.eye(N), jnp.ones((N, 1))
    linear = ntk.nn.Dense(1)
    params = jax.vmap(lambda key: linear.init(key, (N,)))(jax.random.split(jax.random.key(3), 2))
    run = ntk.train.ensemble(
        linear.apply, params, x, y, optimizer=optax.sgd(0.1), steps=6, record=tuple(range(7)),
        batch_size=4, key=jax.random.key(5),
    )  # fmt: skip
    changed = np.abs(np.diff(np.asarray(run.train[..., 0]), axis=1)) > 0
    assert (changed.sum(axis=2) == 4).all()
    for epoch in (slice(0, 3), slice(3, 6)):
        assert (changed[:, epoch].sum(axis=1) == 1).all()
    assert (changed[:, :3] != changed[:, 3:]).any(), "each epoch has an order of its own"
    np.testing.assert_array_equal(changed[0], changed[1])


def test_linearized_training_is_kernel_gradient_descent(problem, net, params):
    x, y, x_test = problem
    rate, steps = 0.4, 5
    run = ntk.train.ensemble(
        net.apply, params, x, y, x_test, optimizer=optax.sgd(rate), steps=steps,
        record=tuple(range(steps + 1)), linearized=True,
    )  # fmt: skip
    for s in range(SEEDS):
        both = jnp.concatenate([x, x_test])
        theta = ntk.empirical.ntk(net.apply, seed(params, s), both, x)
        f = np.asarray(net.apply(seed(params, s), both))
        for step in range(steps + 1):
            assert_close(run.train[s, step], f[:N], factor=10)
            assert_close(run.test[s, step], f[N:], factor=10)
            f = f - rate / N * np.einsum("ijab,jb->ia", theta, f[:N] - np.asarray(y))


def test_a_network_linear_in_its_parameters_trains_as_its_linearization(problem):
    x, y, x_test = problem
    hidden = ntk.nn.Frozen(ntk.nn.Sequential(ntk.nn.Dense(9), ntk.nn.Relu()))
    net = ntk.nn.Sequential(hidden, ntk.nn.Dense(C))
    params = jax.vmap(lambda key: net.init(key, (D,)))(jax.random.split(jax.random.key(0), 2))
    kwargs = {"optimizer": optax.sgd(0.5), "steps": 8, "record": (0, 8), "kernel_points": x[:4]}
    real, linear = (
        ntk.train.ensemble(net.apply, params, x, y, x_test, linearized=linearized, **kwargs)
        for linearized in (False, True)
    )
    assert_close(real.test, linear.test)
    assert_close(real.ntk[:, 1], real.ntk[:, 0])


def test_the_recorded_kernel_is_that_of_one_combination_of_outputs(problem, net, params):
    x, y, _ = problem
    run = ntk.train.ensemble(
        net.apply, params, x, y, optimizer=optax.sgd(0.3), steps=1, record=(0,), kernel_points=x[:4]
    )
    for s in range(SEEDS):
        theta = np.asarray(ntk.empirical.ntk(net.apply, seed(params, s), x[:4]))
        # <v, Theta v> for a unit v: between the extreme eigenvalues of every diagonal block.
        for i in range(4):
            low, high = np.linalg.eigvalsh(theta[i, i])[[0, -1]]
            assert low * (1 - 1e-5) <= run.ntk[s, 0, i, i] <= high * (1 + 1e-5)


def test_log_spaced_steps_start_at_one_and_end_at_the_last():
    assert ntk.train.log_spaced(1) == (1,)
    assert ntk.train.log_spaced(500, 1) == (500,)  # a single one is the last
    steps = ntk.train.log_spaced(5000, 16)
    assert (steps[0], steps[-1], len(steps)) == (1, 5000, 16)
    assert (np.diff(steps) > 0).all()


@pytest.mark.x64
def test_targets_take_the_dtype_of_the_outputs(problem, net, params):
    x, y, _ = problem
    x, params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (x, params))
    options = {"steps": 2, "kernel_points": x[:2]}
    runs = (
        ntk.train.ensemble(net.apply, params, x, y, optimizer=optax.sgd(0.1), **options),
        ntk.train.linearized_descent(net.apply, params, x, y, learning_rate=0.1, **options),
    )
    for run in runs:
        assert {run.loss.dtype, run.train.dtype, run.ntk.dtype} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": jnp.zeros((N - 1, C))}, "targets of shape"),
        ({"y": jnp.zeros((N, C + 1))}, "network has outputs"),
        ({"x_test": jnp.zeros((5, D + 1))}, "test examples"),
        ({"x_test": jnp.zeros((5, D), int)}, "of int"),
        ({"record": (1.5, 3)}, "whole numbers"),
        ({"steps": 2.5}, "whole numbers"),
        ({"batch_size": N + 1}, "batch_size"),
        ({"batch_size": 4}, "pass key="),
        ({"record": (3, 2)}, "rising"),
        ({"record": (0, STEPS + 1)}, "between 0 and"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_bad_input_is_explained(problem, net, params, change, words):
    x, y, x_test = problem
    arguments = {"y": y, "x_test": x_test, "steps": STEPS} | change
    with pytest.raises(InputError, match=words):
        ntk.train.ensemble(
            net.apply, params, x, arguments.pop("y"), arguments.pop("x_test"),
            optimizer=optax.sgd(0.1), **arguments,
        )  # fmt: skip
