"""Kernels tile by tile: programs, costs and limits brought together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.arguments import Arguments
from ntk_lab.empirical.structured.build import Program
from ntk_lab.empirical.structured.costs import Problem, choose
from ntk_lab.empirical.structured.factors import Factor, Mode, contract, formed, take
from ntk_lab.empirical.structured.program import Part
from ntk_lab.empirical.tiles import Tiling, plan_tiles

Range = tuple[int, int]
Place = tuple[Range, Range, Range, Range]
Groups = tuple[tuple[int, ...], ...]
Progress = Callable[[int, int], Any]

# Rows of panels above the diagonal in one compiled tile: 5/8 of the work of the square.
_PANELS = 4
_SMALL = 2**19  # entries of a kernel below which copying the panels takes longer than it saves


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
    shapes = [leaf.shape for leaf in args.leaves]
    parts = choose(program.parts, shapes, problem)
    tiling = plan_tiles(program.closed, parts, shapes, problem, memory)
    return Job(args, program, parts, problem, tiling, basis)


def kernels(job: Job, groups: Groups, progress: Progress | None = None) -> list[jax.Array]:
    """One kernel for each group of parts."""
    n1, n2 = job.args.sizes
    shape = (n1, n2, *job.trailing)
    if 0 in shape or not job.parts:
        return [jnp.zeros(shape, job.args.dtype) for _ in groups]
    rows, columns, chunks = _grid(job)
    symmetric = job.args.inputs2 is None
    if len(chunks) == len(rows) == len(columns) == 1:
        result = _single(job, groups, symmetric)
        if progress is not None:
            jax.block_until_ready(result)
            progress(1, 1)
        return result
    total = tiles(job)
    results = [_Result(shape, job.args.dtype, job.concrete) for _ in groups]
    for done, (place, found) in enumerate(_tiles(job, groups, rows, columns, chunks), 1):
        for result, tile in zip(results, found, strict=True):
            result.put(place, tile, job.problem.mode, symmetric)
        if progress is not None:
            progress(done, total)
    return [result.value() for result in results]


def _single(job: Job, groups: Groups, symmetric: bool) -> list[jax.Array]:
    args, program = job.args, job.program
    left = program.features(job.parts, args.leaves, args.inputs1, job.basis)
    if symmetric:
        return _square(left, job.problem.mode, groups, str(args.dtype))
    right = program.features(job.parts, args.leaves, args.inputs2 or [], job.basis)
    return _tile(left, right, job.problem.mode, groups, str(args.dtype))


def _tiles(
    job: Job, groups: Groups, rows: list[Range], columns: list[Range], chunks: list[Range]
) -> Iterator[tuple[Place, list[jax.Array]]]:
    """Tiles one after the other, features of ``held`` blocks of rows kept in memory."""
    args, mode = job.args, job.problem.mode
    symmetric = args.inputs2 is None
    block, dtype = job.tiling.block, str(args.dtype)

    def features(inputs, span, ranges, chunk):
        size = block if len(ranges) > 1 else None
        examples = [_block(leaf, span, size) for leaf in inputs]
        return job.program.features(job.parts, args.leaves, examples, _block(job.basis, chunk))

    for p, q in _chunk_pairs(chunks, symmetric, mode):
        half = symmetric and p == q
        for start in range(0, len(rows), job.tiling.held):
            panel = rows[start : start + job.tiling.held]
            held = [features(args.inputs1, span, rows, p) for span in panel]
            for j in range(start if half else 0, len(columns)):
                column = columns[j]
                if half and column in panel:
                    right = held[j - start]
                else:
                    inputs = args.inputs1 if args.inputs2 is None else args.inputs2
                    right = features(inputs, column, columns, q)
                for i, span in enumerate(panel):
                    if half and start + i > j:
                        continue
                    found = _tile(held[i], right, mode, groups, dtype)
                    found = [_cropped(t, span, column) for t in found]
                    if mode == "trace" and len(chunks) > 1:
                        found = [t * ((p[1] - p[0]) / job.problem.outputs) for t in found]
                    yield (span, column, p, q), found


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


class _Result:
    """A kernel put together from tiles: in one array where values are known, else at the end."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, concrete: bool):
        self._concrete = concrete
        self._array: Any = np.zeros(shape, dtype) if concrete else jnp.zeros(shape, dtype)

    def put(self, place: Place, tile: Any, mode: Mode, symmetric: bool) -> None:
        (i, j, p, q) = place
        self._write((i, j, p, q), tile, mode)
        if symmetric and (i != j or p != q):
            self._write((j, i, q, p), _mirror(tile), mode)

    def _write(self, place: Place, tile: Any, mode: Mode) -> None:
        i, j, p, q = (slice(*r) for r in place)
        index = {"full": (i, j, p, q), "diagonal": (i, j, p), "trace": (i, j)}[mode]
        if mode == "trace" and self._concrete:
            self._array[index] += np.asarray(tile)
        elif mode == "trace":
            self._array = self._array.at[index].add(tile)
        elif self._concrete:
            self._array[index] = np.asarray(tile)
        else:
            self._array = self._array.at[index].set(tile)

    def value(self) -> jax.Array:
        return jnp.asarray(self._array)


