"""How many seeds are trained at once: within the memory, and as fast as the machine can."""

import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.train.program import Carry, Program, count, has_convolutions

# Below so many products of parameters and examples an update, the overhead of its operations is
# more than their work, and seeds are vectorised on CPUs too.
_TINY = 3e6
_UNITS = {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@dataclass(frozen=True)
class Groups:
    """``size`` seeds in one call of a compiled program, ``workers`` calls at once on a device.

    ``run`` is the compiled ``Program.advance``; ``left`` what remains of the memory limit for
    what is recorded, None without a limit.
    """

    size: int
    workers: int
    run: Any
    block: int
    left: float | None

    def split(self, places: list[int]) -> list[list[int]]:
        """Places of the seeds of each group; the last is filled up by repetition."""
        filled = places + places[-1:] * (-len(places) % self.size)
        return [filled[i : i + self.size] for i in range(0, len(filled), self.size)]


def read_memory(memory: float | str | None) -> float | None:
    """Bytes, from a number or a text such as ``"2GB"``."""
    if memory is None:
        return None
    if isinstance(memory, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-zA-Z]*)\s*", memory)
        if match is None or match[2] not in _UNITS:
            raise InputError(
                f"memory={memory!r}; give bytes, or a text such as '2GB' ({', '.join(_UNITS)[2:]})."
            )
        memory = float(match[1]) * _UNITS[match[2]]
    if not 0 < memory < float("inf"):
        raise InputError(f"memory={memory}; it must be a positive number of bytes.")
    return float(memory)


def unlooped(f: Any, params: Any, x: Any, on_cpu: bool) -> bool:
    """Whether updates are better driven one by one than in a compiled loop."""
    return on_cpu and has_convolutions(f, params, x)


def plan_groups(
    program: Program, params: Any, x: Any, y: jax.Array, key: jax.Array, memory: float | None,
    cores_each: int | None,
) -> Groups:  # fmt: skip
    """The fastest way within the limit; an error with numbers where not even one seed fits.

    Of one device, that of ``x``, which has ``cores_each``, or None if it is no CPU.
    """
    sizes, workers = _wanted(program, params, count(params), x, cores_each)
    while True:
        run = lower(program, params, sizes, x, y, key).compile()
        if memory is None:
            return Groups(sizes, workers, run, count(x), None)
        each, shown, block = _needs(program, params, sizes, x, run, memory)
        workers = int(min(workers, (memory - shown) // each)) if memory > shown else 0
        if workers >= 1:
            return Groups(sizes, workers, run, block, memory - workers * each)
        if sizes == 1:
            raise InputError(
                f"memory={memory:.3g} bytes is too small: training one seed takes {each:.3g} bytes "
                f"(parameters, optimizer, gradients, activations) and looking at {block} outputs "
                f"{shown:.3g}. Allow {each + shown:.3g} bytes, or use smaller batches."
            )
        sizes, workers = -(-sizes // 2), cores_each or 1


def _wanted(
    program: Program, params: Any, seeds: int, x: Any, cores_each: int | None
) -> tuple[int, int]:
    if cores_each is None:
        return seeds, 1
    size = sum(leaf.size for leaf in jax.tree.leaves(params)) / seeds
    work = size * (count(x) if program.batch is None else program.batch)
    together = 1 if work > _TINY or not program.looped else -(-seeds // cores_each)
    return together, min(cores_each, -(-seeds // together))


def shapes(params: Any, size: int) -> Any:
    """Shapes of ``size`` seeds' parameters, or of as many examples."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), params)


def lower(program: Program, params: Any, size: int, x: Any, y: Any, key: Any) -> jax.stages.Lowered:
    """``Program.advance`` for so many seeds, on the device of ``x``."""
    group, step = shapes(params, size), jnp.int32(0)
    carry: Carry = jax.eval_shape(program.start, group, x, key, step)
    return program.advance.lower(carry, group, x, y, key, step, step)


def _needs(
    program: Program, params: Any, size: int, x: Any, run: Any, memory: float
) -> tuple[float, float, int]:
    """Bytes of training a group, of looking at its outputs, and of how many examples at once."""
    group, data = shapes(params, size), _bytes(x)
    found = run.memory_analysis()
    each = found.argument_size_in_bytes - data + found.temp_size_in_bytes
    each += found.output_size_in_bytes - found.alias_size_in_bytes
    block = count(x)
    while True:
        found = program.outputs.lower(group, group, shapes(x, block)).compile().memory_analysis()
        shown = found.temp_size_in_bytes + found.output_size_in_bytes
        if block == 1 or each + shown <= memory:
            return float(each), float(shown), block
        block = -(-block // 4)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
