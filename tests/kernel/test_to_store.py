"""Kernels on disk: those in memory, gone on with after any end, never mixed up, never damaged."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.kernel import folder
from ntk_lab.kernel.computed import Computed
from ntk_lab.kernel.stored import StoredMatrix
from tests.tolerance import assert_close

pytest.importorskip("zarr")

ROOT = Path(__file__).parents[2]
DTYPE = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")
RNG = np.random.default_rng(0)
X, X2 = (RNG.normal(size=(n, 3)).astype(DTYPE) for n in (37, 21))
NET = ntk.nn.Sequential(ntk.nn.Dense(8, b_std=0.1), ntk.nn.Relu(), ntk.nn.Dense(1))
# Tiles of 8 x 8: half of the memory for eight copies, less what the examples take.
MEMORY = 2 * 8 * 10**2 * DTYPE.itemsize


class Interrupted(Exception):
    pass


def store(path, x2=None, net=NET, x=X, **options):
    return ntk.kernel.to_store(net, x, x2, path, **{"memory": MEMORY, **options})


def stop_after(tiles):
    def progress(done, total):
        if done == tiles:
            raise Interrupted

    return progress


def files(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("c/**/*") if p.is_file()}


@pytest.fixture
def computed(monkeypatch):
    """Tiles as they are computed."""
    places, tile = [], Computed.tile

    def noting(self, i, j):
        places.append((i, j))
        return tile(self, i, j)

    monkeypatch.setattr(Computed, "tile", noting)
    return places


@pytest.mark.parametrize("x2", [None, X2])
def test_kernels_on_disk_are_those_in_memory(tmp_path, x2):
    calls = []
    found = store(tmp_path / "k.zarr", x2, progress=lambda *call: calls.append(call))
    expected = NET.kernel(X, x2)
    total = len(found.ntk.places)
    assert total >= 12
    assert calls == [(done, total) for done in range(1, total + 1)]
    assert found.complete
    for name in ("nngp", "ntk"):
        assert_close(np.asarray(found.matrices[name]), np.asarray(getattr(expected, name)))
    kernel = found.kernel()
    assert isinstance(kernel.ntk, jax.Array)
    assert kernel.ntk.dtype == DTYPE
    if x2 is None:
        np.testing.assert_array_equal(kernel.ntk, kernel.ntk.T)
        half = found.ntk.grid[0] * (found.ntk.grid[0] + 1) // 2
        assert len(files(tmp_path / "k.zarr" / "ntk")) == half


INDICES = [
    np.s_[:], np.s_[3], np.s_[-1, 4], np.s_[5:30:3, 30:], np.s_[..., 2], np.s_[[30, 2, 2]],
    np.s_[:, np.arange(37) % 2 == 0], np.s_[9, [4, 20]], np.s_[30:5:-4], np.s_[4:4],
]  # fmt: skip


def test_what_is_read_is_indexed_as_numpy_does(tmp_path):
    matrix = store(tmp_path / "k.zarr", which="ntk").ntk
    whole = np.asarray(matrix)
    for index in INDICES:
        np.testing.assert_array_equal(matrix[index], whole[index])
    np.testing.assert_array_equal(matrix.diagonal(), np.diag(whole))
    np.testing.assert_array_equal(matrix.columns([30, 1]), whole[:, [30, 1]])
    np.testing.assert_array_equal(matrix.jax(), whole)
    for index in (np.s_[[1], [2]], np.s_[None], np.s_[1, 2, 3]):
        with pytest.raises(InputError, match="slices, integers and at most one array"):
            matrix[index]
    with pytest.raises(IndexError):
        matrix[37]


def test_dask_reads_both_halves(tmp_path):
    pytest.importorskip("dask.array")
    matrix = store(tmp_path / "k.zarr", which="ntk").ntk
    lazy = matrix.dask()
    assert lazy.chunks[0][0] == matrix.side
    np.testing.assert_array_equal(lazy.compute(), np.asarray(matrix))
    assert_close((lazy @ X).sum(axis=0).compute(), (np.asarray(matrix) @ X).sum(axis=0))


def test_any_reader_of_zarr_sees_the_half_that_is_kept(tmp_path):
    import zarr

    matrix = store(tmp_path / "k.zarr", which="ntk").ntk
    array = zarr.open_group(tmp_path / "k.zarr", mode="r")["ntk"][:]
    np.testing.assert_array_equal(np.triu(array), np.triu(np.asarray(matrix)))
    assert np.isnan(array[-1, 0])


def test_one_kernel_alone_takes_half_the_room(tmp_path):
    found = store(tmp_path / "k.zarr", which="nngp")
    assert found.ntk is None
    assert list(found.matrices) == ["nngp"]
    with pytest.raises(InputError, match="holds no ntk"):
        found.kernel()
    with pytest.raises(InputError, match='expected "ntk", "nngp" or both'):
        store(tmp_path / "other", which="gram")


@pytest.mark.parametrize("x2", [None, X2])
def test_an_interrupted_kernel_goes_on_where_it_stopped(tmp_path, x2, computed):
    expected = store(tmp_path / "whole", x2)
    places = expected.ntk.places
    assert computed == places
    computed.clear()
    with pytest.raises(Interrupted):
        store(tmp_path / "k.zarr", x2, progress=stop_after(5))
    assert len(computed) <= 7  # one being written, one being computed
    partial = ntk.kernel.open_store(tmp_path / "k.zarr")
    assert not partial.complete
    with pytest.raises(InputError, match="not computed yet"):
        np.asarray(partial.ntk)
    computed.clear()
    store(tmp_path / "k.zarr", x2)
    assert len(computed) <= len(places) - 5
    assert files(tmp_path / "k.zarr") == files(tmp_path / "whole")
    computed.clear()
    store(tmp_path / "k.zarr", x2)
    assert computed == []


DAMAGE = {
    "a flipped bit": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "a missing end": lambda data: data[:50],
    "an empty file": lambda data: b"",
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("place", [(0, 1), (4, 4)])
def test_a_damaged_tile_is_found_and_computed_again(tmp_path, how, place, computed):
    path = tmp_path / "k.zarr"
    matrix = store(path, which="ntk").ntk
    before, file = files(path), matrix.file(*place)
    file.write_bytes(DAMAGE[how](file.read_bytes()))
    with pytest.raises(NumericalError, match=r"tile \(\d, \d\) of .* is damaged"):
        np.asarray(matrix)
    computed.clear()
    store(path, which="ntk")
    assert computed == [place]
    assert files(path) == before


CHANGES = {
    "architecture": {"net": ntk.nn.Sequential(ntk.nn.Dense(8), ntk.nn.Relu(), ntk.nn.Dense(1))},
    "x1": {"x": X + DTYPE.type(1e-3)},
    "x2": {"x2": X2},
    "kernels": {"which": "ntk"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_folder_with_another_kernel_is_refused(tmp_path, name):
    store(tmp_path / "k.zarr")
    before = files(tmp_path / "k.zarr")
    with pytest.raises(InputError, match=rf"holds another kernel: (\w+, )*{name}\b.* differ"):
        store(tmp_path / "k.zarr", **CHANGES[name])
    assert files(tmp_path / "k.zarr") == before


@pytest.mark.x64
def test_another_dtype_is_refused(tmp_path):
    store(tmp_path / "k.zarr")
    with pytest.raises(InputError, match="dtype, x1 differ"):
        store(tmp_path / "k.zarr", x=X.astype(np.float32))


def test_other_versions_may_read_but_not_go_on(tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        store(tmp_path / "k.zarr", progress=stop_after(3))
    with monkeypatch.context() as patch:
        patch.setattr(folder, "version", lambda name: "99")
        with pytest.raises(InputError, match="versions differ: it was begun with"):
            store(tmp_path / "k.zarr")
    store(tmp_path / "k.zarr")
    monkeypatch.setattr(folder, "version", lambda name: "99")
    assert store(tmp_path / "k.zarr").complete


def test_the_tiles_are_those_it_was_begun_with(tmp_path):
    with pytest.raises(Interrupted):
        store(tmp_path / "k.zarr", progress=stop_after(3))
    side = ntk.kernel.open_store(tmp_path / "k.zarr").ntk.side
    with pytest.raises(InputError, match=f"tiles of {side} x {side} examples take"):
        store(tmp_path / "k.zarr", memory=MEMORY / 4)
    assert store(tmp_path / "k.zarr", memory=None).ntk.side == side


def test_folders_that_are_not_ours_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes.txt', and no kernel"):
        store(tmp_path)
    with pytest.raises(InputError, match="holds a file, and no kernel"):
        store(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="holds no kernel"):
        ntk.kernel.open_store(tmp_path)
    store(tmp_path / "k.zarr")
    (tmp_path / "k.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        store(tmp_path / "k.zarr")


def test_a_second_writer_is_refused(tmp_path):
    pytest.importorskip("fcntl")

    def progress(done, total):
        store(tmp_path / "k.zarr")

    words = rf"another process writes to .*k.zarr.*process {os.getpid()} on "
    with pytest.raises(InputError, match=words):
        store(tmp_path / "k.zarr", progress=progress)
    with pytest.raises(InputError, match="another process writes"):
        store(tmp_path / "k.zarr", progress=lambda *_: store(tmp_path / "k.zarr", share=True))


def test_writers_that_share_compute_each_tile_once(tmp_path, computed):
    pytest.importorskip("fcntl")
    expected = store(tmp_path / "whole")
    computed.clear()
    found = []

    def run():
        found.append(store(tmp_path / "k.zarr", share=True, progress=lambda *_: time.sleep(0.005)))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert sorted(computed) == expected.ntk.places
    assert files(tmp_path / "k.zarr") == files(tmp_path / "whole")
    assert not (tmp_path / "k.zarr.claims").exists()


def test_the_claims_of_a_lost_process_are_free(tmp_path):
    pytest.importorskip("fcntl")
    claims = tmp_path / "k.zarr.claims"
    claims.mkdir()
    (claims / "tile-0-0").write_text("process 1 on a machine that is gone")
    assert store(tmp_path / "k.zarr", share=True).complete
    assert not list(claims.glob("tile-*"))


def test_a_disk_without_room_is_refused_before_anything_is_computed(
    tmp_path, monkeypatch, computed
):
    usage = shutil.disk_usage(tmp_path)._replace(free=5000)
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"take .* GB, but its disk has 5e-06 GB free. Make room"):
        store(tmp_path / "k.zarr")
    assert computed == []


def test_a_disk_that_becomes_full_keeps_what_is_finished(tmp_path, monkeypatch, computed):
    put, tiles = StoredMatrix.put, []

    def full(self, i, j, tile):
        tiles.append((i, j))
        if len(tiles) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, i, j, tile)

    with monkeypatch.context() as patch:
        patch.setattr(StoredMatrix, "put", full)
        with pytest.raises(InputError, match=r"No space left on device\. Make room"):
            store(tmp_path / "k.zarr", which="ntk")
    computed.clear()
    found = store(tmp_path / "k.zarr", which="ntk")
    assert computed == found.ntk.places[4:]


def test_bad_data_and_limits_are_refused(tmp_path):
    bad = X.copy()
    bad[[5, 20], 1] = np.nan
    with pytest.raises(InputError, match=r"x1 has NaN or infinite values in 2 of 37 .* number 5"):
        store(tmp_path / "k.zarr", x=bad)
    with pytest.raises(InputError, match="memory"):
        store(tmp_path / "k.zarr", memory=20)
    with pytest.raises(InputError, match="must be equal"):
        store(tmp_path / "k.zarr", X2[:, :2])
    with pytest.raises(InputError, match="at least one example"):
        store(tmp_path / "k.zarr", x=X[:0])
    assert not (tmp_path / "k.zarr").exists()


def test_data_are_read_from_memory_maps_zarr_and_dask(tmp_path):
    import zarr

    dask = pytest.importorskip("dask.array")

    np.save(tmp_path / "x.npy", X)
    array = zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(5, 3))
    lazy = dask.from_array(X, chunks=5)
    expected = store(tmp_path / "k.zarr")
    before = files(tmp_path / "k.zarr")
    for x in (np.load(tmp_path / "x.npy", mmap_mode="r"), array, jax.numpy.asarray(X), lazy):
        found = store(tmp_path / "k.zarr", x=x)  # one and the same kernel
        assert found.manifest == expected.manifest
    store(tmp_path / "again.zarr", x=array)
    assert files(tmp_path / "again.zarr") == before


IMAGES = RNG.normal(size=(8, 3, 3, 2)).astype(DTYPE)
MASK = np.arange(3)[None, :, None] < 1 + (np.arange(8) % 3)[:, None, None] + np.zeros((1, 1, 3))
CONV = ntk.nn.Conv(8, (3, 3), b_std=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "x"),
    [
        ((CONV, ntk.nn.Relu(), ntk.nn.GlobalAvgPool(), ntk.nn.Dense(1)), IMAGES),
        ((CONV, ntk.nn.Relu(), ntk.nn.Conv(8, (2, 2), padding="VALID", strides=(2, 2))), IMAGES),
        ((CONV, ntk.nn.Relu(), ntk.nn.GlobalAvgPool(), ntk.nn.Dense(1)), "masked"),
    ],
)
def test_kernels_of_positions_are_kept_too(tmp_path, net, x, monkeypatch):
    monkeypatch.setattr("ntk_lab.kernel.computed._LARGEST", 4)
    monkeypatch.setattr("ntk_lab.kernel.computed._SMALLEST", 4)
    net = ntk.nn.Sequential(*net)
    x = ntk.nn.Masked(IMAGES, MASK) if isinstance(x, str) else x
    found, expected = store(tmp_path / "k.zarr", net=net, x=x, memory=1e9), net.kernel(x)
    assert len(found.ntk.places) == 3
    assert_close(np.asarray(found.ntk), np.asarray(expected.ntk))
    assert_close(found.nngp[7, 2], np.asarray(expected.nngp)[7, 2])


def test_networks_that_are_code_are_refused(tmp_path):
    net = ntk.nn.Sequential(ntk.nn.Dense(4), ntk.nn.Elementwise(lambda x: x * x), ntk.nn.Dense(1))
    with pytest.raises(InputError, match="cannot be written as JSON"):
        store(tmp_path / "k.zarr", net=net)


PROGRAM = """
    import sys, time
    import jax, numpy as np, ntk_lab as ntk
    jax.config.update("jax_enable_x64", {x64})
    x = np.random.default_rng(0).normal(size=(60, 3))
    net = ntk.nn.Sequential(ntk.nn.Dense(8, b_std=0.1), ntk.nn.Erf(), ntk.nn.Dense(1))
    def progress(done, total):
        print(done, total, flush=True)
        time.sleep(0.02)
    ntk.kernel.to_store(
        net, x, None, sys.argv[1], memory={memory}, share=bool(sys.argv[2:]), progress=progress
    )
