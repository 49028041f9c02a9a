"""Kernels spread over devices: the same products and solutions for any number of them."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.kernel import ShardedMatrix
from ntk_lab.kernel.computed import Computed
from ntk_lab.kernel.sharded import ideal_efficiency

ROOT = Path(__file__).parents[2]
DTYPE = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(22, 3)).astype(DTYPE)
V = RNG.normal(size=(22, 2))
NET = ntk.nn.Sequential(ntk.nn.Dense(8, b_std=0.5), ntk.nn.Relu(), ntk.nn.Dense(1))
EPS = float(np.finfo(DTYPE).eps)


def mesh_of(devices, names=("rows",)):
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), names)


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
def test_products_do_not_depend_on_the_devices(devices, monkeypatch):
    monkeypatch.setattr("ntk_lab.kernel.computed._LARGEST", 3)
    matrix = ShardedMatrix(Computed(NET, X, None, None), "ntk", mesh_of(devices))
    k = np.asarray(NET.kernel(X).ntk, np.float64)
    # Entries differ by rounding, and in one case their sums too.
    size = np.abs(k) @ np.abs(V)
    assert (np.abs(matrix.product(V) - k @ V) < 20 * EPS * size).all()
    assert (np.abs(matrix.product(V, precise=False) - k @ V) < 40 * EPS * size).all()


def test_regression_over_devices_is_that_of_one():
    y = np.sin(X[:, :1])
    options = {"ridge": 1e-2, "method": "cg", "rank": 3}
    expected = ntk.predict.regress(NET, X, y, **options)
    found = ntk.predict.regress(NET, X, y, **options, mesh=mesh_of(4))
    assert "4 devices" in found.reason
    assert (found.relative_residual < (1e-5 if DTYPE == "float32" else 1e-9)).all()
    np.testing.assert_allclose(found.predict(X), expected.predict(X), atol=1e-3)


def test_images_are_spread_too():
    images = RNG.normal(size=(6, 3, 3, 2)).astype(DTYPE)
    net = ntk.nn.Sequential(ntk.nn.Conv(4, (2, 2)), ntk.nn.Relu(), ntk.nn.GlobalAvgPool())
    matrix = ShardedMatrix(Computed(net, images, None, None), "nngp", mesh_of(2))
    expected = np.asarray(net.kernel(images).nngp, np.float64) @ V[:6]
    np.testing.assert_allclose(matrix.product(V[:6]), expected, rtol=1e-4)


def test_what_cannot_be_spread_is_refused():
    job = Computed(NET, X, None, None)
    with pytest.raises(InputError, match="one is needed"):
        ShardedMatrix(
            job, "ntk", jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
        )
    with pytest.raises(InputError, match="leave out store"):
        ntk.predict.regress(NET, X, V, ridge=1.0, mesh=mesh_of(2), store="k.zarr")


def test_the_ring_computes_little_twice():
    assert ideal_efficiency(1) == 1.0
    assert ideal_efficiency(7) == 1.0
    assert ideal_efficiency(8) == 0.9


PROGRAM = """
    import sys
    import jax, numpy as np, ntk_lab as ntk
    from ntk_lab import checkpoints
    from ntk_lab.predict import regress_methods
    jax.config.update("jax_enable_x64", {x64})
    jax.distributed.initialize("localhost:{port}", 2, int(sys.argv[1]))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(22, 3))
    net = ntk.nn.Sequential(ntk.nn.Dense(8, b_std=0.5), ntk.nn.Relu(), ntk.nn.Dense(1))
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    # Folders of their own: one process alone writes, and the other goes on from what it wrote.
    options = dict(ridge=1e-2, method="cg", mesh=mesh, checkpoint="{folder}" + sys.argv[1])
    regress_methods._SECONDS = -1.0
    y = np.sin(x[:, :1])
    first, found = (ntk.predict.regress(net, x, y, **options) for _ in range(2))
    assert first.iterations > 3 and found.iterations <= first.iterations + 1
    # What one process refuses, none waits for.
    try:
        ntk.predict.regress(net, x, y + 1, **options)
        raise SystemExit("no error")
    except ntk.errors.InputError as error:
        assert "holds runs of another regression: y differ" in str(error), error
        assert str(error).startswith("process 0 of 2 failed") == (sys.argv[1] == "1"), error
    def full(self, file, arrays):
        raise OSError(28, "No space left on device")
    checkpoints.Folder.write = full
    try:
        ntk.predict.regress(net, x, y, **options | dict(checkpoint=options["checkpoint"] + "full"))
        raise SystemExit("no error")
    except (OSError, RuntimeError) as error:
        assert "No space left" in str(error), error
    print(jax.process_count(), mesh.size, *np.asarray(found.predict(x))[:, 0].tolist())
"""


@pytest.mark.slow
def test_two_processes_solve_as_one_and_go_on_from_one_checkpoint(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    text = textwrap.dedent(PROGRAM).format(
        x64=jax.config.jax_enable_x64, port=port, folder=tmp_path / "state"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", text, str(i)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )
        for i in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    printed = [text.splitlines()[-1].split() for text in said]  # after what Gloo says
    assert printed[0] == printed[1]
    assert printed[0][:2] == ["2", "2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state0", "state0full"]
    x = np.random.default_rng(0).normal(size=(22, 3)).astype(DTYPE)
    expected = ntk.predict.regress(NET, x, np.sin(x[:, :1]), ridge=1e-2, method="cg").predict(x)
    np.testing.assert_allclose(np.array(printed[0][2:], float), expected[:, 0], atol=1e-3)
