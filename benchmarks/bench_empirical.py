"""Claim: finite-width NTKs of any function are faster and more frugal than neural-tangents'.

Rivals in the same process: its structured derivatives (repaired by the bridge), and stock, its
Jacobian contraction or NTK-vector products, timed once. Peak memory is that of a fresh process
above what it held before the kernel. The floor is the operations that the plan counts at the rate
of a large matrix product, measured here.

``python bench_empirical.py [case ...]`` runs some of the cases and replaces their rows in what is
saved; with ``--quick``, without memory and stock, it saves nothing; ``--peaks`` measures
memory only.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import empirical_models as models
import harness
import ntk_lab as ntk
from ntk_lab.interop import neural_tangents

KEY = jax.random.key(0)
WIDE = (784, 1024, 1024, 1024, 10)
CASES = {
    "MLP 3x1024, n=100": (lambda: models.mlp(KEY, WIDE, 100), ("full", "trace"), "both"),
    "MLP 3x1024, n=500": (lambda: models.mlp(KEY, WIDE, 500), ("full",), "structured"),
    "CNN 4x64, n=32": (lambda: models.cnn(KEY, 32), ("full", "trace"), "both"),
    "ResNet, n=16": (lambda: models.resnet(KEY, 16), ("full", "trace"), "both"),
    "transformer, n=8": (lambda: models.transformer(KEY, 8), ("full", "trace"), "both"),
    "transformer one-hot, n=8": (
        lambda: models.transformer(KEY, 8, one_hot=True),
        ("full", "trace"),
        "structured",
    ),
    "scan RNN, n=32": (lambda: models.rnn(KEY, 32), ("full",), "stock"),
}
DRAWN = {name: (make, ("full",), "structured") for name, make in models.drawn()}


def rival(case, f, params, x, outputs, kind):
    """The rival's jitted kernel, as a function without arguments."""
    nt = neural_tangents.load()
    stock = "JACOBIAN_CONTRACTION" if outputs == "trace" or "MLP" in case else "NTK_VECTOR_PRODUCTS"
    name = "STRUCTURED_DERIVATIVES" if kind == "structured" else stock
    axes = (-1,) if outputs == "trace" else ()
    implementation = nt.NtkImplementation[name]
    kernel_fn = nt.empirical_ntk_fn(f, trace_axes=axes, vmap_axes=0, implementation=implementation)
    kernel = jax.jit(lambda x, params: kernel_fn(x, None, params))
    return lambda: kernel(x, params)


def ours(f, params, x, outputs):
    return lambda: ntk.empirical.ntk(f, params, x, outputs=outputs)


def matrix_rate():
    """Operations a second of a product of 2048 x 2048 matrices."""
    a = jax.random.normal(KEY, (2048, 2048), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        product(a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times)


def peak(case, outputs, who):
    """Megabytes that a fresh process needs beyond what it held before the kernel."""
    command = [sys.executable, __file__, "--peak", case, outputs, who]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None


def measure_peak(case, outputs, who):
    f, params, x = (CASES | DRAWN)[case][0]()
    jax.block_until_ready(jax.jit(f)(params, x))
    kernel = (
        ours(f, params, x, outputs) if who == "ours" else rival(case, f, params, x, outputs, who)
    )
    before = harness.peak_memory()
    jax.block_until_ready(kernel())
    print((harness.peak_memory() - before) / 1e6)


def measure_peaks() -> None:
    """Peaks of the saved rows again, and nothing else."""
    path = harness.RESULTS / "empirical.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    for row in record["rows"]:
        case, outputs, _ = row["case"].rsplit(", ", 2)
        if case in CASES:
            kind = row["extra"]["against"]
            for who, name in (("ours", "ours_peak_mb"), (kind, "rival_peak_mb")):
                row["extra"][name] = harness.rounded(peak(case, outputs, who))
            print(row["case"], row["extra"]["ours_peak_mb"], row["extra"]["rival_peak_mb"])
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run(case, make, outputs, kind, rate, memory, stock):
    f, params, x = make()
    mine, theirs = ours(f, params, x, outputs), rival(case, f, params, x, outputs, kind)
    extra = {
        "against": kind,
        "floor_ms": 1e3 * ntk.empirical.plan(f, params, x, outputs=outputs).operations / rate,
    }
    a, b = np.asarray(mine(), np.float64), np.asarray(theirs(), np.float64)
    extra["difference"] = float(np.abs(a - b).max() / np.abs(a).max())
    # The first calls above would hide compilation.
    jax.clear_caches()
    f, params, x = make()
    mine, theirs = ours(f, params, x, outputs), rival(case, f, params, x, outputs, kind)
    if stock:
        slow = rival(case, f, params, x, outputs, "stock")
        seconds, compiling = harness.first_call(slow)
        if seconds < 5:  # others take up to minutes, beside which tracing is nothing
            seconds, compiling = harness.first_call(slow)
        extra["stock_ms"] = 1e3 * (seconds - compiling)
    if memory:
        extra["ours_peak_mb"] = peak(case, outputs, "ours")
        extra["rival_peak_mb"] = peak(case, outputs, kind)
    return harness.race(f"{case}, {outputs}, against {kind}", mine, theirs, runs=5, **extra)


def main() -> None:
    chosen = [word for word in sys.argv[1:] if word != "--quick"]
    rate = matrix_rate()
    rows = []
    for name, (make, outputs, kinds) in (CASES | DRAWN).items():
        if chosen and not any(word in name for word in chosen):
            continue
        for mode in outputs:
            kind = "structured" if kinds == "both" else kinds
            rows.append(
                run(
                    name,
                    make,
                    mode,
                    kind,
                    rate,
                    name in CASES and "--quick" not in sys.argv,
                    kinds == "both" and "--quick" not in sys.argv,
                )
            )
    untuned = [r.ratio for r in rows if any(r.case.startswith(name) for name in DRAWN) and r.ratio]
    if untuned:
        print(f"geometric mean over drawn models: {statistics.geometric_mean(untuned):.3g}")
    if "--quick" not in sys.argv:
        harness.save(
            "empirical",
            rows,
            claim="Finite-width NTKs of any function are faster and need less memory",
            rival="neural-tangents",
            order=[
                f"{name}, {mode}, against {'structured' if kinds == 'both' else kinds}"
                for name, (_, outputs, kinds) in (CASES | DRAWN).items()
                for mode in outputs
            ]
            if chosen
            else None,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        measure_peak(*sys.argv[2:5])
    elif sys.argv[1:] == ["--peaks"]:
        measure_peaks()
    else:
        sys.path.insert(0, str(Path(__file__).parent))
        main()
