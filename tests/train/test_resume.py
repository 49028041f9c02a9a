"""Runs that were cut off go on bit by bit, whatever was being written; finished work is kept."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.checkpoints import Folder, loss_fingerprint
from ntk_lab.errors import InputError, StabilityError
from ntk_lab.train import groups
from tests.train.problems import SEEDS, data, drawn, smooth

NET = smooth()
X, Y, X_TEST = data()
ADAM = optax.adam(0.05)
OPTIONS = {
    "optimizer": ADAM, "steps": 9, "record": (0, 2, 9), "batch_size": 5,
    "key": jax.random.key(2), "kernel_points": X[:3], "keep_params": True,
}  # fmt: skip


class Stop(Exception):
    pass


def train(**options):
    return ntk.train.ensemble(NET.apply, drawn(NET), X, Y, X_TEST, **{**OPTIONS, **options})


def equal(a, b):
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(params=["alone", "together"])
def sized(request, monkeypatch):
    """Seeds one by one, or vectorised."""
    monkeypatch.setattr(groups, "_TINY", 0 if request.param == "alone" else 1e18)


@pytest.mark.slow
def test_a_run_that_is_cut_off_at_any_write_goes_on_bit_by_bit(sized, tmp_path, monkeypatch):
    undisturbed = train()
    write, left = Folder.write, [0]

    def failing(self, file, arrays):
        if left[0] == 0:
            raise Stop
        left[0] -= 1
        write(self, file, arrays)

    monkeypatch.setattr(Folder, "write", failing)
    resumed, cuts = None, 0
    while resumed is None:
        cuts += 1
        left[0] = 1 + cuts  # so that some state is written in the end
        with suppress(Stop):
            resumed = train(folder=tmp_path)
    assert cuts > 3
    equal(resumed, undisturbed)


@pytest.mark.slow
def test_a_run_that_is_stopped_from_its_progress_goes_on(tmp_path):
    undisturbed, seen = train(), []

    def stop(p):
        seen.append(p)
        if len(seen) % 5 == 0:
            raise Stop

    resumed = None
    while resumed is None:
        with suppress(Stop):
            resumed = train(folder=tmp_path, progress=stop)
    equal(resumed, undisturbed)
    assert all(0 <= p.done <= p.total for p in seen)
    seen.clear()
    equal(train(folder=tmp_path, progress=lambda p: seen.append(p.done)), undisturbed)
    assert len(seen) == 3, "both groups were finished when they began"


def test_damaged_files_are_computed_again(tmp_path):
    undisturbed = train(folder=tmp_path)
    for path in sorted((tmp_path / "training").glob("*.npz"))[::2]:
        path.write_bytes(path.read_bytes()[:-100])
    equal(train(folder=tmp_path), undisturbed)


def test_a_folder_of_another_run_is_refused(tmp_path):
    train(folder=tmp_path)
    for change, words in (
        ({"optimizer": optax.adam(0.06)}, "optimizer"),
        ({"loss": "huber"}, "loss"),
        ({"record": (0, 3, 9)}, "record"),
        ({"key": jax.random.key(3)}, "key"),
        ({"kernel": "trace"}, "kernel"),
        ({"linearized": True}, "linearized"),
    ):
        with pytest.raises(InputError, match=f"another training run: {words} differ"):
            train(folder=tmp_path, **change)
    with pytest.raises(InputError, match="model"):
        ntk.train.ensemble(
            lambda p, x: 2 * NET.apply(p, x), drawn(NET), X, Y, X_TEST, folder=tmp_path, **OPTIONS
        )


def test_losses_that_differ_for_large_errors_or_some_outputs_only_are_told_apart():
    few, many = (loss_fingerprint(ntk.losses.Huber(delta), 3) for delta in (5.0, 50.0))
    assert few != many
    assert few == loss_fingerprint(ntk.losses.Huber(5.0), 3)
    weights = np.arange(1.0, 11.0, dtype=X.dtype)
    of_ten = loss_fingerprint(lambda f, y: ((f - y) ** 2 * weights[None]).sum(axis=1), 10)
    assert of_ten != loss_fingerprint(ntk.losses.squared, 10)


def test_seeds_that_would_share_a_file_are_refused():
    with pytest.raises(InputError, match="give each another number"):
        train(seeds=(0,) * SEEDS)


def test_divergence_is_said_with_its_step_and_keeps_what_came_before():
    def rate(count):
        return jax.numpy.where(count == 4, jax.numpy.nan, 0.1)

    options = {"optimizer": optax.sgd(rate), "batch_size": None, "steps": 9, "record": (0, 2, 9)}
    with pytest.warns(RuntimeWarning, match=r"seed 0 from step 5.*kept"):
        run = train(**options)
    np.testing.assert_array_equal(run.diverged, [5] * SEEDS)
    fine = train(**{**options, "optimizer": optax.sgd(0.1)})
    np.testing.assert_array_equal(run.train[:, :2], fine.train[:, :2])
    np.testing.assert_array_equal(run.ntk[:, :2], fine.ntk[:, :2])
    assert np.isnan(run.train[:, 2]).all()
    with pytest.raises(StabilityError, match="from step 5") as caught:
        train(**options, divergence="raise")
    equal(caught.value.result, run)


@pytest.mark.parametrize("record", [(1, 9), (9,)])
def test_runs_without_a_finite_loss_are_recorded_as_such(record, tmp_path):
    nothing = jax.tree.map(lambda p: p * np.nan, drawn(NET))
    for _ in range(2):  # the second time from the folder
        run = ntk.train.ensemble(
            NET.apply, nothing, X, Y, X_TEST, optimizer=ADAM, steps=9, record=record,
            keep_params="ends", folder=tmp_path, divergence="record",
        )  # fmt: skip
        np.testing.assert_array_equal(run.diverged, [0] * SEEDS)
        assert run.test.shape == (SEEDS, len(record), len(X_TEST), Y.shape[1])
        assert np.isnan(run.train).all()
        assert np.isnan(run.loss).all()


def test_one_seed_that_diverges_does_not_stop_the_others():
    params = drawn(NET)
    params = jax.tree.map(lambda p: p.at[1].set(np.nan), params)
    run = ntk.train.ensemble(
        NET.apply, params, X, Y, **{**OPTIONS, "optimizer": optax.sgd(0.1)}, divergence="record"
    )
    assert run.diverged[1] >= 0
    assert (run.diverged[[0, 2]] == -1).all()
    assert np.isfinite(run.train[[0, 2]]).all()


_SCRIPT = """
import sys, jax, numpy as np
jax.config.update("jax_enable_x64", sys.argv[2] == "1")
import tests.train.test_resume as t
more = {"optimizer": t.optax.sgd(1e-3), "steps": 300_000, "record": (100_000, 300_000)}
run = t.train(folder=sys.argv[1], **more)
np.savez(sys.argv[1] + "/done.npz", *jax.tree.leaves(run))
"""


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_bit_by_bit(tmp_path):
    def start(folder):
        folder.mkdir(exist_ok=True)
        x64 = "1" if jax.config.jax_enable_x64 else "0"
        command = [sys.executable, "-c", _SCRIPT, str(folder), x64]
        return subprocess.Popen(command, cwd=Path(__file__).parents[2], env=dict(os.environ))

    killed = tmp_path / "killed"
    process = start(killed)
    while not list(killed.glob("training/*-state.npz")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "done.npz").exists()
    for folder in (killed, tmp_path / "whole"):
        assert start(folder).wait() == 0
    with np.load(killed / "done.npz") as a, np.load(tmp_path / "whole" / "done.npz") as b:
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
