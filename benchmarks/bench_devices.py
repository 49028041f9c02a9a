"""Claim: kernels and regressions on several devices and processes are those of one, and faster.

Each case starts fresh processes that get ready (libraries, programs compiled), begin together,
and are timed until the last has finished.

- ``store``: 1, 2 and 4 processes, each on one core, compute one kernel into one folder, and the
  same with one of them killed by SIGKILL at half the time. ``tiles_that_differ`` from those of the
  one. ``efficiency`` is the time of one over the time of all, and over the cores used.
- ``devices``: a ridge regression over a mesh of 1 to 8 simulated devices in one process.
- ``processes``: the same over 2 and 4 processes by ``jax.distributed``, and 2 of which one is
  killed at half the time: both are started again and go on at the last checkpoint.
  ``efficiency`` of both is the time of one device over the time of all: the cores are the same.
- ``ensemble``: 8 networks trained by 1 and 2 processes by ``jax.distributed``, each on one core;
  ``efficiency`` as of ``store``. ``seeds``: the same over 1 and 8 simulated devices of one process;
  ``efficiency`` as of ``devices``.

``difference`` is the largest of a prediction (of networks, of an output on test points) from that
of one device, relative to the largest.

``python bench_devices.py [case]`` runs some of the cases, and replaces their rows.
"""

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import harness
from bench_store import digests

POINTS, SOLVED, FEATURES, RIDGE, MEMORY = 30_000, 6000, 784, 1.0, 1e9
WIDTH, TRAINED, STEPS, SEEDS = 512, 1000, 100, 8
CASES = {
    "store": ((1, 0), (2, 0), (4, 0), (2, 1), (4, 1)),  # processes, and how many are killed
    "devices": ((1, 0), (2, 0), (4, 0), (8, 0)),
    "processes": ((2, 0), (4, 0), (2, 1)),
    "ensemble": ((1, 0), (2, 0)),
    "seeds": ((1, 0), (8, 0)),
}
LABELS = {
    "store": "{n} processes, one kernel on disk",
    "devices": "{n} simulated devices, regression",
    "processes": "{n} processes, regression",
    "ensemble": "{n} processes, ensemble",
    "seeds": "{n} simulated devices, ensemble",
}
# Cases of processes that each have one core, and cases of devices of one process.
PINNED, SIMULATED = ("store", "ensemble"), ("devices", "seeds")


def label(case: str, n: int, killed: int) -> str:
    name = LABELS[case].format(n=n) + ", one killed" * killed
    return name.replace("processes", "process").replace("devices", "device") if n == 1 else name


def network() -> Any:
    import ntk_lab as ntk

    relu = [ntk.nn.Dense(1, w_std=2**0.5, b_std=0.1), ntk.nn.Relu()]
    return ntk.nn.Sequential(*relu * 3, ntk.nn.Dense(1))


def examples(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, FEATURES), np.float32)


def store(number: int, of: int, folder: str, address: str) -> Any:
    """This process's part of a kernel on disk."""
    import ntk_lab as ntk

    pin(number)
    x, net = examples(POINTS), network()
    net.kernel(x[:512])
    path = f"{folder}/k.zarr"
    return lambda: ntk.kernel.to_store(net, x, None, path, which="ntk", memory=MEMORY, share=of > 1)


def regression(number: int, of: int, folder: str, address: str) -> Any:
    """The same regression in each process, over the devices of all."""
    import jax

    import ntk_lab as ntk
    from ntk_lab.predict import regress_methods

    regress_methods._SECONDS = 1.0  # between two checkpoints: this is a short one
    if address:
        jax.distributed.initialize(address, of, number, heartbeat_timeout_seconds=20)
    else:
        jax.config.update("jax_num_cpu_devices", of)
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    x, net = examples(SOLVED), network()
    y = np.sin(3 * x[:, :4])
    options: dict = {"ridge": RIDGE, "method": "cg", "rank": 50, "tol": 1e-5, "mesh": mesh}
    ntk.predict.regress(net, x, y, **options | {"tol": 0.5})

    def run() -> dict:
        fitted = ntk.predict.regress(net, x, y, **options, checkpoint=f"{folder}/state")
        mean = np.asarray(fitted.predict(examples(SOLVED + 50)[-50:]))
        np.save(f"{folder}/mean{number}.npy", mean)
        return {"passes": fitted.iterations, "residual": float(fitted.relative_residual.max())}

    return run


