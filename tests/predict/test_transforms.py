"""Predictions under jit, vmap and grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ntk_lab.predict import gp_posterior, gradient_descent, gradient_flow
from tests.predict.problems import random_problem
from tests.tolerance import assert_close

P = random_problem(n=5, n_test=3)


def predict(y, f0_train, f0_test, t):
    flow = gradient_flow(
        P.train_train.ntk, y, P.test_train.ntk, f0_train=f0_train, f0_test=f0_test, ridge=0.1
    )
    prediction = flow.at(t)
    return prediction.train.mean, prediction.test.mean


def arguments(t):
    return tuple(jnp.asarray(a) for a in (P.y, P.f0_train, P.f0_test, t))


@pytest.mark.parametrize("t", [0.0, 2.0, np.inf])
def test_jit_changes_nothing(t):
    for actual, expected in zip(
        jax.jit(predict)(*arguments(t)), predict(*arguments(t)), strict=True
    ):
        assert_close(actual, expected)


def test_a_prediction_object_crosses_jit():
    flow = gradient_flow(P.train_train, P.y, P.test_train, P.test_test)
    compiled = jax.jit(lambda flow, t: flow.at(t))(flow, jnp.asarray(2.0))
    jax.tree.map(assert_close, compiled, flow.at(2.0))
    descent = gradient_descent(P.train_train.ntk, P.y, learning_rate=0.5, momentum=0.9)
    compiled = jax.jit(lambda descent, steps: descent.at(steps))(descent, jnp.asarray(7))
    jax.tree.map(assert_close, compiled, descent.at(7))


def test_vmap_over_targets_and_times_equals_a_loop():
    ys = jnp.stack([jnp.asarray(P.y), 2 * jnp.asarray(P.y)])
    ts = jnp.asarray([0.5, np.inf])
    _, *f0, _ = arguments(0.0)
    batched = jax.vmap(lambda y, t: predict(y, *f0, t))(ys, ts)
    for index in range(2):
        for actual, expected in zip(batched, predict(ys[index], *f0, ts[index]), strict=True):
            assert_close(actual[index], expected)


@pytest.mark.x64
@pytest.mark.parametrize("t", [0.0, 2.0, 50.0])
def test_derivatives_match_finite_differences(t):
    order = 1 if t == 0 else 2  # a finite difference at 0 would need negative times
    args = arguments(t)
    if t == 0:
        check_grads(lambda *a: predict(*a, args[3]), args[:3], order=order, rtol=1e-6)
    else:
        check_grads(predict, args, order=order, rtol=1e-6)


def test_nothing_moves_at_infinite_time_and_derivatives_stay_finite():
    jacobians = jax.jacobian(predict, argnums=(0, 1, 2, 3))(*arguments(np.inf))
    assert all(np.isfinite(j).all() for j in jax.tree.leaves(jacobians))
    for by_argument in jacobians:
        assert not np.asarray(by_argument[3]).any()


def test_slope_at_time_zero_is_that_of_the_flow():
    slope = jax.jacobian(lambda t: predict(*arguments(0.0)[:3], t))(jnp.asarray(0.0))
    kernel = P.train_train.ntk + 0.1 * np.eye(5)
    assert_close(slope[0], kernel @ (P.y - P.f0_train) / 5)
    assert_close(slope[1], P.test_train.ntk @ (P.y - P.f0_train) / 5)


@pytest.mark.x64
@pytest.mark.parametrize("t", [1.0, np.inf])
def test_derivatives_by_the_kernel_match_finite_differences(t):
    def outputs(root):
        kernel = root @ root.T + jnp.diag(jnp.arange(1.0, 6.0))
        prediction = gradient_flow(kernel, P.y, P.test_train.ntk).at(t)
        return prediction.train.mean, prediction.test.mean

    check_grads(outputs, (jnp.asarray(P.train_train.ntk),), order=1, rtol=1e-5)


@pytest.mark.x64
def test_derivatives_of_the_covariance_by_time_match_finite_differences():
    flow = gradient_flow(P.train_train, P.y, P.test_train, P.test_test)
    check_grads(lambda t: flow.at(t).test.covariance, (jnp.asarray(3.0),), order=1, rtol=1e-6)


@pytest.mark.x64
@pytest.mark.parametrize("momentum", [0.0, 0.2, 0.9])
def test_derivatives_by_the_learning_rate_match_finite_differences(momentum):
    def outputs(rate, y):
        descent = gradient_descent(
            P.train_train.ntk, y, P.test_train.ntk, learning_rate=rate, momentum=momentum
        )
        return descent.at(12).test.mean

    check_grads(outputs, (jnp.asarray(0.9), jnp.asarray(P.y)), order=1, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.x64
def test_marginal_likelihood_can_be_maximized_over_the_noise():
    def likelihood(noise):
        blocks = P.train_train.nngp, P.test_train.nngp
        return gp_posterior(blocks[0], P.y, blocks[1], noise=noise).log_marginal_likelihood

    check_grads(likelihood, (jnp.asarray(0.3),), order=1, rtol=1e-6)


def test_derivatives_stay_finite_for_rank_deficient_kernels():
    features = np.random.default_rng(0).normal(size=(5, 2))
    gradient = jax.grad(
        lambda y, t: gradient_flow(features @ features.T, y).at(t).train.mean.sum(), argnums=(0, 1)
    )(jnp.asarray(P.y), jnp.asarray(np.inf))
    assert all(np.isfinite(g).all() for g in gradient)
