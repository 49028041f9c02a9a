"""LayerNorm, RMSNorm and Dropout: finite against infinite, edges, gradients, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab import nn
from ntk_lab.errors import InputError
from tests.tolerance import assert_close

WIDTH, SEEDS = 256, 96
SHAPE = (3, 2)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(3), (3, *SHAPE))


def whole_batch_kernels(apply, params, x):
    """NNGP and NTK of one network, from the Jacobian of the batch as a whole."""
    f = apply(params, x)
    rows = [j.reshape(*f.shape, -1) for j in jax.tree.leaves(jax.jacrev(apply)(params, x))]
    theta = sum(jnp.einsum("icp,jcp->ij", j, j) for j in rows) / f.shape[1]
    return f @ f.T / f.shape[1], theta


def assert_means_match(net, x, seeds=SEEDS, dropout=False):
    def one(key):
        params = net.init(key, x.shape[1:])
        apply = nn.with_dropout(net.apply, jax.random.fold_in(key, 1)) if dropout else net.apply
        return whole_batch_kernels(apply, params, x)

    samples = jax.lax.map(one, jax.random.split(jax.random.key(0), seeds), batch_size=8)
    for values, expected in zip(samples, net.kernel(x), strict=True):
        values, expected = np.asarray(values, np.float64), np.asarray(expected)
        error = values.std(0, ddof=1) / seeds**0.5
        allowed = np.sqrt(error**2 + (2 / WIDTH * np.abs(expected).max()) ** 2)
        assert (np.abs(values.mean(0) - expected) / allowed).max() < 4.5


@pytest.mark.slow
def test_normalized_networks_have_the_kernels_as_means(x):
    net = nn.Sequential(
        nn.LayerNorm(),
        nn.Dense(WIDTH, 1.5, 0.5),
        nn.LayerNorm(trainable=True),
        nn.Dense(WIDTH, 1.1, 0.2),
        nn.LayerNorm(),
        nn.Erf(),
        nn.RMSNorm((1, -1), trainable=True),
        nn.Flatten(),
        nn.Dense(WIDTH, 0.8, 0.3),
        nn.LayerNorm(eps=0.1),
        nn.Erf(),
        nn.Dense(1),
    )
    assert_means_match(net, x)


@pytest.mark.slow
def test_networks_with_dropout_have_the_kernels_as_means(x):
    # Equal data at two positions and in two examples, whose masks are not equal.
    x = x.at[0, 1].set(x[0, 0]).at[1].set(x[0])
    net = nn.Sequential(
        nn.Dense(WIDTH, 1.5, 0.5),
        nn.Erf(),
        nn.Dropout(0.6),
        nn.GlobalAvgPool(),
        nn.Dense(WIDTH, 1.2, 0.3),
        nn.Erf(),
        nn.Dropout(0.8),
        nn.Dense(1),
    )
    assert_means_match(net, x, dropout=True)


def test_masks_keep_their_share_and_the_mean():
    layer, x = nn.Dropout(0.8), jnp.ones((50, 40))
    y = nn.with_dropout(layer.apply, jax.random.key(0))((), x)
    assert abs(float((y > 0).mean()) - 0.8) < 0.05
    assert_close(y, jnp.where(y > 0, x / 0.8, 0))
    assert (layer.apply((), x) == x).all()
    again = jax.jit(lambda key, x: nn.with_dropout(layer.apply, key)((), x))
    assert (again(jax.random.key(0), x) == y).all()
    assert (again(jax.random.key(1), x) != y).any()
    two = nn.with_dropout(nn.Sequential(layer, nn.Dropout(0.8)).apply, jax.random.key(0))
    assert float((two(((), ()), x) > 0).mean()) < 0.7


def test_dropout_for_testing_is_the_identity(x):
    def net(layer):
        return nn.Sequential(nn.Flatten(), nn.Dense(8), layer, nn.Relu(), nn.Dense(1))

    assert_close(net(nn.Dropout(0.5, "test")).kernel(x).ntk, net(nn.Identity()).kernel(x).ntk)
    tested = nn.with_dropout(nn.Dropout(0.5, "test").apply, jax.random.key(0))
    assert (tested((), x) == x).all()


def test_near_duplicates_keep_their_angle():
    """The NTK of nearly equal inputs, through a kink: an angle lost would show at order 1e-8."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6)), jnp.result_type(float))
    x = jnp.concatenate([x, x * (1 + 1e-3) + jnp.eye(1, 6) * 1e-3])

    def net(norm):
        return nn.Sequential(nn.Dense(8, 2**0.5), norm, nn.Relu(), nn.Dense(1))

    # Without biases, normalization multiplies rows and columns of a homogeneous kernel.
    plain, normal = (
        np.asarray(net(norm).kernel(x).ntk) for norm in (nn.Identity(), nn.LayerNorm(eps=0))
    )
    root1, root2 = (np.sqrt(np.diag(k)) for k in (plain, normal))
    assert_close(plain / np.outer(root1, root1), normal / np.outer(root2, root2), factor=1e-2)


