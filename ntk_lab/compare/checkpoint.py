"""Finished seeds on disk, so that an interrupted comparison goes on where it stopped."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntk_lab.errors import InputError
from ntk_lab.losses import Loss

_STAMP = "settings"


class Checkpoint:
    """A folder with one file for each finished width and seed, and the settings they belong to.

    Parameters
    ----------
    folder
        Made if it does not exist.
    settings
        Everything that decides the numbers, among it the recorded ``steps``; a folder made with
        other settings is refused.

    Raises
    ------
    InputError
        A folder that cannot be written, or that holds another comparison.
    """

    def __init__(self, folder: str | os.PathLike, settings: Mapping[str, Any]):
        self.folder = Path(folder) / "runs"
        text = json.dumps(settings, sort_keys=True, indent=1)
        self._steps = len(settings["steps"])
        self._stamp = hashlib.sha256(text.encode()).hexdigest()
        manifest = self.folder / "settings.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if manifest.exists():
                self._check(_read(manifest), json.loads(text))
            _write(manifest, text.encode())
        except OSError as error:
            raise InputError(
                f"the output folder {os.fspath(folder)!r} cannot be written: {error.strerror}. "
                "Choose another folder, or change its permissions; nothing was computed yet."
            ) from error

    def _check(self, found: dict, wanted: dict) -> None:
        different = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
        if different:
            raise InputError(
                f"the folder {os.fspath(self.folder.parent)!r} holds runs of another comparison: "
                f"{', '.join(different)} differ. Give another output folder, or delete this one."
            )

    def _path(self, width: int, seed: int) -> Path:
        return self.folder / f"width-{width}-seed-{seed}.npz"

    def load(self, width: int, seed: int) -> dict[str, np.ndarray] | None:
        """Measures of a finished seed; None if there are none, or none that can be trusted."""
        try:
            # np.load leaves a damaged file open if it is given the path.
            with self._path(width, seed).open("rb") as file, np.load(file) as stored:
                found = {name.replace("|", "/"): stored[name] for name in stored.files}
        except Exception:
            return None  # missing, or damaged in one of many ways: it is computed again
        stamp = found.pop(_STAMP, None)
        whole = all(values.shape == (self._steps,) for values in found.values())
        return found if whole and found and str(stamp) == self._stamp else None

    def save(self, width: int, seed: int, measures: Mapping[str, np.ndarray]) -> None:
        """Keep the measures of a finished seed; a file appears whole or not at all."""
        path = self._path(width, seed)
        part = path.with_suffix(".part")
        # A zip member's name cannot hold a slash.
        arrays = {name.replace("/", "|"): values for name, values in measures.items()}
        with part.open("wb") as stream:
            arrays[_STAMP] = np.asarray(self._stamp)
            np.savez(stream, allow_pickle=False, **arrays)
        part.replace(path)


def fingerprint(*arrays: Any) -> str:
    """Short hash of the values, shapes and dtypes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def optimizer_fingerprint(optimizer: optax.GradientTransformation, params: Any, steps: int) -> str:
    """Hash of what an optimizer does to ``params``: functions have no other lasting name.

    As many updates as the run has, so that schedules count, from gradients made up for the purpose.
    """

    def step(carry, index):
        params, state = carry
        gradient = jax.tree.map(lambda p: (p + 0.5) * jnp.cos(index).astype(p.dtype), params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), optax.tree.norm(updates)

    @jax.jit
    def run(params):
        carry, sizes = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
        return jax.tree.leaves(carry[0]), sizes

    return fingerprint(*jax.tree.leaves(run(params)))


def loss_fingerprint(loss: Loss) -> str:
    """Hash of values that a loss takes."""
    outputs = jnp.linspace(-3, 3, 14).reshape(7, 2)
    return fingerprint(loss(outputs, jnp.sin(3 * outputs)))


def _read(manifest: Path) -> dict:
    try:
        return dict(json.loads(manifest.read_text()))
    except ValueError as error:
        raise InputError(
            f"{os.fspath(manifest)!r} is damaged, so that the runs beside it cannot be trusted. "
            "Give another output folder, or delete this one."
        ) from error


def _write(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)
