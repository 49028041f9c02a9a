"""``ntk-lab plan``: time, memory and disk of a kernel or a regression, before anything starts."""

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ntk_lab.cli_data import read, size_text, time_text
from ntk_lab.cli_kernel import add_computation, add_data, names
from ntk_lab.cli_network import add_architecture, architecture

# Passes over a kernel that iterations take, about; operations a second of a factor, about.
_PASSES, _RATE = 40, 5e10


# fmt: off
def add_parser(commands: Any) -> None:
    """Describe the command."""
    plan = commands.add_parser(
        "plan",
        help="time, memory and disk of a kernel or regression, before anything starts",
        description="Say what `ntk-lab kernel` and `ntk-lab regress` will take for these data: "
        "time (from one tile that is timed on this machine), memory and disk.",
        epilog="Example: ntk-lab plan x.npy --depth 3 --memory 4GB",
    )
    add_data(plan.add_argument_group("data"))
    add_architecture(plan.add_argument_group("network"))
    group = plan.add_argument_group("computation")
    add_computation(group)
    group.add_argument("--output", type=Path, default=Path("."), metavar="FOLDER",
        help="whose disk would be used (default: the current one)")
    plan.set_defaults(run=run, goodbye=lambda args: "Nothing was computed.")
# fmt: on


def run(args: argparse.Namespace, argv: Sequence[str]) -> str:
    """What is printed."""
    from ntk_lab.kernel.computed import Computed
    from ntk_lab.kernel.folder import bytes_of_tile

    x = read(args.x)
    x2 = None if args.x2 is None else read(args.x2)
    net = architecture(args, tuple(x.shape[1:]))
    job = Computed(net, x, x2, args.memory)
    seconds = _seconds(job)
    tiles = len(job.places)
    disk = tiles * bytes_of_tile(job.side, job.trailing, job.dtype, len(names(args)))
    place = args.output.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    half = ", one half of it" if job.symmetric else ""
    lines = [
        f"kernel: {job.shape[0]} x {job.shape[1]} in {job.dtype}{half}",
        f"time: about {time_text(seconds)} ({tiles} tiles of {job.side} x {job.side})",
        f"memory: {size_text(job.memory)} allowed; {size_text(job.bytes)} for what is kept of a "
        "tile, the rest to compute it",
        f"disk: {size_text(disk)} of {size_text(free)} free"
        + ("" if disk <= free else " -- NOT ENOUGH"),
    ]
    return "\n".join([*lines, *(_regression(job, seconds) if job.symmetric else [])])


def _seconds(job: Any) -> float:
    """Time of the whole kernel, from a tile; the first one also compiles."""
    i, j = job.places[min(1, len(job.places) - 1)]
    job.tile(i, j)
    start = time.perf_counter()
    job.tile(i, j)
    return (time.perf_counter() - start) * len(job.places)


def _regression(job: Any, seconds: float) -> list[str]:
    from ntk_lab.predict.regress import choose, keeps
    from ntk_lab.solve.cholesky import cholesky_bytes

    n = job.shape[0]
    method, reason = choose("auto", n, job.dtype.itemsize, job.memory)
    if method == "cholesky":
        needed = f"{size_text(cholesky_bytes(n, job.dtype.itemsize))} in memory"
        took = seconds * 3 + n**3 / 3 / _RATE
    elif method == "cg":
        kept = keeps(n, job.dtype.itemsize, job.memory)
        needed = "half of the kernel in memory" if kept else "no kernel kept (or one by --store)"
        reading = 4e-9 * n**2 / 2 if kept else seconds
        took = seconds + _PASSES * reading
    else:
        needed, took = "products of 4096 centres", seconds * 2 * 4096 / n + n * 4096**2 / _RATE
    return [f"regression: {method} ({reason}), {needed}, about {time_text(took)}"]
