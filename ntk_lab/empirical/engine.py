"""Kernels tile by tile: programs, costs and limits brought together."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.aligned import aligned
from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.arguments import Arguments
from ntk_lab.empirical.contraction import Contraction, Groups, mirror, rectangle
from ntk_lab.empirical.release import release, resident
from ntk_lab.empirical.structured.build import Program
from ntk_lab.empirical.structured.costs import Problem, choose
from ntk_lab.empirical.structured.factors import Mode
from ntk_lab.empirical.structured.program import Part
from ntk_lab.empirical.tiles import Tiling, plan_tiles

Range = tuple[int, int]
Place = tuple[Range, Range, Range, Range]
Pair = tuple[Any, Any]
Progress = Callable[[int, int], Any]


class Recipe(NamedTuple):
    """What compilation depends on."""

    program: Program
    parts: tuple[Part, ...]
    mode: Mode
    dtype: str


@dataclass(frozen=True)
class Job:
    """Everything that is decided before anything is computed."""

    args: Arguments
    program: Program
    parts: list[Part]
    problem: Problem
    tiling: Tiling
    basis: Any

    @property
    def recipe(self) -> Recipe:
        """What compilation depends on."""
        return Recipe(self.program, tuple(self.parts), self.problem.mode, str(self.args.dtype))

    @property
    def concrete(self) -> bool:
        """Whether all values can be looked at."""
        return self.args.concrete and is_concrete(self.program.consts)

    @property
    def trailing(self) -> tuple[int, ...]:
        """Shape of the kernel after its two axes of examples."""
        k = self.problem.outputs
        return {"full": (k, k), "diagonal": (k,), "trace": ()}[self.problem.mode]


def job(args: Arguments, program: Program, mode: Mode, basis: Any, memory: float) -> Job:
    """Forms of all parts and tiles, for cotangents ``basis``."""
    n1, n2 = args.sizes
    itemsize = jnp.dtype(args.dtype).itemsize
    problem = Problem(n1, n2, args.inputs2 is None, len(basis), mode, itemsize)
    shapes = tuple(leaf.shape for leaf in args.leaves)
    parts, tiling = _decided(program, shapes, problem, memory)
    return Job(args, program, parts, problem, tiling, basis)


@lru_cache(maxsize=64)
def _decided(
    program: Program, shapes: tuple[Any, ...], problem: Problem, memory: float
) -> tuple[list[Part], Tiling]:
    parts = choose(program.parts, shapes, problem)
    return parts, plan_tiles(program.closed, parts, shapes, problem, memory)


def kernels(job: Job, groups: Groups, progress: Progress | None = None) -> list[jax.Array]:
    """One kernel for each group of parts."""
    n1, n2 = job.args.sizes
    shape = (n1, n2, *job.trailing)
    if 0 in shape or not job.parts:
        return [jnp.zeros(shape, job.args.dtype) for _ in groups]
    total = tiles(job)
    if total == 1:
        result = _single(job, groups)
        if progress is not None:
            jax.block_until_ready(result)
            progress(1, 1)
        return result
    results = [Result(shape, job.args.dtype, job.concrete) for _ in groups]
    for done, (place, found) in enumerate(walk(job, groups), 1):
        for result, tile in zip(results, found, strict=True):
            result.put(job, place, tile)
        if progress is not None:
            progress(done, total)
    return [result.value() for result in results]


def _single(job: Job, groups: Groups) -> list[jax.Array]:
    args = job.args
    return once(
        job.recipe, groups, args.leaves, (args.inputs1, args.inputs2), (job.basis, job.basis)
    )


def once(
    recipe: Recipe, groups: Groups, leaves: Sequence[Any], inputs: Pair, bases: Pair
) -> list[jax.Array]:
    """Kernels of some examples in one piece; the second inputs are None where they are the first.

    The program runs on ``leaves``, for two sets of cotangents.
    """
    program, parts, mode, dtype = recipe
    return program.consumed(parts, Contraction(mode, groups, dtype), leaves, inputs, bases)


def walk(job: Job, groups: Groups, skip: int = 0) -> Iterator[tuple[Place, list[jax.Array]]]:
    """Tiles one after the other but the first ``skip``, always in the same order.

    Features of ``held`` blocks of rows are kept in memory.
    """
    if tiles(job) == 1:
        if not skip:
            yield next(places(job)), _single(job, groups)
        return
    args = job.args
    rows, columns, _ = _grid(job)
    symmetric = args.inputs2 is None

    def features(inputs, ranges, number, chunk):
        size = job.tiling.block if len(ranges) > 1 else None
        examples = [block(leaf, ranges[number], size) for leaf in inputs]
        found = job.program.features(job.parts, args.leaves, examples, block(job.basis, chunk))
        # One after the other: programs that run at once add up their memory.
        return jax.block_until_ready(found) if job.concrete else found

    most = resident() + 0.7 * job.tiling.bytes
    held: list[Any] = []
    right: Any = None
    of_held = of_right = None
    for p, q, start, j, i in islice(_order(job), skip, None):
        if of_held != (p, start):
            panel = range(start, min(start + job.tiling.held, len(rows)))
            # What was held is let go before its successors are made.
            held, right, of_right = [], None, None
            release(most)
            held, of_held = [features(args.inputs1, rows, k, p) for k in panel], (p, start)
        if of_right != (p, q, start, j):
            right = None
            release(most)
            if symmetric and p == q and j < start + len(held):
                right = held[j - start]
            else:
                inputs = args.inputs1 if args.inputs2 is None else args.inputs2
                right = features(inputs, columns, j, q)
            of_right = p, q, start, j
        found = rectangle(held[i - start], right, job.problem.mode, groups, str(args.dtype))
        place = rows[i], columns[j], p, q
        yield place, [finished(job, place, tile) for tile in found]


def places(job: Job) -> Iterator[Place]:
    """Rows, columns and outputs of all tiles, in the order of `walk`."""
    rows, columns, _ = _grid(job)
    for p, q, _, j, i in _order(job):
        yield rows[i], columns[j], p, q


def _order(job: Job) -> Iterator[tuple[Range, Range, int, int, int]]:
    """Cotangents, first row of the panel held, column and row of each tile."""
    rows, columns, chunks = _grid(job)
    symmetric = job.args.inputs2 is None
    for p, q in _chunk_pairs(chunks, symmetric, job.problem.mode):
        half = symmetric and p == q
        for start in range(0, len(rows), job.tiling.held):
            for j in range(start if half else 0, len(columns)):
                for i in range(start, min(start + job.tiling.held, len(rows))):
                    if not half or i <= j:
                        yield p, q, start, j, i


def _chunk_pairs(chunks: list[Range], symmetric: bool, mode: Mode) -> list[tuple[Range, Range]]:
    if mode != "full":
        return [(p, p) for p in chunks]
    return [(p, q) for i, p in enumerate(chunks) for q in chunks[i if symmetric else 0 :]]


def tiles(job: Job) -> int:
    """Number of tiles."""
    rows, columns, chunks = map(len, _grid(job))
    square, half = rows * columns, rows * (rows + 1) // 2
    symmetric = job.args.inputs2 is None
    if job.problem.mode != "full":
        return chunks * (half if symmetric else square)
    if symmetric:
        return chunks * half + chunks * (chunks - 1) // 2 * square
    return chunks * chunks * square


def _grid(job: Job) -> tuple[list[Range], list[Range], list[Range]]:
    n1, n2 = job.args.sizes
    rows, columns = (_ranges(n, job.tiling.block) for n in (n1, n2))
    return rows, columns, _ranges(job.problem.outputs, job.tiling.cotangents)


class Result:
    """A kernel put together from tiles: in one array where values are known, else at the end."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, concrete: bool):
        self._concrete = concrete
        make = functools.partial(aligned, zeros=True) if concrete else jnp.zeros
        self._array: Any = make(shape, dtype)

    def put(self, job: Job, place: Place, tile: Any) -> None:
        """Write a tile, and its mirror image where ``x2`` is ``x1``."""
        for index, values in images(job, place, tile):
            if self._concrete:
                values = np.asarray(values)
            if adds_up(job) and self._concrete:
                self._array[index] += values
            elif adds_up(job):
                self._array = self._array.at[index].add(values)
            elif self._concrete:
                self._array[index] = values
            else:
                self._array = self._array.at[index].set(values)

    def value(self) -> jax.Array:
        """The kernel, in the same memory; nothing may be put into it any more."""
        return jax.device_put(self._array) if self._concrete else self._array


