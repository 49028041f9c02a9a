"""Unfinished training runs on disk: the last state of each group of seeds, and what it recorded."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.checkpoints import Folder, fingerprint, loss_fingerprint, optimizer_fingerprint
from ntk_lab.compiled import compiled
from ntk_lab.train.program import Carry, Program
from ntk_lab.train.record import Record, Recorder


class Store:
    """A folder with the state of each group and a file for each recorded step.

    The state is written after what was recorded up to it, so that a run can be cut off anywhere.
    """

    def __init__(self, folder: str | os.PathLike, settings: dict[str, Any]):
        self._files = Folder(Path(folder) / "training", folder, settings, "training run")

    def save(self, seeds: list[int], step: int, carry: Carry) -> None:
        """Keep the state of a group after ``step`` updates."""
        leaves = [_plain(leaf) for leaf in jax.tree.leaves(carry)]
        arrays = {f"leaf/{i}": leaf for i, leaf in enumerate(leaves)}
        self._files.write(f"{_name(seeds)}-state.npz", arrays | {"step": np.asarray(step)})

    def load(self, seeds: list[int], like: Any) -> tuple[int, Carry] | None:
        """Step and state of a group, with the shapes of ``like``; None if there is none."""
        found = self._files.read(f"{_name(seeds)}-state.npz")
        leaves, tree = jax.tree.flatten(like)
        if found is None or len(found) != len(leaves) + 1:
            return None
        stored = [_typed(found[f"leaf/{i}"], leaf) for i, leaf in enumerate(leaves)]
        if any(a.shape != b.shape for a, b in zip(stored, leaves, strict=True)):
            return None
        return int(found["step"]), tree.unflatten(stored)

    def save_record(self, seeds: list[int], step: int, record: Record) -> None:
        """Keep what was recorded of a group after ``step`` updates."""
        self._files.write(f"{_name(seeds)}-step-{step}.npz", record)

    def load_record(self, seeds: list[int], step: int) -> Record | None:
        """What was recorded of a group after ``step`` updates; None if it cannot be trusted."""
        return self._files.read(f"{_name(seeds)}-step-{step}.npz")


def settings_of(
    program: Program, recorder: Recorder, params: Any, key: jax.Array, more: dict[str, Any]
) -> dict[str, Any]:
    """What decides the numbers of a run. Functions are known by what they do."""
    first = jax.tree.map(lambda p: p[0], params)
    small = jax.tree.map(lambda p: p[tuple(slice(0, 2) for _ in p.shape)], first)
    data = jax.tree.leaves((recorder.x, recorder.y))
    tests = jax.tree.leaves((recorder.x_test, recorder.points))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        optimizer = optimizer_fingerprint(program.optimizer, small, more["record"][-1])
    return more | {
        "model": _behaviour(program, recorder, first),
        "loss": loss_fingerprint(program.loss, recorder.y.shape[1]),
        "optimizer": optimizer,
        "params": fingerprint(*jax.tree.leaves(params)),
        "data": fingerprint(*data),
        "test and kernel points": fingerprint(*tests),
        "batch_size": program.batch,
        "linearized": program.linearized,
        "kernel": repr(recorder.kernel),
        "sharpness": recorder.sharpness,
        "key": fingerprint(jax.random.key_data(key)),
        "versions": {name: version(name) for name in ("ntk_lab", "jax", "jaxlib")},
    }


def _behaviour(program: Program, recorder: Recorder, params: Any) -> list[str]:
    """Outputs and their derivative on a few examples, as text."""
    few = jax.tree.map(lambda a: a[:2], recorder.x)

    @compiled
    def values(params):
        total, gradient = jax.value_and_grad(lambda p: jnp.sum(jnp.sin(program.f(p, few))))(params)
        return total, [jnp.linalg.norm(leaf) for leaf in jax.tree.leaves(gradient)]

    return [f"{float(value):.5g}" for value in jax.tree.leaves(values(params))]


def _name(seeds: list[int]) -> str:
    return f"seeds-{seeds[0]}-{seeds[-1]}-of-{len(seeds)}"


def _plain(leaf: jax.Array) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    # NumPy's files know no bfloat16.
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array


def _typed(array: np.ndarray, like: Any) -> jax.Array:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    return jnp.asarray(array if array.dtype == like.dtype else array.view(like.dtype))
