"""Interrupted comparisons resume where they stopped, bit by bit, and trust only their own."""

import os

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.compare import execute as running
from ntk_lab.compare.experiment import Experiment
from ntk_lab.errors import InputError
from tests.compare.problems import FLOAT, hidden, regression
from tests.tolerance import assert_close

DATA = regression(2)
OPTIONS = {"widths": (4, 8), "seeds": 3, "steps": 6, "record": (2, 6), "learning_rate": 0.15}


def compare(folder=None, net=None, data=DATA, **options):
    return ntk.compare(net or hidden(2), *data, folder=folder, **{**OPTIONS, **options})


@pytest.fixture
def calls(monkeypatch):
    """Replaces training by numbers that name their width and seed; returns what was trained."""
    trained = []

    def run(self, seeds):
        width = self.net.layers[0].width
        trained.extend((width, seed) for seed in seeds)
        names = ("gap/discretization", "gap/total", "drift")
        values = [np.full(len(self.record), width + seed / 10) for seed in seeds]
        return [dict.fromkeys(names, v) for v in values]

    monkeypatch.setattr(Experiment, "run", run)
    return trained


@pytest.fixture(scope="module")
def together():
    """All seeds of a width trained in one program."""
    return compare()


class Stop(Exception):
    pass


def equal(a, b):
    assert a.measures.keys() == b.measures.keys()
    for name, values in a.measures.items():
        np.testing.assert_array_equal(values, b.measures[name], err_msg=name)


