"""Derivatives of kernels, in inputs and in weight scales."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import ntk_lab as ntk
from tests.tolerance import assert_close

D = 4
ACTIVATIONS = {
    "relu": ntk.nn.Relu(),
    "erf": ntk.nn.Erf(),
    "gelu": ntk.nn.Gelu(),
    "tanh": ntk.nn.Tanh(),
}


def network(activation, b_std=0.3):
    return ntk.nn.Sequential(ntk.nn.Dense(16, 1.2, b_std), activation, ntk.nn.Dense(1, 0.9, b_std))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.result_type(float))


# The Hermite expansion compiles slowly; its own second derivatives are in test_hermite.py.
@pytest.mark.x64
@pytest.mark.parametrize(
    ("name", "order"),
    [("relu", 2), ("erf", 2), ("gelu", 2), pytest.param("tanh", 1, marks=pytest.mark.slow)],
)
def test_derivatives_in_the_inputs_match_finite_differences(name, order):
    kernel = network(ACTIVATIONS[name]).kernel

    def f(x1, x2):
        k = kernel(x1, x2)
        return k.nngp[0, 0] + 0.7 * k.ntk[0, 0] + 0.3 * k.ntk[1, 0]

    inputs = normal(0, 2, D), normal(1, 1, D)
    check_grads(jax.jit(f), inputs, order, modes=["fwd"], rtol=1e-6, atol=1e-6)


@functools.cache
def derivatives(b_std):
    """Value, gradient and Hessian of the NTK of two points in the first of them."""
    kernel = network(ACTIVATIONS["relu"], b_std).kernel

    def f(x1, x2):
        return kernel(x1[None], x2[None]).ntk[0, 0]

    @jax.jit
    def all_three(x1, x2):
        return f(x1, x2), jax.grad(f)(x1, x2), jax.hessian(f)(x1, x2)

    return all_three


@pytest.mark.parametrize("b_std", [None, 0.3])
@pytest.mark.parametrize("place", ["equal", "antipodal", "zero", "both zero", "colinear"])
def test_relu_derivatives_are_finite_where_the_angle_is_small_or_undefined(place, b_std):
    x = normal(0, D)
    other = {"equal": x, "antipodal": -x, "zero": 0 * x, "both zero": 0 * x, "colinear": 2 * x}
    point = 0 * x if place == "both zero" else x
    for value in derivatives(b_std)(point, other[place]):
        assert jnp.isfinite(value).all()


@pytest.mark.parametrize("name", ["erf", "gelu", "tanh"])
def test_smooth_kernels_have_their_true_gradient_at_equal_and_zero_inputs(name):
    """On the diagonal half the gradient of ``k(x, x)``, along a ray its derivative."""
    kernel = network(ACTIVATIONS[name]).kernel
    x = normal(0, D)

    @jax.jit
    def both(x):
        pair = jax.grad(lambda a, b: kernel(a[None], b[None]).ntk[0, 0])(x, x)
        return pair, jax.grad(lambda a: kernel(a[None]).ntk[0, 0])(x)

    pair, variance = both(x)
    assert_close(pair, variance / 2)
    assert_close(both(0 * x)[0], 0 * x, atol=1e-12)


def test_gradients_of_one_batch_are_those_of_two():
    """Through diagonal entries too: ``d/dx k(x, x)`` counts both arguments."""
    kernel, weights = network(ACTIVATIONS["relu"]).kernel, normal(4, 3, 3)
    x = normal(3, 3, D)
    one = jax.grad(lambda x: (weights * kernel(x).ntk).sum())(x)
    two = jax.grad(lambda x: (weights * kernel(x, x).ntk).sum())(x)
    assert_close(one, two)
    assert jnp.abs(one).min() > 0


@pytest.mark.x64
def test_gradients_in_the_weight_scales_match_finite_differences():
    x1, x2 = normal(5, 3, D), normal(6, 2, D)

    @jax.jit
    def f(net):
        kernel = net.kernel(x1, x2)
        return kernel.ntk.sum() + kernel.nngp.sum()

    net = network(ACTIVATIONS["relu"])
    leaves, treedef = jax.tree.flatten(net)
    assert leaves == [1.2, 0.3, 0.9, 0.3]
    gradients = jax.tree.leaves(jax.grad(f)(net))
    step = 1e-5
    for i, gradient in enumerate(gradients):
        up, down = (
            f(treedef.unflatten([leaf + s * (i == j) for j, leaf in enumerate(leaves)]))
            for s in (step, -step)
        )
        np.testing.assert_allclose(gradient, (up - down) / (2 * step), rtol=1e-8)


def test_traced_and_static_weight_scales_give_the_same_kernel():
    x, net = normal(7, 4, D), network(ACTIVATIONS["gelu"])
    traced = jax.jit(lambda net: net.kernel(x))(net)
    for got, k in zip(traced, net.kernel(x), strict=True):
        assert_close(got, k, factor=0.1)


def over_positions(*first, seed=8):
    """A kinked activation over positions, where an example's own entries are on a kink."""
    rest = ntk.nn.Relu(), ntk.nn.AvgPool((2,)), ntk.nn.Flatten()
    return ntk.nn.Sequential(*first, *rest), normal(seed, 5, 6, 2)


CONV = ntk.nn.Conv(4, (3,), w_std=1.3, b_std=0.3)


@pytest.mark.x64
@pytest.mark.parametrize(
    "first", [(CONV,), (ntk.nn.Dense(4, 1.3, 0.3),), (CONV, ntk.nn.Erf(), CONV)]
)
def test_derivatives_over_positions_match_finite_differences_on_the_diagonal(first):
    """Compiled code rounds the two variances of a diagonal entry differently."""
    net, x = over_positions(*first)
    direction, step = normal(9, *x.shape), 1e-5

    @jax.jit
    def both(x):
        return jax.jvp(lambda x: net.kernel(x).ntk, (x,), (direction,))

    difference = (both(x + step * direction)[0] - both(x - step * direction)[0]) / (2 * step)
    np.testing.assert_allclose(both(x)[1], difference, rtol=1e-8, atol=1e-8)


@pytest.mark.x64
def test_diagonals_over_positions_keep_their_digits_in_single_precision():
    """A smooth activation, and then a kink that takes the root of what rounding leaves."""
    net, x = over_positions(CONV, ntk.nn.Erf(), CONV)
    short = x.astype(jnp.float32)
    exact = net.kernel(short.astype(x.dtype)).ntk
    values = net.kernel(short).ntk
    np.testing.assert_allclose(jnp.diagonal(values), jnp.diagonal(exact), rtol=2e-6)
