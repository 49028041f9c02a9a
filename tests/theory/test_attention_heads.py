"""Finite heads: exact moments of wide ones, and finite networks beside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from tests.tolerance import assert_close

nn, theory = ntk.nn, ntk.theory


def inputs(n=3, s=4, c=6):
    x = np.random.default_rng(1).normal(size=(n, s, c))
    return jnp.asarray(x, jnp.result_type(float))


def attention(heads=1, width=1, **options):
    options = {"scaling": "sqrt", "samples": 256} | options
    return nn.GlobalSelfAttention(1, heads, width, width, **options)


def pooled(heads=1, width=1, **options):
    return nn.Sequential(attention(heads, width, **options), nn.GlobalAvgPool())


@pytest.mark.parametrize(("qk", "ov", "size"), [(1.0, 1.0, 1.0), (1.5, 0.7, 2.0)])
def test_a_head_of_one_position_and_identity_has_moments_in_closed_form(qk, ov, size):
    # f = QK OV q L u with normal L, u at q = size^2: K = 2 (QK OV)^2 q^3 (L^2 + u^2), of mean 4 and
    # variance 16 in that unit, whence a relative variance of exactly one.
    layer = attention(w_query_std=qk, w_out_std=ov, mechanism="identity")
    x = jnp.full((1, 1, 1), size)
    found = theory.head_moments(layer, x, jax.random.key(0), draws=20_000)
    mean, error = found.mean
    assert abs(mean[0, 0] - 4 * (qk * ov) ** 2 * size**6) < 4 * error[0, 0]
    value, error = found.relative_variance()
    assert abs(value - 1) < 4 * error < 0.2
    assert found.relative_variance(8) == (value / 8, error / 8)


def test_heads_that_see_one_position_are_not_random_under_softmax():
    x = inputs(s=1)
    found = theory.head_moments(attention(), x, jax.random.key(0), draws=10)
    flat = np.asarray(x[:, 0], float)
    # Attention is one; its rate of change is zero. Gradients in b alone: 2 q.
    for kernel in found.kernels:
        assert_close(kernel.astype(x.dtype), 2 * flat @ flat.T / 6)
    assert found.relative_variance()[0] < 1e-10


@pytest.mark.parametrize(
    ("mechanism", "causal"), [("identity", False), ("softmax", True), ("relu", False)]
)
def test_the_mean_head_is_the_kernel_of_many(mechanism, causal):
    layer, x = attention(mechanism=mechanism, causal=causal), inputs()
    found = theory.head_moments(layer, x, jax.random.key(2), draws=4000, readout="last")
    net = nn.Sequential(layer, nn.Index(-1))
    if mechanism == "identity":
        limit, limit_error = np.asarray(net.kernel(x).ntk), 0.0
    else:
        sampled = nn.kernel_over_seeds(net, x)
        limit, limit_error = (np.asarray(k.ntk, float) for k in sampled)
    mean, error = found.mean
    assert (np.abs(mean - limit) < 4.5 * np.hypot(error, limit_error)).all()
    assert np.abs(error / limit).max() < 0.5


def test_heads_of_linear_scaling_are_the_kernel_itself():
    x = inputs()
    found = theory.head_moments(attention(scaling="linear"), x, jax.random.key(0))
    expected = pooled(scaling="linear").kernel(x).ntk
    assert_close(found.mean[0].astype(x.dtype), expected)
    assert found.relative_variance() == (0.0, 0.0)
    assert (found.mean[1] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["sqrt", "linear"])
def test_finite_layers_fluctuate_as_wide_heads_say(scaling):
    x = inputs(n=2)
    sizes = ((2, 4), (2, 16), (2, 64), (8, 4), (8, 16), (32, 4))
    found = theory.kernel_deviation(
        lambda h, d: pooled(h, d, scaling=scaling), x, jax.random.key(3), sizes=sizes, seeds=250
    )
    layer = pooled(scaling=scaling).layers[0]
    wide = theory.head_moments(layer, x, jax.random.key(4), draws=6000)
    law, (predicted, error) = found.head_law(), wide.relative_variance()
    assert abs(law.a - predicted) < 4 * np.hypot(law.standard_errors[0], error)
    # Terms of order 1/d^2 are not in the law.
    assert law.chi_square < 4 * law.degrees_of_freedom
    expected = theory.attention_theory(scaling).fluctuation
    for along, fixed, power in zip(("heads", "head width"), (4, 2), expected, strict=True):
        fit = found.power("fluctuation", along, fixed)
        assert abs(fit.exponent - power) < 4 * fit.standard_error + 0.1
        assert fit.standard_error < 0.1
    bias, error = found.bias
    widest = found.sizes[:, 1] == 64
    assert (np.abs(bias) < 4 * error + 0.01)[widest].all()


def made(kernels, sizes, limit):
    kernels, limit = np.asarray(kernels, float), np.asarray(limit, float)
    return theory.KernelDeviation(np.array(sizes), kernels, limit, np.zeros_like(limit))


def test_deviations_are_those_of_kernels_of_known_moments():
    # One entry, limit 2: mean 2.2, two networks at +-0.2 from it.
    found = made([[[[2.0]], [[2.4]]]], [(1, 1)], [[2.0]])
    np.testing.assert_allclose(found.variance[0], 0.08 / 4)
    np.testing.assert_allclose(found.bias[0], 0.1)
    np.testing.assert_allclose(found.bias[1], 0.1)
    np.testing.assert_allclose(found.distance[0], (0.16 / 4 / 2) ** 0.5)


def test_constants_and_powers_are_found_in_numbers_made_with_them():
    sizes = [(h, d) for h in (2, 8, 32) for d in (4, 16, 64)]
    rng, draws = np.random.default_rng(0), 4000
    variances = np.array([(0.5 + 3 / d) / h for h, d in sizes])
    kernels = 1 + np.sqrt(variances)[:, None] * rng.normal(size=(9, draws))
    found = made(kernels[..., None, None], sizes, [[1.0]])
    law = found.head_law()
    for value, error, true in zip((law.a, law.b), law.standard_errors, (0.5, 3.0), strict=True):
        assert abs(value - true) < 4 * error < 0.2 * true
    assert law.chi_square < 25
    fit = found.power("fluctuation", "heads", 16)
    assert abs(fit.exponent + 0.5) < 4 * fit.standard_error < 0.1
    assert found.power("distance", "head width", 2).exponent < -0.05


def test_theory_says_what_has_to_grow():
    linear, sqrt = (theory.attention_theory(s) for s in ("linear", "sqrt"))
    assert linear.fluctuation == (-0.5, -0.5)
    assert sqrt.fluctuation == (-0.5, 0.0)
    assert linear.bias == sqrt.bias == (0.0, -1.0)
    assert "heads and" in sqrt.grows
    assert "2006.10540" in sqrt.source
    with pytest.raises(InputError, match="'half'"):
        theory.attention_theory("half")


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        ({"b_std": 1.0}, {}, "without bias"),
        ({"pos_emb": "sum"}, {}, "positional"),
        ({"parameterization": "standard"}, {}, "standard"),
        ({}, {"draws": 1}, "two or more"),
        ({}, {"readout": "first"}, "'first'"),
        ({}, {"x": jnp.ones((2, 3))}, r"\(n, s, c\)"),
    ],
)
def test_what_heads_cannot_be_is_told(change, options, match):
    x = options.pop("x", inputs())
    with pytest.raises(InputError, match=match):
        theory.head_moments(attention(**change), x, jax.random.key(0), **options)


def test_sizes_that_cannot_be_measured_or_fitted_are_told():
    with pytest.raises(InputError, match="positive integers"):
        theory.kernel_deviation(pooled, inputs(), jax.random.key(0), sizes=((0, 2),))
    with pytest.raises(InputError, match="two or more networks"):
        theory.kernel_deviation(pooled, inputs(), jax.random.key(0), sizes=((1, 2),), seeds=1)
    with pytest.raises(InputError, match="networks of one"):
        theory.kernel_deviation(
            lambda h, d: attention(h, d), inputs(), jax.random.key(0), sizes=((1, 2),)
        )
    found = made(np.ones((2, 3, 1, 1)), [(1, 2), (2, 2)], [[1.0]])
    with pytest.raises(InputError, match="takes three"):
        found.power("bias", "heads", 2)
    with pytest.raises(InputError, match="of='size'"):
        found.power("size", "heads", 2)
    with pytest.raises(InputError, match="three sizes"):
        found.head_law()
