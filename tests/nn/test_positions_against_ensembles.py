"""Layers over sequences, grids, graphs and tokens: ensembles of finite networks against kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from tests.nn.test_finite_against_infinite import z_scores
from tests.tolerance import assert_close

nn = ntk.nn
WIDTH, SEEDS = 96, 96


def normal(*shape):
    x = jax.random.normal(jax.random.key(3), (3, *shape))
    return x.at[2].set(1.01 * x[0])


def graphs(n=3, nodes=4):
    pattern = jax.random.bernoulli(jax.random.key(1), 0.6, (n, nodes, nodes))
    return nn.Graph(normal(nodes, 2), pattern.astype(float))


def pooled(*layers):
    return nn.Sequential(*layers, nn.GlobalAvgPool(), nn.Dense(1, 1.1, 0.1))


def hidden(width=WIDTH):
    return nn.Dense(width, 1.3, 0.3), nn.Relu()


def dot(**constant):
    # Contract the first spatial axis, which becomes the last.
    return nn.DotGeneral(**constant, dimension_numbers=(((1,), (0,)), ((), ())))


NETS = {
    "recurrent": (
        nn.Sequential(nn.SimpleRNN(WIDTH, 0.9, 1.2, 0.3), nn.Dense(1, 1.1, 0.1)),
        normal(4, 2),
    ),
    "recurrent at all times": (
        pooled(nn.SimpleRNN(WIDTH, 1.2, 0.8, 0.2, nn.Relu(), "all"), *hidden()),
        normal(3, 2),
    ),
    "stacked recurrent": (
        nn.Sequential(
            nn.SimpleRNN(WIDTH, 0.9, 1.2, 0.3, outputs="all"),
            nn.SimpleRNN(WIDTH, 0.8, 1.1),
            nn.Dense(1),
        ),
        normal(3, 2),
    ),
    "tokens": (
        pooled(nn.Embedding(WIDTH, 5, 1.3), nn.Conv(WIDTH, (2,), b_std=0.2), nn.Relu()),
        jnp.array([[0, 1, 2], [2, 1, 1], [4, 1, 2]]),
    ),
    "repeat": (
        nn.Sequential(
            nn.Dense(WIDTH),
            nn.Repeat(nn.Sequential(nn.Relu(), nn.Dense(WIDTH, 1.3, 0.2)), 2),
            nn.Dense(1),
        ),
        normal(3),
    ),
    "index": (pooled(*hidden(), nn.Index((slice(None, None, -2), -1)), *hidden()), normal(3, 4, 2)),
    "resize": (
        pooled(*hidden(), nn.ImageResize((2, 5), "linear"), *hidden()),
        normal(3, 3, 2),
    ),
    "dot with rhs": (pooled(*hidden(), dot(rhs=[1.0, -1.0]), *hidden()), normal(2, 3, 2)),
    "dot with lhs": (
        pooled(
            *hidden(),
            nn.DotGeneral(lhs=np.ones((3, 2)), dimension_numbers=(((1,), (2,)), ((), ()))),
            *hidden(),
        ),
        normal(3, 2, 2),
    ),
    "graph": (pooled(*hidden(), nn.Aggregate(), nn.Dense(WIDTH), nn.Erf()), graphs()),
}


def samples(net, x, seeds):
    """NNGP and NTK of single networks, shapes ``(seeds, n, n)``."""

    @jax.jit
    def one(key):
        params = net.init(key, x.shape[1:])
        jacobian = jax.jacrev(lambda params: net.apply(params, x)[:, 0])(params)
        rows = jnp.concatenate([j.reshape(len(x), -1) for j in jax.tree.leaves(jacobian)], axis=1)
        f = net.apply(params, x)
        return f @ f.T, rows @ rows.T

    # One by one: this compiles in half the time of a batch.
    kernels = [one(key) for key in jax.random.split(jax.random.key(0), seeds)]
    return tuple(np.stack(values) for values in zip(*kernels, strict=True))


@pytest.mark.parametrize("name", NETS)
def test_ensembles_have_the_kernels_as_means(name):
    net, x = NETS[name]
    kernel = net.kernel(x)
    nngp, theta = (np.asarray(v, np.float64) for v in samples(net, x, SEEDS))
    # Linear maps of positions, deeper networks: finite width biases the mean a little more.
    assert z_scores(nngp, np.asarray(kernel.nngp), 3 / WIDTH).max() < 4.5
    assert z_scores(theta, np.asarray(kernel.ntk), 3 / WIDTH).max() < 4.5


@pytest.mark.parametrize("name", NETS)
def test_networks_come_back_from_json_and_fit_their_output_shape(name):
    net, x = NETS[name]
    assert nn.from_json(net.to_json()) == net
    assert hash(nn.from_json(net.to_json())) == hash(net)
    params = jax.eval_shape(lambda key: net.init(key, x.shape[1:]), jax.random.key(0))
    y = jax.eval_shape(net.apply, params, x)
    assert y.shape == (len(x), *net.output_shape(x.shape[1:]))


@pytest.mark.parametrize("name", [name for name in NETS if name != "tokens"])
def test_gradients_are_finite_at_equal_and_zero_inputs(name):
    net, x = NETS[name]
    x = jax.tree.map(lambda v: v.at[1].set(v[0]).at[2].set(0), x)
    by_input = jax.grad(lambda x: net.kernel(x).ntk.sum())(x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(by_input))


@pytest.mark.slow
def test_kernels_of_two_batches_are_blocks_of_that_of_both():
    for name in ("recurrent at all times", "tokens", "resize", "graph"):
        net, x = NETS[name]
        whole, block = net.kernel(x), net.kernel(x[:1], x[1:])
        assert_close(block.ntk, whole.ntk[:1, 1:])
        assert_close(block.nngp, whole.nngp[:1, 1:])


def test_the_last_hidden_state_is_the_last_of_all():
    x = normal(4, 2)
    for activation in (nn.Erf(), nn.Relu()):
        last = nn.SimpleRNN(8, 1.1, 0.7, 0.2, activation)
        every = nn.SimpleRNN(8, 1.1, 0.7, 0.2, activation, "all")
        params = last.init(jax.random.key(0), x.shape[1:])
        np.testing.assert_array_equal(last.apply(params, x), every.apply(params, x)[:, -1])
        # Pooling over windows of one position: the covariance of all times is carried.
        chosen = nn.Sequential(every, nn.AvgPool((1,)), nn.Index(-1))
        assert_close(chosen.kernel(x).ntk, last.kernel(x).ntk)
        assert_close(chosen.kernel(x).nngp, last.kernel(x).nngp)


def test_a_sequence_of_one_step_is_a_dense_layer():
    x = normal(1, 3)
    rnn = nn.SimpleRNN(8, 1.1, 0.7, 0.2, nn.Relu())
    dense = nn.Sequential(nn.Flatten(), nn.Dense(8, 0.7, 0.2), nn.Relu())
    assert_close(rnn.kernel(x).ntk, dense.kernel(x).ntk)


@pytest.mark.slow
def test_repetition_is_the_copies_written_out():
    x, times = normal(4, 2), 3
    bodies = [
        nn.Sequential(nn.Conv(2, (3,), w_std=1.4, b_std=0.1), nn.Relu()),
        nn.Residual(nn.Sequential(nn.Dense(2), nn.Erf(), nn.Dense(2))),
    ]
    for body in bodies:
        copies = nn.Sequential(*[body] * times, nn.GlobalAvgPool(), nn.Dense(1))
        loop = nn.Sequential(nn.Repeat(body, times), nn.GlobalAvgPool(), nn.Dense(1))
        assert_close(loop.kernel(x).ntk, copies.kernel(x).ntk)
        params = loop.init(jax.random.key(0), (4, 2))
        separate = [jax.tree.map(lambda p, i=i: p[i], params[0]) for i in range(times)]
        assert_close(loop.apply(params, x), copies.apply((*separate, *params[1:]), x))


def test_tokens_are_one_hot_vectors():
    tokens = jnp.array([[0, 1, 2], [2, 1, 1]])
    one_hot = jax.nn.one_hot(tokens, 4)
    rest = nn.Conv(8, (2,)), nn.Relu(), nn.GlobalAvgPool(), nn.Dense(1)
    for name in ("ntk", "standard"):
        embedding = nn.Embedding(8, 4, 1.3, name)
        # A mean over channels of one-hot vectors is the fourth part of equality.
        dense = nn.Dense(8, 1.3 * 2, parameterization=name)
        ours = nn.Sequential(embedding, *rest).kernel(tokens)
        theirs = nn.Sequential(dense, *rest).kernel(one_hot)
        assert_close(ours.nngp, theirs.nngp)
        if name == "ntk":
            assert_close(ours.ntk, theirs.ntk)


def test_kernels_of_tokens_have_a_plan():
    net, tokens = NETS["tokens"]
    assert net.plan(tokens.shape).shape == (3, 3)


def test_resizing_is_that_of_jax():
    x = normal(4, 3, 2)
    for method in ("nearest", "linear", "cubic"):
        layer = nn.ImageResize((2, 5), method)
        expected = jax.image.resize(x, (3, 2, 5, 2), method)
        assert_close(layer.apply((), x), expected)
        flat = nn.Sequential(layer, nn.Flatten())
        assert_close(flat.kernel(x).nngp, nn.Flatten().kernel(expected).nngp)


def test_graphs_of_a_grid_add_up_over_some_axes():
    x = normal(4, 3, 2)
    pattern = jax.random.normal(jax.random.key(1), (3, 3, 3))
    layer = nn.Aggregate(2)
    expected = jnp.einsum("nhvc,nvw->nhwc", x, pattern)
    assert_close(layer.apply((), nn.Graph(x, pattern)), expected)
    kernel = nn.Sequential(layer, nn.Flatten()).kernel(nn.Graph(x, pattern))
    assert_close(kernel.nngp, nn.Flatten().kernel(expected).nngp)


def test_the_finite_half_of_pooling_and_normalization():
    x = normal(4, 5, 2)
    pooled = nn.MaxPool((2, 2), (1, 2), "SAME").apply((), x)
    assert pooled.shape[1:] == nn.MaxPool((2, 2), (1, 2), "SAME").output_shape(x.shape[1:])
    np.testing.assert_array_equal(pooled[:, 0, 0], x[:, :2, :2].max(axis=(1, 2)))
    norm = nn.BatchNorm()
    y = norm.apply(norm.init(jax.random.key(0), x.shape[1:]), x)
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axis=(0, 1, 2)), 1, rtol=1e-3)
    for layer in (nn.MaxPool((2, 2)), norm):
        with pytest.raises(InputError, match="monte_carlo_kernel"):
            nn.Sequential(nn.Dense(2), layer).kernel(x)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda: nn.Index((0, 1, 2)).output_shape((3, 4, 2)), "none for the batch"),
        (lambda: nn.Index(7).output_shape((3, 2)), "position 7"),
        (lambda: nn.Index(slice(2, 2)).output_shape((3, 2)), "leaves nothing"),
        (lambda: nn.Index("a"), "slices and integers"),
        (lambda: nn.ImageResize((4,), "area"), "method"),
        (lambda: nn.ImageResize((4, 0)), "new size"),
        (lambda: nn.DotGeneral(), "one constant"),
        (lambda: dot(rhs=[1.0, 2.0]).output_shape((3, 2)), "cannot multiply"),
        (lambda: dot(rhs=[1.0, 2.0]).output_shape((2,)), "channels"),
        (lambda: nn.Aggregate().kernel(normal(3, 2)), "none: pass"),
        (lambda: nn.Aggregate().kernel(nn.Graph(normal(3, 2), jnp.ones((3, 2, 2)))), "pattern"),
        (lambda: nn.Dense(2).kernel(graphs()), "ntk.nn.Aggregate"),
        (lambda: nn.Aggregate().plan((3, 4, 2)), "without a plan"),
        (lambda: nn.Aggregate(0).output_shape((3, 2)), "axes"),
        (lambda: nn.Embedding(3, 4).kernel(jnp.array([[4]])), "vocabulary"),
        (lambda: nn.Embedding(3, 4).kernel(normal(3, 2)), "integer"),
        (lambda: nn.Sequential(nn.Dense(3), nn.Embedding(3, 4)).kernel(normal(3)), "first layer"),
        (lambda: nn.SimpleRNN(3).kernel(normal(3)), "time"),
        (lambda: nn.SimpleRNN(3, activation=nn.Dense(3)), "activation"),
        (lambda: nn.Repeat(nn.Dense(3), 0), "at least 1"),
        (lambda: nn.Repeat(nn.Dense(3), 2).output_shape((2,)), "keep the shape"),
        (lambda: nn.Sequential(nn.Dense(3), nn.Repeat(nn.Relu(), 2)).kernel(normal(3)), "Gaussian"),
    ],
)
def test_errors_explain(run, reason):
    with pytest.raises(InputError, match=reason):
        run()
