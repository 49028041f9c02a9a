"""Blocks of examples, and of cotangents, whose derivatives fit a memory limit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ntk_lab.empirical.structured.costs import Cost, Problem, backward, cost
from ntk_lab.empirical.structured.program import Part
from ntk_lab.errors import InputError
from ntk_lab.kernel.plan import free_memory

# A tile costs at least this many operations, in compiled calls and copies.
_OVERHEAD = 5e7
# Bytes that compiled code and the scratch space of convolutions take beside its arrays.
_RESERVED = 6e7
_UNROLLED = 32  # examples of a tile of the mixed form, which is unrolled over them


def default_memory() -> float:
    """Bytes that a kernel may take unless told: a quarter of what is free.

    In steps of 4%, so that what was decided for one call serves for the next.
    """
    return 2 ** (math.floor(16 * math.log2(free_memory() / 4)) / 16)


def usable(memory: float) -> float:
    """Bytes of a limit that arrays may take."""
    return memory - min(_RESERVED, max(0.0, memory - _RESERVED) / 2)


@dataclass(frozen=True)
class Tiling:
    """``block`` examples at a time, ``held`` blocks of rows kept, ``cotangents`` of each example.

    ``bytes`` is the estimate of what is held at once, beside parameters, inputs and the result.
    """

    block: int
    held: int
    cotangents: int
    bytes: float
    operations: float


@dataclass(frozen=True)
class _Model:
    """Bytes held an example, worked with an example, formed an example, used a pair."""

    held: float
    work: float
    late: float
    pair: float
    example: float
    forming: float
    products: float
    most: int

    def bytes(self, block: int, held: int, whole: bool) -> float:
        rows = block * held + (0 if whole else block)
        return (
            rows * self.held + block * self.work + 2 * block * self.late + block * block * self.pair
        )


def plan_tiles(
    closed: Any, parts: Sequence[Part], shapes: Sequence[Any], problem: Problem, memory: float
) -> Tiling:
    """The cheapest tiling within ``memory`` bytes."""
    cotangents = problem.outputs
    room = usable(memory)
    if 0 in (problem.n1, problem.n2, cotangents):
        return Tiling(1, 1, max(cotangents, 1), 0, 0)
    while True:
        part_problem = replace(problem, outputs=cotangents)
        model = _model(closed, parts, shapes, part_problem)
        found = _blocks(model, part_problem, room)
        if found is not None:
            block, held, need, operations = found
            chunks = math.ceil(problem.outputs / cotangents)
            repeats = chunks**2 if problem.mode == "full" else chunks
            return Tiling(block, held, cotangents, need, operations * repeats)
        if cotangents == 1:
            need = model.bytes(1, 1, problem.n1 == problem.n2 == 1 and problem.symmetric)
            need += min(_RESERVED, max(0.0, need - _RESERVED))
            raise InputError(
                f"one tile of the kernel of one output of one pair of examples takes {need:,.0f} "
                f"bytes, but memory={memory:,.0f}. Allow at least {need:,.0f} bytes."
            )
        cotangents = math.ceil(cotangents / 2)


def _model(closed: Any, parts: Sequence[Part], shapes: Sequence[Any], problem: Problem) -> _Model:
    costs: list[Cost] = [cost(p, shapes[p.leaf], problem) for p in parts]
    total, largest, operations = backward(closed)
    c, size = problem.outputs, problem.itemsize
    squared = c * c if problem.mode == "full" else 1 if problem.mode == "trace" else c
    return _Model(
        held=size * sum(x.held for x in costs),
        work=size * (total + 4 * c * largest),
        late=size * max((x.late for x in costs), default=0),
        pair=size * (3 * squared + max((x.scratch for x in costs), default=0)),
        example=operations * (1 + c) + sum(x.example for x in costs if not x.late),
        forming=sum(x.example for x in costs if x.late),
        products=sum(x.pair for x in costs),
        most=_UNROLLED if any(p.form == "mixed" for p in parts) else max(problem.n1, problem.n2),
    )


def _blocks(model: _Model, problem: Problem, memory: float) -> tuple[int, int, float, float] | None:
    """Block, number of blocks held, bytes and operations of the cheapest choice that fits."""
    n1, n2 = problem.n1, problem.n2
    largest = max(n1, n2)
    best = None
    for count in _counts(largest):
        block = math.ceil(largest / count)
        if block > model.most:
            continue
        rows, columns = math.ceil(n1 / block), math.ceil(n2 / block)
        whole = rows == columns == 1 and problem.symmetric
        left = memory - model.bytes(block, 0, False)
        held = 1 if whole else min(rows, int(left // (block * model.held or 1)))
        if held < 1 or model.bytes(block, held, whole) > memory:
            continue
        tiles = rows * columns * (0.5 if problem.symmetric and rows > 1 else 1)
        panels = math.ceil(rows / held)
        again = 0 if problem.symmetric and panels == 1 else columns * block * panels
        if problem.symmetric and panels > 1:
            again *= 0.5
        operations = (
            model.example * (n1 + again)
            + model.forming * 2 * block * tiles
            + model.products * problem.pairs
            + _OVERHEAD * tiles
        )
        if best is None or operations < best[3]:
            best = block, held, model.bytes(block, held, whole), operations
    return best


def _counts(largest: int) -> list[int]:
    """Numbers of blocks to be tried: all up to 16, then 25% more each."""
    counts, k = [], 1.0
    while k < largest:
        counts.append(int(k))
        k = k + 1 if k < 16 else 1.25 * k
    return [*counts, max(largest, 1)]
