"""How many seeds run at once changes nothing but memory and time; programs are compiled once."""

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.train import groups, sites
from ntk_lab.train.groups import plan_groups, read_memory
from ntk_lab.train.program import program
from tests.tolerance import assert_close
from tests.train.problems import C, data, drawn, plain_loop, seed, smooth

NET = smooth()
X, Y, X_TEST = data()
SGD = optax.sgd(0.2)
OPTIONS = {"optimizer": SGD, "steps": 6, "record": (0, 6), "kernel_points": X[:4]}
_compilations = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: (
        _compilations.append(event) if event.endswith("backend_compile_duration") else None
    )
)


def train(seeds=5, **options):
    return ntk.train.ensemble(NET.apply, drawn(NET, seeds), X, Y, X_TEST, **{**OPTIONS, **options})


def test_seeds_are_the_same_however_they_are_grouped(monkeypatch):
    runs = []
    for tiny in (0, 1e18):
        monkeypatch.setattr(groups, "_TINY", tiny)
        runs.append(train())
    for name in ("train", "test", "loss", "motion", "ntk"):
        assert_close(*(getattr(run, name) for run in runs), factor=10)
    monkeypatch.setattr(sites, "cores", lambda: 1)
    monkeypatch.setattr(groups, "_TINY", 0)
    np.testing.assert_array_equal(train().train, runs[0].train)


def test_a_memory_limit_changes_no_number_and_is_kept_by_the_plan():
    params = drawn(NET, 8)
    made = program(NET.apply, SGD, ntk.losses.squared, None, False, True)
    whole = plan_groups(made, params, X, Y, jax.random.key(0), None, 2)
    tight = plan_groups(made, params, X, Y, jax.random.key(0), 6000 * Y.dtype.itemsize / 4, 2)
    assert tight.size * tight.workers < whole.size * whole.workers
    assert tight.left is not None
    assert tight.left >= 0
    free, bound = train(), train(memory=f"{9 * Y.dtype.itemsize / 4}MB")
    for name in ("train", "test", "loss", "motion", "ntk"):
        assert_close(getattr(bound, name), getattr(free, name), factor=10)


def test_a_limit_below_one_seed_is_an_error_with_numbers():
    with pytest.raises(InputError, match=r"memory=500 bytes is too small: training one seed takes"):
        train(memory=500)


@pytest.mark.parametrize(
    ("text", "value"), [("2GB", 2e9), ("1.5 MB", 1.5e6), (1000, 1000.0), (None, None)]
)
def test_memory_is_read_from_numbers_and_texts(text, value):
    assert read_memory(text) == value


@pytest.mark.parametrize("text", ["2 gallons", "-3", -1, float("nan")])
def test_memory_that_makes_no_sense_is_refused(text):
    with pytest.raises(InputError, match="memory="):
        read_memory(text)


def test_a_second_call_compiles_nothing():
    train()
    _compilations.clear()
    train()
    assert not _compilations
    more, shifted = jax.tree.map(lambda p: p + 1, (drawn(NET, 5), X))
    _compilations.clear()
    ntk.train.ensemble(NET.apply, more, shifted, Y, X_TEST, **{**OPTIONS, "record": (0, 3, 6)})
    assert not _compilations


def test_convolutions_driven_step_by_step_equal_a_plain_loop():
    nn = ntk.nn
    net = nn.Sequential(nn.Conv(3, (3, 3)), nn.Tanh(), nn.Flatten(), nn.Dense(C))
    x = jax.random.normal(jax.random.key(4), (len(Y), 4, 4, 1))
    params = drawn(net, 2, (4, 4, 1))
    key = jax.random.key(0)
    run = ntk.train.ensemble(
        net.apply, params, x, Y, optimizer=SGD, steps=6, record=(2, 6), batch_size=5, key=key
    )
    batches = ntk.train.batch_order(key, len(Y), 5, 6)
    for s in range(2):
        path = plain_loop(net.apply, seed(params, s), x, Y, SGD, 6, ntk.losses.squared, batches)
        for at, step in enumerate((2, 6)):
            assert_close(run.train[s, at], net.apply(path[step], x), factor=10)


@pytest.mark.parametrize("kernel", ["combined", "trace", "full", ntk.train.Sketch(400)])
def test_each_kind_of_recorded_kernel(kernel):
    run = train(seeds=2, kernel=kernel, keep_params="ends")
    for s in range(2):
        for at in range(2):
            own = seed(seed(run.params, s), at)
            full = np.asarray(ntk.empirical.ntk(NET.apply, own, X[:4]))
            if kernel == "full":
                assert_close(run.ntk[s, at], full, factor=10)
            elif kernel == "trace":
                assert_close(run.ntk[s, at], np.einsum("ijaa->ij", full) / C, factor=10)
            elif kernel == "combined":
                assert run.ntk.shape == (2, 2, 4, 4)
            else:
                exact = np.einsum("ijaa->ij", full) / C
                error = np.abs(run.ntk[s, at] - exact) / run.ntk_error[s, at]
                assert error.max() < 6
                assert (run.ntk_error[s, at] < 0.2 * np.abs(exact).max()).all()


def test_kernels_that_cannot_be_recorded_are_refused():
    with pytest.raises(InputError, match="kernel='some'"):
        train(kernel="some")
    with pytest.raises(InputError, match="keep_params"):
        train(keep_params="some")
    with pytest.raises(InputError, match="targets are int"):
        ntk.train.ensemble(NET.apply, drawn(NET), X, jnp.ones(Y.shape, int), **OPTIONS)