@pytest.fixture(scope="module")
def apart():
    """Every seed trained alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_PARAMETERS_AT_ONCE", 1)
        return compare()


@pytest.mark.slow
def test_an_interrupted_comparison_resumes_bit_by_bit_and_repeats_nothing(
    apart, tmp_path, monkeypatch
):
    monkeypatch.setattr(running, "_PARAMETERS_AT_ONCE", 1)
    train, trained = Experiment.run, []

    def run(self, seeds):
        if len(trained) == 4:
            raise Stop
        trained.append((self.net.layers[0].width, *seeds))
        return train(self, seeds)

    monkeypatch.setattr(Experiment, "run", run)
    with pytest.raises(Stop):
        compare(tmp_path)
    assert trained == [(4, 0), (4, 1), (4, 2), (8, 0)]
    trained.clear()
    resumed = compare(tmp_path)
    assert trained == [(8, 1), (8, 2)]
    equal(resumed, apart)
    trained.clear()
    equal(compare(tmp_path), apart)
    assert trained == []


@pytest.mark.slow
def test_seeds_do_not_depend_on_which_are_trained_together(apart, together):
    for name, values in together.measures.items():
        assert_close(apart.measures[name].astype(FLOAT), values, factor=100)


def test_finished_widths_and_seeds_are_used_again(calls, tmp_path):
    compare(tmp_path, widths=(8,), seeds=2)
    assert calls == [(8, 0), (8, 1)]
    calls.clear()
    compare(tmp_path, widths=(8, 16), seeds=2)
    assert calls == [(16, 0), (16, 1)]
    calls.clear()
    c = compare(tmp_path, widths=(4, 8), seeds=3)  # a smaller width, and one more seed
    assert calls == [(4, 0), (4, 1), (4, 2), (8, 2)]
    np.testing.assert_array_equal(c.gap()[:, :, 0], [[4, 4.1, 4.2], [8, 8.1, 8.2]])
    calls.clear()
    c = compare(tmp_path, widths=(16,), seeds=1, tolerance=0.3, confidence=0.8)
    assert calls == []
    assert c.gap().shape == (1, 1, 2)


@pytest.mark.parametrize("parameterization", ["mean_field", "ntk"])
def test_smaller_widths_fit_an_optimizer_that_follows_the_rate(calls, tmp_path, parameterization):
    options = {"parameterization": parameterization, "optimizer": optax.sgd, "seeds": 1}
    compare(tmp_path, widths=(8,), **options)
    compare(tmp_path, widths=(4, 8), **options)
    assert calls == [(8, 0), (4, 0)]


def schedule(later):
    return optax.sgd(lambda count: jnp.where(count < 4, 0.1, later))


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        ({}, {"learning_rate": 0.1}, "learning_rate"),
        ({}, {"record": (3, 6)}, "steps"),
        ({}, {"key": 1}, "key"),
        ({}, {"kernel_points": 5}, "kernel_points"),
        ({}, {"batch_size": 5}, "batch_size"),
        ({}, {"optimizer": optax.sgd}, "optimizer"),
        ({}, {"net": hidden(2).with_parameterization("mean_field")}, "net"),
        ({}, {"data": (DATA[0], (DATA[1][0], DATA[1][1] + 1))}, "data"),
        ({}, {"learning_rate": 0.1, "key": 1}, "key, learning_rate"),
        ({"optimizer": optax.sgd(0.1)}, {"optimizer": optax.sgd(0.11)}, "optimizer"),
        ({"optimizer": optax.sgd(0.1)}, {"optimizer": optax.sgd(0.1, 0.5)}, "optimizer"),
        ({"optimizer": schedule(0.5)}, {"optimizer": schedule(0.4)}, "optimizer"),
    ],
)
def test_a_folder_of_another_comparison_is_refused(calls, tmp_path, first, second, differs):
    compare(tmp_path, **first)
    calls.clear()
    with pytest.raises(InputError, match=rf"another comparison: {differs} differ\. Give another"):
        compare(tmp_path, **second)
    assert calls == []
    compare(tmp_path, **first)
    assert calls == []


def test_the_same_optimizer_made_twice_is_the_same(calls, tmp_path):
    labels = ("train", (), "freeze")

    def masked():
        transforms = {"train": optax.sgd(0.1), "freeze": optax.set_to_zero()}
        return optax.multi_transform(transforms, labels)

    compare(tmp_path, optimizer=masked())
    calls.clear()
    compare(tmp_path, optimizer=masked())
    assert calls == []


def _cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def _flip(path):
    content = bytearray(path.read_bytes())
    place = content.index(b"\x93NUMPY") + 128 + 3  # inside the first array's numbers
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))


def _empty(path):
    path.write_bytes(b"")


def _shorten(path):
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["drift"] = arrays["drift"][:1]
    np.savez(path, **arrays)


def _other_settings(path):
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["settings"] = np.asarray("0" * 64)
    np.savez(path, **arrays)


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, _shorten, _other_settings, os.remove])
def test_a_damaged_file_is_computed_again(calls, tmp_path, damage):
    intact = compare(tmp_path)
    damage(tmp_path / "runs" / "width-8-seed-1.npz")
    calls.clear()
    equal(compare(tmp_path), intact)
    assert calls == [(8, 1)]
    calls.clear()
    equal(compare(tmp_path), intact)
    assert calls == []


def test_files_that_were_only_begun_are_ignored(calls, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "width-4-seed-0.part").write_bytes(b"half")
    (runs / "settings.part").write_bytes(b"{")
    compare(tmp_path)
    assert len(calls) == 6
    assert not list(runs.glob("*.part"))


def test_runs_whose_settings_are_lost_or_damaged_are_not_trusted(calls, tmp_path):
    compare(tmp_path)
    settings = tmp_path / "runs" / "settings.json"
    settings.write_text(settings.read_text()[:50])
    calls.clear()
    with pytest.raises(InputError, match=r"settings\.json' is damaged.*delete this one"):
        compare(tmp_path)
    settings.unlink()
    compare(tmp_path, key=1)
    assert len(calls) == 6


def test_a_folder_that_cannot_be_written_is_told_before_any_training(calls, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"cannot be written.*Choose another folder"):
            compare(folder)
    assert calls == []


def test_progress_counts_what_is_there_already(calls, tmp_path):
    compare(tmp_path, widths=(4,))
    seen = []
    compare(tmp_path, progress=seen.append)
    assert [p.message for p in seen] == ["width 8, seeds 0 to 2", "done"]
    assert 0 < seen[0].done < seen[0].total
    assert seen[1].done == seen[1].total == seen[0].total
