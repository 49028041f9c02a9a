"""Finished seeds on disk, so that an interrupted comparison goes on where it stopped."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ntk_lab.checkpoints import Folder
from ntk_lab.checkpoints import fingerprint as fingerprint
from ntk_lab.checkpoints import loss_fingerprint as loss_fingerprint
from ntk_lab.checkpoints import optimizer_fingerprint as optimizer_fingerprint


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
        self._files = Folder(Path(folder) / "runs", folder, settings, "comparison")
        self._steps = len(settings["steps"])

    def load(self, width: int, seed: int) -> dict[str, np.ndarray] | None:
        """Measures of a finished seed; None if there are none, or none that can be trusted."""
        found = self._files.read(_file(width, seed))
        whole = found and all(values.shape == (self._steps,) for values in found.values())
        return found if whole else None

    def save(self, width: int, seed: int, measures: Mapping[str, np.ndarray]) -> None:
        """Keep the measures of a finished seed; a file appears whole or not at all."""
        self._files.write(_file(width, seed), measures)


def _file(width: int, seed: int) -> str:
    return f"width-{width}-seed-{seed}.npz"
