"""Inputs with absent positions: both halves, against shorter inputs, ensembles and NT."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.interop import neural_tangents as bridge
from ntk_lab.nn.module import Module, module
from tests.nn.test_finite_against_infinite import z_scores
from tests.nn.test_positions_against_ensembles import samples
from tests.tolerance import assert_close

nn = ntk.nn
WIDTH, SEEDS = 64, 64
LENGTHS = (3, 5, 2)


def normal(*shape, seed=3):
    return jax.random.normal(jax.random.key(seed), shape)


def up_to(lengths, time=5):
    return jnp.arange(time)[None] < jnp.array(lengths)[:, None]


def sequences():
    """Values at absent positions are NaN."""
    x, mask = normal(3, 5, 2), up_to(LENGTHS)
    return nn.Masked(jnp.where(mask[..., None], x, jnp.nan), mask)


def tokens():
    values = jax.random.randint(jax.random.key(0), (3, 5), 0, 4)
    return nn.Masked(jnp.where(up_to(LENGTHS), values, -9), up_to(LENGTHS))


def pooled(*layers, width=1):
    return nn.Sequential(*layers, nn.GlobalAvgPool(), nn.Dense(width, 1.1, 0.1))


def attention(width=16, **options):
    return nn.GlobalSelfAttention(width, heads=4, b_std=0.2, **options)


def rnn(outputs="last", width=16):
    return nn.SimpleRNN(width, 0.9, 1.2, 0.3, outputs=outputs)


# Networks that treat a sequence alike whatever follows its end.
SEQUENCE_NETS = {
    "convolution": pooled(nn.Conv(16, (3,), b_std=0.2), nn.Cos(), nn.Conv(8, (2,)), nn.Relu()),
    "transformer": pooled(
        nn.Dense(16, b_std=0.3),
        nn.Residual(nn.Sequential(nn.LayerNorm(), attention())),
        nn.Residual(nn.Sequential(nn.LayerNorm(), nn.Dense(8), nn.Gelu(), nn.Dense(16))),
    ),
    "causal attention": pooled(attention(causal=True, mechanism="relu"), nn.Relu()),
    "linear attention": pooled(
        nn.Dense(8, b_std=0.1), attention(scaling="sqrt", mechanism="identity")
    ),
    "recurrent": nn.Sequential(rnn(), nn.Dense(1)),
    "stacked recurrent": nn.Sequential(rnn("all"), rnn(), nn.Dense(1)),
    "recurrent at all times": pooled(rnn("all"), nn.Dense(8, b_std=0.2), nn.Gelu()),
    "tokens": pooled(nn.Embedding(8, 4), nn.Conv(8, (3,), b_std=0.1), nn.Relu()),
    "repeat": pooled(
        nn.Dense(8), nn.Repeat(nn.Sequential(nn.Erf(), nn.Conv(8, (3,), b_std=0.1)), 2)
    ),
    "sum pooling": nn.Sequential(
        nn.Conv(8, (3,), b_std=0.1), nn.Relu(), nn.AvgPool((1,)), nn.GlobalSumPool(), nn.Dense(1)
    ),
    "branches": pooled(
        nn.Concat(nn.Dense(8, b_std=0.3), nn.Frozen(nn.Conv(8, (3,)))),
        nn.Product(nn.Dense(8, b_std=1.0), nn.Sequential(nn.Dense(8), nn.SigmoidLike())),
    ),
}


def inputs_of(name):
    return tokens() if name == "tokens" else sequences()


@pytest.mark.slow
@pytest.mark.parametrize("name", SEQUENCE_NETS)
def test_padded_sequences_are_the_shorter_ones(name):
    net, batch = SEQUENCE_NETS[name], inputs_of(name)
    kernel = net.kernel(batch)
    params = net.init(jax.random.key(1), batch.shape[1:])
    apply = jax.jit(net.apply)
    y = apply(params, batch)
    short = batch.x[:1, : LENGTHS[0]]
    alone = net.kernel(short)
    assert_close(kernel.nngp[:1, :1], alone.nngp, factor=10)
    assert_close(kernel.ntk[:1, :1], alone.ntk, factor=10)
    assert_close(y[:1], apply(params, short), factor=10)


@pytest.mark.parametrize("name", ["transformer", "recurrent"])
def test_both_batches_have_masks_of_their_own(name):
    net, batch = SEQUENCE_NETS[name], inputs_of(name)
    whole, block = net.kernel(batch), net.kernel(batch[:1], batch[1:])
    assert_close(block.ntk, whole.ntk[:1, 1:], factor=10)
    assert_close(block.nngp, whole.nngp[:1, 1:], factor=10)
    # An array is present everywhere: the second example is the longest.
    assert_close(net.kernel(batch[:1], batch.x[1:2]).ntk, whole.ntk[:1, 1:2], factor=10)


@pytest.mark.parametrize("name", ["causal attention", "stacked recurrent"])
def test_full_masks_change_nothing(name):
    net, x = SEQUENCE_NETS[name], normal(3, 5, 2)
    whole = nn.Masked(x, jnp.ones((3, 5), bool))
    params = net.init(jax.random.key(1), x.shape[1:])
    assert_close(net.apply(params, whole), net.apply(params, x))
    assert_close(net.kernel(whole).ntk, net.kernel(x).ntk, factor=10)


def images(values=jnp.nan):
    mask = jax.random.bernoulli(jax.random.key(5), 0.6, (3, 3, 4)).at[:, 1, 1].set(True)
    return nn.Masked(jnp.where(mask[..., None], normal(3, 3, 4, 2), values), mask)


SHAPED = {
    "strides": nn.Conv(4, (3, 3), (2, 2), b_std=0.3),
    "valid": nn.Conv(4, (2, 3), padding="VALID", b_std=0.3),
    "circular": nn.Conv(4, (3, 2), padding="CIRCULAR", dilation=(1, 2), b_std=0.3),
    "local": nn.ConvLocal(4, (3, 3), (2, 1), b_std=0.3),
    "transposed": nn.ConvTranspose(4, (2, 1), (2, 3), padding="VALID", b_std=0.3),
    "average": nn.AvgPool((3, 2), (2, 1), "SAME"),
    "average inside": nn.AvgPool((3, 2), (2, 1), "SAME", normalize_edges=True),
    "sum": nn.SumPool((2, 2), (2, 2)),
    "index": nn.Index((slice(None, None, 2), -1)),
    "index of one position": nn.Index((0, 3)),
    "rms norm": nn.RMSNorm(),
    "flatten": nn.Flatten(),
    "dropout": nn.Dropout(0.5, mode="test"),
}


@pytest.mark.parametrize("name", SHAPED)
def test_layers_of_images_ignore_missing_pixels(name):
    layer = SHAPED[name]
    params = layer.init(jax.random.key(0), (3, 4, 2))
    y = layer.apply(params, images())
    assert y.shape[1:] == layer.output_shape((3, 4, 2))
    np.testing.assert_array_equal(y, layer.apply(params, images(7.0)))
    absent = ~layer.presence(images().mask).astype(bool)
    assert (np.asarray(y)[np.asarray(absent)] == 0).all()
    whole = nn.Masked(images(7.0).x, jnp.ones((3, 3, 4), bool))
    assert_close(layer.apply(params, whole), layer.apply(params, whole.x))
    assert_close(layer.kernel(whole).nngp, layer.kernel(whole.x).nngp)


def test_pooling_is_over_present_positions():
    batch = nn.Masked(jnp.arange(6.0).reshape(1, 6, 1), jnp.array([[1, 0, 1, 1, 0, 0]], bool))
    assert nn.GlobalAvgPool().apply((), batch).item() == pytest.approx(5 / 3)
    assert nn.GlobalSumPool().apply((), batch).item() == 5
    windows = nn.AvgPool((2,), (2,)).apply((), batch)
    np.testing.assert_allclose(windows[0, :, 0], [0, 2.5, 0])
    assert nn.GlobalAvgPool().kernel(batch).nngp.item() == pytest.approx(25 / 9)


def gaps():
    mask = jnp.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [1, 1, 0, 0, 0]], bool)
    return nn.Masked(normal(3, 5, 2), mask)


def images_net(*layers):
    return nn.Sequential(nn.Conv(WIDTH, (3, 2), b_std=0.4), nn.Cos(), *layers)


ENSEMBLES = {
    "strides and pooling": (
        images_net(
            nn.AvgPool((2, 2), padding="SAME"),
            nn.Conv(WIDTH, (3, 3), (2, 1), b_std=0.3),
            nn.Relu(),
            nn.GlobalAvgPool(),
            nn.Dense(1),
        ),
        images,
    ),
    "valid and flat": (
        images_net(nn.Conv(WIDTH, (2, 2), padding="VALID"), nn.Relu(), nn.Flatten(), nn.Dense(1)),
        images,
    ),
    "recurrent with gaps": (
        nn.Sequential(nn.Dense(WIDTH, b_std=0.3), rnn(width=WIDTH), nn.Dense(1)),
        gaps,
    ),
    "recurrent at all times": (
        pooled(rnn("all", WIDTH), nn.Conv(WIDTH, (2,), b_std=0.3), nn.Relu()),
        gaps,
    ),
    "attention": (
        pooled(
            nn.Dense(WIDTH, b_std=0.3),
            nn.GlobalSelfAttention(
                WIDTH, 16, key_width=WIDTH, value_width=8, b_std=0.2, pos_emb="sum"
            ),
            nn.Gelu(),
        ),
        gaps,
    ),
    "sampled attention": (
        pooled(
            nn.GlobalSelfAttention(
                WIDTH,
                WIDTH,
                key_width=4,
                value_width=2,
                scaling="sqrt",
                b_std=0.2,
                pos_emb="concat",
                val_pos_emb=True,
                samples=2048,
            )
        ),
        gaps,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_have_the_kernels_as_means(name):
    net, inputs = ENSEMBLES[name]
    batch = inputs()
    kernel = net.kernel(batch)
    nngp, theta = (np.asarray(v, np.float64) for v in samples(net, batch, SEEDS))
    assert z_scores(nngp, np.asarray(kernel.nngp), 3 / WIDTH).max() < 4.5
    assert z_scores(theta, np.asarray(kernel.ntk), 3 / WIDTH).max() < 4.5


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            pooled(nn.Conv(8, (3, 3), (2, 1), w_std=1.3, b_std=0.3), nn.Relu()),
            lambda s: (
                s.Conv(8, (3, 3), (2, 1), "SAME", W_std=1.3, b_std=0.3),
                s.Relu(),
                s.GlobalAvgPool(),
                s.Dense(1, W_std=1.1, b_std=0.1),
            ),
        ),
        (
            pooled(nn.Dense(8, 1.3, 0.3), nn.Erf(), nn.Dense(8)),
            lambda s: (
                s.Dense(8, W_std=1.3, b_std=0.3),
                s.Erf(),
                s.Dense(8),
                s.GlobalAvgPool(),
                s.Dense(1, W_std=1.1, b_std=0.1),
            ),
        ),
        (
            nn.Sequential(nn.Conv(8, (2, 2), padding="VALID", b_std=0.3), nn.Erf(), nn.Flatten()),
            lambda s: (s.Conv(8, (2, 2), padding="VALID", b_std=0.3), s.Erf(), s.Flatten()),
        ),
        (
            pooled(
                nn.Dense(8, b_std=0.3), nn.GlobalSelfAttention(8, heads=2, b_std=0.2), nn.Relu()
            ),
            lambda s: (
                s.Dense(8, b_std=0.3),
                s.GlobalSelfAttention(8, 4, 4, 2, linear_scaling=True, W_out_std=1, b_std=0.2),
                s.Relu(),
                s.GlobalAvgPool(),
                s.Dense(1, W_std=1.1, b_std=0.1),
            ),
        ),
    ],
    ids=["convolution", "dense", "flatten", "attention"],
)
def test_agrees_with_masks_of_neural_tangents(ours, theirs):
    if not bridge.is_available():
        pytest.skip("neural-tangents 0.6.5 is not installed")
    stax = bridge.load().stax
    batch = images(-77.0)
    kernel_fn = stax.serial(*theirs(stax))[2]
    with jax.numpy_dtype_promotion("standard"), warnings.catch_warnings():
        # It says that linear scaling ties queries to keys.
        warnings.simplefilter("ignore", UserWarning)
        expected = kernel_fn(batch.x, None, ("nngp", "ntk"), mask_constant=-77.0)
    kernel = ours.kernel(batch)
    # Its Relu loses half of the digits near the diagonal.
    tolerance = 1e-7 if jax.config.jax_enable_x64 else 1e-3
    np.testing.assert_allclose(kernel.nngp, expected.nngp, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(kernel.ntk, expected.ntk, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_masked_inputs_go_through_transformations():
    net, batch = pooled(nn.Conv(16, (3,), b_std=0.2), nn.Cos(), nn.Dense(8), nn.Erf()), sequences()
    params = net.init(jax.random.key(1), batch.shape[1:])
    assert_close(jax.jit(net.apply)(params, batch), net.apply(params, batch), factor=10)
    assert_close(jax.jit(net.kernel)(batch).ntk, net.kernel(batch).ntk, factor=10)

    def total(x):
        return net.kernel(nn.Masked(x, batch.mask)).ntk.sum()

    gradient = jax.grad(total)(batch.x)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~np.asarray(batch.mask)] == 0).all()
    filled = batch.zeroed()
    direction = jnp.where(batch.mask[..., None], normal(3, 5, 2, seed=8), 0)
    step = 1e-3 if jax.config.jax_enable_x64 else 2e-2
    slope = (total(filled + step * direction) - total(filled - step * direction)) / (2 * step)
    assert float(jnp.sum(direction * gradient)) == pytest.approx(float(slope), rel=5e-3)
    by_scale = jax.grad(lambda net: net.kernel(batch).ntk.sum(), allow_int=True)(net)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(by_scale))


@pytest.mark.parametrize("name", ["transformer", "recurrent"])
def test_gradients_are_finite_where_inputs_are_absent_equal_or_zero(name):
    net, batch = SEQUENCE_NETS[name], sequences()
    x = batch.zeroed()
    x = x.at[1].set(x[0]).at[2].set(0)
    gradient = jax.grad(lambda x: net.kernel(nn.Masked(x, batch.mask)).ntk.sum())(x)
    assert np.isfinite(gradient).all()


def test_tiles_make_the_whole_kernel():
    net, batch = SEQUENCE_NETS["convolution"], sequences()
    steps = []
    tiled = net.kernel(batch, memory_limit=12_000, progress=lambda *step: steps.append(step))
    assert len(steps) > 1
    assert_close(tiled.ntk, net.kernel(batch).ntk, factor=10)


def test_many_vectors_of_positions_go_in_panels():
    mask = jax.random.bernoulli(jax.random.key(0), 0.5, (300, 3))
    batch = nn.Masked(normal(300, 3, 2), mask)
    net = nn.Sequential(nn.Dense(4, b_std=0.1), nn.Relu(), nn.Flatten(), nn.Dense(1))
    assert_close(net.kernel(batch).ntk[:2], net.kernel(batch[:2], batch).ntk, factor=10)


def test_a_layer_of_ones_own_says_what_becomes_of_absent_positions():
    @module
    class Shifted(Module):
        def init(self, key, shape, dtype=None):
            return ()

        def apply(self, params, x):
            return x + 1

        def presence(self, mask):
            return mask

    y = Shifted().apply((), sequences())
    np.testing.assert_array_equal(y[..., 0] == 0, ~sequences().mask)


X = normal(2, 4, 3)
ONES = jnp.ones((2, 4), bool)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda: pooled().kernel(nn.Masked(X, ONES[:, :3])), "one value for each example"),
        (lambda: nn.Dense(1).kernel(nn.Masked(X[:, 0], ONES[:, 0])), "axis of positions"),
        (lambda: nn.GlobalAvgPool().apply((), nn.Masked(X, X > 0)), "one value for each example"),
        (lambda: nn.GlobalAvgPool().apply((), nn.Masked(X, X[..., 0])), "boolean"),
        (lambda: pooled().kernel(nn.Masked(X, ONES.at[1].set(False))), "no present position"),
        (lambda: pooled().kernel(X, nn.Masked(X, ONES.at[1].set(False))), "no present position"),
        (lambda: nn.GlobalAvgPool().apply((), nn.Masked(X, ~ONES)), "no present position"),
        (lambda: pooled(nn.LayerNorm((1, -1))).kernel(nn.Masked(X, ONES)), "axis=-1"),
        (lambda: pooled(nn.ImageResize((2,))).kernel(nn.Masked(X, ONES)), "ImageResize does not"),
        (
            lambda: nn.BatchNorm().apply(nn.BatchNorm().init(None, (4, 3)), nn.Masked(X, ONES)),
            "BatchNorm does not",
        ),
        (lambda: nn.MaxPool((2,)).apply((), nn.Masked(X, ONES)), "MaxPool does not"),
        (lambda: nn.Aggregate().kernel(nn.Masked(X, ONES)), "Aggregate does not"),
        (lambda: pooled().kernel(nn.Masked(X.at[0, 0].set(jnp.nan), ONES)), "NaN"),
        (lambda: pooled(nn.Embedding(3, 4)).kernel(nn.Masked(X, ONES)), "mask of shape"),
    ],
)
def test_errors_explain(run, reason):
    with pytest.raises(InputError, match=reason):
        run()
