"""Kernels on disk: equal to those in memory, resumed after any end, never mixed up."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.empirical import store
from ntk_lab.empirical.engine import images
from ntk_lab.errors import InputError, NumericalError

ROOT = Path(__file__).parents[2]
KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
    "w": jax.random.normal(KEYS[0], (3, 5)),
    "b": jnp.zeros(5),
    "v": jax.random.normal(KEYS[1], (5, 4)),
}
X, X2 = jax.random.normal(KEYS[2], (7, 3)), jax.random.normal(KEYS[3], (6, 3))
# Outputs, and how many numbers fit in memory: tiles of all outputs, and of a pair of examples and
# some of the outputs, which add up to traces.
KINDS = [("full", 800), ("full", 150), ("diagonal", 500), ("trace", 500), ("trace", 150)]
FULL, SUMS = KINDS[0], KINDS[-1]


def f(p, x):
    return jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"]


def limits(kind):
    return {"outputs": kind[0], "memory": kind[1] * X.dtype.itemsize}


def kernel(path=None, x2=None, kind=FULL, params=PARAMS, x=X, function=f, **more):
    return ntk.empirical.ntk(function, params, x, x2, path=path, **{**limits(kind), **more})


def tiles(kind):
    return ntk.empirical.plan(f, PARAMS, X, **limits(kind)).tiles


def same_bits(actual, expected):
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


class Interrupted(Exception):
    pass


def stop_after(tiles):
    def progress(done, total):
        if done == tiles:
            raise Interrupted

    return progress


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x2", [None, X2])
def test_kernels_on_disk_equal_those_in_memory_bit_by_bit(tmp_path, kind, x2):
    found = kernel(tmp_path / "new" / "folder", x2, kind)
    assert isinstance(found, np.memmap)
    same_bits(found, kernel(None, x2, kind))
    same_bits(np.load(tmp_path / "new" / "folder" / "kernel.npy"), found)


def test_a_kernel_of_one_tile_is_written_too(tmp_path):
    same_bits(kernel(tmp_path, memory=None), kernel(memory=None))
    v = jnp.arange(4.0)
    same_bits(kernel(tmp_path / "v", outputs=v), kernel(outputs=v))
    empty = kernel(tmp_path / "empty", x=X[:0])
    assert empty.shape == (0, 0, 4, 4)


def test_the_cases_have_several_tiles_and_traces_that_add_up():
    plans = [ntk.empirical.plan(f, PARAMS, X, **limits(kind)) for kind in KINDS]
    assert [plan.cotangents for plan in plans] == [4, 2, 4, 4, 2]
    assert all(plan.tiles > 5 for plan in plans)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_kernel_goes_on_where_it_stopped(tmp_path, kind, stop):
    with pytest.raises(Interrupted):
        kernel(tmp_path, kind=kind, progress=stop_after(stop))
    calls = []
    found = kernel(tmp_path, kind=kind, progress=lambda *call: calls.append(call))
    total = tiles(kind)
    assert calls == [(done, total) for done in range(stop + 1, total + 1)]
    same_bits(found, kernel(kind=kind))
    again = kernel(tmp_path, kind=kind, progress=lambda *call: calls.append(call))
    assert len(calls) == total - stop  # nothing is computed again
    same_bits(again, found)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_but_not_recorded_is_written_again(tmp_path, monkeypatch, kind):
    """As after a kill: the array is ahead of the record."""
    monkeypatch.setattr(store, "_SECONDS", 1e9)
    monkeypatch.setattr(store.Store, "_record", lambda self: None)
    with pytest.raises(Interrupted):
        kernel(tmp_path, kind=kind, progress=stop_after(5))
    assert not (tmp_path / "progress.json").exists()
    monkeypatch.undo()
    same_bits(kernel(tmp_path, kind=kind), kernel(kind=kind))


def test_sums_are_not_added_twice_if_writing_them_is_cut_short(tmp_path, monkeypatch):
    written = []

    def cut(self, place, tile):
        written.append(place)
        if len(written) == 36:  # the 8th addition to what is there
            index, _ = next(images(self.job, place, tile))
            self._array[index] = 7.0
            raise Interrupted
        original(self, place, tile)

    original = store.Store._place
    monkeypatch.setattr(store.Store, "_place", cut)
    with pytest.raises(Interrupted):
        kernel(tmp_path, kind=SUMS)
    monkeypatch.undo()
    found, expected = kernel(tmp_path, kind=SUMS), kernel(kind=SUMS)
    np.testing.assert_array_equal(found[1:], expected[1:])


def test_a_resumed_kernel_keeps_its_tiles(tmp_path):
    with pytest.raises(Interrupted):
        kernel(tmp_path, progress=stop_after(2))
    with pytest.raises(InputError, match="Allow at least"):
        kernel(tmp_path, memory=limits(FULL)["memory"] / 2)
    same_bits(kernel(tmp_path, memory=None), kernel())


PROGRAM = """
    import time
    import jax, jax.numpy as jnp, numpy as np, ntk_lab as ntk
    from ntk_lab.empirical import store
    jax.config.update("jax_enable_x64", {x64})
    store._SECONDS = 0.05
    rng = np.random.default_rng(0)
    p = {{"w": jnp.asarray(rng.normal(size=(3, 5))), "v": jnp.asarray(rng.normal(size=(5, 4)))}}
    x = jnp.asarray(rng.normal(size=(12, 3)))
    def f(p, x):
        def step(h, _):
            return jax.nn.silu(h @ p["w"].T @ p["w"]), None
        h, _ = jax.lax.scan(step, jax.nn.relu(x @ p["w"]), None, length=2)
        return h @ p["v"]
    def progress(done, total):
        print(done, total, flush=True)
        time.sleep({sleep})
    kernel = ntk.empirical.ntk(
        f, p, x, memory={memory}, progress=progress, path={path}, outputs="{outputs}"
    )
    print("finished", float(np.asarray(kernel, float).sum()))
