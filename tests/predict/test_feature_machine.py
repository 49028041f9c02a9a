"""Recursive feature machines: against plain linear algebra, symmetries and what they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.predict import feature_machine as module
from tests.tolerance import assert_close, rtol

laplace, machine = ntk.predict.laplace_kernel, ntk.predict.recursive_feature_machine


def small_net():
    return ntk.nn.Sequential(ntk.nn.Dense(8, 2**0.5, 0.3), ntk.nn.Relu(), ntk.nn.Dense(1))


def test_the_laplace_kernel_is_its_definition_and_exact_where_inputs_coincide(key):
    x = jax.random.normal(key, (6, 3)) + 100
    x = jnp.concatenate([x, x[:1]])
    apart = np.asarray(x, np.float64)
    expected = np.exp(-np.linalg.norm(apart[:, None] - apart, axis=2) / 1.7)
    found = laplace(x, bandwidth=1.7)
    assert_close(found, expected, factor=10)
    assert found[0, 6] == found[2, 2] == 1
    gradient = jax.grad(lambda a: laplace(a, x).sum())(x)
    assert np.isfinite(np.asarray(gradient)).all()


def test_gradients_of_the_laplace_kernel_are_those_of_its_formula(key):
    a, b = jax.random.normal(key, (4, 3)), jax.random.normal(jax.random.key(1), (5, 3))
    found = jax.jacrev(lambda a: laplace(a, b, 2.0).sum(1))(a)[jnp.arange(4), jnp.arange(4)]
    apart = np.asarray(a)[:, None] - np.asarray(b)
    far = np.linalg.norm(apart, axis=2, keepdims=True)
    assert_close(found, (-np.exp(-far / 2) / 2 * apart / far).sum(1), factor=10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["laplace", "ntk"])
def test_one_iteration_is_what_linear_algebra_makes_of_it(kind, key, monkeypatch):
    net = small_net()
    kernel = laplace if kind == "laplace" else net
    function = laplace if kind == "laplace" else lambda a, b: net.kernel(a, b).ntk
    x, new = jax.random.normal(key, (20, 3)), jax.random.normal(jax.random.key(1), (4, 3))
    y = jnp.stack([x[:, 0] ** 2, x[:, 1]], axis=1)
    monkeypatch.setattr(module, "_NUMBERS", 140)  # blocks of 7 rows
    found = machine(kernel, x, y, iterations=1, ridge=0.1)
    alpha = np.linalg.solve(np.asarray(function(x, x)) + 0.1 * np.eye(20), np.asarray(y))
    assert_close(found.coefficients[0], alpha, factor=100)
    assert_close(found.predict(new, 0), np.asarray(function(new, x)) @ alpha, factor=100)
    # The metric: gradients of the predictor itself.
    weights = jnp.asarray(alpha, x.dtype)
    slopes = jax.vmap(jax.jacrev(lambda a: (function(a[None], x) @ weights)[0]))(x)
    expected = np.einsum("nci,ncj->ij", slopes, slopes)
    assert_close(found.metrics[1], expected * 3 / np.trace(expected), factor=1000)


def test_the_second_predictor_is_the_kernel_of_transformed_inputs(key):
    x = jax.random.normal(key, (30, 4))
    y = x[:, :1] * x[:, 1:2]
    found = machine(laplace, x, y, iterations=2, ridge=1e-2)
    m = found.metrics[1].astype(np.float64)
    apart = np.asarray(x, np.float64)[:, None] - np.asarray(x, np.float64)
    square = np.einsum("ijd,de,ije->ij", apart, m, apart)
    kernel = np.exp(-np.sqrt(np.maximum(square, 0)))
    alpha = np.linalg.solve(kernel + 1e-2 * np.eye(30), np.asarray(y, np.float64))
    # Distances of Gram matrices: half the digits of small ones (see laplace_kernel).
    tolerance = 100 * rtol(x)
    np.testing.assert_allclose(found.predict(x, 1), kernel @ alpha, rtol=0, atol=tolerance)


def test_it_commutes_with_rotations(key):
    x = jax.random.normal(key, (40, 5))
    y = jnp.tanh(x[:, :1] - x[:, 1:2])
    q, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(3), (5, 5)))
    plain = machine(laplace, x, y, iterations=3, ridge=1e-2)
    half = machine(laplace, x, y, iterations=1, ridge=1e-2, power=0.5).metrics[1]
    square = half.astype(np.float64) @ half
    assert_close(square * 5 / np.trace(square), plain.metrics[1], factor=1000)
    turned = machine(laplace, x @ q, y, iterations=3, ridge=1e-2)
    assert_close(turned.metrics[-1], np.asarray(q.T) @ plain.metrics[-1] @ q, factor=1000)
    assert_close(turned.predict(x @ q), plain.predict(x), factor=1000)
    assert np.allclose(np.trace(plain.metrics, axis1=1, axis2=2), 5)


def test_it_finds_the_directions_that_matter_and_then_predicts_better(key):
    x, new = (jax.random.normal(jax.random.key(i), (300, 15)) for i in (0, 1))
    target = [a[:, :1] * a[:, 1:2] for a in (x, new)]
    found = machine(laplace, x, target[0], iterations=4, ridge=1e-3)
    errors = [float(jnp.mean((found.predict(new, i) - target[1]) ** 2)) for i in (0, -1)]
    assert found.metrics[-1].diagonal()[:2].sum() > 0.9 * 15
    assert errors[1] < errors[0] / 2


def test_bad_arguments_are_explained(key):
    x = jax.random.normal(key, (6, 2))
    y = x[:, :1]
    for arguments, text in (
        ((laplace, x[:, 0], y), "flatten"),
        ((laplace, x, y[:, 0]), "reshape"),
        ((laplace, x.at[0].set(jnp.nan), y), "NaN"),
        ((lambda a, b: a, x, y), "the kernel has shape"),
    ):
        with pytest.raises(InputError, match=text):
            machine(*arguments)
    with pytest.raises(InputError, match="power"):
        machine(laplace, x, y, power=0.0)
    with pytest.raises(InputError, match="iterations"):
        machine(laplace, x, y, iterations=-1)
    with pytest.raises(NumericalError, match="not positive definite"):
        machine(lambda a, b: -laplace(a, b), x, y)
    with pytest.raises(NumericalError, match="trace"):
        machine(laplace, x, 0 * y, ridge=1.0)
    with pytest.raises(InputError, match="trained on 2"):
        machine(laplace, x, y, iterations=0).predict(jnp.ones((2, 3)))
    with pytest.raises(InputError, match="bandwidth"):
        laplace(x, bandwidth=0.0)
