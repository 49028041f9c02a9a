"""Time this library against a rival in one process, and keep the result as JSON.

A benchmark script makes one claim::

    import harness

    rows = [
        harness.race("n=1000, depth 3", ours=lambda: kernel(x), rival=lambda: rival_kernel(x))
    ]
    harness.save("dense_kernel", rows, claim="ReLU kernels are faster", rival="neural-tangents")

``ours`` and ``rival`` take no arguments and return the arrays (any pytree) that have to be ready
before the clock stops. The two run in turn, so that a slow minute of the machine hits both.
``benchmarks/table.py`` turns the saved results into the tables of the README.
"""

import dataclasses
import datetime
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("ntk_lab", "jax", "jaxlib", "numpy", "neural-tangents")
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
SHORTEST_SAMPLE = 0.02  # seconds; faster functions are called several times a sample

_compile_seconds: list[float] = []


def _record_compilation(event: str, duration: float, **_: Any) -> None:
    if event == COMPILE_EVENT:
        _compile_seconds.append(duration)


jax.monitoring.register_event_duration_secs_listener(_record_compilation)


@dataclasses.dataclass(frozen=True)
class Row:
    """One case: warm times, first-call times, and how many times faster ours is.

    Attributes
    ----------
    case : what was timed, in words
    ours_ms, rival_ms : median time of a warm call, in milliseconds
    ratio : median over the runs of rival time / our time; above 1 means that ours is faster
    ratio_low, ratio_high : quartiles of the same
    ours_first_s, rival_first_s : the first call in seconds: tracing, compiling, running
    ours_compile_s, rival_compile_s : the part of it that XLA spent compiling
    runs : samples of each
    extra : further columns, such as an error or a size in memory
    """

    case: str
    ours_ms: float
    rival_ms: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    ours_first_s: float
    rival_first_s: float | None
    ours_compile_s: float
    rival_compile_s: float | None
    runs: int
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