"""


def process(path, *more):
    text = textwrap.dedent(PROGRAM).format(x64=jax.config.jax_enable_x64, memory=MEMORY)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", text, str(path), *more],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_processes_lose_little_and_the_last_one_finishes(tmp_path):
    whole, path = process(tmp_path / "whole"), tmp_path / "k.zarr"
    reached = 0
    for stop in (3, 12):
        killed, seen = process(path), []
        for line in killed.stdout:
            seen.append(int(line.split()[0]))
            if seen[-1] >= stop:
                break
        killed.kill()
        killed.wait()
        killed.stdout.close()
        # What an earlier process had finished is found, not computed again.
        assert reached == 0 or seen[0] >= 1
        reached = len(files(path / "ntk"))
        assert reached >= stop
    rest, _ = process(path).communicate()
    assert rest.splitlines()[-1].split()[0] == rest.split()[-1]
    whole.communicate()
    assert files(path) == files(tmp_path / "whole")


@pytest.mark.slow
def test_when_one_of_two_processes_is_killed_the_other_finishes(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "k.zarr"
    first = process(path, "share")
    first.stdout.readline()
    second = process(path, "share")
    second.stdout.readline()
    first.kill()
    first.wait()
    first.stdout.close()
    second.communicate()
    assert second.returncode == 0
    assert ntk.kernel.open_store(path).complete
    expected = process(tmp_path / "whole")
    expected.communicate()
    assert files(path) == files(tmp_path / "whole")
