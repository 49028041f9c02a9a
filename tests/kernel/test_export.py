"""Kernels, networks and empirical kernels lower for CPU, CUDA and TPU, and run as lowered."""

import jax
import jax.numpy as jnp
import pytest

import ntk_lab as ntk
from tests.tolerance import assert_close

nn = ntk.nn
PLATFORMS = ("cpu", "cuda", "tpu")


def points(*shape):
    return jax.random.normal(jax.random.key(3), (3, *shape))


def graphs():
    pattern = jax.random.bernoulli(jax.random.key(1), 0.6, (3, 3, 3))
    return nn.Graph(points(3, 2), pattern.astype(float))


def dense(*middle):
    return nn.Sequential(nn.Dense(8, 1.3, 0.3), *middle, nn.Dense(2))


def block(activation):
    branch = nn.LayerNorm(), activation, nn.Dense(8), nn.Dropout(0.9)
    return nn.Residual(nn.Sequential(*branch))


NETS = {
    "relu": (dense(nn.Relu()), points(4)),
    "expansion": (dense(nn.Tanh()), points(4)),
    "kinks": (dense(nn.Elu()), points(4)),
    "conv and flatten": (
        nn.Sequential(nn.Conv(4, (3, 2), b_std=0.1), nn.Relu(), nn.Flatten(), nn.Dense(2)),
        points(3, 4, 2),
    ),
    "conv and pooling": (
        nn.Sequential(
            *(nn.Conv(4, (3, 3)), nn.Relu(), nn.AvgPool((2, 2))),
            *(nn.Conv(4, (3, 3), padding="CIRCULAR"), nn.Relu(), nn.GlobalAvgPool(), nn.Dense(2)),
        ),
        points(4, 4, 2),
    ),
    "transposed and local": (
        nn.Sequential(
            *(nn.ConvTranspose(4, (2,), (2,)), nn.Erf(), nn.ConvLocal(4, (2,)), nn.Erf()),
            *(nn.ImageResize((3,)), nn.Flatten(), nn.Dense(2)),
        ),
        points(3, 2),
    ),
    "transformer": (nn.Transformer(1, 8, 2, heads=2, hidden=8, pos_emb="sum"), points(3, 2)),
    "sampled attention": (
        nn.Sequential(
            nn.GlobalSelfAttention(8, 2, scaling="sqrt", samples=4), nn.Flatten(), nn.Dense(2)
        ),
        points(3, 2),
    ),
    "recurrent": (nn.Sequential(nn.SimpleRNN(8, 0.9, 1.2, 0.3), nn.Dense(2)), points(3, 2)),
    "graph": (
        nn.Sequential(nn.Dense(8), nn.Aggregate(), nn.Relu(), nn.GlobalAvgPool(), nn.Dense(2)),
        graphs(),
    ),
    "tokens": (
        nn.Sequential(nn.Embedding(8, 5), nn.Relu(), nn.GlobalAvgPool(), nn.Dense(2)),
        jnp.array([[0, 1, 2], [2, 1, 1], [4, 1, 2]]),
    ),
    "residual, normalization, dropout": (dense(block(nn.Erf()), nn.Dense(8), nn.Relu()), points(4)),
    "repeat": (
        dense(nn.Repeat(nn.Sequential(nn.Relu(), nn.Dense(8, 1.4, 0.2)), 3)),
        points(4),
    ),
}


def exported(function, *arguments):
    """The function lowered for all platforms at once, to be called on this one."""
    lowered = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    assert tuple(lowered.platforms) == PLATFORMS
    return lowered.call


def assert_same(got, expected, factor=1.0):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for value, reference in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert_close(value, reference, factor=factor)


@pytest.mark.parametrize("name", NETS)
def test_kernels_lower_for_all_platforms(name):
    net, x = NETS[name]
    # Without examples in common, which after pooling are exact to half of the digits only.
    x1, x2 = jax.tree.map(lambda a: a[:2], x), jax.tree.map(lambda a: a[2:], x)
    kernel = exported(lambda x1, x2: tuple(net.kernel(x1, x2)), x1, x2)
    # Sampling takes the root of a covariance of more positions than channels, which is singular.
    factor = 100 if name == "sampled attention" else 1
    assert_same(kernel(x1, x2), tuple(net.kernel(x1, x2)), factor)


@pytest.mark.parametrize("name", NETS)
def test_networks_and_empirical_kernels_lower_for_all_platforms(name):
    net, x = NETS[name]
    params = net.init(jax.random.key(0), x.shape[1:])

    def both(params, x):
        if isinstance(x, nn.Graph):
            # The examples of an empirical kernel are arrays: differentiate the outputs instead.
            return net.apply(params, x), jax.jacobian(lambda p: net.apply(p, x))(params)
        return net.apply(params, x), ntk.empirical.ntk(net.apply, params, x, outputs="trace")

    assert_same(exported(both, params, x)(params, x), jax.jit(both)(params, x))


def test_initialization_lowers_for_all_platforms():
    net, x = NETS["transformer"]
    key, init = jax.random.key(0), lambda key: net.init(key, x.shape[1:])
    assert_same(exported(init, key)(key), jax.jit(init)(key))


def test_derivatives_of_kernels_lower_for_all_platforms():
    net, x = NETS["residual, normalization, dropout"]
    gradient = jax.grad(lambda x: net.kernel(x).ntk.sum())
    assert_same(exported(gradient, x)(x), gradient(x))
