"""Claim: a kernel on disk survives any number of kills, with the bits of an undisturbed run.

``python bench_store.py [GB [kills]]`` computes a Relu kernel of so many GB on disk (8) once
undisturbed and once killed by SIGKILL (10 times) at random moments of its work, each time in a
fresh process. ``finished_tiles_lost`` counts tiles that were reported as finished and were not
there after a kill. Both kernels are on disk at the end: twice the size must be free.
"""

import hashlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness
import ntk_lab as ntk

FEATURES, MEMORY = 784, 1e9


def examples(gigabytes: float) -> int:
    """Number of examples whose symmetric half has that size in float32."""
    return int(math.sqrt(2 * gigabytes * 1e9 / 4))


def compute(path: str, n: int) -> None:
    """The kernel in this process; a line of standard output for each tile that is finished."""
    import numpy as np

    x = np.random.default_rng(0).standard_normal((n, FEATURES), np.float32)
    relu = [ntk.nn.Dense(1, w_std=2**0.5, b_std=0.1), ntk.nn.Relu()]
    net = ntk.nn.Sequential(*relu * 3, ntk.nn.Dense(1))
    net.kernel(x[:512])
    before, found = harness.peak_memory(), 0

    def progress(done: int, total: int) -> None:
        nonlocal found
        print(done, total, flush=True)
        found = done

    start = time.perf_counter()
    ntk.kernel.to_store(net, x, None, path, which="ntk", memory=MEMORY, progress=progress)
    peak = (harness.peak_memory() - before) / 1e9
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_gb": peak}), flush=True)


def run(path: Path, n: int) -> subprocess.Popen:
    command = [sys.executable, __file__, "--compute", str(path), str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(path: Path, n: int) -> dict:
    """Seconds and peak memory of a run that is left alone."""
    process = run(path, n)
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run did not finish: exit code {process.returncode}")
    return json.loads(out.splitlines()[-1])


def digests(path: Path) -> dict[str, str]:
    """A hash of each tile's file."""
    return {
        str(file.relative_to(path)): hashlib.file_digest(file.open("rb"), "blake2b").hexdigest()
        for file in sorted(path.glob("ntk/c/*/*"))
        if file.suffix != ".partial"
    }


def apart(whole: Path, path: Path, name: str) -> float:
    """Largest difference of a tile's entries, relative to the largest entry."""
    i, j = (int(part) for part in Path(name).parts[-2:])
    first, second = (ntk.kernel.open_store(p).ntk.tile(i, j) for p in (whole, path))
    return float(abs(first - second).max() / abs(first).max())


def killed(path: Path, n: int, seconds: float, draw: random.Random, tiles: int) -> int:
    """Kill one run at a random moment; tiles that it computed and that are not there."""
    before = len(digests(path))
    process = run(path, n)
    # The clock starts when the first tile, found or new, is reported.
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(draw.uniform(0, seconds))
    process.kill()
    reported = [int(line.split()[0]) for line in process.stdout if line[0].isdigit()]
    process.wait()
    there = len(digests(path))
    print(f"killed: {before} tiles before, {there} of {tiles} after", flush=True)
    # A tile is reported after it is on disk, so that none of those is ever lost.
    return max(max(reported, default=0) - there, 0)


def main(gigabytes: float, kills: int) -> None:
    n = examples(gigabytes)
    with tempfile.TemporaryDirectory(dir=os.environ.get("NTK_LAB_BENCH_FOLDER")) as folder:
        free = shutil.disk_usage(folder).free / 1e9
        if free < 2.2 * gigabytes:
            raise SystemExit(f"{free:.3g} GB are free; two kernels of {gigabytes} GB need more.")
        whole, path = Path(folder) / "whole.zarr", Path(folder) / "killed.zarr"
        undisturbed = finished(whole, n)
        expected = digests(whole)
        print(f"undisturbed: {undisturbed}, {len(expected)} tiles", flush=True)
        draw, lost = random.Random(0), []
        for _ in range(kills):
            span = undisturbed["seconds"] / kills
            lost.append(killed(path, n, 1.5 * span, draw, len(expected)))
        finished(path, n)
        found = digests(path)
        different = [name for name in expected if found.get(name) != expected[name]]
        print(f"tiles that differ: {different[:9]}", flush=True)
        gap = max((apart(whole, path, name) for name in different), default=0.0)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e9
    extra = {
        "gigabytes": size,
        "kills": kills,
        "tiles": len(expected),
        "tiles_that_differ": len(different),
        "largest_difference": gap,
        "finished_tiles_lost": sum(lost),
        "peak_gb": undisturbed["peak_gb"],
    }
    print(extra)
    seconds = undisturbed["seconds"]
    row = harness.Row(
        f"Relu kernel of {gigabytes:g} GB, n={n}", 1e3 * seconds, *[None] * 4, seconds, None,
        0.0, None, 1, extra,
    )  # fmt: skip
    harness.save("store", [row], claim="Kernels on disk survive kills bit by bit")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compute"]:
        compute(sys.argv[2], int(sys.argv[3]))
    else:
        main(float((sys.argv[1:2] or ["8"])[0]), int((sys.argv[2:3] or ["10"])[0]))
