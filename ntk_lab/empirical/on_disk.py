"""Kernels written to disk as they are computed, and what tells one from another."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.empirical import engine
from ntk_lab.empirical.checks import check_finite
from ntk_lab.empirical.store import Store
from ntk_lab.errors import InputError

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def on_disk(
    job: engine.Job, path: Any, method: str, memory: float | None, progress: Any
) -> np.ndarray:
    """The kernel of ``job`` in the folder ``path``, computed as far as it is not there yet."""
    if not job.concrete:
        raise InputError(
            "path is given, but values are traced by jit, grad or vmap. Kernels are written to "
            "disk outside of these only."
        )
    shape = (*job.args.sizes, *job.trailing)
    if 0 in shape:
        return np.zeros(shape, job.args.dtype)
    with Store(path, job, _settings(job, method), memory).opened() as store:
        job, total = store.job, engine.tiles(store.job)
        group = (tuple(range(len(job.parts))),)
        tiles = engine.walk(job, group, skip=store.done) if job.parts else iter(())
        for place, (tile,) in tiles:
            check_finite(tile, job.args)
            store.put(place, tile)
            if progress is not None:
                progress(store.done, total)
    return store.read()


def _settings(job: engine.Job, method: str) -> dict[str, str]:
    """What a kernel is of, each part under the name that users know it by."""
    args = job.args
    signature = args.signature(structured=True, merge=True)
    text = _ADDRESS.sub("", str(job.program.closed.jaxpr))
    inner = list(_constants(job.program.closed.jaxpr))
    trees = [str(jax.tree.structure(tree)) for tree in (args.params, args.x1)]
    second = args.inputs1 if args.inputs2 is None else args.inputs2
    return {
        "JAX": jax.__version__,
        "f": _digest([text], [*job.program.consts, *inner]),
        "params": _digest([trees[0], *map(str, args.paths)], args.leaves),
        "x1": _digest([trees[1]], args.inputs1),
        "x2": _digest([trees[1], str(args.inputs2 is None)], second),
        "outputs": _digest([job.problem.mode], [job.basis]),
        "method": "structured" if method == "auto" else method,
        "select": _digest([str(args.selected)], []),
        "precision": f"{signature.precision}, {jnp.dtype(args.dtype).name}",
    }


def _constants(jaxpr: Any) -> Iterator[Any]:
    """Arrays inside a program that its text does not show."""
    for equation in jaxpr.eqns:
        for variable in equation.invars:
            if np.size(getattr(variable, "val", 0)) > 1:
                yield variable.val
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if hasattr(value, "consts"):
                yield from value.consts
            if _is_program(value):
                yield from _constants(getattr(value, "jaxpr", value))


def _is_program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def _digest(texts: list[str], arrays: list[Any]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    for array in arrays:
        if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
