"""Linearized networks in function space against the same trained step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.train.krylov import functions_of
from tests.tolerance import assert_close
from tests.train.problems import data, drawn, smooth

NET = smooth()
X, Y, X_TEST = data()
RECORD = (0, 1, 10, 200)


def both(rate, momentum=0.0, **options):
    options = {"steps": RECORD[-1], "record": RECORD, **options}
    params = drawn(NET)
    closed = ntk.train.linearized_descent(
        NET.apply, params, X, Y, X_TEST, learning_rate=rate, momentum=momentum, **options
    )
    steps = ntk.train.ensemble(
        NET.apply, params, X, Y, X_TEST, optimizer=optax.sgd(rate, momentum or None),
        linearized=True, divergence="record", **options,
    )  # fmt: skip
    return closed, steps


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_function_space_equals_steps_of_the_linearized_network(momentum):
    closed, steps = both(0.2, momentum, kernel_points=X[:3], kernel="trace")
    np.testing.assert_array_equal(closed.steps, steps.steps)
    for name in ("train", "test", "motion", "ntk"):
        assert_close(getattr(closed, name), getattr(steps, name), factor=50)
    # Near the end of training what is left of the loss is what rounding is left of.
    scale = steps.loss[:, :1]
    assert_close(closed.loss / scale + 1, steps.loss / scale + 1, factor=5)
    assert (closed.diverged == -1).all()


def test_rates_beyond_stability_diverge_as_the_steps_do():
    closed, steps = both(40.0, record=(1, 3, 200), steps=200)
    assert_close(closed.loss[:, :2], steps.loss[:, :2], factor=1000)
    assert not np.isfinite(closed.loss[:, 2]).any()
    assert (closed.diverged == 200).all()
    assert (steps.diverged > 3).all()


def test_a_network_that_fits_already_does_not_move():
    run = ntk.train.linearized_descent(
        lambda w, x: x @ w, jnp.zeros((1, 2, 1)), jnp.eye(2), jnp.zeros((2, 1)),
        learning_rate=1.0, steps=5,
    )  # fmt: skip
    assert (run.train == 0).all()
    assert (run.loss == 0).all()


def test_functions_of_a_matrix_equal_those_of_its_eigenvalues():
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(300, 300)))
    values = np.geomspace(1e-6, 1, 300)
    a, v = (q * values) @ q.T, rng.normal(size=300)
    count = []

    def product(w):
        count.append(1)
        return a @ w

    def functions(x):
        return np.stack([np.exp(-10 * x), np.exp(-1000 * x)])

    found, moved = functions_of(product, v, functions, 1e-10)
    expected = np.stack([(q * f) @ (q.T @ v) for f in functions(values)])
    scale = np.linalg.norm(v)
    np.testing.assert_allclose(found, expected, atol=1e-8 * scale)
    np.testing.assert_allclose(moved, expected @ a, atol=1e-10 * scale)
    assert len(count) < 150


@pytest.mark.parametrize("change", [{"learning_rate": 0.0}, {"momentum": 1.0}])
def test_what_is_no_gradient_descent_is_refused(change):
    with pytest.raises(InputError, match=r"learning_rate=.*momentum="):
        ntk.train.linearized_descent(
            NET.apply, drawn(NET), X, Y, steps=3, **{"learning_rate": 0.1, **change}
        )


def test_progress_names_each_seed():
    told = []
    ntk.train.linearized_descent(
        NET.apply, drawn(NET), X, Y, learning_rate=0.1, steps=3, seeds=(4, 8, 9),
        progress=told.append,
    )  # fmt: skip
    assert [p.message.split(",")[0] for p in told] == ["seed 4", "seed 8", "seed 9", "done"]
    assert told[-1].done == told[-1].total == 3


def test_runs_from_one_seed_alone_are_the_same_bit_by_bit():
    params = drawn(NET)
    options = {"learning_rate": 0.2, "steps": 50, "record": (50,)}
    together = ntk.train.linearized_descent(NET.apply, params, X, Y, **options)
    alone = ntk.train.linearized_descent(
        NET.apply, jax.tree.map(lambda p: p[1:2], params), X, Y, **options
    )
    np.testing.assert_array_equal(together.train[1], alone.train[0])
