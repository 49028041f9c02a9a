"""Ensembles over devices and processes: every seed's numbers are those without a mesh."""

import os
import socket
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.train import groups, sites
from ntk_lab.train.devices import spread
from tests.tolerance import assert_close
from tests.train.problems import data, drawn, smooth

ROOT = Path(__file__).parents[2]
NET = smooth()
X, Y, X_TEST = data()
SEEDS = 5
OPTIONS = {
    "optimizer": optax.adam(0.05), "steps": 9, "record": (0, 2, 9), "batch_size": 5,
    "key": jax.random.key(2), "kernel_points": X[:3], "keep_params": "ends",
}  # fmt: skip


class Stop(Exception):
    pass


def mesh_of(devices):
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("seeds",))


def train(params=None, seeds=SEEDS, **options):
    params = drawn(NET, seeds) if params is None else params
    return ntk.train.ensemble(NET.apply, params, X, Y, X_TEST, **{**OPTIONS, **options})


def equal(a, b):
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def alone(monkeypatch):
    """Seeds one by one, as large networks are trained on CPUs."""
    monkeypatch.setattr(groups, "_TINY", 0)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_seeds_over_devices_are_those_of_one_bit_by_bit(devices):
    found = train(mesh=mesh_of(devices))
    equal(found, train())
    assert found.test.shape == (SEEDS, 3, len(X_TEST), Y.shape[1])
    assert np.isfinite(found.loss).all()


def test_vectorised_seeds_over_devices_are_those_of_one_to_rounding(monkeypatch):
    monkeypatch.setattr(groups, "_TINY", 1e18)
    monkeypatch.setattr(sites, "cores", lambda: 1)
    # Five together, and three and two.
    whole, found = (train(mesh=mesh, kernel_points=None) for mesh in (None, mesh_of(2)))
    for name in ("train", "test", "loss", "motion"):
        assert_close(getattr(found, name), getattr(whole, name), factor=20)


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_sharpness_and_sketches_over_devices_are_those_of_one():
    options = {"sharpness": True, "kernel": ntk.train.Sketch(10), "record": (9,)}
    equal(train(seeds=2, mesh=mesh_of(2), **options), train(seeds=2, **options))


def test_convolutions_driven_step_by_step_go_over_devices():
    nn = ntk.nn
    net = nn.Sequential(nn.Conv(3, (3, 3)), nn.Tanh(), nn.Flatten(), nn.Dense(Y.shape[1]))
    x = jax.random.normal(jax.random.key(4), (len(Y), 4, 4, 1))
    options = {"optimizer": optax.sgd(0.1), "steps": 3}
    arguments = (net.apply, drawn(net, 3, (4, 4, 1)), x, Y)
    equal(
        ntk.train.ensemble(*arguments, **options, mesh=mesh_of(2)),
        ntk.train.ensemble(*arguments, **options),
    )


@pytest.mark.usefixtures("alone")
def test_parameters_may_be_spread_already_and_a_mesh_be_set():
    params, mesh = drawn(NET, 4), jax.make_mesh((2,), ("seeds",), devices=jax.devices()[:2])
    expected = train(params)
    parts = jax.device_put(params, NamedSharding(mesh, P("seeds")))
    equal(train(parts, mesh=mesh), expected)
    with jax.set_mesh(mesh):
        equal(train(params, mesh=mesh), expected)
    with pytest.raises(InputError, match=r"spread over 2 devices; pass mesh="):
        train(parts)


@pytest.mark.usefixtures("alone")
def test_the_memory_limit_is_that_of_each_device(monkeypatch):
    monkeypatch.setattr(sites, "cores", lambda: 4)  # two for each device
    seen = []
    plan = groups.plan_groups

    def watched(*args):
        seen.append(plan(*args))
        return seen[-1]

    monkeypatch.setattr(sites, "plan_groups", watched)
    free = train(mesh=mesh_of(2), memory=1e9)
    each = (1e9 - seen[0].left) / 2
    equal(train(mesh=mesh_of(2), memory=1.9 * each), free)
    assert [plan.workers for plan in seen] == [2, 1]
    with pytest.raises(InputError, match=r"memory=500 bytes is too small"):
        train(mesh=mesh_of(2), memory=500)


@pytest.mark.usefixtures("alone")
def test_a_run_that_is_stopped_goes_on_over_as_many_devices_or_others(tmp_path):
    undisturbed, seen = train(), []

    def stop(p):
        seen.append(p)
        if len(seen) % 12 == 0:
            raise Stop

    resumed, cuts = None, 0
    while resumed is None:
        cuts += 1
        with suppress(Stop):
            resumed = train(folder=tmp_path, mesh=mesh_of(1 + cuts % 2), progress=stop)
    assert cuts > 1
    equal(resumed, undisturbed)
    assert all(0 <= p.done <= p.total == SEEDS * 9 for p in seen)
    assert (seen[-1].done, seen[-1].message) == (SEEDS * 9, "done")
    seen.clear()
    equal(train(folder=tmp_path, progress=seen.append), undisturbed)
    assert len(seen) == SEEDS + 1, "every seed was finished when it began"


