"""Lipschitz bounds from below and above, against each other and against matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab import nn
from ntk_lab.errors import InputError
from ntk_lab.theory import kernel_function, lipschitz_lower_bound, lipschitz_upper_bound

RTOL = 1e-10 if jnp.result_type(float) == jnp.float64 else 1e-5
KEY, OTHER = jax.random.split(jax.random.key(0))
X = jax.random.normal(jax.random.key(1), (6, 5))
MLP = nn.Sequential(nn.Dense(16, b_std=0.3), nn.Relu(), nn.Dense(16), nn.Relu(), nn.Dense(3))


def test_linear_networks_have_both_bounds_at_the_spectral_norm():
    net = nn.Sequential(nn.Scale(-2.0), nn.Dense(4, w_std=1.5, b_std=1.0))
    params = net.init(KEY, (5,))
    exact = 2 * 1.5 / 5**0.5 * np.linalg.norm(np.asarray(params[1]["w"], np.float64), 2)
    lower = lipschitz_lower_bound(net.apply, params, X, radius=1.0, steps=2)
    upper = lipschitz_upper_bound(net, params, (5,))
    np.testing.assert_allclose([lower.value, upper.value], exact, rtol=RTOL)
    assert upper.margin == 0


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CIRCULAR"])
def test_norm_of_a_convolution_against_its_dense_matrix(padding):
    layer = nn.Conv(4, (3, 3), strides=(2, 1), padding=padding, w_std=1.3, b_std=1.0)
    shape = (6, 7, 3)
    params = layer.init(KEY, shape)
    basis = jnp.eye(6 * 7 * 3).reshape(-1, *shape)
    rows = layer.apply(params, basis) - layer.apply(params, jnp.zeros((1, *shape)))
    exact = np.linalg.norm(np.asarray(rows, np.float64).reshape(len(basis), -1), 2)
    bound = lipschitz_upper_bound(layer, params, shape)
    assert exact <= bound.value < 1.05 * exact
    assert bound.value / (1 + bound.margin) <= exact * (1 + RTOL)
    # As it says: log(sqrt(N) / 1e-6) / (2 steps), and less where the start was good.
    assert 0 < bound.margin < 0.05


@pytest.mark.parametrize(
    "layer", [nn.AvgPool((2, 3), padding="SAME"), nn.SumPool((2, 2), strides=(2, 2)),
              nn.GlobalAvgPool(), nn.GlobalSumPool()], ids=repr,
)  # fmt: skip
def test_norms_of_pooling_against_dense_matrices(layer):
    basis = jnp.eye(4 * 5 * 2).reshape(-1, 4, 5, 2)
    matrix = np.asarray(layer.apply((), basis), np.float64).reshape(len(basis), -1)
    found = ntk.theory.lipschitz_constant(layer, (), (4, 5, 2))
    np.testing.assert_allclose(found, np.linalg.norm(matrix, 2), rtol=RTOL)


ACTIVATIONS = [
    nn.Relu(), nn.LeakyRelu(0.3), nn.ABRelu(-2.0, 0.5), nn.Abs(), nn.Tanh(), nn.Softplus(),
    nn.Sigmoid(), nn.SigmoidLike(), nn.Gelu(), nn.Silu(), nn.Selu(), nn.Elu(1.5), nn.Elu(0.5),
    nn.Erf(1.5, 0.7), nn.Sin(2.0, 0.4, 0.1), nn.Cos(2.0, 0.4), nn.Identity(),
]  # fmt: skip


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_constants_of_activations_are_their_steepest_slopes(layer):
    grid = jnp.linspace(-20, 20, 40001) + 1e-5
    slopes = jax.vmap(jax.grad(lambda z: layer.apply((), z)))(grid)
    # Steps of 1e-3 miss a smooth maximum by 1e-6 of it, the slope beside a kink by 1e-3.
    steepest = float(jnp.abs(slopes).max())
    constant = ntk.theory.lipschitz_constant(layer)
    assert steepest <= constant * (1 + 1e-6)
    assert constant <= steepest * (1 + 1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_lower_bounds_stay_below_upper_bounds_and_ascent_raises_them(seed):
    params = MLP.init(jax.random.key(seed), (5,))
    at_data = lipschitz_lower_bound(MLP.apply, params, X)
    near = lipschitz_lower_bound(MLP.apply, params, X, radius=3.0, steps=10)
    upper = lipschitz_upper_bound(MLP, params, (5,))
    np.testing.assert_allclose(near.at_data, at_data.largest, rtol=RTOL)
    assert at_data.value < near.value <= upper.value
    assert bool((near.largest >= near.at_data).all())
    distance = jnp.linalg.norm(near.where - X, axis=1)
    assert float(distance.max()) <= 3 * (1 + 1e-6)
    again = lipschitz_lower_bound(MLP.apply, params, near.where)
    np.testing.assert_allclose(again.at_data, near.largest, rtol=100 * RTOL)


def test_norms_at_the_data_are_those_of_jacobians_and_bound_slopes_of_pairs():
    net = nn.Sequential(nn.Conv(4, (3, 3)), nn.Tanh(), nn.AvgPool((2, 2)), nn.Flatten(),
                        nn.Dense(3))  # fmt: skip
    params = net.init(KEY, (4, 4, 2))
    x = jax.random.normal(OTHER, (3, 4, 4, 2))
    found = lipschitz_lower_bound(net.apply, params, x)
    jacobians = jax.vmap(jax.jacrev(lambda z: net.apply(params, z[None])[0]))(x)
    exact = np.linalg.norm(np.asarray(jacobians, np.float64).reshape(3, 3, -1), 2, axis=(1, 2))
    np.testing.assert_allclose(found.at_data, exact, rtol=10 * RTOL)
    upper = lipschitz_upper_bound(net, params, (4, 4, 2)).value
    y = net.apply(params, x)
    slopes = jnp.linalg.norm(y[:1] - y[1:], axis=1) / jnp.linalg.norm(
        (x[:1] - x[1:]).reshape(2, -1), axis=1
    )
    assert float(slopes.max()) <= upper
    assert found.value <= upper


@pytest.mark.parametrize("which", ["nngp", "ntk"])
def test_gradient_of_a_kernel_predictor_against_finite_differences(which):
    net = nn.Sequential(nn.Dense(1, b_std=0.5), nn.Erf(), nn.Dense(1))
    f = kernel_function(net, X, which)
    alpha = jax.random.normal(KEY, (6, 1))
    z = 0.7 * X[:2] + 0.1
    found = lipschitz_lower_bound(f, alpha, z)
    # Errors of central differences: step^2 and rounding / step.
    step, rtol = (1e-4, 1e-6) if jnp.result_type(float) == jnp.float64 else (3e-2, 3e-3)
    moves = step * jnp.eye(5)
    for example, value in zip(z, found.at_data, strict=True):
        up, down = (f(alpha, example[None] + sign * moves)[:, 0] for sign in (1, -1))
        np.testing.assert_allclose(value, jnp.linalg.norm(up - down) / (2 * step), rtol=rtol)


def test_the_norm_of_a_kernel_predictor_bounds_its_slope():
    net = nn.Sequential(nn.Dense(1, w_std=1.4), nn.Relu(), nn.Dense(1))
    y = jax.random.normal(OTHER, (6, 2))
    alpha = jnp.linalg.solve(net.kernel(X).nngp, y)
    lower = lipschitz_lower_bound(kernel_function(net, X), alpha, X, radius=1.0, steps=5)
    upper = ntk.theory.kernel_lipschitz_bound(net, X, alpha)
    assert lower.value < upper < 10 * lower.value


def test_a_linear_kernel_meets_its_bound():
    net = nn.Sequential(nn.Dense(1, w_std=1.4))
    alpha = jax.random.normal(KEY, (6, 1))
    lower = lipschitz_lower_bound(kernel_function(net, X), alpha, X)
    upper = ntk.theory.kernel_lipschitz_bound(net, X, alpha)
    np.testing.assert_allclose(lower.value, upper, rtol=10 * RTOL)


def test_what_has_no_bound_is_refused():
    norm = nn.Sequential(nn.Dense(4), nn.LayerNorm())
    with pytest.raises(InputError, match="of LayerNorm is known"):
        lipschitz_upper_bound(norm, norm.init(KEY, (5,)), (5,))
    with pytest.raises(InputError, match="'standard'"):
        ntk.theory.kernel_lipschitz_bound(MLP.with_parameterization("standard"), X, X[:, :1])
    with pytest.raises(InputError, match="LayerNorm in this place"):
        ntk.theory.kernel_lipschitz_bound(norm, X, X[:, :1])
    with pytest.raises(InputError, match=r"expected \(6, outputs\)"):
        ntk.theory.kernel_lipschitz_bound(MLP, X, X[:2, :1])
    with pytest.raises(InputError, match="which"):
        kernel_function(MLP, X, "cntk")  # pyright: ignore[reportArgumentType]
    params = MLP.init(KEY, (5,))
    with pytest.raises(InputError, match="radius"):
        lipschitz_lower_bound(MLP.apply, params, X, radius=-1.0)
    with pytest.raises(InputError, match="steps"):
        lipschitz_lower_bound(MLP.apply, params, X, steps=0)
    with pytest.raises(InputError, match="shape"):
        lipschitz_lower_bound(MLP.apply, params, X[0])
    with pytest.raises(InputError, match="steps"):
        lipschitz_upper_bound(MLP, params, (5,), steps=0)