def adds_up(job: Job) -> bool:
    """Whether several tiles have the same place, and are added: a trace in pieces."""
    return job.problem.mode == "trace" and job.tiling.cotangents < job.problem.outputs


def images(job: Job, place: Place, tile: Any) -> Iterator[tuple[Any, Any]]:
    """Where in the kernel the values of a tile stand, once or twice."""
    i, j, p, q = place
    yield _index(job, i, j, p, q), tile
    if job.args.inputs2 is None and (i != j or p != q):
        yield _index(job, j, i, q, p), mirror(tile)


def _index(job: Job, *place: Range) -> tuple[slice, ...]:
    slices = tuple(slice(*r) for r in place)
    return slices[: {"full": 4, "diagonal": 3, "trace": 2}[job.problem.mode]]


def finished(job: Job, place: Place, tile: Any) -> Any:
    """A tile without the rows that fill it up, and its share of the trace."""
    tile = _cropped(tile, *place[:2])
    if adds_up(job):
        tile = tile * ((place[2][1] - place[2][0]) / job.problem.outputs)
    return tile


def _ranges(n: int, size: int) -> list[Range]:
    return [(i, min(i + size, n)) for i in range(0, n, size)]


def block(leaf: Any, span: Range, size: int | None = None) -> Any:
    """Some of the rows; up to ``size``, the last of them repeated, so that one program serves."""
    start, stop = span
    chosen = leaf[start:stop]
    missing = (size or 0) - (stop - start)
    if missing <= 0:
        return chosen
    return jnp.concatenate([chosen, jnp.repeat(chosen[-1:], missing, axis=0)])


def _cropped(tile: Any, rows: Range, columns: Range) -> Any:
    n1, n2 = rows[1] - rows[0], columns[1] - columns[0]
    return tile if tile.shape[:2] == (n1, n2) else tile[:n1, :n2]
