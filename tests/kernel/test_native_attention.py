"""Compiled loops over pairs of sequences give the same kernels as the portable way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import NumericalError
from ntk_lab.kernel import native_attention, native_evaluate
from tests.kernel.convolutions import portable

pytest.importorskip("numba")

nn = ntk.nn
RELU, POOL = nn.Relu(), nn.GlobalAvgPool()


def dense():
    return nn.Dense(8, w_std=2**0.5, b_std=0.1)


def attend(**options):
    return nn.GlobalSelfAttention(8, heads=2, scaling="linear", **options)


NETWORKS = {
    "stack": nn.Sequential(
        *[dense(), RELU, attend(pos_emb="sum")] * 2, RELU, POOL, nn.Dense(1, 1.2, 0.3)
    ),
    "embedded values, biases": nn.Sequential(
        dense(),
        attend(pos_emb="sum", val_pos_emb=True, b_std=0.3, w_value_std=1.5, w_pos_emb_std=0.7),
        nn.LeakyRelu(0.2),
        attend(pos_emb="concat", val_pos_emb=True, pos_emb_decay=("exp", 0.3), w_key_std=1.4),
        RELU,
        POOL,
    ),
    "causal, other scales": nn.Sequential(
        nn.Dense(8, 1.4, 0.1, parameterization="standard"),
        nn.Abs(),
        attend(causal=True, w_query_std=0.5, pos_emb="concat", pos_emb_width=5),
        nn.Dense(8),
        RELU,
        nn.GlobalSumPool(),
    ),
    "data and attention alone, layers after": nn.Sequential(
        attend(b_std=0.2), attend(), POOL, dense(), RELU, nn.Dense(1)
    ),
    "images": nn.Sequential(
        nn.Conv(8, (1, 1), b_std=0.2), RELU, attend(pos_emb="sum", b_std=0.1), RELU, POOL
    ),
}


def inputs(name, batch, seed):
    """Sequences, or images, of different norms."""
    shape = (4, 3, 2) if name == "images" else (11, 3)
    x = np.random.default_rng(seed).normal(size=(batch, *shape))
    return jnp.asarray(x * np.linspace(0.5, 2, batch).reshape(-1, *(1,) * len(shape)))


@pytest.fixture
def taken(monkeypatch):
    """Loops for small kernels too, in blocks of few columns; what they returned."""
    monkeypatch.setattr(native_evaluate, "FEWEST", 1)
    monkeypatch.setattr(native_attention, "_PAIRS", 8)
    found = []

    def recorded(*arguments):
        found.append(native_attention.attention_means(*arguments))
        return found[-1]

    monkeypatch.setattr(native_evaluate, "attention_means", recorded)
    return found


def scales(net, x1, x2):
    """Root of the product of both examples' kernels with themselves."""
    both = [[np.diag(k) for k in net.kernel(x)] for x in (x1, x2)]
    return [np.sqrt(np.outer(a, b)) for a, b in zip(*both, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_loops_agree_with_the_portable_way(monkeypatch, taken, name, symmetric):
    net, x1 = NETWORKS[name], inputs(name, 27 if symmetric else 3, 0)
    x = (x1,) if symmetric else (x1, inputs(name, 30, 1))
    actual = net.kernel(*x)
    assert taken[0] is not None
    expected = portable(monkeypatch, net, *x)
    tolerance = 1e-12 if actual.ntk.dtype == jnp.float64 else 2e-6
    for a, b, scale in zip(actual, expected, scales(net, x[0], x[-1]), strict=True):
        assert np.max(np.abs(a - b) / scale) < tolerance
        assert a.dtype == b.dtype


@pytest.mark.slow
def test_kernels_are_exactly_symmetric_and_positive(taken):
    for k in NETWORKS["stack"].kernel(inputs("stack", 20, 0)):
        assert np.array_equal(k, k.T)
        assert np.linalg.eigvalsh(np.asarray(k, np.float64))[0] > -1e-6 * k.max()


def test_equal_examples_of_two_batches_have_the_kernel_of_one(monkeypatch, taken):
    # A gap of rounding in place of none costs half of the digits of the angle.
    net, x = NETWORKS["stack"], inputs("stack", 20, 0)
    own, between = net.kernel(x), net.kernel(x, x[::-1])
    assert len(taken) == 2
    tolerance = 1e-14 if x.dtype == jnp.float64 else 1e-6
    for a, b in zip(own, between, strict=True):
        np.testing.assert_allclose(np.diag(a), np.diag(b[:, ::-1]), rtol=tolerance)


@pytest.mark.slow
@pytest.mark.x64
@pytest.mark.parametrize("native", ["0", "1"])
@pytest.mark.parametrize("name", ["stack", "embedded values, biases"])
def test_special_examples_are_as_accurate_in_float32(monkeypatch, taken, name, native):
    x = np.asarray(inputs(name, 4, 0))
    near = x[:1] * (1 + 1e-5 * np.random.default_rng(3).normal(size=x[:1].shape))
    x = np.concatenate([x, -x, near, 0 * x[:1], 1e-3 * x[:1], 1e3 * x[:1]]).astype(np.float32)
    monkeypatch.setenv("NTK_LAB_NATIVE", "0")
    exact = NETWORKS[name].kernel(jnp.asarray(x, jnp.float64))
    monkeypatch.setenv("NTK_LAB_NATIVE", native)
    for a, b in zip(NETWORKS[name].kernel(jnp.asarray(x)), exact, strict=True):
        assert a.dtype == jnp.float32
        root = np.sqrt(np.diag(b))
        error = np.max(np.abs(np.asarray(a, np.float64) - b) / (root[:, None] * root))
        # Both: of the NTK after softmax, which makes positions nearly equal.
        assert error < 3e-5


def test_vanishing_variances_take_the_portable_way(monkeypatch, taken):
    net = nn.Sequential(nn.Dense(8), RELU, attend(), RELU, POOL)
    x = inputs("stack", 5, 0).at[2].set(0)
    actual = net.kernel(x)
    assert taken == [None]
    for a, b in zip(actual, portable(monkeypatch, net, x), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    "layers",
    [
        (dense(), nn.Erf(), attend(), POOL),
        (dense(), nn.Conv(8, (3,)), attend(), POOL),
        (dense(), attend(), nn.AvgPool((2,)), POOL),
        (dense(), attend(), nn.Flatten()),
        (dense(), nn.GlobalSelfAttention(8, 2, scaling="linear", mechanism="relu"), POOL),
        (dense(), attend(parameterization="standard"), POOL),
        (dense(), nn.GlobalSelfAttention(8, 2, mechanism="identity", scaling="sqrt"), POOL),
    ],
    ids=lambda layers: " ".join(type(layer).__name__ for layer in layers),
)
def test_other_layers_take_the_portable_way(taken, layers):
    assert jnp.isfinite(nn.Sequential(*layers).kernel(inputs("stack", 4, 0)).ntk).all()
    assert not any(means is not None for means in taken)


def test_gradients_masks_and_little_memory_take_the_portable_way(taken):
    net, x = nn.Sequential(dense(), attend(), POOL), inputs("stack", 3, 0)
    assert jnp.isfinite(jax.grad(lambda x: net.kernel(x).ntk.sum())(x)).all()
    net.kernel(nn.Masked(x, jnp.ones(x.shape[:2], bool)))
    plan = net.plan(x.shape, dtype=x.dtype)
    net.kernel(x, memory_limit=plan.result_bytes + plan.tile_bytes // 9)
    assert not taken


@pytest.mark.slow
def test_overflow_is_reported(taken):
    net = nn.Sequential(nn.Dense(8, 1e15), RELU, attend(), nn.Dense(8, 1e15), POOL)
    x = inputs("stack", 4, 0).astype(jnp.float32)
    with pytest.raises(NumericalError, match="not finite"):
        net.kernel(x)


def test_progress_reaches_the_number_of_groups(taken):
    seen = []
    NETWORKS["stack"].kernel(inputs("stack", 20, 0), progress=lambda *done: seen.append(done))
    assert seen[-1][0] == seen[-1][1] > 2