def ensemble(number: int, of: int, folder: str, address: str) -> Any:
    """The same ensemble in each process, over the devices of all."""
    import jax
    import optax

    import ntk_lab as ntk

    if address:
        pin(number)
        jax.distributed.initialize(address, of, number, heartbeat_timeout_seconds=20)
    else:
        jax.config.update("jax_num_cpu_devices", of)
    mesh = jax.make_mesh((jax.device_count(),), ("seeds",))
    hidden = [ntk.nn.Dense(WIDTH), ntk.nn.Relu()]
    net = ntk.nn.Sequential(*hidden * 2, ntk.nn.Dense(1))
    x, optimizer = examples(TRAINED), optax.sgd(0.1)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    params = jax.vmap(lambda key: net.init(key, (FEATURES,)))(keys)

    def train(steps: int) -> Any:
        return ntk.train.ensemble(
            net.apply, params, x, np.sin(3 * x[:, :1]), x[:50], optimizer=optimizer, steps=steps,
            record=(steps,), mesh=mesh,
        )  # fmt: skip

    train(1)

    def run() -> dict:
        found = train(STEPS)
        np.save(f"{folder}/mean{number}.npy", found.test)
        return {"loss": float(found.loss.mean())}

    return run


def pin(number: int) -> None:
    """This process to one core."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number % cores()]})


RUNS = {"store": store, "ensemble": ensemble, "seeds": ensemble}


def child(case: str, number: int, of: int, folder: str, address: str) -> None:
    """Get ready, wait for a line, compute."""
    run = RUNS.get(case, regression)(number, of, folder, address)
    print("ready", flush=True)
    input()
    found = run()
    print(json.dumps(found if isinstance(found, dict) else {}), flush=True)
    os._exit(0)  # a process whose peer was lost would wait for it


def cores() -> int:
    return len(os.sched_getaffinity(0))


def together(case: str, n: int, folder: Path, kill_after: float | None = None) -> dict:
    """Seconds of the processes of a case, and what the first of them found."""
    many = 1 if case in SIMULATED else n
    address = ""
    if case in ("processes", "ensemble"):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, __file__, "--child", case]
    group = [
        subprocess.Popen(
            [*command, str(i), str(n), str(folder), address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for i in range(many)
    ]  # fmt: skip
    for process in group:
        while "ready" not in process.stdout.readline():  # after what Gloo says
            assert process.poll() is None, "a process did not start"
    start = time.perf_counter()
    for process in group:
        process.stdin.write("go\n")
        process.stdin.flush()
    if kill_after is not None:
        time.sleep(kill_after)
        group[-1].kill()
    said = [process.communicate()[0] for process in group]
    seconds = time.perf_counter() - start
    ended = [process.returncode for process in group]
    if kill_after is None and any(ended):
        raise SystemExit(f"{case} with {n}: exit codes {ended}")
    last = said[0].splitlines()[-1] if said[0].strip() else "{}"
    return {"seconds": seconds, "ended": ended} | (json.loads(last) if last[0] == "{" else {})


@functools.cache
def alone(case: str) -> tuple[dict, Any]:
    """One process on one core, or one device: what it took, and its tiles or prediction."""
    with tempfile.TemporaryDirectory() as name:
        found = together("devices" if case == "processes" else case, 1, Path(name))
        folder = Path(name)
        return found, digests(folder / "k.zarr") if case == "store" else np.load(
            folder / "mean0.npy"
        )


def measure(case: str, n: int, killed: int) -> dict:
    first, expected = alone(case)
    if n == 1:
        return first | {"efficiency": 1.0}
    undisturbed = None if not killed else measure(case, n, 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = together(case, n, folder, undisturbed and undisturbed["seconds"] / 2)
        if killed and case == "processes":
            found["lost_after_s"] = found["seconds"]
            found |= together(case, n, folder)
        if case == "store":
            tiles = digests(folder / "k.zarr")
            found["tiles_that_differ"] = sum(tiles.get(k) != v for k, v in expected.items())
        else:
            means = [np.load(file) for file in folder.glob("mean*.npy")]
            gap = max(float(abs(mean - expected).max()) for mean in means)
            found["difference"] = gap / float(abs(expected).max())
    if not killed:
        used = min(n, cores()) if case in PINNED else 1
        found["efficiency"] = first["seconds"] / found["seconds"] / used
    return found


def main() -> None:
    rows = []
    order = [label(case, *run) for case, runs in CASES.items() for run in runs]
    for case in sys.argv[1:2] or CASES:
        for run in CASES[case]:
            found = measure(case, *run)
            print(label(case, *run), found, flush=True)
            seconds = found.pop("seconds")
            found.pop("ended")
            rows.append(
                harness.Row(
                    label(case, *run),
                    1e3 * seconds,
                    *[None] * 4,
                    seconds,
                    None,
                    0.0,
                    None,
                    1,
                    found,
                )
            )
    harness.save("devices", rows, claim="Several devices and processes: equal results", order=order)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        case, number, of, folder, address = sys.argv[2:]
        child(case, int(number), int(of), folder, address)
    else:
        main()
