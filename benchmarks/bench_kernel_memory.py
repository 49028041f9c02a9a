"""Claim: kernels on disk keep to their memory limit, whatever the size and architecture.

Each kernel is computed into a folder in a fresh process; its peak is that of the process above
what it holds after a first tile on and one off the diagonal: libraries, data and programs.
Compiling these takes up to 0.3 GB a program, whatever the limit, and is not counted. ``share`` is
peak over limit.

``python bench_kernel_memory.py [case ...]`` runs some of the cases, and replaces their rows.
"""

import json
import sys
import tempfile
import time

import numpy as np

import harness
import ntk_lab as ntk
from ntk_lab.kernel.computed import Computed

RELU = [ntk.nn.Dense(1, w_std=2**0.5, b_std=0.1), ntk.nn.Relu()]
CONV = [ntk.nn.Conv(1, (3, 3), w_std=2**0.5, b_std=0.1), ntk.nn.Relu()]
LIMITS = (0.2, 0.5, 1, 2, 4, 8)
END = ntk.nn.Dense(1)
# Layers, shape of an example, and how many.
CASES = {
    "Relu, depth 3, d=784": ([*RELU * 3, END], (784,), 12_000),
    "Erf, depth 3, d=40": ([*[RELU[0], ntk.nn.Erf()] * 3, END], (40,), 12_000),
    "Tanh, depth 2, d=40": ([*[RELU[0], ntk.nn.Tanh()] * 2, END], (40,), 6000),
    "5 convolutions, Flatten, 32x32x3": ([*CONV * 5, ntk.nn.Flatten(), END], (32, 32, 3), 300),
    "5 convolutions, pooling, 16x16x3": ([*CONV * 5, ntk.nn.GlobalAvgPool(), END], (16, 16, 3), 48),
}


def measure(case: str, limit: float) -> dict:
    """Peak and time of one kernel in this process."""
    layers, shape, n = CASES[case]
    net = ntk.nn.Sequential(*layers)
    x = np.random.default_rng(0).standard_normal((n, *shape), np.float32)
    job = Computed(net, x, None, limit * 1e9)
    for place in {job.places[0], job.places[-1], (0, job.grid[1] - 1)}:
        job.tile(*place)
    before = harness.held_memory(forget=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ntk.kernel.to_store(net, x, None, f"{folder}/k.zarr", memory=limit * 1e9)
    seconds = time.perf_counter() - start
    peak = (harness.peak_memory() - before) / 1e9
    return {
        "limit_gb": limit,
        "peak_gb": peak,
        "share": peak / limit,
        "tile": job.side,
        "tiles": len(job.places),
        "seconds": seconds,
    }


def main() -> None:
    runs = [(f"{case}, {limit} GB", case, limit) for case in CASES for limit in LIMITS]
    words = sys.argv[1:]
    chosen = [run for run in runs if not words or any(word in run[1] for word in words)]
    rows, order = harness.within_limits(__file__, chosen), [label for label, *_ in runs]
    harness.save("kernel_memory", rows, claim="Kernels on disk keep to their limit", order=order)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], float(sys.argv[3]))))
    else:
        main()
