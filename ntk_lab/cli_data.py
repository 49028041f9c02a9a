"""Arrays that the command line is given: .npy, .npz and Zarr."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

_UNITS = {"": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def read(text: str) -> Any:
    """An array from ``file.npy``, ``file.npz``, ``file.npz:name``, ``folder.zarr[:name]``.

    ``.npy`` is mapped into memory and Zarr read where it is needed, so that data may be larger
    than memory. Without a name, the only array of an ``.npz``, or that called ``x``.
    """
    from ntk_lab.errors import InputError

    path, name = _split(text)
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return file[_named(text, name, list(file.files))]
        if path.is_dir():
            return _zarr(text, path, name)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{text} cannot be read: {error}") from error
    raise InputError(
        f"{text}: expected a file .npy, a file .npz (with :name of its array), or a Zarr folder."
    )


def _split(text: str) -> tuple[Path, str | None]:
    path, colon, name = text.rpartition(":")
    if colon and not Path(text).exists():
        return Path(path), name
    return Path(text), None


def _named(text: str, name: str | None, names: list[str]) -> str:
    from ntk_lab.errors import InputError

    if name is None:
        name = names[0] if len(names) == 1 else "x"
    if name not in names:
        raise InputError(f"{text} holds {', '.join(names)}, but no {name}; name one as FILE:NAME.")
    return name


def _zarr(text: str, path: Path, name: str | None) -> Any:
    from ntk_lab.kernel.stored import import_zarr

    found: Any = import_zarr().open(path, mode="r")
    if hasattr(found, "shape"):
        return found
    return found[_named(text, name, sorted(found.array_keys()))]


def targets(y: Any) -> tuple[np.ndarray, bool]:
    """Targets ``(n, outputs)``, and whether they stand for classes.

    Integers ``(n,)`` are numbers of classes: one output each, one minus its share for the class
    and minus its share for all others, which is zero on average.
    """
    y = np.asarray(y)
    if y.ndim == 1 and np.issubdtype(y.dtype, np.integer) and len(y) and y.min() >= 0:
        classes = int(y.max()) + 1
        return np.eye(classes)[y] - 1 / classes, True
    return y[:, None] if y.ndim == 1 else y, False


def size(text: str) -> float:
    """Bytes from ``8GB``, ``500 MB`` or a number; for argparse."""
    number = text.upper().rstrip("BKMGT ")
    unit = text.upper()[len(number) :].strip()
    try:
        found = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 8GB, 500MB or bytes.")
    return found


def size_text(count: float) -> str:
    """Bytes as text."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def time_text(seconds: float) -> str:
    """Seconds as text, to the precision of an estimate."""
    for limit, unit, name in ((100, 1, "s"), (5400, 60, "min"), (2e5, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds / 86400:.2g} days"
