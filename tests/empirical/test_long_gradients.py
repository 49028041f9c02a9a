"""Long gradients, a slab at a time, on batches of any two sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.empirical.structured import factors


def network(outputs):
    """A weight over many positions, whose gradients are formed late."""
    key1, key2 = jax.random.split(jax.random.key(0))
    params = {
        "a": jax.random.normal(key1, (12, 16), jnp.float32),
        "b": jnp.zeros(16, jnp.float32),
        "c": jax.random.normal(key2, (16, outputs), jnp.float32),
    }
    f = lambda p, x: jnp.tanh(x @ p["a"] + p["b"][None, None]).mean(1) @ p["c"]  # noqa: E731
    return f, params


def data(n, seed):
    return jax.random.normal(jax.random.key(seed), (n, 5, 12), jnp.float32)


@pytest.fixture
def low_thresholds(monkeypatch):
    """So that small cases are cut as large ones are."""
    monkeypatch.setattr(factors, "_CACHED", 2**8)
    monkeypatch.setattr(factors, "_LARGEST", 2**12)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize("outputs", [2, 7])
@pytest.mark.parametrize("sizes", [(2, 9), (9, 2), (6, 6)])
def test_traces_are_means_of_the_diagonal(low_thresholds, sizes, outputs):
    f, params = network(outputs)
    x1, x2 = data(sizes[0], 1), data(sizes[1], 2)
    for second in (x2, None):
        trace = ntk.empirical.ntk(f, params, x1, second, outputs="trace")
        diagonal = ntk.empirical.ntk(f, params, x1, second, outputs="diagonal")
        scale = float(jnp.abs(trace).max())
        np.testing.assert_array_less(jnp.abs(trace - diagonal.mean(-1)), 1e-5 * scale)


def test_few_test_points_against_many_training_points():
    # The larger side alone has enough examples to be cut at the usual thresholds.
    key = jax.random.key(0)
    params = {
        "a": jax.random.normal(key, (64, 128), jnp.float32) / 8,
        "c": jnp.ones((128, 10), jnp.float32),
    }
    f = lambda p, x: jnp.tanh(x @ p["a"]).mean(1) @ p["c"]  # noqa: E731
    x = jax.random.normal(key, (67, 40, 64), jnp.float32)
    both = ntk.empirical.ntk(f, params, x[:3], x[3:], outputs="trace", memory=4e9)
    whole = ntk.empirical.ntk(f, params, x, outputs="trace", memory=4e9)
    np.testing.assert_allclose(both, whole[:3, 3:], rtol=1e-4)
    turned = ntk.empirical.ntk(f, params, x[3:], x[:3], outputs="trace", memory=4e9)
    np.testing.assert_allclose(turned, both.T, rtol=1e-4)