def _mirror(tile: Any) -> Any:
    """The tile at the transposed place; output axes, where there are two, swap as well."""
    return tile.transpose(1, 0, 3, 2) if tile.ndim == 4 else jnp.moveaxis(tile, 0, 1)


def _ranges(n: int, size: int) -> list[Range]:
    return [(i, min(i + size, n)) for i in range(0, n, size)]


def _block(leaf: Any, span: Range, size: int | None = None) -> Any:
    """Some of the rows; up to ``size``, the last of them repeated, so that one program serves."""
    start, stop = span
    block = leaf[start:stop]
    missing = (size or 0) - (stop - start)
    if missing <= 0:
        return block
    return jnp.concatenate([block, jnp.repeat(block[-1:], missing, axis=0)])


def _cropped(tile: Any, rows: Range, columns: Range) -> Any:
    n1, n2 = rows[1] - rows[0], columns[1] - columns[0]
    return tile if tile.shape[:2] == (n1, n2) else tile[:n1, :n2]


@partial(jax.jit, static_argnames=("mode", "groups", "dtype"))
def _tile(
    left: Sequence[Factor], right: Sequence[Factor], mode: Mode, groups: Groups, dtype: str
) -> list[jax.Array]:
    return _contracted(left, right, mode, groups, dtype)


@partial(jax.jit, static_argnames=("mode", "groups", "dtype"))
def _square(factors: Sequence[Factor], mode: Mode, groups: Groups, dtype: str) -> list[jax.Array]:
    """All pairs of one set of examples, from panels above the diagonal."""
    shape = jax.tree.leaves(factors[0])[0].shape
    n = shape[0]
    k = 1 if mode == "trace" else jax.tree.leaves(factors[0])[-1].shape[1]
    panels = _PANELS if n >= 2 * _PANELS and n * n * k * k >= _SMALL else 1
    edges = [round(n * i / panels) for i in range(panels + 1)]
    return [_upper([factors[i] for i in group], mode, edges, dtype) for group in groups]


def _upper(factors: Sequence[Factor], mode: Mode, edges: list[int], dtype: str) -> jax.Array:
    """Sum of the kernels of some parts, from panels above the diagonal."""
    bands: list[Any] = [0] * (len(edges) - 1)
    whole: Any = 0
    for factor in factors:
        if factor.form == "mixed":
            whole = whole + contract(factor, factor, mode, upper=True).astype(dtype)
            continue
        ready = formed(factor)
        for band, start in enumerate(edges[:-1]):
            left, right = take(ready, start, edges[band + 1]), take(ready, start, edges[-1])
            bands[band] = bands[band] + contract(left, right, mode).astype(dtype)
    if not isinstance(whole, int):
        for band, start in enumerate(edges[:-1]):
            bands[band] = bands[band] + whole[start : edges[band + 1], :, start:]
    return _assemble([_ordered(band, mode) for band in bands], edges)


def _ordered(kernel: Any, mode: Mode) -> jax.Array:
    return kernel.transpose(0, 2, 1, 3) if mode == "full" else kernel


def _assemble(bands: list[jax.Array], edges: list[int]) -> jax.Array:
    """The whole from its upper bands."""
    rows = []
    for i, band in enumerate(bands):
        below = [
            _mirror(bands[j][:, edges[i] - edges[j] : edges[i + 1] - edges[j]]) for j in range(i)
        ]
        rows.append(jnp.concatenate([*below, band], axis=1))
    return jnp.concatenate(rows, axis=0)


def _contracted(
    left: Sequence[Factor], right: Sequence[Factor], mode: Mode, groups: Groups, dtype: str
) -> list[jax.Array]:
    results = []
    for group in groups:
        parts = [contract(left[i], right[i], mode).astype(dtype) for i in group]
        total = sum(parts[1:], start=parts[0])
        results.append(_ordered(total, mode))
    return results