def test_zero_inputs_and_their_gradients_are_finite():
    x = jnp.zeros((2, 3)).at[1].set(1.0)
    for norm in (nn.LayerNorm(), nn.LayerNorm(eps=0), nn.RMSNorm()):
        net = nn.Sequential(nn.Dense(8), norm, nn.Relu(), nn.Dense(1))
        k, gradient = jax.value_and_grad(lambda x, net=net: net.kernel(x).ntk.sum())(x)
        assert np.isfinite(float(k))
        assert np.isfinite(np.asarray(gradient)).all()
        assert np.isfinite(np.asarray(norm.apply((), x))).all()


def test_single_precision_agrees_with_double(x):
    """Of finite networks too: a release of jaxlib miscompiles Jacobians through LayerNorm."""
    net = nn.Sequential(
        nn.Dense(16, 1.2, 0.1), nn.LayerNorm(), nn.Gelu(), nn.Flatten(), nn.Dense(2)
    )
    params = net.init(jax.random.key(0), SHAPE, jnp.float32)
    wide = jax.tree.map(lambda p: p.astype(jnp.result_type(float)), params)
    for value, exact in (
        (net.kernel(x.astype(jnp.float32)).ntk, net.kernel(x).ntk),
        (
            ntk.empirical.ntk(net.apply, params, x.astype(jnp.float32)),
            ntk.empirical.ntk(net.apply, wide, x),
        ),
    ):
        value, exact = (np.asarray(k, np.float64) for k in (value, exact))
        assert np.abs(value - exact).max() < 1e-5 * np.abs(exact).max()


def test_json_and_text():
    net = nn.Sequential(
        nn.Dense(4),
        nn.LayerNorm((1, -1), 0.1, trainable=True),
        nn.RMSNorm(),
        nn.Dropout(0.5, "test"),
    )
    assert nn.from_json(net.to_json()) == net
    assert eval(repr(net), vars(nn)) == net
    assert nn.LayerNorm(-1) == nn.LayerNorm()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: nn.LayerNorm(0), "without axis 0"),
        (lambda x: nn.LayerNorm((1,)).output_shape((4, 3)), "always the channels"),
        (lambda x: nn.LayerNorm((-1, 5)).output_shape((4, 3)), "existing axes"),
        (lambda x: nn.LayerNorm((-1, -3)).output_shape((4, 3)), "never the batch"),
        (lambda x: nn.RMSNorm(eps=-1.0), "not negative"),
        (
            lambda x: nn.Sequential(nn.Dense(3), nn.Relu(), nn.LayerNorm()).kernel(x[:, 0]),
            "RMSNorm",
        ),
        (
            lambda x: nn.Sequential(nn.Dense(3), nn.LayerNorm(trainable=True), nn.Relu()).kernel(
                x[:, 0]
            ),
            "not a Gaussian",
        ),
        (lambda x: nn.Dropout(0.0), "above 0"),
        (lambda x: nn.Dropout(0.5, "eval"), "'train' or 'test'"),
        (lambda x: nn.Dropout(0.5).kernel(x[:, 0]), "data themselves"),
        (
            lambda x: nn.Sequential(nn.Dense(3), nn.Dropout(0.5), nn.Relu()).kernel(x[:, 0]),
            "not a Gaussian",
        ),
    ],
)
def test_mistakes_are_explained(make, words, x):
    with pytest.raises(InputError, match=words):
        make(x)
