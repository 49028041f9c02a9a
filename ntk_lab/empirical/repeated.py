"""Calls like an earlier one: everything but the values is known, and one program is left to run.

Looking at arguments, planning and the keys of caches take half a millisecond, more than the kernel
of a small network.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.arguments import as_array
from ntk_lab.empirical.checks import finite
from ntk_lab.empirical.contraction import Contraction, Groups
from ntk_lab.empirical.engine import Job, Pair, tiles
from ntk_lab.empirical.fixed import Fixed
from ntk_lab.empirical.structured.build import Program
from ntk_lab.empirical.tiles import default_memory, usable

_MOST = 64  # calls remembered
_MODES = "jax_enable_x64", "jax_default_matmul_precision"  # settings that programs depend on
# Bytes that are taken without asking how much is free.
_LITTLE = 2**24


@dataclass(frozen=True)
class Repeated:
    """One program, and how much memory it takes."""

    program: Program
    choice: Fixed
    bases: Pair
    bytes: float


_known: OrderedDict[Any, Repeated] = OrderedDict()


@dataclass(frozen=True)
class Call:
    """A call whose arrays all hold values, and what it is known by."""

    key: Any
    leaves: list[jax.Array]
    inputs: tuple[list[jax.Array], list[jax.Array] | None]


def call(f: Callable[..., Any], params: Any, x1: Any, x2: Any, *settings: Any) -> Call | None:
    """The call, None if it has values that cannot be looked at or anything that has no hash."""
    trees = [jax.tree.flatten(tree) for tree in (params, x1, x2)]
    leaves, inputs1, inputs2 = [[as_array(leaf) for leaf in flat] for flat, _ in trees]
    if not is_concrete(leaves, inputs1, inputs2):
        return None
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in (*leaves, *inputs1, *inputs2))
    modes = tuple(getattr(jax.config, name, None) for name in _MODES)
    key = (f, settings, tuple(tree for _, tree in trees), shapes, modes)
    try:
        hash(key)
    except TypeError:
        return None
    return Call(key, leaves, (inputs1, None if x2 is None else inputs2))


def again(call: Call, memory: float | None) -> jax.Array | None:
    """The kernel, if it was computed before in one piece that fits, and is finite now."""
    known = _known.get(call.key)
    if known is None or not _fits(known.bytes, memory):
        return None
    _known.move_to_end(call.key)
    values = [*known.program.consts, *call.leaves]
    (kernel,) = known.program.run.known(known.choice, values, call.inputs, known.bases)
    # What is wrong with a kernel that is not finite is said where it is computed anew.
    return kernel if not is_concrete(kernel) or finite(kernel) else None


def _fits(need: float, memory: float | None) -> bool:
    if memory is None:
        return need <= _LITTLE or need <= usable(default_memory())
    return need <= usable(memory)


def remember(call: Call, job: Job, groups: Groups) -> None:
    """A job that has been done, and was done in one piece."""
    n1, n2 = job.args.sizes
    if not job.concrete or not job.parts or tiles(job) != 1 or 0 in (n1, n2, *job.trailing):
        return
    choice = Fixed((tuple(job.parts), Contraction(job.problem.mode, groups, str(job.args.dtype))))
    _known[call.key] = Repeated(job.program, choice, (job.basis, job.basis), job.tiling.bytes)
    while len(_known) > _MOST:
        _known.popitem(last=False)
