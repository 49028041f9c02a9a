"""Monte Carlo kernels: right means and errors, stopping, resuming, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError
from tests.tolerance import assert_close

NET = ntk.nn.Sequential(ntk.nn.Dense(64, 1.3, 0.2), ntk.nn.Erf(), ntk.nn.Dense(4, 1.1, 0.1))
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (5, 3))


@pytest.fixture(scope="module")
def full(x):
    return ntk.monte_carlo_kernel(NET, x, key=KEY, accuracy=0, max_samples=60)


def test_means_and_errors_fit_the_infinite_width_kernel(x, full):
    assert full.samples == 60
    for name in ("nngp", "ntk"):
        expected = np.asarray(getattr(NET.kernel(x), name))
        mean, error = np.asarray(getattr(full, name)), np.asarray(getattr(full, f"{name}_stderr"))
        z = (mean - expected) / np.sqrt(error**2 + (np.abs(expected).max() / 64) ** 2)
        assert np.abs(z).max() < 4
        assert error.min() > 0


def test_errors_are_those_of_the_samples(x):
    k = ntk.monte_carlo_kernel(NET, x[:2], x[2:], key=KEY, accuracy=0, max_samples=7, chunk=3)
    values = []
    for i in range(7):
        params = NET.init(jax.random.fold_in(KEY, i), (3,))
        values.append(ntk.empirical.ntk(NET.apply, params, x[:2], x[2:], outputs="trace"))
    values = np.asarray(values)
    assert_close(k.ntk, values.mean(0))
    assert_close(k.ntk_stderr, values.std(0, ddof=1) / 7**0.5)


def test_it_stops_at_the_accuracy_asked_for(x):
    seen = []
    k = ntk.monte_carlo_kernel(NET, x, key=KEY, accuracy=0.2, chunk=8, progress=seen.append)
    assert k.relative_error <= 0.2
    assert 16 <= k.samples < 200
    assert [s.samples for s in seen] == list(range(8, k.samples + 1, 8))
    assert all(s.relative_error > 0.2 for s in seen[1:-1])


def test_an_interrupted_run_resumes(x, full):
    part = ntk.monte_carlo_kernel(NET, x, key=KEY, accuracy=0, max_samples=20)
    again = ntk.monte_carlo_kernel(NET, x, key=KEY, accuracy=0, max_samples=60, resume=part)
    for name in ("nngp", "ntk", "nngp_stderr", "ntk_stderr"):
        assert_close(getattr(again, name), getattr(full, name))
    calls = []
    done = ntk.monte_carlo_kernel(
        NET, x, key=KEY, max_samples=60, resume=full, progress=calls.append
    )
    assert done is full
    assert not calls


def test_two_functions_and_two_batches(x, full):
    k = ntk.monte_carlo_kernel(
        NET.init, NET.apply, x[:2], x[2:], key=KEY, accuracy=0, max_samples=60, memory=1e8
    )
    assert_close(k.ntk, full.ntk[:2, 2:])
    assert_close(k.nngp, full.nngp[:2, 2:])


def test_outputs_with_positions_are_averaged(x):
    net = ntk.nn.Sequential(ntk.nn.Dense(16), ntk.nn.MaxPool((2,)), ntk.nn.Dense(2))
    k = ntk.monte_carlo_kernel(net, x.reshape(5, 3, 1)[:2], key=KEY, accuracy=0, max_samples=4)
    assert k.ntk.shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accuracy": 1.5}, "accuracy=1.5"),
        ({"max_samples": 1}, "max_samples=1"),
        ({"chunk": 2.5}, "chunk=2.5"),
        ({"x2": jnp.ones((0, 3))}, "x2 has shape"),
        ({"x2": jnp.ones((4, 2))}, "must be equal"),
    ],
)
def test_mistakes_are_explained(options, words, x):
    with pytest.raises(InputError, match=words):
        ntk.monte_carlo_kernel(NET, x1=x, key=KEY, **({"x2": None} | options))


def test_other_mistakes_are_explained(x, full):
    with pytest.raises(InputError, match="two functions"):
        ntk.monte_carlo_kernel(NET.init, x, key=KEY)
    with pytest.raises(InputError, match="cannot resume"):
        ntk.monte_carlo_kernel(NET, x[:2], key=KEY, resume=full)

    def broken(params, x):
        return jnp.log(0 * x[:, :1]) * params

    with pytest.raises(NumericalError, match="network number 0"):
        ntk.monte_carlo_kernel(lambda key, shape: jnp.ones(()), broken, x, key=KEY)