def race(
    case: str,
    ours: Callable[[], Any],
    rival: Callable[[], Any] | None = None,
    *,
    runs: int = 7,
    processor: bool = False,
    **extra: Any,
) -> Row:
    """Time both functions: the first call, then ``runs`` warm samples of each in turn.

    With ``processor``, the row also has ``processor_ms``, the processor time of ours, all threads
    together, and ``processor_ratio``, the same ratio of processor times.
    """
    contestants = [ours] if rival is None else [ours, rival]
    firsts = [first_call(function) for function in contestants]
    repeats = [_repeats(function) for function in contestants]
    samples: list[list[float]] = [[] for _ in contestants]
    used: list[list[float]] = [[] for _ in contestants]
    order = list(range(len(contestants)))
    with _no_garbage_collection():
        for _ in range(runs):
            for i in order:
                start = time.process_time()
                samples[i].append(_sample(contestants[i], repeats[i]))
                used[i].append((time.process_time() - start) / repeats[i])
            order.reverse()

    ours_ms = 1e3 * statistics.median(samples[0])
    if processor:
        extra["processor_ms"] = 1e3 * statistics.median(used[0])
        if rival is not None:
            extra["processor_ratio"] = statistics.median(
                theirs / mine for mine, theirs in zip(*used, strict=True)
            )
    if rival is None:
        row = Row(case, ours_ms, *[None] * 4, firsts[0][0], None, firsts[0][1], None, runs, extra)
    else:
        ratios = [theirs / mine for mine, theirs in zip(*samples, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        row = Row(
            case=case,
            ours_ms=ours_ms,
            rival_ms=1e3 * statistics.median(samples[1]),
            ratio=ratio,
            ratio_low=low,
            ratio_high=high,
            ours_first_s=firsts[0][0],
            rival_first_s=firsts[1][0],
            ours_compile_s=firsts[0][1],
            rival_compile_s=firsts[1][1],
            runs=runs,
            extra=extra,
        )
    print(_line(row), flush=True)
    return row


def median_ms(function: Callable[[], Any], runs: int = 7) -> float:
    """Median time of a warm call in milliseconds."""
    repeats = _repeats(function)
    return 1e3 * statistics.median(_sample(function, repeats) for _ in range(runs))


def peak_memory() -> float:
    """Bytes of memory that this process has held at most.

    ``ru_maxrss`` would do, but a new process inherits that of the one that started it.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024.0 * float(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def held_memory(forget: bool = False) -> float:
    """Bytes of memory that this process holds now; ``forget`` starts `peak_memory` anew from it."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def elementwise_rate() -> float:
    """Multiply-adds a second of one fused elementwise operation on data in the cache, all cores."""
    terms = 256
    x = jnp.linspace(0, 1, 2**17, dtype=jnp.float32)

    @jax.jit
    def polynomial(x):
        total = x
        for k in range(terms):
            total = total * x + float(k)
        return total

    return x.size * terms / (1e-3 * median_ms(lambda: polynomial(x)))


def save(
    name: str,
    rows: Sequence[Row],
    *,
    claim: str,
    rival: str | None = None,
    order: Sequence[str] | None = None,
) -> Path:
    """Write ``results/<name>.json``: the rows, what they claim, and on what they were measured.

    With ``order``, the names of all cases, rows of other cases that are there already are kept: a
    long benchmark can be run in pieces, on one machine and with one set of versions.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    found = {row.case: rounded(dataclasses.asdict(row)) for row in rows}
    if order is not None and path.exists():
        old = {row["case"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
        both = old | found
        found = {case: both[case] for case in order if case in both}
    record = {
        "name": name,
        "claim": claim,
        "rival": rival,
        "measured": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "x64": bool(jax.config.jax_enable_x64),
        "rows": list(found.values()),
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def within_limits(script: str, cases: Sequence[tuple[str, str, float]]) -> list[Row]:
    """Rows of a script's ``--measure CASE LIMIT``, each in a fresh process.

    ``cases`` are what a row is called, the script's name of the case, and its limit in GB; the
    script prints a JSON object with ``seconds`` on its last line.
    """
    rows = []
    for label, case, limit in cases:
        command = [sys.executable, script, "--measure", case, str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr)
            raise SystemExit(f"{label} did not finish")
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{label}: {found}", flush=True)
        seconds = found.pop("seconds")
        rows.append(Row(label, 1e3 * seconds, *[None] * 4, seconds, None, 0.0, None, 1, found))
    return rows


def load(name: str) -> list[Row]:
    """The rows that were saved under that name."""
    record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return [Row(**row) for row in record["rows"]]


def machine() -> dict[str, Any]:
    """Describe the hardware: nothing that identifies the computer or its user."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "ram_gib": round(ram),
        "system": platform.system(),
        "device": jax.devices()[0].device_kind,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter here, where installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def first_call(function: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the first call, and those spent compiling in it."""
    _compile_seconds.clear()
    seconds = _sample(function, 1)
    return seconds, sum(_compile_seconds)


def _repeats(function: Callable[[], Any]) -> int:
    """Warm up, and find how many calls make a sample long enough for the clock."""
    _sample(function, 1)
    return math.ceil(SHORTEST_SAMPLE / max(_sample(function, 1), 1e-6))


def _sample(function: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(function())
    return (time.perf_counter() - start) / repeats


@contextmanager
def _no_garbage_collection():
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _cpu_model() -> str:
    try:
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.check_output(command, text=True).strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.machine()


def rounded(value: Any) -> Any:
    """Four significant digits: more would only be noise in the committed files."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.4g}")
    return value


def _line(row: Row) -> str:
    line = f"{row.case}: ours {row.ours_ms:.3g} ms (first call {row.ours_first_s:.3g} s)"
    if row.rival_ms is None:
        return line
    return (
        f"{line}, rival {row.rival_ms:.3g} ms (first call {row.rival_first_s:.3g} s), "
        f"{row.ratio:.3g} times faster ({row.ratio_low:.3g} to {row.ratio_high:.3g})"
    )