"""


def program(path, outputs, sleep=0.0):
    memory = {"full": 400, "trace": 200}[outputs] * X.dtype.itemsize
    settings = {"outputs": outputs, "memory": memory, "sleep": sleep}
    x64 = jax.config.jax_enable_x64
    path = None if path is None else str(path)
    return textwrap.dedent(PROGRAM).format(path=repr(path), x64=x64, **settings)


def process(path, outputs, sleep=0.0, seed="0"):
    return subprocess.Popen(
        [sys.executable, "-c", program(path, outputs, sleep)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
    )


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_a_killed_process_loses_little_and_the_next_one_finishes(
    tmp_path, monkeypatch, capsys, outputs
):
    monkeypatch.setattr(store, "_SECONDS", 0.0)  # the program sets it
    exec(program(None, outputs), {})
    whole = capsys.readouterr().out
    killed = process(tmp_path, outputs, sleep=0.03)
    for line in killed.stdout:
        if int(line.split()[0]) >= 8:
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    rest, _ = process(tmp_path, outputs, seed="1").communicate()
    assert int(rest.split()[0]) > 3
    assert rest.splitlines()[-2:] == whole.splitlines()[-2:]


def scaled(factor):
    values = np.array([factor, 1.0, 1.0, 1.0])
    return lambda p, x: f(p, x) * jnp.asarray(values, x.dtype)[None]


CHANGES = {
    "f": {"function": scaled(2.0)},
    "params": {"params": {**PARAMS, "b": PARAMS["b"] + 1}},
    "x1": {"x": X.at[6, 2].add(1.0)},
    "x2": {"x2": X},
    "outputs": {"outputs": "diagonal"},
    "select": {"select": lambda path: path != "w"},
    "method": {"method": "jacobian"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_folder_with_another_kernel_is_refused(tmp_path, name):
    with pytest.raises(Interrupted):
        kernel(tmp_path, progress=stop_after(2))
    with pytest.raises(InputError, match=rf"holds another kernel: (\w+, )*{name}\b.* differ"):
        kernel(tmp_path, **{"memory": None, **CHANGES[name]})
    same_bits(kernel(tmp_path), kernel())


def test_functions_are_told_apart_by_the_arrays_they_hold(tmp_path):
    kernel(tmp_path, function=scaled(2.0))
    kernel(tmp_path, function=scaled(2.0))
    with pytest.raises(InputError, match="kernel: f differ"):
        kernel(tmp_path, function=scaled(3.0))


def test_folders_that_are_not_ours_or_damaged_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes.txt', and no kernel"):
        kernel(tmp_path)
    folder = tmp_path / "kernel"
    kernel(folder)
    (folder / "kernel.npy").write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        kernel(folder)
    (folder / "settings.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        kernel(folder)
    with pytest.raises(InputError, match="cannot be used"):
        kernel(tmp_path / "notes.txt")


def test_a_folder_in_use_is_refused(tmp_path):
    pytest.importorskip("fcntl")

    def progress(done, total):
        kernel(tmp_path)

    with pytest.raises(InputError, match="another process computes"):
        kernel(tmp_path, progress=progress)
    same_bits(kernel(tmp_path), kernel())


def test_a_full_disk_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("no reservation on this system")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="No space left on device"):
        kernel(tmp_path, progress=stop_after(1))
    monkeypatch.undo()
    same_bits(kernel(tmp_path), kernel())


def test_values_that_are_not_finite_are_refused_at_their_tile(tmp_path):
    x = X.at[6, 0].set(jnp.nan)
    with pytest.raises(NumericalError, match="not finite"):
        kernel(tmp_path, x=x)
    assert json.loads((tmp_path / "progress.json").read_text())["done"] > 0


def test_vector_products_and_traced_values_are_refused(tmp_path):
    with pytest.raises(InputError, match="columns rather than tiles"):
        kernel(tmp_path, method="vector-products")
    with pytest.raises(InputError, match="traced by jit"):
        jax.jit(lambda p: kernel(tmp_path, params=p))(PARAMS)
    assert not list(tmp_path.iterdir())


def test_contributions_on_disk_equal_those_in_memory(tmp_path):
    settings = {**limits(FULL), "group": lambda path: path if path == "v" else "a/b"}
    expected = ntk.empirical.contributions(f, PARAMS, X, X2, **settings)
    for _ in range(2):  # the second time they are read
        found = ntk.empirical.contributions(f, PARAMS, X, X2, path=tmp_path, **settings)
        assert list(found) == list(expected) == ["a/b", "v"]
        for name, kernel in expected.items():
            np.testing.assert_allclose(found[name], kernel, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "a.b" / "kernel.npy").exists()
    names = {"w": "a/b", "b": "a.b", "v": "v"}
    with pytest.raises(InputError, match="share folders"):
        ntk.empirical.contributions(f, PARAMS, X, path=tmp_path, group=names.get)