@pytest.mark.usefixtures("alone")
def test_a_seed_that_diverges_on_one_device_is_told_by_its_number():
    params = jax.tree.map(lambda p: p.at[3].set(np.nan), drawn(NET, SEEDS))
    with pytest.warns(RuntimeWarning, match="not finite for seed 3 from step 0"):
        run = train(params, mesh=mesh_of(2))
    np.testing.assert_array_equal(run.diverged, [-1, -1, -1, 0, -1])
    assert np.isfinite(run.train[[0, 1, 2, 4]]).all()


def test_shares_are_consecutive_and_differ_by_one():
    found = spread(mesh_of(4), 6)
    assert found.shares == ([0, 1], [2, 3], [4], [5])
    assert (found.largest, found.many, found.on_cpu) == (2, False, True)
    few = spread(mesh_of(4), 2)
    assert (few.shares, few.devices) == (([0], [1]), tuple(jax.devices()[:2]))


def test_meshes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"mesh is int; expected a jax.sharding.Mesh"):
        train(mesh=2)
    two = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
    with pytest.raises(InputError, match=r"axes \('a', 'b'\); one is needed"):
        train(mesh=two)


PROGRAM = """
    import sys
    import jax, numpy as np
    jax.config.update("jax_enable_x64", {x64})
    jax.config.update("jax_num_cpu_devices", 2)
    rank = int(sys.argv[1])
    jax.distributed.initialize("localhost:{port}", 2, rank)
    import tests.train.test_devices as t
    t.groups._TINY = 0
    mesh = jax.make_mesh((4,), ("seeds",))
    local = jax.sharding.Mesh(np.array(jax.local_devices()), ("seeds",))
    run = t.train(mesh=mesh, folder="{folder}")
    again = t.train(mesh=mesh, folder="{folder}")  # from what both wrote
    t.equal(run, again)
    t.equal(t.train(seeds=1, mesh=mesh), t.train(seeds=1, mesh=local))  # one has nothing to do
    params = t.drawn(t.NET, 4)
    parts = jax.tree.map(
        lambda p: jax.make_array_from_callback(
            p.shape, t.NamedSharding(mesh, t.P("seeds")), lambda i: np.asarray(p)[i]
        ), params)
    t.equal(t.train(parts, mesh=mesh), t.train(params, mesh=local))
    some = jax.sharding.Mesh(np.array(jax.devices("cpu")[2 - 2 * rank : 4 - 2 * rank]), ("seeds",))
    with t.pytest.raises(t.InputError, match="Give devices of all processes"):
        t.train(mesh=some)
    def stop(p):
        if rank == 1 and p.done > 3:
            raise t.InputError("enough")
    try:
        t.train(mesh=mesh, progress=stop)
        raise SystemExit("no error")
    except t.InputError as error:
        assert str(error) == ("enough" if rank else "process 1 of 2 failed: enough"), error
    np.savez("{folder}/run" + str(rank), *jax.tree.leaves(run))
"""


KILLED = """
    import os, sys
    import jax, numpy as np
    jax.config.update("jax_enable_x64", {x64})
    rank = int(sys.argv[1])
    jax.distributed.initialize("localhost:{port}", 2, rank, heartbeat_timeout_seconds=10)
    import tests.train.test_devices as t
    t.groups._TINY = 0
    def die(p):
        if {killed} and rank == 1 and p.done > 3:
            os._exit(9)
    mesh = jax.make_mesh((2,), ("seeds",))
    run = t.train(mesh=mesh, folder="{folder}", progress=die)
    np.savez("{folder}/run" + str(rank), *jax.tree.leaves(run))
"""


def side_by_side(program, **names):
    """Exit codes of two processes of ``jax.distributed``."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    x64 = bool(jax.config.jax_enable_x64)
    text = textwrap.dedent(program).format(x64=x64, port=port, **names)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_ENABLE_X64": str(int(x64))}
    both = [
        subprocess.Popen([sys.executable, "-c", text, str(i)], cwd=ROOT, env=environment)
        for i in range(2)
    ]
    return [process.wait(timeout=300) for process in both]


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_two_processes_train_as_one(tmp_path):
    assert side_by_side(PROGRAM, folder=tmp_path) == [0, 0]
    expected = jax.tree.leaves(train())
    for rank in range(2):
        with np.load(tmp_path / f"run{rank}.npz") as found:
            equal([found[name] for name in found.files], expected)
    assert len(list(tmp_path.glob("training/*-state.npz"))) == SEEDS
    # A run of one process goes on from what two have written.
    seen = []
    equal(train(folder=tmp_path, progress=seen.append), expected)
    assert len(seen) == SEEDS + 1


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_when_a_process_is_lost_the_others_end_and_all_go_on(tmp_path):
    codes = side_by_side(KILLED, folder=tmp_path, killed=True)
    assert codes[0] != 0
    assert codes[1] == 9
    assert not list(tmp_path.glob("run*.npz"))
    assert list(tmp_path.glob("training/*-state.npz"))
    assert side_by_side(KILLED, folder=tmp_path, killed=False) == [0, 0]
    expected = jax.tree.leaves(train())
    for rank in range(2):
        with np.load(tmp_path / f"run{rank}.npz") as found:
            equal([found[name] for name in found.files], expected)
