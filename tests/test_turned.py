"""Products that turn a matrix first are the same products, and are used where they may be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.turned import gram_product, is_turnable, turned_product, with_turned_products

WIDTH = 512  # a matrix of this width is just large enough to be turned
HIGHEST = jax.lax.Precision.HIGHEST


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def network(params, x):
    first, second, third = params
    return jax.nn.relu(jnp.tanh(x @ first) @ second) @ third


PARAMS = [
    normal(i, *s) / s[0] ** 0.5 for i, s in enumerate([(20, WIDTH), (WIDTH,) * 2, (WIDTH, 3)])
]
# Products of two orders of summation over 512 terms.
TOLERANCE = {"float64": 1e-13, "float32": 2e-5}


def close(a, b):
    scale = np.abs(b).max()
    np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[str(b.dtype)] * scale)


def dots(function, *args):
    """Products in the program of a function."""
    return [e for e in jax.make_jaxpr(function)(*args).jaxpr.eqns if "dot" in e.primitive.name]


@pytest.mark.parametrize("shape", [(7,), (2, 7)])
def test_values_and_pullback_are_those_of_the_product(shape):
    x, w, d = normal(0, *shape, WIDTH), normal(1, WIDTH, 600), normal(2, *shape, 600)
    value, pullback = jax.vjp(lambda x, w: turned_product(x, w, HIGHEST), x, w)
    expected, plain = jax.vjp(lambda x, w: jnp.matmul(x, w, precision=HIGHEST), x, w)
    close(value, expected)
    for ours, theirs in zip(pullback(d), plain(d), strict=True):
        close(ours, theirs)


def test_pullback_turns_a_large_matrix_only():
    x, w = normal(0, 4, WIDTH), normal(1, WIDTH, WIDTH)
    (large,) = dots(lambda x, w: x @ w, x, w)
    (small,) = dots(lambda x, w: x @ w, x, w[:, :100])
    (other,) = dots(lambda x, w: jax.lax.dot_general(x, w, (((1,), (1,)), ((), ()))), x, w)
    (batched,) = dots(jax.lax.batch_matmul, jnp.stack([x, x]), jnp.stack([w, w]))
    assert [is_turnable(e) for e in (large, small, other, batched)] == [True, False, False, False]


def test_a_function_with_turned_products_has_the_same_gradients_also_under_jit_and_vmap():
    x, y = normal(3, 6, 20), normal(4, 6, 3)

    def loss(f):
        return lambda params: jnp.sum((f(params, x) - y) ** 2)

    turned = with_turned_products(jax.jit(network))
    stacked = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), PARAMS)
    for transform in (lambda g: g, jax.jit):
        ours, theirs = (transform(jax.grad(loss(f)))(PARAMS) for f in (turned, network))
        jax.tree.map(close, ours, theirs)
    ours, theirs = (jax.vmap(jax.grad(loss(f)))(stacked) for f in (turned, network))
    jax.tree.map(close, ours, theirs)
    assert "custom_vjp" in str(jax.make_jaxpr(turned)(PARAMS, x))


@pytest.mark.parametrize("rows", [300, 1100])
def test_gram_products_of_few_and_of_many_rows(rows):
    a, b = normal(0, 40, WIDTH), normal(1, rows, WIDTH)
    for left in (a, b):
        close(gram_product(left, b, HIGHEST), jnp.matmul(left, b.T, precision=HIGHEST))


def test_kernels_of_wide_networks_and_their_derivatives_in_both_modes():
    x = normal(3, 4, 20)
    kernel = lambda s, method: ntk.empirical.ntk(  # noqa: E731
        network, [PARAMS[0], s * PARAMS[1], PARAMS[2]], x, method=method
    )
    one = jnp.ones(())
    structured, jacobian = (kernel(one, m) for m in ("structured", "jacobian"))
    close(structured, jacobian)
    forward, reverse = (j(lambda s: kernel(s, "structured"))(one) for j in (jax.jacfwd, jax.jacrev))
    expected = jax.jacfwd(lambda s: kernel(s, "jacobian"))(one)
    close(forward, expected)
    close(reverse, expected)


def test_training_follows_plain_gradient_descent():
    x, y = normal(3, 6, 20), normal(4, 6, 3)
    stacked = jax.tree.map(lambda p: p[None], PARAMS)
    run = ntk.train.ensemble(
        network, stacked, x, y, optimizer=optax.sgd(0.1), steps=3, record=(3,), keep_params=True
    )
    params = PARAMS
    for _ in range(3):
        gradient = jax.grad(lambda p: jnp.sum((network(p, x) - y) ** 2) / (2 * len(x)))(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    jax.tree.map(lambda ours, p: close(ours[-1, 0], np.asarray(p)), run.params, params)
