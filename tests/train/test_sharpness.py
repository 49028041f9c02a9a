"""Largest eigenvalues against dense Hessians and kernels."""

import jax
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import ntk_lab as ntk
from ntk_lab.losses import read_loss
from tests.train.problems import SEEDS, C, N, data, drawn, seed, smooth

NET = smooth()
X, Y, _ = data()


def dense_hessian(params, loss, f=NET.apply):
    flat, unravel = ravel_pytree(params)
    return np.asarray(
        jax.jit(jax.hessian(lambda v: read_loss(loss)(f(unravel(v), X), Y).sum() / N))(flat)
    )


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_sharpness_is_the_largest_eigenvalue_of_the_dense_hessian(loss):
    params = seed(drawn(NET), 0)
    top = ntk.train.sharpness(NET.apply, params, X, Y, loss=loss, key=jax.random.key(3), tol=1e-4)
    expected = np.linalg.eigvalsh(dense_hessian(params, loss))[-1]
    # A residual of 1e-4 leaves an error of its square over the gap.
    np.testing.assert_allclose(top.value, expected, rtol=2e-6)
    assert top.residual <= 1e-4 * top.value
    assert top.value - expected <= top.residual


def test_the_top_of_the_ntk_is_that_of_the_dense_kernel():
    params = seed(drawn(NET), 0)
    top = ntk.train.top_ntk(NET.apply, params, X, key=jax.random.key(3), tol=1e-4)
    kernel = np.asarray(ntk.empirical.ntk(NET.apply, params, X))
    dense = kernel.transpose(0, 2, 1, 3).reshape(N * C, N * C) / N
    np.testing.assert_allclose(top.value, np.linalg.eigvalsh(dense)[-1], rtol=2e-6)


def test_few_products_are_told_by_the_residual():
    params = seed(drawn(NET), 0)
    top = ntk.train.sharpness(NET.apply, params, X, Y, key=jax.random.key(3), max_products=3)
    expected = np.linalg.eigvalsh(dense_hessian(params, "squared"))
    assert top.products == 3
    assert np.abs(expected - top.value).min() <= top.residual


@pytest.mark.parametrize("linearized", [False, True])
def test_sharpness_along_a_run(linearized):
    params = drawn(NET)
    run = ntk.train.ensemble(
        NET.apply, params, X, Y, optimizer=optax.sgd(0.3), steps=4, record=(0, 4), sharpness=True,
        keep_params=True, linearized=linearized,
    )  # fmt: skip
    for s in range(SEEDS):
        for at in range(2):
            own = seed(seed(run.params, s), at)
            f = NET.apply
            if linearized:
                f = ntk.empirical.linearize(NET.apply, seed(params, s))
            expected = np.linalg.eigvalsh(dense_hessian(own, "squared", f))[-1]
            np.testing.assert_allclose(run.sharpness[s, at], expected, rtol=1e-5)
            kernel = np.asarray(ntk.empirical.ntk(f, own, X)).transpose(0, 2, 1, 3)
            top = np.linalg.eigvalsh(kernel.reshape(N * C, N * C))[-1] / N
            np.testing.assert_allclose(run.top_ntk[s, at], top, rtol=1e-5)
    assert (run.sharpness_error <= 1e-3 * run.sharpness).all()
    assert (run.top_ntk_error <= 1e-3 * run.top_ntk).all()
    if linearized:  # the Hessian of the squared loss of a linear model is its Gauss-Newton matrix
        np.testing.assert_allclose(run.sharpness, run.top_ntk, rtol=1e-5)
