"""Random features: their products have the kernel as mean, and the error that is reported."""

import jax
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.nn import (
    Abs,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    LeakyRelu,
    Relu,
    Sequential,
)
from tests.tolerance import assert_close

RNG = np.random.default_rng(0)
DTYPE = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")
X = RNG.normal(size=(60, 10)).astype(DTYPE)
IMAGES = RNG.normal(size=(5, 4, 4, 2)).astype(DTYPE)


def dense(**options):
    return Dense(7, **{"w_std": 1.3, "b_std": 0.4, **options})


SHALLOW = Sequential(dense(), Relu(), dense())
DEEP = Sequential(dense(), Relu(), dense(), LeakyRelu(0.2), dense(), Relu(), dense(b_std=None))


def features(net, x, count, seed=0, **options):
    return ntk.kernel.random_features(net, x, count=count, key=jax.random.key(seed), **options)


def scores(net, x, which, draws, count):
    """Means of products over draws against the kernel, in standard errors."""
    found = [np.asarray(features(net, x, count, s, which=which)(x), float) for s in range(draws)]
    products = np.stack([phi @ phi.T for phi in found])
    error = products.std(axis=0, ddof=1) / draws**0.5
    z = (products.mean(axis=0) - np.asarray(getattr(net.kernel(x), which), float)) / error
    return z[np.triu_indices(len(z))]


@pytest.mark.parametrize("which", ["nngp", "ntk"])
@pytest.mark.parametrize("activation", [Relu(), Abs()], ids=str)
def test_products_have_the_kernel_as_their_mean(which, activation):
    net = Sequential(dense(), activation, dense(parameterization="standard"))
    z = scores(net, X[:6], which, draws=50, count=32)
    assert np.abs(z).max() < 4.5


CONVOLUTIONS = {
    "same": [Conv(3, (3, 3), b_std=0.3), Relu()],
    "strides": [Conv(3, (2, 3), strides=(2, 1), padding="VALID"), Relu()],
    "periodic": [Conv(3, (3, 1), padding="CIRCULAR"), Relu(), AvgPool((2, 2))],
}


@pytest.mark.parametrize("which", ["nngp", "ntk"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_and_pooling(name, which):
    net = Sequential(*CONVOLUTIONS[name], GlobalAvgPool(), Dense(1, b_std=0.2))
    z = scores(net, IMAGES, which, draws=30, count=32)
    assert np.abs(z).max() < 4.5


@pytest.mark.slow
@pytest.mark.parametrize("which", ["nngp", "ntk"])
@pytest.mark.parametrize(("net", "x"), [(SHALLOW, X), (DEEP, X)], ids=["shallow", "deep"])
def test_the_error_falls_as_the_root_of_the_count(net, x, which):
    counts = [128, 2048]
    errors = [
        np.mean([features(net, x, c, s, which=which).relative_error for s in range(3)])
        for c in counts
    ]
    rate = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -0.7 < rate < -0.35  # to within the noise of three draws
    assert errors[-1] < 0.2


@pytest.mark.slow
def test_bias_of_deep_networks_falls_faster_than_the_error():
    z = scores(DEEP, X[:6], "ntk", draws=25, count=512)
    assert np.abs(z).max() < 5


def test_the_error_reported_is_that_of_the_products():
    phi = features(DEEP, X, 300)
    found, kernel = np.asarray(phi(X)), np.asarray(DEEP.kernel(X).ntk)
    assert found.shape == (60, 300) == (60, phi.count)
    assert found.dtype == DTYPE
    error = np.linalg.norm(found @ found.T - kernel) / np.linalg.norm(kernel)
    np.testing.assert_allclose(phi.relative_error, error, rtol=10 * np.finfo(DTYPE).eps)
    assert "300 of the ntk, relative error" in repr(phi)


def test_networks_without_activations_are_exact():
    net = Sequential(Flatten(), dense(), dense())
    x = X.reshape(60, 5, 2)
    for which in ("nngp", "ntk"):
        phi = features(net, x, 64, which=which)
        assert phi.relative_error < 10 * np.finfo(DTYPE).eps
    conv = Sequential(Conv(2, (3, 3), b_std=0.5), GlobalAvgPool(), dense())
    assert features(conv, IMAGES, 100).relative_error < 10 * np.finfo(DTYPE).eps


def test_blocks_are_rows_of_the_whole(monkeypatch):
    monkeypatch.setattr("ntk_lab.kernel.feature_map._ENTRIES", 3000)
    phi = features(SHALLOW, X, 200)
    blocks = list(phi.blocks(X))
    assert len(blocks) > 3
    whole = np.concatenate([block for _, block in blocks])
    assert [rows.stop for rows, _ in blocks][-1] == 60
    np.testing.assert_array_equal(whole, phi(X))
    np.testing.assert_array_equal(features(SHALLOW, X, 200)(X), whole)  # the key decides
    assert_close(phi(X[:7]), whole[:7])
    rest = list(phi.blocks(X, first=50))
    assert rest[0][0].start == 50
    assert_close(np.concatenate([block for _, block in rest]), whole[50:])
    assert features(SHALLOW, X, 200, memory=200_000).count == 200


BAD = {
    "are not known": {"net": Sequential(dense(), ntk.nn.Tanh(), dense())},
    "are too few": {"count": 2},
    "whole number": {"count": 2.5},
    "count=nan; expected a whole": {"count": float("nan")},
    "count='many'; expected a whole": {"count": "many"},
    "count=True; expected a whole": {"count": True},
    "which is 'gram'": {"which": "gram"},
    "expected \\(n, \\*shape\\)": {"x": X[:, 0]},
    "NaN": {"x": np.full((3, 10), np.nan, DTYPE)},
    "Take fewer": {"memory": 1.2e5, "count": 3000},
    "not a Gaussian process": {"net": Sequential(Relu(), dense())},
    "ends in GlobalAvgPool": {
        "net": Sequential(Conv(2, (3, 3)), Relu(), Flatten(), dense()),
        "x": IMAGES,
    },
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_refused(words):
    with pytest.raises(InputError, match=words):
        features(**{"net": SHALLOW, "x": X, "count": 100, **BAD[words]})
    with pytest.raises(InputError, match="features of examples of shape"):
        features(SHALLOW, X, 100)(X[:, :3])
