"""Claim: an empirical NTK keeps to its memory limit, and finishes where others run out.

Each kernel is computed in a fresh process; its peak is that of the process above what it held
after the kernel of two examples, compilation included. ``share`` is peak over limit.

``python bench_empirical_memory.py [case ...]`` runs some of the cases, and replaces their rows.
"""

import json
import sys
import time

import jax
import numpy as np

import empirical_models as models
import flax_models
import harness
import ntk_lab as ntk

KEY = jax.random.key(0)
WIDE = (784, 1024, 1024, 1024, 10)
# Model, outputs, and limits in GB.
CASES = {
    "MLP 3x1024, n=1000": (lambda: models.mlp(KEY, WIDE, 1000), "trace", (0.2, 0.5, 1, 2, 4)),
    "MLP 3x1024, n=4000": (lambda: models.mlp(KEY, WIDE, 4000), "trace", (1,)),
    "CNN 4x64, n=128": (lambda: models.cnn(KEY, 128), "full", (0.2, 0.5, 1, 2, 4)),
    "transformer, n=24": (lambda: models.transformer(KEY, 24), "full", (0.2, 0.5, 1, 2, 4)),
    "ResNet-18 of flax, n=200": (lambda: flax_models.resnet18(200), "trace", (2,)),
}


def measure(case: str, limit: float) -> dict:
    """Peak and time of one kernel in this process."""
    make, outputs, _ = CASES[case]
    f, params, x = make()
    # What JAX and its compiler take once is no part of a kernel's memory.
    jax.block_until_ready(ntk.empirical.ntk(f, params, x[:2], outputs=outputs))
    before = harness.peak_memory()
    start = time.perf_counter()
    kernel = ntk.empirical.ntk(f, params, x, outputs=outputs, memory=limit * 1e9)
    jax.block_until_ready(kernel)
    seconds = time.perf_counter() - start
    peak = (harness.peak_memory() - before) / 1e9
    plan = ntk.empirical.plan(f, params, x, outputs=outputs, memory=limit * 1e9)
    return {
        "limit_gb": limit,
        "peak_gb": peak,
        "share": peak / limit,
        "planned_gb": plan.bytes / 1e9,
        "result_gb": kernel.nbytes / 1e9,
        "tiles": plan.tiles,
        "seconds": seconds,
        "teraflop": plan.operations / 1e12,
        "sum": float(np.asarray(kernel, np.float64).sum()),
    }


def main() -> None:
    runs = [
        (f"{case}, {outputs}, {limit} GB", case, limit)
        for case, (_, outputs, limits) in CASES.items()
        for limit in limits
    ]
    words = sys.argv[1:]
    chosen = [run for run in runs if not words or any(word in run[1] for word in words)]
    harness.save(
        "empirical_memory",
        harness.within_limits(__file__, chosen),
        claim="Empirical NTKs keep to a memory limit",
        rival=None,
        order=[label for label, *_ in runs],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], float(sys.argv[3]))))
    else:
        main()
