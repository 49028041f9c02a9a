"""Every loss, optimizer and order of the data against a plain Python loop of jitted updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.losses import NAMED
from tests.tolerance import assert_close
from tests.train.problems import SEEDS, C, N, data, drawn, plain_loop, seed, smooth

STEPS = 7
NET = smooth()
OPTIMIZERS = {
    "sgd": optax.sgd(0.3),
    "heavy ball": optax.sgd(0.1, momentum=0.8),
    "adam": optax.adam(0.05),
}


def quartic(outputs, targets):
    return (outputs - targets) ** 4


def compare_with_loop(run, params, x, y, optimizer, loss, batches=None, f=NET.apply):
    for s in range(SEEDS):
        path = plain_loop(f, seed(params, s), x, y, optimizer, STEPS, loss, batches)
        for at, step in enumerate(run.steps):
            outputs = f(path[step], x)
            assert_close(run.train[s, at], outputs, factor=20)
            assert_close(run.loss[s, at], loss(outputs, y).sum() / len(x), factor=20)


@pytest.mark.parametrize("name", [*NAMED, "quartic"])
def test_training_on_each_loss_equals_a_plain_loop(name):
    x, y, _ = data()
    params, optimizer = drawn(NET), OPTIMIZERS["sgd"]
    loss = quartic if name == "quartic" else name
    run = ntk.train.ensemble(
        NET.apply, params, x, y, optimizer=optimizer, steps=STEPS, record=(0, 3, STEPS), loss=loss
    )
    compare_with_loop(run, params, x, y, optimizer, NAMED.get(name, quartic))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_mini_batches_in_the_order_that_is_told_equal_a_plain_loop(name):
    x, y, _ = data()
    params, optimizer, key = drawn(NET), OPTIMIZERS[name], jax.random.key(5)
    run = ntk.train.ensemble(
        NET.apply, params, x, y, optimizer=optimizer, steps=STEPS, record=(1, 2, STEPS),
        batch_size=5, key=key, loss="cross_entropy",
    )  # fmt: skip
    batches = ntk.train.batch_order(key, N, 5, STEPS)
    assert batches.shape == (STEPS, 5)
    compare_with_loop(run, params, x, y, optimizer, NAMED["cross_entropy"], batches)


def test_optimizers_that_ask_for_the_loss_are_given_it():
    x, y, _ = data()
    run = ntk.train.ensemble(
        NET.apply, drawn(NET), x, y, optimizer=optax.polyak_sgd(), steps=STEPS, record=(0, STEPS)
    )
    compare_with_loop(run, drawn(NET), x, y, optax.polyak_sgd(), NAMED["squared"])


def test_integer_inputs_are_trained_on():
    def tokens(params, x):
        return jnp.tanh(params["in"][x].mean(axis=1)) @ params["out"]

    x = jnp.asarray(np.random.default_rng(0).integers(0, 11, (N, 5)))
    keys = jax.random.split(jax.random.key(2))
    params = {
        "in": jax.random.normal(keys[0], (SEEDS, 11, 6)),
        "out": jax.random.normal(keys[1], (SEEDS, 6, C)),
    }
    _, y, _ = data()
    optimizer = OPTIMIZERS["sgd"]
    run = ntk.train.ensemble(
        tokens, params, x, y, optimizer=optimizer, steps=STEPS, record=(STEPS,)
    )
    compare_with_loop(run, params, x, y, optimizer, NAMED["squared"], f=tokens)


def test_the_order_is_that_of_the_key_and_covers_every_epoch():
    order = ntk.train.batch_order(jax.random.key(1), 10, 3, 7)
    assert order.shape == (7, 3)
    for epoch in (order[:3], order[3:6]):
        assert len(set(epoch.flatten().tolist())) == 9
    np.testing.assert_array_equal(order[:4], ntk.train.batch_order(jax.random.key(1), 10, 3, 4))
    assert (order != ntk.train.batch_order(jax.random.key(2), 10, 3, 7)).any()
