"""Kernels written to disk as they are computed, and what tells one from another."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.empirical import engine
from ntk_lab.empirical.checks import check_finite
from ntk_lab.empirical.fingerprint import constants, digest, gradient_program, program_text
from ntk_lab.empirical.store import Store
from ntk_lab.errors import InputError


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
    gradient = gradient_program(args)
    programs = job.program.closed.jaxpr, gradient.jaxpr
    held = [*job.program.consts, *gradient.consts, *(c for p in programs for c in constants(p))]
    trees = [str(jax.tree.structure(tree)) for tree in (args.params, args.x1)]
    second = args.inputs1 if args.inputs2 is None else args.inputs2
    return {
        "JAX": jax.__version__,
        "f": digest([program_text(p) for p in programs], held),
        "params": digest([trees[0], *map(str, args.paths)], args.leaves),
        "x1": digest([trees[1]], args.inputs1),
        "x2": digest([trees[1], str(args.inputs2 is None)], second),
        "outputs": digest([job.problem.mode], [job.basis]),
        "method": "structured" if method == "auto" else method,
        "select": digest([str(args.selected)], []),
        "precision": f"{signature.precision}, {jnp.dtype(args.dtype).name}",
    }
