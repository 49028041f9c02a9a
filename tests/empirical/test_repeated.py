"""The second of two calls alike goes straight to a compiled program, and must not show it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.empirical import repeated
from ntk_lab.errors import InputError, NumericalError
from tests.tolerance import assert_close


def network(params, x):
    return jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"]


def drawn(seed, n=5):
    w, b, v, x = jax.random.split(jax.random.key(seed), 4)
    params = {
        "w": jax.random.normal(w, (3, 7)),
        "b": jax.random.normal(b, (7,)),
        "v": jax.random.normal(v, (7, 2)),
    }
    return params, jax.random.normal(x, (n, 3))


def expected(params, x1, x2, outputs):
    def jacobian(x):
        leaves = jax.tree.leaves(jax.jacrev(network)(params, x))
        return jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=2)

    full = jnp.einsum("nap,mbp->nmab", jacobian(x1), jacobian(x2))
    match outputs:
        case "full":
            return full
        case "diagonal":
            return jnp.einsum("nmaa->nma", full)
        case _:
            return jnp.einsum("nmaa->nm", full) / full.shape[2]


@pytest.fixture
def runs(monkeypatch):
    """Which calls were answered by a program that was known."""
    found = []
    again = repeated.again

    def recorded(*args):
        kernel = again(*args)
        found.append(kernel is not None)
        return kernel

    repeated._known.clear()
    monkeypatch.setattr(repeated, "again", recorded)
    return found


@pytest.mark.parametrize("outputs", ["full", "diagonal", "trace"])
@pytest.mark.parametrize("second", [False, True])
def test_other_values_of_the_same_shapes(outputs, second, runs):
    for seed in range(3):
        params, x = drawn(seed)
        x2 = drawn(seed + 9, 4)[1] if second else None
        kernel = ntk.empirical.ntk(network, params, x, x2, outputs=outputs)
        assert_close(kernel, expected(params, x, x if x2 is None else x2, outputs))
    assert runs == [False, True, True]


def test_what_makes_a_call_another_one(runs):
    params, x = drawn(0)
    other = {
        "more examples": lambda: ntk.empirical.ntk(network, params, x[:4]),
        "a second batch": lambda: ntk.empirical.ntk(network, params, x, x),
        "form": lambda: ntk.empirical.ntk(network, params, x, outputs="trace"),
        "method": lambda: ntk.empirical.ntk(network, params, x, method="jacobian"),
        "function": lambda: ntk.empirical.ntk(lambda p, x: network(p, x), params, x),
        "too little memory": lambda: ntk.empirical.ntk(network, params, x, memory=1000),
    }
    ntk.empirical.ntk(network, params, x)
    for call in other.values():
        call()
    assert not any(runs)
    ntk.empirical.ntk(network, {k: np.asarray(v) for k, v in params.items()}, np.asarray(x))
    assert runs[-1]


def test_closed_over_arrays_are_those_of_the_function(runs):
    params, x = drawn(0)

    def scaled(c):
        return lambda p, x: c * network(p, x)

    functions = [scaled(jnp.asarray(c)) for c in (1.0, 2.0)]
    kernels = [[ntk.empirical.ntk(f, params, x) for f in functions] for _ in range(2)]
    assert runs == [False, False, True, True]
    for one, four in kernels:
        assert_close(four, 4 * one)


def test_checks_of_values_remain(runs):
    params, x = drawn(0)
    ntk.empirical.ntk(network, params, x)
    with pytest.raises(NumericalError, match="v"):
        ntk.empirical.ntk(network, params | {"v": params["v"].at[0, 0].set(jnp.nan)}, x)
    with pytest.raises(NumericalError):
        ntk.empirical.ntk(network, params, x.at[0, 0].set(jnp.inf))
    centred = lambda p, x: network(p, x) - network(p, x).mean(0, keepdims=True)  # noqa: E731
    for _ in range(2):
        with pytest.raises(InputError, match="mixes"):
            ntk.empirical.ntk(centred, params, x)
    assert not any(runs)


def test_large_values_are_finite(runs):
    params, x = drawn(0)
    # Kernels of about 1e30, of which the sum of squares is not finite in float32.
    large = params | {"v": 1e15 * params["v"]}
    first, second = (ntk.empirical.ntk(network, large, x) for _ in range(2))
    assert runs == [False, True]
    np.testing.assert_array_equal(first, second)
    assert_close(second, expected(large, x, x, "full"))


def test_inside_transformations(runs):
    params, x = drawn(0)
    kernel = ntk.empirical.ntk(network, params, x)
    # Values that are known, inside another jit: of a function never seen before, and of one known.
    new = jax.jit(lambda: ntk.empirical.ntk(lambda p, x: network(p, x), params, x) + 0)
    assert_close(new(), kernel)
    traced = jax.jit(lambda p: ntk.empirical.ntk(network, p, x))
    assert_close(traced(params), kernel)
    assert_close(jax.jit(lambda: ntk.empirical.ntk(network, params, x) + 0)(), kernel)
    gradient = jax.grad(lambda p: ntk.empirical.ntk(network, p, x, outputs="trace").sum())(params)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    assert_close(ntk.empirical.ntk(network, params, x), kernel)
