"""Every layer: ensembles of its finite half against its kernel half, and what both refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from tests.nn.test_finite_against_infinite import samples, z_scores

nn = ntk.nn
WIDTH, SEEDS = 96, 96


def conv(layer, **options):
    """A hidden layer of that kind, positions mixed behind it."""
    first = layer(WIDTH, (2, 3), w_std=1.3, b_std=0.3, **options)
    rest = nn.Relu(), nn.AvgPool((2, 2)), nn.Flatten(), nn.Dense(1, 1.1, 0.1)
    return nn.Sequential(first, *rest)


def dense(*middle):
    return nn.Sequential(nn.Dense(WIDTH, 1.3, 0.3), *middle, nn.Dense(1, 1.1, 0.1))


def hidden(activation):
    return nn.Sequential(activation, nn.Dense(WIDTH, 1.2, 0.2))


NETS = {
    "conv transpose": (conv(nn.ConvTranspose, strides=(2, 1)), (2, 3, 2)),
    "conv transpose valid": (conv(nn.ConvTranspose, strides=(1, 4), padding="VALID"), (2, 3, 2)),
    "conv local": (conv(nn.ConvLocal, strides=(1, 2)), (3, 4, 2)),
    "conv local circular": (conv(nn.ConvLocal, padding="CIRCULAR", dilation=(1, 2)), (3, 5, 2)),
    "sum": (dense(nn.Sum(nn.Relu(), hidden(nn.Erf()), hidden(nn.Relu()))), (3,)),
    "sum with dropout and normalization": (
        dense(
            nn.Residual(nn.Sequential(hidden(nn.Erf()), nn.LayerNorm(), nn.Dropout(0.5, "test"))),
            nn.Relu(),
        ),
        (3,),
    ),
    "product": (dense(nn.Product(hidden(nn.Erf()), nn.Relu())), (3,)),
    "product of non-zero means": (
        nn.Sequential(
            nn.Product(*(nn.Sequential(nn.Dense(WIDTH), a) for a in (nn.Relu(), nn.Gelu()))),
            nn.Dense(1),
        ),
        (3,),
    ),
    "concat": (dense(nn.Concat(nn.Relu(), nn.Sequential(nn.Erf(), nn.Dense(WIDTH // 2)))), (3,)),
    "concat over positions": (
        dense(
            nn.Concat(hidden(nn.Erf()), hidden(nn.Relu()), axis=1), nn.Relu(), nn.GlobalAvgPool()
        ),
        (3, 2),
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_ensembles_have_the_kernels_as_means(name):
    net, shape = NETS[name]
    x = jax.random.normal(jax.random.key(3), (3, *shape))
    x = x.at[2].set(1.01 * x[0])
    kernel = net.kernel(x)
    nngp, theta = (np.asarray(v, np.float64) for v in samples(net, x, SEEDS))
    assert z_scores(nngp, np.asarray(kernel.nngp), 2 / WIDTH).max() < 4.5
    assert z_scores(theta, np.asarray(kernel.ntk), 2 / WIDTH).max() < 4.5


@pytest.mark.parametrize("name", NETS)
def test_networks_come_back_from_json(name):
    net, _ = NETS[name]
    assert nn.from_json(net.to_json()) == net
    assert hash(nn.from_json(net.to_json())) == hash(net)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_finite_at_equal_and_zero_inputs(name):
    net, shape = NETS[name]
    x = jax.random.normal(jax.random.key(3), (3, *shape))
    x = x.at[1].set(x[0]).at[2].set(0)
    by_input = jax.grad(lambda x: net.kernel(x).ntk.sum())(x)
    assert np.isfinite(by_input).all()
    by_scales = jax.grad(lambda net: net.kernel(x).ntk.sum())(net)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(by_scales))


def test_transposed_convolution_is_that_of_jax():
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 2))
    for strides, padding in (((2, 1), "SAME"), ((3, 2), "VALID"), ((3, 4), "SAME")):
        layer = nn.ConvTranspose(5, (3, 2), strides, padding)
        params = layer.init(jax.random.key(1), x.shape[1:])
        expected = jax.lax.conv_transpose(
            x, params["w"], strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        y = layer.apply(params, x)
        assert y.shape[1:] == layer.output_shape(x.shape[1:])
        np.testing.assert_allclose(y, expected / 12**0.5, rtol=1e-5, atol=1e-6)


def test_local_convolution_with_equal_weights_is_a_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 2))
    local = nn.ConvLocal(3, (3, 2), (1, 2), (1, 2), "CIRCULAR", 1.2, 0.1)
    shared = nn.Conv(3, (3, 2), (1, 2), (1, 2), "CIRCULAR", 1.2, 0.1)
    params = shared.init(jax.random.key(1), x.shape[1:])
    same = jax.tree.map(
        lambda p, own: jnp.broadcast_to(p, own.shape),
        params,
        local.init(jax.random.key(1), x.shape[1:]),
    )
    np.testing.assert_allclose(local.apply(same, x), shared.apply(params, x), rtol=1e-5, atol=1e-6)


def test_a_residual_block_is_a_sum_with_the_identity():
    x = jax.random.normal(jax.random.key(0), (3, 4))
    residual = dense(nn.Residual(hidden(nn.Erf())), nn.Relu()).kernel(x)
    explicit = dense(nn.Sum(nn.Identity(), hidden(nn.Erf())), nn.Relu()).kernel(x)
    np.testing.assert_array_equal(residual.ntk, explicit.ntk)


def test_pooled_branches_are_still_independent():
    pooled = nn.Sequential(nn.Conv(4, (3,)), nn.AvgPool((2,)))
    assert nn.Sum(pooled, nn.Conv(4, (2,), padding="VALID")).ends_independent


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: nn.ConvTranspose(3, (2,), padding="CIRCULAR"), "ImageResize"),
        (lambda: nn.Sum(nn.Identity(), nn.Relu()), "uncorrelated"),
        (lambda: nn.Sum(), "takes modules"),
        (lambda: nn.Product(nn.Identity(), nn.Relu()), "independent"),
        (lambda: nn.Concat(nn.Dense(2), axis=0).output_shape((3,)), "examples cannot"),
        (lambda: nn.Concat(nn.Relu(), nn.Erf(), axis=1).output_shape((3, 2)), "uncorrelated"),
        (lambda: nn.Sum(nn.Dense(2), nn.Dense(3)).output_shape((3,)), "must be equal"),
        (lambda: nn.Concat(nn.Dense(2), nn.Flatten()).output_shape((3, 4)), "must agree"),
    ],
)
def test_errors_explain(build, reason):
    with pytest.raises(InputError, match=reason):
        build()


def test_activations_refuse_what_is_not_gaussian():
    x = jnp.ones((2, 3))
    for middle in (nn.Product(nn.Dense(4), nn.Dense(4)), nn.Concat(nn.Dense(4), nn.Dense(2))):
        with pytest.raises(InputError, match="not a Gaussian"):
            nn.Sequential(middle, nn.Relu()).kernel(x)
    mixed = nn.Concat(nn.Dense(2), nn.Dense(2, 2.0))
    with pytest.raises(InputError, match="product of the means"):
        nn.Product(mixed, mixed).kernel(x)
    # Adding to a Gaussian process what is not Gaussian does not leave it so.
    with pytest.raises(InputError, match="not a Gaussian"):
        nn.Sequential(nn.Dense(4), nn.Residual(mixed), nn.Relu()).kernel(x)
