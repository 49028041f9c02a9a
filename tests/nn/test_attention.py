"""GlobalSelfAttention: finite against infinite, sampled logits, causality, errors."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab import nn
from ntk_lab.empirical import ntk
from ntk_lab.errors import InputError
from tests.tolerance import assert_close

SEEDS, WIDTH = 64, 64
SCALES = {"w_query_std": 1.3, "w_key_std": 1.2, "w_value_std": 1.1, "w_out_std": 0.9, "b_std": 0.3}


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(5), (3, 4, 2))


def network(**options):
    attention = nn.GlobalSelfAttention(4, 32, 32, 4, **(SCALES | options))
    return nn.Sequential(nn.Dense(WIDTH, 1.2, 0.2), attention, nn.GlobalAvgPool())


def assert_means_match(net, x, kernel, stderr=None):
    def one(key):
        params = net.init(key, x.shape[1:])
        f = net.apply(params, x)
        return f @ f.T / f.shape[1], ntk(net.apply, params, x, outputs="trace")

    samples = jax.lax.map(one, jax.random.split(jax.random.key(0), SEEDS), batch_size=4)
    for i, values in enumerate(samples):
        values, expected = np.asarray(values, np.float64), np.asarray(kernel[i])
        error = values.std(0, ddof=1) / SEEDS**0.5
        own = 0 if stderr is None else np.asarray(stderr[i])
        # Finite widths bias the mean by order one over the smallest of them.
        bias = 1 / 32 * np.abs(expected).max()
        assert (np.abs(values.mean(0) - expected) / np.sqrt(error**2 + own**2 + bias**2)).max() < 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"pos_emb": "concat", "pos_emb_decay": ("exp", 0.3), "val_pos_emb": True},
        {"scaling": "sqrt", "mechanism": "identity", "pos_emb": "sum", "causal": True},
    ],
    ids=["linear", "sqrt"],
)
def test_networks_have_the_kernels_as_means(options, x):
    net = network(**options)
    assert_means_match(net, x, net.kernel(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"mechanism": "relu", "causal": True}], ids=["softmax", "relu"]
)
def test_networks_have_the_sampled_kernels_as_means(options, x):
    net = network(scaling="sqrt", **options)
    kernel, stderr = nn.kernel_over_seeds(net, x, repeats=4)
    assert float(stderr.ntk.max()) < 0.1 * float(kernel.ntk.max())
    assert_means_match(net, x, kernel, stderr)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("standard", {"pos_emb": "sum", "val_pos_emb": True}),
        ("mean_field", {"scaling": "sqrt", "mechanism": "identity"}),
        ("mup", {"scaling": "sqrt", "mechanism": "identity", "pos_emb": "sum"}),
    ],
)
def test_other_parameterizations_have_their_own_kernel(name, options, x):
    net = network(**options)
    net = nn.Sequential(net.layers[0], replace(net.layers[1], parameterization=name), net.layers[2])
    assert_means_match(net, x, net.kernel(x))


@pytest.mark.slow
def test_parameterizations_change_scales_and_not_the_function(x):
    """Equal functions from equal draws; ABC(1/2, 0) is NTK; mean field divides by the fan-in."""
    key, net = jax.random.key(0), network(scaling="sqrt", mechanism="identity", pos_emb="sum")
    value, kernel = net.apply(net.init(key, x.shape[1:]), x), net.kernel(x)
    for name in ("standard", nn.ABC(0.5, 0), nn.ABC(0.25, 0.25)):
        other = net.with_parameterization(name)
        assert_close(other.apply(other.init(key, x.shape[1:]), x), value, factor=100)
    assert_close(other.kernel(x).nngp, kernel.nngp, factor=100)
    assert_close(net.with_parameterization(nn.ABC(0.5, 0)).kernel(x).ntk, kernel.ntk, factor=100)
    tied = nn.GlobalSelfAttention(4, 2, w_query_std=1.7, w_key_std=0.4)
    standard = replace(tied, parameterization="standard")
    values = [m.apply(m.init(key, x.shape[1:]), x) for m in (tied, standard)]
    assert_close(values[1], values[0], factor=100)
    fan_in = 32 * 4
    layers = net.layers[0], replace(net.layers[1], parameterization="mean_field"), net.layers[2]
    assert_close(nn.Sequential(*layers).kernel(x).ntk, kernel.ntk / fan_in, factor=100)
    deep = nn.Sequential(nn.GlobalSelfAttention(8), nn.Dense(1))
    assert deep.with_parameterization("mean_field").layers[0] == deep.layers[0]


def test_sampling_agrees_with_the_closed_form(x, monkeypatch):
    """Without a nonlinearity both are known: standard errors must be right."""
    net = network(scaling="sqrt", mechanism="identity", causal=True)
    exact = net.kernel(x)
    # The same function under the name of an elementwise mechanism that is sampled.
    from ntk_lab.nn import mechanism

    monkeypatch.setitem(mechanism._FUNCTIONS, "abs", lambda logits: logits)
    monkeypatch.setitem(mechanism._SLOPES, "abs", jnp.ones_like)
    sampled = network(scaling="sqrt", mechanism="abs", causal=True, samples=400)
    kernel, stderr = nn.kernel_over_seeds(sampled, x, repeats=24)
    for name in ("nngp", "ntk"):
        z = (getattr(kernel, name) - getattr(exact, name)) / getattr(stderr, name)
        assert 0.1 < float(jnp.abs(z).mean()) < 2
        assert float(jnp.abs(z).max()) < 4.5


def test_constant_logits_average_positions(x):
    """With no queries the softmax is uniform: attention is pooling over the positions seen."""
    for scaling in ("linear", "sqrt"):
        net = nn.Sequential(
            nn.GlobalSelfAttention(4, scaling=scaling, w_query_std=0.0), nn.Flatten()
        )
        pooled = nn.Sequential(nn.GlobalAvgPool(), nn.Dense(4)).kernel(x)
        assert_close(net.kernel(x).nngp, pooled.nngp, factor=100)
        assert_close(net.kernel(x).ntk, 2 * pooled.nngp, factor=100)


def test_a_causal_network_does_not_look_ahead(x):
    changed = x.at[:, 3].add(1.0)
    for mechanism in ("softmax", "abs"):
        layer = nn.GlobalSelfAttention(4, 2, mechanism=mechanism, causal=True)
        params = layer.init(jax.random.key(0), x.shape[1:])
        before, after = (layer.apply(params, v) for v in (x, changed))
        assert_close(before[:, :3], after[:, :3])
        assert float(jnp.abs(before - after)[:, 3].max()) > 0.01
        k1, k2 = (layer.kernel(v).ntk for v in (x, changed))
        assert_close(k1[:, :, :3, :3], k2[:, :, :3, :3])


@pytest.mark.parametrize("scaling", ["linear", "sqrt"])
def test_two_batches_and_one_agree(scaling, x):
    net = nn.Sequential(
        nn.Dense(8),
        nn.GlobalSelfAttention(8, scaling=scaling, samples=32),
        nn.Relu(),
        nn.GlobalAvgPool(),
        nn.Dense(1),
    )
    whole, part = net.kernel(x), net.kernel(x[:2], x[2:])
    assert_close(part.ntk, whole.ntk[:2, 2:], factor=100)
    assert_close(whole.ntk, whole.ntk.T, factor=1e9 if scaling == "sqrt" else 100)


@pytest.mark.slow
def test_gradients_are_finite_and_right(x):
    x = x.at[1].set(x[0]).at[2].set(0.0)
    for scaling in ("linear", "sqrt"):
        net = nn.Sequential(
            nn.GlobalSelfAttention(8, scaling=scaling, b_std=0.1, pos_emb="sum", samples=8),
            nn.GlobalAvgPool(),
        )

        def total(net, x):
            return net.kernel(x).ntk.sum()

        in_net, in_x = jax.grad(total, (0, 1))(net, x)
        assert np.isfinite(np.asarray(in_x)).all()
        slope = float(in_net.layers[0].w_out_std)
        layer = net.layers[0]
        ends = [
            float(total(nn.Sequential(replace(layer, w_out_std=1 + h), net.layers[1]), x))
            for h in (0.1, -0.1)
        ]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 0.2, rtol=1e-3)


def test_single_precision_agrees_with_double(x):
    net = network(pos_emb="sum")
    value, exact = (np.asarray(net.kernel(v).ntk, np.float64) for v in (x.astype(jnp.float32), x))
    assert np.abs(value - exact).max() < 5e-6 * np.abs(exact).max()


def test_json_text_and_width():
    net = network(pos_emb="sum", pos_emb_decay=("exp", 0.5))
    assert nn.from_json(net.to_json()) == net
    assert eval(repr(net), vars(nn)) == net
    wide = nn.Sequential(nn.GlobalSelfAttention(8, 2), nn.Dense(3)).with_width(32)
    assert wide.init(jax.random.key(0), (4, 2))[0]["value"].shape == (2, 2, 16)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: nn.GlobalSelfAttention(0), "width=0"),
        (lambda x: nn.GlobalSelfAttention(4, key_width=2.5), "or None"),
        (lambda x: nn.GlobalSelfAttention(4, scaling="cubic"), "'linear' or 'sqrt'"),
        (lambda x: nn.GlobalSelfAttention(4, mechanism="tanh"), "'softmax'"),
        (lambda x: nn.GlobalSelfAttention(4, w_key_std=-1.0), "w_key_std"),
        (lambda x: nn.GlobalSelfAttention(4, parameterization="muP"), "unknown"),
        (
            lambda x: nn.GlobalSelfAttention(4, parameterization=nn.Standard((1, 2))),
            "without factors",
        ),
        (lambda x: nn.GlobalSelfAttention(4, pos_emb_decay=("linear", 1.0)), "'power'"),
        (lambda x: nn.GlobalSelfAttention(4).kernel(x[:, 0]), "spatial axes"),
        (lambda x: nn.GlobalSelfAttention(4, pos_emb="sum", pos_emb_width=3).kernel(x), "concat"),
        (
            lambda x: nn.GlobalSelfAttention(
                4, pos_emb="sum", pos_emb_decay=("exp", 0.1), pos_emb_p_norm=4
            ).apply(
                nn.GlobalSelfAttention(4, pos_emb="sum").init(jax.random.key(0), x.shape[1:]), x
            ),
            "not a covariance",
        ),
        (
            lambda x: nn.GlobalSelfAttention(4).apply(
                nn.GlobalSelfAttention(4).init(jax.random.key(0), (4, 3)), x
            ),
            "initialized for 3 channels",
        ),
        (lambda x: nn.kernel_over_seeds(nn.Dense(2), x[:, 0]), "none"),
        (lambda x: nn.kernel_over_seeds(nn.GlobalSelfAttention(4), x, repeats=1), "two or more"),
    ],
)
def test_mistakes_are_explained(make, words, x):
    with pytest.raises(InputError, match=words):
        make(x)
