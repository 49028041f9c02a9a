"""Folders that interrupted work goes on from: what they have in common, whatever they hold."""

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

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError
from ntk_lab.losses import Loss

_STAMP = "settings"


class Folder:
    """A folder of finished pieces, and the settings that they belong to.

    Parameters
    ----------
    place
        Made if it does not exist.
    name
        What it is called where the user chose it, in messages.
    settings
        Everything that decides the numbers; a folder made with other settings is refused.
    what
        The kind of work, in messages.

    Raises
    ------
    InputError
        A folder that cannot be written, or that holds other work.
    """

    def __init__(
        self, place: Path, name: str | os.PathLike, settings: Mapping[str, Any], what: str
    ):
        self.folder = place
        self._name, self._what = os.fspath(name), what
        text = json.dumps(settings, sort_keys=True, indent=1)
        self._stamp = hashlib.sha256(text.encode()).hexdigest()
        manifest = self.folder / "settings.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if manifest.exists():
                self._check(_read(manifest), json.loads(text))
            _write(manifest, text.encode())
        except OSError as error:
            raise InputError(
                f"the output folder {self._name!r} cannot be written: {error.strerror}. "
                "Choose another folder, or change its permissions; nothing was computed yet."
            ) from error

    def _check(self, found: dict, wanted: dict) -> None:
        different = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
        if different:
            raise InputError(
                f"the folder {self._name!r} holds runs of another {self._what}: "
                f"{', '.join(different)} differ. Give another output folder, or delete this one."
            )

    def read(self, file: str) -> dict[str, np.ndarray] | None:
        """Arrays of a piece; None if there is none, or none that can be trusted."""
        try:
            # np.load leaves a damaged file open if it is given the path.
            with (self.folder / file).open("rb") as stream, np.load(stream) as stored:
                found = {name.replace("|", "/"): stored[name] for name in stored.files}
        except Exception:
            return None  # missing, or damaged in one of many ways: it is computed again
        return found if str(found.pop(_STAMP, None)) == self._stamp else None

    def write(self, file: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a piece; a file appears whole or not at all."""
        path = self.folder / file
        part = path.with_suffix(".part")
        # A zip member's name cannot hold a slash.
        named: dict[str, Any] = {name.replace("/", "|"): value for name, value in arrays.items()}
        with part.open("wb") as stream:
            named[_STAMP] = np.asarray(self._stamp)
            np.savez(stream, allow_pickle=False, **named)
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
    told = optax.with_extra_args_support(optimizer)

    def step(carry, index):
        params, state = carry
        gradient = jax.tree.map(lambda p: (p + 0.5) * jnp.cos(index).astype(p.dtype), params)
        updates, state = told.update(
            gradient, state, params, value=optax.tree.norm(params), grad=gradient,
            value_fn=optax.tree.norm,
        )  # fmt: skip
        return (optax.apply_updates(params, updates), state), optax.tree.norm(updates)

    @compiled
    def run(params):
        carry, sizes = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
        return jax.tree.leaves(carry[0]), sizes

    # Some of optax's optimizers mix dtypes.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return fingerprint(*jax.tree.leaves(run(params)))


def loss_fingerprint(loss: Loss, columns: int) -> str:
    """Hash of values that a loss of so many outputs takes, small and large."""
    outputs = jnp.sin(jnp.arange(7.0 * columns)).reshape(7, columns)
    targets = jnp.cos(outputs)
    return fingerprint(*(loss(scale * outputs, targets) for scale in (1.0, 30.0, 1e3)))


def _read(manifest: Path) -> dict:
    try:
        return dict(json.loads(manifest.read_text()))
    except ValueError as error:
        raise InputError(
            f"{os.fspath(manifest)!r} is damaged, so that the runs beside it cannot be trusted. "
            "Give another output folder, or delete this one."
        ) from error


def _write(path: Path, content: bytes) -> None:
    # Several processes may write the same, and take each other's part away under one name.
    number = jax.process_index()
    part = path.with_suffix(f".{number}.part" if number else ".part")
    part.write_bytes(content)
    part.replace(path)
