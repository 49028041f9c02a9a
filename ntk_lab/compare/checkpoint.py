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


class Checkpoint:
    """A folder with one file for each finished width and seed, and the settings they belong to.

    Parameters
    ----------
    folder
        Made if it does not exist.
    settings
        Everything that decides the numbers; a folder made with other settings is refused.

    Raises
    ------
    InputError
        A folder that cannot be written, or that holds another comparison.
    """

    def __init__(self, folder: str | os.PathLike, settings: Mapping[str, Any]):
        self.folder = Path(folder) / "runs"
        text = json.dumps(settings, sort_keys=True, indent=1)
        manifest = self.folder / "settings.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if manifest.exists():
                self._check(json.loads(manifest.read_text()), json.loads(text))
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
        """Measures of a finished seed, or None."""
        path = self._path(width, seed)
        if not path.exists():
            return None
        with np.load(path) as stored:
            return {name.replace("|", "/"): stored[name] for name in stored.files}

    def save(self, width: int, seed: int, measures: Mapping[str, np.ndarray]) -> None:
        """Keep the measures of a finished seed; a file appears whole or not at all."""
        path = self._path(width, seed)
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            # A zip member's name cannot hold a slash.
            np.savez(stream, **{name.replace("/", "|"): v for name, v in measures.items()})
        part.replace(path)


def fingerprint(*arrays: Any) -> str:
    """Short hash of the values, shapes and dtypes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def optimizer_fingerprint(optimizer: optax.GradientTransformation) -> str:
    """Hash of what an optimizer does to a small problem: functions have no other lasting name."""
    params = {"a": jnp.linspace(-1.0, 2.0, 5), "b": jnp.ones((2, 3))}
    state = optimizer.init(params)
    for scale in (1.0, -0.3, 0.1):
        gradient = jax.tree.map(lambda p, scale=scale: scale * (p + 0.5), params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return fingerprint(*jax.tree.leaves(params))


def _write(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)
