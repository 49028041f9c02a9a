"""Random estimates: of the right size within the error they state, which is the right size too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.solve import Estimate
from tests.tolerance import assert_close

pytestmark = pytest.mark.slow

KEYS = jax.random.split(jax.random.key(0), 24)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope="module")
def network():
    """A kernel with three outputs, and its matrix of size 60."""
    params = {"w": normal(0, 4, 12), "v": normal(1, 12, 3)}
    f = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"] / 4  # noqa: E731
    x = normal(2, 20, 4)
    kernel = np.asarray(ntk.empirical.ntk(f, params, x), np.float64)
    return f, params, x, kernel.transpose(0, 2, 1, 3).reshape(60, 60)


def calibrated(values, errors, expected):
    """All within 4.5 standard errors, and these of the size of the true ones.

    With 24 repeats the root mean square of z is 1 within 15%, one standard deviation.
    """
    z = (np.asarray(values, np.float64) - expected) / np.asarray(errors, np.float64)
    assert np.abs(z).max() < 4.5
    assert 0.5 < np.sqrt((z**2).mean()) < 1.6


def repeated(estimate):
    """Values, standard errors and truncations over all keys."""
    found = [estimate(key) for key in KEYS]
    assert all(isinstance(e, Estimate) for e in found)
    return (np.stack([np.asarray(v) for v in part]) for part in list(zip(*found, strict=True))[:2])


def test_traces_are_calibrated(network):
    f, params, x, kernel = network
    k = ntk.empirical.operator(f, params, x)
    values, errors = repeated(lambda key: k.trace(key))
    calibrated(values, errors, np.trace(kernel))
    exact = k.trace()
    assert_close(exact.value, np.trace(kernel))
    assert exact.standard_error == 0


def test_norms_are_calibrated_also_of_two_batches(network):
    f, params, x, kernel = network
    k = ntk.empirical.operator(f, params, x)
    values, errors = repeated(lambda key: k.frobenius_norm(key))
    calibrated(values, errors, np.linalg.norm(kernel))
    part = ntk.empirical.operator(f, params, x[:5], x)
    values, errors = repeated(lambda key: part.frobenius_norm(key))
    calibrated(values, errors, np.linalg.norm(kernel[:15]))


def test_log_determinants_are_calibrated(network):
    f, params, x, kernel = network
    k = ntk.empirical.operator(f, params, x)
    ridge = 0.1
    expected = np.linalg.slogdet(kernel + ridge * np.eye(60))[1]
    values, errors = repeated(lambda key: k.logdet(ridge, key, depth=40))
    calibrated(values, errors, expected)


def test_the_truncation_of_log_determinants_is_a_bound(network):
    f, params, x, _ = network
    k = ntk.empirical.operator(f, params, x)
    exact = k.logdet(0.1, KEYS[0], depth=60)
    last = np.inf
    for depth in (6, 20):
        found = k.logdet(0.1, KEYS[0], depth=depth)
        assert found.truncation < last
        rounding = 1e-4 * abs(float(exact.value)) if k.dtype == jnp.float32 else 1e-9
        assert abs(found.value - exact.value) < found.truncation + rounding
        last = found.truncation
    assert exact.truncation < 1e-3


def density(kernel, grid, width, log=False):
    values = np.linalg.eigvalsh(kernel)
    if log:
        values, grid = np.log(values[values > 1e-5 * values[-1]]), np.log(grid)
    bells = (
        np.exp(-(((grid[:, None] - values[None]) / width) ** 2) / 2) / width / (2 * np.pi) ** 0.5
    )
    return bells.sum(axis=1) / len(kernel)


@pytest.mark.parametrize("log", [False, True])
def test_spectral_densities_are_calibrated(network, log):
    f, params, x, kernel = network
    k = ntk.empirical.operator(f, params, x)
    grid = np.geomspace(0.5, 60, 9) if log else np.linspace(0, 60, 9)
    width = 0.8 if log else 6.0
    expected = density(kernel, grid, width, log)
    values, errors = repeated(
        lambda key: k.spectral_density(grid, key, width=width, log=log, samples=64, depth=40)
    )
    seen = expected > 0.05 * expected.max()
    calibrated(values[:, seen], errors[:, seen], expected[None, seen])


def test_densities_add_up_to_one_and_tell_their_truncation(network):
    f, params, x, _ = network
    k = ntk.empirical.operator(f, params, x)
    top = float(k.eigsh(1).eigenvalues[0])
    grid = np.linspace(-0.2 * top, 1.2 * top, 400)
    found = k.spectral_density(grid, KEYS[0], width=0.02 * top)
    total = float(found.value.sum()) * (grid[1] - grid[0])
    assert abs(total - 1) < 1e-3
    shallow = k.spectral_density(grid, KEYS[0], width=0.02 * top, depth=6)
    assert shallow.truncation > 10 * found.truncation
    default = k.spectral_density(grid, KEYS[0])
    explicit = k.spectral_density(grid, KEYS[0], width=2 * (grid[1] - grid[0]))
    assert_close(default.value, explicit.value, factor=100)


def test_kernels_of_low_rank_are_no_trouble():
    """Lanczos iterations end early there."""
    x = normal(3, 40, 3)
    gram = np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
    k = ntk.empirical.operator(lambda w, x: x @ w, jnp.ones(3), x)
    found = k.logdet(0.5, KEYS[0], samples=64, depth=20)
    expected = np.linalg.slogdet(gram + 0.5 * np.eye(40))[1]
    assert found.truncation < 1e-2
    assert abs(found.value - expected) < 4.5 * found.standard_error + found.truncation
    found = k.spectral_density(np.array([0.0, 1.0]), KEYS[0], width=0.5, samples=64, depth=20)
    error = np.abs(found.value - density(gram, np.array([0.0, 1.0]), 0.5))
    assert (error < 4.5 * found.standard_error).all()


def test_estimates_depend_on_the_key_only(network):
    """Not on the memory limit, which decides how many vectors are taken at a time."""
    f, params, x, _ = network
    whole = ntk.empirical.operator(f, params, x)
    tight = ntk.empirical.operator(f, params, x, memory=5e4)
    for call in (
        lambda k: k.trace(KEYS[0]),
        lambda k: k.frobenius_norm(KEYS[0]),
        lambda k: k.logdet(0.1, KEYS[0], depth=40),
    ):
        a, b = call(tight), call(whole)
        assert_close(a.value, b.value, factor=10)
        assert_close(a.standard_error, b.standard_error, factor=1000)


# The pseudo-NTK


@pytest.mark.parametrize("second", [None, slice(3, 15)])
def test_the_error_of_the_pseudo_ntk_is_calibrated(network, second):
    f, params, x, _ = network
    x2 = None if second is None else x[second]
    exact = np.asarray(ntk.empirical.ntk(f, params, x, x2, outputs="trace"), np.float64)
    found = [ntk.empirical.pseudo_ntk(f, params, x, x2, key=key, blocks=60) for key in KEYS[:12]]
    full = np.asarray(ntk.empirical.ntk(f, params, x, x2), np.float64)
    assert_close(found[0].kernel, full.sum((2, 3)) / 3)
    error = np.linalg.norm(np.asarray(found[0].kernel) - exact) / np.linalg.norm(exact)
    values, errors = zip(*(k.relative_error[:2] for k in found), strict=True)
    calibrated(np.array(values), np.array(errors), error)


def test_the_pseudo_ntk_is_exact_where_outputs_share_nothing(network):
    f, params, x, _ = network
    found = ntk.empirical.pseudo_ntk(f, params, x, key=KEYS[0], select=lambda path: path == "v")
    assert found.relative_error.value < 1e-5
    exact = ntk.empirical.ntk(f, params, x, outputs="trace", select=lambda path: path == "v")
    assert_close(found.kernel, exact)


def test_the_pseudo_ntk_comes_closer_with_the_width():
    x, errors = normal(4, 12, 6), []
    for width in (64, 1024):
        net = ntk.nn.Sequential(ntk.nn.Dense(width), ntk.nn.Erf(), ntk.nn.Dense(5))
        params = net.init(KEYS[1], (6,))
        k = ntk.empirical.pseudo_ntk(net.apply, params, x, key=KEYS[0])
        errors.append(k.relative_error)
    assert errors[1].value + 2 * errors[1].standard_error < errors[0].value / 2


# Sketches


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_sketches_are_unbiased_and_their_errors_calibrated(network, outputs):
    f, params, x, _ = network
    exact = np.asarray(ntk.empirical.ntk(f, params, x, x[:6], outputs=outputs), np.float64)
    found = [
        ntk.empirical.sketched_ntk(f, params, x, x[:6], key=key, dimension=300, outputs=outputs)
        for key in KEYS[:12]
    ]
    values = np.stack([np.asarray(k.kernel) for k in found])
    errors = np.stack([np.asarray(k.standard_error) for k in found])
    z = (values - exact[None]) / errors
    # 64 groups give t of 63 degrees of freedom: 4.5 is exceeded once in 33000.
    assert np.abs(z).max() < 6
    assert (np.abs(z) > 4.5).mean() < 1e-3
    assert 0.9 < np.sqrt((z**2).mean()) < 1.1
    mean = (values.mean(axis=0) - exact) / np.sqrt((errors**2).mean(axis=0) / 12)
    assert np.abs(mean).max() < 4.5


def test_sketched_features_are_factors_of_the_kernel(network):
    f, params, x, _ = network
    k = ntk.empirical.sketched_ntk(f, params, x, x[:6], key=KEYS[0], dimension=40)
    assert k.features1.shape == (20, 3, 40)
    assert_close(k.kernel, jnp.einsum("iad,jbd->ijab", k.features1, k.features2))
    k = ntk.empirical.sketched_ntk(f, params, x, key=KEYS[0], dimension=40, outputs="trace")
    assert k.features2 is k.features1
    assert_close(k.kernel, k.features1 @ k.features1.T)


def test_directions_are_the_same_in_any_order_of_work(network):
    f, params, x, _ = network
    sketch = lambda **options: ntk.empirical.sketched_ntk(  # noqa: E731
        f, params, x, key=KEYS[0], dimension=20, **options
    )
    whole = sketch()
    for options in ({"batch": 3}, {"memory": 3e4}):
        assert_close(sketch(**options).features1, whole.features1)
    more = ntk.empirical.sketched_ntk(f, params, x, key=KEYS[0], dimension=30)
    assert_close(more.features1[:, :, :20] * (30 / 20) ** 0.5, whole.features1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda *a: ntk.empirical.pseudo_ntk(*a), "needs a key"),
        (lambda *a: ntk.empirical.pseudo_ntk(*a, key=KEYS[0], blocks=1), "blocks=1"),
        (lambda f, p, x: ntk.empirical.pseudo_ntk(f, p, x[:0], key=KEYS[0]), "without examples"),
        (lambda *a: ntk.empirical.sketched_ntk(*a, key=KEYS[0], dimension=1), "dimension=1"),
        (
            lambda *a: ntk.empirical.sketched_ntk(*a, key=KEYS[0], dimension=9, outputs="some"),
            "choose 'full' or 'trace'",
        ),
    ],
)
def test_mistakes_are_explained(network, call, words):
    f, params, x, _ = network
    with pytest.raises(InputError, match=words):
        call(f, params, x)
    assert ntk.empirical.pseudo_ntk(f, params, x, blocks=0).relative_error is None
