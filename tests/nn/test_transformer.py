"""Transformers: what they are built of, finite against infinite, precision, loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab import nn
from ntk_lab.errors import InputError
from tests.tolerance import assert_close


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(5), (3, 4, 2))


def test_networks_have_the_kernel_as_mean(x):
    net = nn.Transformer(1, 48, 2, heads=4, hidden=64, b_std=0.2, pos_emb="sum", causal=True)
    kernel = net.kernel(x)
    k = ntk.monte_carlo_kernel(net, x, key=jax.random.key(0), accuracy=0, max_samples=48)
    for name in ("nngp", "ntk"):
        expected, mean, error = (
            np.asarray(v)
            for v in (getattr(kernel, name), getattr(k, name), getattr(k, f"{name}_stderr"))
        )
        # Finite heads and widths bias the mean by order 1/12.
        allowed = np.sqrt(error**2 + (expected / 12) ** 2)
        assert (np.abs(mean - expected) / allowed).max() < 4


def sampled(samples=256):
    options = {"heads": 4, "hidden": 64, "b_std": 0.2, "pos_emb": "sum"}
    return nn.Transformer(2, 48, 2, scaling="sqrt", samples=samples, **options)


def test_blocks_of_sampled_attention_follow_each_other(x):
    """The second sees covariances that are those of one process up to sampling only."""
    x = x.at[1].set(x[0]).at[2].set(-x[0])
    for values in map(np.asarray, sampled().kernel(x)):
        size = np.sqrt(np.outer(values.diagonal(), values.diagonal()))
        # Equal examples have equal values up to sampling, and none exceed Cauchy and Schwarz's.
        assert (np.abs(values[0, 1] - values[0, 0]) < 0.05 * size[0, 0]).all()
        assert (np.abs(values) < 1.05 * size).all()


@pytest.mark.slow
def test_gradients_through_blocks_of_sampled_attention_are_finite(x):
    x = x.at[1].set(x[0]).at[2].set(-x[0])
    gradient = jax.grad(lambda x: sampled(16).kernel(x).ntk.sum())(x)
    assert np.isfinite(np.asarray(gradient)).all()


@pytest.mark.slow
def test_networks_have_the_sampled_kernel_of_two_blocks_as_mean(x):
    expected, own = nn.kernel_over_seeds(sampled(), x, repeats=4)
    k = ntk.monte_carlo_kernel(sampled(), x, key=jax.random.key(0), accuracy=0, max_samples=48)
    for name in ("nngp", "ntk"):
        value, mean, error, sampling = (
            np.asarray(v)
            for v in (
                getattr(expected, name), getattr(k, name), getattr(k, f"{name}_stderr"),
                getattr(own, name),
            )
        )  # fmt: skip
        # Finite heads and widths bias the mean by order 1/12 a block.
        allowed = np.sqrt(error**2 + sampling**2 + (np.abs(value).max() / 6) ** 2)
        assert (np.abs(mean - value) / allowed).max() < 4


def test_a_stack_is_its_layers(x):
    net = nn.Transformer(2, 16, 3, heads=2, scaling="sqrt", seed=5, norm=nn.RMSNorm(), w_std=1.2)
    assert net.output_shape((4, 2)) == (3,)
    seeds = [block.layers[0].body.layers[1].seed for block in net.layers[1:3]]
    assert seeds == [5, 6]
    assert net.layers[1].layers[1].body.layers[1].width == 64
    assert nn.from_json(net.to_json()) == net
    params = net.init(jax.random.key(0), x.shape[1:])
    assert net.apply(params, x).shape == (3, 3)


@pytest.mark.slow
def test_a_loop_of_blocks_has_the_same_kernel(x):
    nets = [nn.Transformer(2, 16, heads=2, b_std=0.3, loop=loop) for loop in (False, True)]
    for unrolled, looped in zip(*(net.kernel(x) for net in nets), strict=True):
        assert_close(looped, unrolled)
    params = nets[1].init(jax.random.key(0), x.shape[1:])
    assert nets[1].apply(params, x).shape == (3, 1)


@pytest.mark.slow
def test_single_precision_agrees_with_double(x):
    """Of both halves: a release of jaxlib miscompiled Jacobians through LayerNorm in float32."""
    net, short = nn.Transformer(1, 16, 2, heads=2, pos_emb="sum"), x.astype(jnp.float32)
    params = net.init(jax.random.key(0), x.shape[1:], jnp.float32)
    wide = jax.tree.map(lambda p: p.astype(x.dtype), params)
    for value, exact in (
        (net.kernel(short).ntk, net.kernel(x).ntk),
        (ntk.empirical.ntk(net.apply, params, short), ntk.empirical.ntk(net.apply, wide, x)),
    ):
        value, exact = (np.asarray(k, np.float64) for k in (value, exact))
        assert np.abs(value - exact).max() < 1e-5 * np.abs(exact).max()


@pytest.mark.x64
def test_an_example_of_zeros_keeps_its_digits_in_single_precision(x):
    """Where a normalization divides by the root of its epsilon, nothing may remain of rounding."""
    net, short = nn.Transformer(1, 16, b_std=0.2), x.at[1].set(0).astype(jnp.float32)
    exact = np.asarray(net.kernel(short.astype(x.dtype)).ntk)
    assert np.abs(np.asarray(net.kernel(short).ntk) - exact).max() < 2e-6 * np.abs(exact).max()


def test_gradients_are_finite_at_equal_positions_and_examples(x):
    x = x.at[1].set(x[0]).at[2].set(1.0)
    net = nn.Transformer(1, 16, heads=2)
    gradient = jax.grad(lambda x: net.kernel(x).ntk.sum())(x)
    assert np.isfinite(np.asarray(gradient)).all()


def test_mistakes_are_explained(x):
    with pytest.raises(InputError, match="depth=0"):
        nn.Transformer(0, 16)
    with pytest.raises(InputError, match="RMSNorm"):
        nn.Sequential(nn.Dense(4), nn.Relu(), nn.TransformerBlock(4, 2)).kernel(x)
