"""Claim: kernel regressions far larger than memory, within a limit of 8 GB.

Each case runs in a fresh process; ``peak_gb`` is all the memory that the operating system has
counted for it, data and libraries included. Data are made beforehand and are no part of the time.

- ``exact``: 60,000 images of 784 pixels, 4,000 of MNIST's, each rotated and shifted 15 times, with
  their labels; conjugate gradients on a kernel of which half (7.2 GB) is on disk. Tested on 1,000
  other images.
- ``nystrom``: a million sequences of mnist1d, 4,096 of them as centres; and ``same, exact``, the
  exact solution for the first 40,000 of them. Tested on 10,000 more.
- ``neural-tangents``: its ``predict.gradient_descent_mse_ensemble`` on the images of ``exact``, all
  of them and 10,000, with all the memory of the machine; and ``exact`` with 10,000 beside it.

``python bench_regression.py [case [examples]]`` runs some of the cases, or smaller ones; the
folder for data and kernels is that of temporary files, or NTK_LAB_BENCH_FOLDER.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import harness
import ntk_lab as ntk
from ntk_lab.interop import neural_tangents
from ntk_lab.progress import Progress

RIVAL = "neural-tangents"
RUNS = [
    ("exact", 60_000),
    ("exact", 10_000),
    (RIVAL, 10_000),
    (RIVAL, 60_000),
    ("nystrom", 1_000_000),
    ("same, exact", 40_000),
]
BASE, VARIANTS, CENTRES, RANK, MEMORY = 4000, 15, 4096, 2000, 6e9
LIMIT_GB = 8.0


def folder() -> Path:
    place = Path(os.environ.get("NTK_LAB_BENCH_FOLDER", tempfile.gettempdir()))
    place.mkdir(parents=True, exist_ok=True)
    return place


def network() -> ntk.nn.Sequential:
    relu = [ntk.nn.Dense(1, w_std=2**0.5, b_std=0.1), ntk.nn.Relu()]
    return ntk.nn.Sequential(*relu * 3, ntk.nn.Dense(1))


def images(n: int) -> dict[str, np.ndarray]:
    """Images of MNIST, and rotated by up to 15 degrees and shifted by up to two pixels."""
    from scipy import ndimage

    (x, y), (x_test, y_test) = ntk.data.mnist_5k(train=BASE, test=1000)
    rng = np.random.default_rng(0)
    made = np.empty((n, 784), np.float32)
    for i in range(n):
        image = x[i % BASE, ..., 0]
        if i >= BASE:
            image = ndimage.rotate(image, rng.uniform(-15, 15), reshape=False, order=1)
            image = ndimage.shift(image, rng.uniform(-2, 2, 2), order=1)
        made[i] = image.ravel()
    labels = y[np.arange(n) % BASE]
    return {"x": made, "y": labels, "x_test": x_test.reshape(-1, 784), "y_test": y_test}


def sequences(n: int) -> dict[str, np.ndarray]:
    (x, y), (x_test, y_test) = ntk.data.mnist1d(train=n, test=10_000)
    return {"x": x[..., 0], "y": y, "x_test": x_test[..., 0], "y_test": y_test}


def data(case: str, n: int) -> Path:
    """File of the data of a case, made once."""
    exact = case in ("exact", RIVAL)
    path = folder() / f"bench_regression_{'images' if exact else 'sequences'}_{n}.npz"
    if not path.exists():
        np.savez(path, **(images(n) if exact else sequences(n)))
    return path


def measure(case: str, path: str, n: int) -> dict:
    """Solve in this process; what it took."""
    with np.load(path) as file:
        x, y, x_test, y_test = (file[k] for k in ("x", "y", "x_test", "y_test"))
    x, y = x[:n], y[:n]
    targets = (np.eye(10) - 0.1)[y]
    last = 0.0

    def progress(p: Progress) -> None:
        nonlocal last
        if time.perf_counter() - last > 20:
            last = time.perf_counter()
            print(f"{last - start:.0f} s: {p.message} {p.done:.0f} of {p.total:.0f}", flush=True)

    options: dict = {"ridge": 0.01, "tol": 8e-5, "memory": MEMORY, "progress": progress}
    if case == "nystrom":
        options |= {"method": "nystrom", "centres": CENTRES, "ridge": 1.0}
    elif case == "exact":
        options |= {
            "method": "cg",
            "checkpoint": folder() / f"bench_{n}_state",
            "rank": min(RANK, n // 4),
            "store": folder() / f"bench_{n}.zarr",
        }
    start = time.perf_counter()
    cpu = time.process_time()
    fitted = ntk.predict.regress(network(), x, targets, **options)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    accuracy = float((np.argmax(fitted.predict(x_test), axis=1) == y_test).mean())
    details = {k: v for k, v in fitted.details.items() if isinstance(v, int | float)}
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "method": fitted.method,
        "residual": float(fitted.relative_residual.max()),
        "passes": fitted.iterations,
        "accuracy": accuracy,
        "peak_gb": harness.peak_memory() / 1e9,
        "limit_gb": LIMIT_GB,
    } | details


def measure_rival(path: str, n: int) -> dict:
    """The rival's way in this process: what it took, or how it failed."""
    nt = neural_tangents.load()
    stax = nt.stax
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_AS, (ram, ram))  # refused, not killed
    with np.load(path) as file:
        x, y, x_test, y_test = (file[k] for k in ("x", "y", "x_test", "y_test"))
    targets = (np.eye(10, dtype=np.float32) - np.float32(0.1))[y[:n]]
    relu = [stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu()]
    kernel_fn = stax.serial(*relu * 3, stax.Dense(1))[2]
    start, cpu = time.perf_counter(), time.process_time()
    found = {"method": "predict.gradient_descent_mse_ensemble", "accuracy": None}
    try:
        with neural_tangents.relaxed_promotion():
            predict = nt.predict.gradient_descent_mse_ensemble(
                kernel_fn, x[:n], targets, diag_reg=0.01, diag_reg_absolute_scale=True
            )
            mean = np.asarray(predict(x_test=x_test, get="ntk"))
        found["accuracy"] = float((np.argmax(mean, axis=1) == y_test).mean())
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        found["failed"] = str(error).splitlines()[0].split("computation: ")[-1][:90]
    return found | {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_gb": harness.peak_memory() / 1e9,
        "limit_gb": ram / 1e9,
    }


def main() -> None:
    chosen = [run for run in RUNS if not sys.argv[1:] or run[0] == sys.argv[1]]
    if sys.argv[2:]:
        chosen = [(sys.argv[1], int(sys.argv[2]))]
    for case, n in chosen:
        path = data(case, n if case != "same, exact" else 1_000_000)
        command = [sys.executable, __file__, "--measure", case, str(path), str(n)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = ""
        for line in process.stdout:
            print(line, end="", flush=True)
        if process.wait():
            raise SystemExit(f"{case} did not finish")
        found = json.loads(line)
        seconds = found.pop("seconds")
        row = harness.Row(
            f"{case}, n={n}", 1e3 * seconds, *[None] * 4, seconds, None, 0.0, None, 1, found
        )
        if (case, n) in RUNS:
            order = [f"{name}, n={size}" for name, size in RUNS]
            harness.save("regression", [row], claim="Kernel regressions in 8 GB", order=order)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        case, path, n = sys.argv[2], sys.argv[3], int(sys.argv[4])
        print(json.dumps(measure_rival(path, n) if case == RIVAL else measure(case, path, n)))
    else:
        main()
