"""What a kernel will cost, and the tiles that keep it within memory."""

import math
from dataclasses import dataclass
from typing import Any

import jax

from ntk_lab.errors import InputError
from ntk_lab.kernel.layout import Carry

# Share of the free memory that a kernel may take, unless told; bytes that are always free.
_SHARE = 0.5
_SURELY_FREE = 2**26
# Entries of one array of a tile, where positions are carried: few enough that the arrays of a
# tile stay in the cache, enough that starting a tile does not weigh.
_ENTRIES = {Carry.DIAGONAL: 2**19, Carry.FULL: 2**18, Carry.OWN: 2**18}
_CLASSES = ((1.0, "under a second"), (60.0, "seconds"), (3600.0, "minutes"), (math.inf, "hours"))
# Elementwise results a second on an ordinary machine: good to an order of magnitude.
_RATE = 2e8

REPRESENTATIONS = {
    Carry.DIAGONAL: "spatial diagonal",
    Carry.FULL: "full spatial",
    Carry.OWN: "full spatial, with each example's own",
}


@dataclass(frozen=True)
class Plan:
    """Cost of a kernel of ``(n1, n2)`` entries, and how it is computed.

    Attributes
    ----------
    representation
        What is carried for each pair of examples: ``vector``, ``spatial diagonal``, ``full
        spatial``, or the last ``with each example's own``.
    tile
        Rows and columns computed at a time.
    tiles
        Number of tiles; of a symmetric kernel those on and above the diagonal.
    tile_bytes, result_bytes
        Memory of one tile (estimated from its largest arrays) and of the two result matrices.
    operations
        Elementwise results, about, for the whole kernel.
    workers
        Tiles computed at the same time.
    """

    shape: tuple[int, int]
    representation: str
    tile: tuple[int, int]
    tiles: int
    tile_bytes: int
    result_bytes: int
    operations: float
    workers: int

    @property
    def time_class(self) -> str:
        """Order of magnitude of the time on an ordinary CPU."""
        seconds = self.operations / _RATE
        return next(name for limit, name in _CLASSES if seconds <= limit)

    def __str__(self) -> str:
        return (
            f"kernel of {self.shape[0]} x {self.shape[1]} examples: {self.representation}, "
            f"{self.tiles} tile{'s' * (self.tiles > 1)} of {self.tile[0]} x {self.tile[1]}\n"
            f"memory: {_size(self.result_bytes)} for the result, about "
            f"{_size(self.workers * self.tile_bytes)} for {self.workers} "
            f"tile{'s' * (self.workers > 1)} at a time\n"
            f"time: {self.time_class} (about {self.operations:.1e} elementwise operations)"
        )


@dataclass(frozen=True)
class Cost:
    """Arrays of one tile, in entries for each pair of examples."""

    largest: float
    total: float


def make_plan(
    cost: Cost,
    carry: Carry | None,
    shape: tuple[int, int],
    symmetric: bool,
    outputs: int,
    itemsize: int,
    memory_limit: int | None = None,
    workers: int = 1,
) -> Plan:
    """Tiles for a kernel of that shape within ``memory_limit`` bytes (half of what is free)."""
    n1, n2 = shape
    result = 2 * n1 * n2 * outputs * itemsize
    # Arrays of a tile that are alive at a time: measured at 6 to 8 of the largest.
    # Of vectors, whatever is larger belongs to one example or to a few doubtful pairs.
    largest = 1.0 if carry is None else cost.largest
    per_pair = 8 * largest * itemsize
    whole = result + per_pair * n1 * n2
    limit = available_memory(memory_limit, whole)
    room = limit - result
    if room < per_pair:
        raise InputError(
            f"a kernel of {n1} x {n2} examples needs {_size(result)} for its two matrices and at "
            f"least {_size(per_pair)} to compute them, but only {_size(limit)} may be used. Use "
            "fewer examples at a time, float32, or a machine with more memory (or raise "
            "memory_limit)."
        )
    pairs = room / per_pair / workers
    if carry is not None:
        pairs = min(pairs, _ENTRIES[carry] / largest)
    tile = _tile(n1, n2, pairs)
    rows, columns = -(-n1 // tile[0]), -(-n2 // tile[1])
    tiles = rows * (rows + 1) // 2 if symmetric and tile[0] == tile[1] else rows * columns
    name = "vector" if carry is None else REPRESENTATIONS[carry]
    operations = cost.total * n1 * n2 * (0.5 if symmetric else 1)
    area = int(per_pair * tile[0] * tile[1])
    return Plan(shape, name, tile, tiles, area, result, operations, min(workers, tiles))


def available_memory(limit: int | None, needed: float) -> int:
    """Bytes that may be used by what needs about so many: half of what is free unless told."""
    if limit is not None:
        return limit
    # What is free takes longer to find out than a small kernel.
    return _SURELY_FREE if needed < _SURELY_FREE else int(_SHARE * free_memory())


def _tile(n1: int, n2: int, pairs: float) -> tuple[int, int]:
    """The whole kernel if it fits, else square tiles of nearly equal size."""
    if n1 * n2 <= pairs:
        return n1, n2
    side = max(1, math.isqrt(int(pairs)))
    return _even(n1, side), _even(n2, side)


def _even(size: int, at_most: int) -> int:
    return -(-size // -(-size // min(at_most, size)))


def free_memory() -> int:
    """Bytes that can be allocated: of the accelerator, or of this machine and its limits."""
    statistics = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    return _host_memory()


def _host_memory() -> int:
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * 2**30


def count(function: Any, *args: Any) -> Cost:
    """Largest array and sum of all arrays that a function computes, in entries."""
    closed = jax.make_jaxpr(function)(*args)
    largest, total = _count(closed.jaxpr)
    return Cost(largest, total)


def _count(jaxpr: Any) -> tuple[float, float]:
    largest, total = 0.0, 0.0
    for equation in jaxpr.eqns:
        repeats = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        inner = [p for value in equation.params.values() for p in _jaxprs(value)]
        if inner:
            counts = [_count(p) for p in inner]
            largest = max(largest, *(c[0] for c in counts))
            total += repeats * max(c[1] for c in counts)
        else:
            sizes = [math.prod(v.aval.shape) for v in equation.outvars]
            largest, total = max([largest, *sizes]), total + sum(sizes)
    return largest, total


def _jaxprs(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [j for item in value for j in _jaxprs(item)]
    if hasattr(value, "jaxpr"):
        value = value.jaxpr
    return [value] if hasattr(value, "eqns") else []


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
