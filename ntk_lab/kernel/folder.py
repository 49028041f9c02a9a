"""The folder of a kernel on disk: what it is of, whether it may be gone on with, room for it."""

import contextlib
import errno
import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel.computed import Computed, blocks
from ntk_lab.kernel.native import available
from ntk_lab.kernel.source import identity_of
from ntk_lab.kernel.stored import (
    MANIFEST,
    StoredKernel,
    StoredMatrix,
    import_zarr,
    open_group,
    open_store,
)


def manifest(net: Any, job: Computed, x2: Any, names: Sequence[str]) -> dict[str, Any]:
    """What decides the numbers of a kernel, and the size of its tiles."""
    return {
        **identity_of(net, job.x1),
        "x1": data_fingerprint(job.x1),
        "x2": None if x2 is None else data_fingerprint(job.x2),
        "shape": [*job.shape, *job.trailing],
        "dtype": job.dtype.name,
        "kernels": sorted(names),
        "tile": job.side,
        "versions": {name: version(name) for name in ("ntk_lab", "jax", "jaxlib", "numpy")}
        | {"native": available() and version("numba")},
    }


def data_fingerprint(x: Any) -> str:
    """Hash of values, shape and dtype of data that are read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{type(x).__name__ if not hasattr(x, '__array__') else ''}".encode())
    for name, leaf in _leaves(x):
        digest.update(f"{name}{tuple(leaf.shape)}{np.dtype(leaf.dtype)}".encode())
        for _, block in blocks(leaf):
            array = np.ascontiguousarray(block)
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _leaves(x: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(x)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def begin(
    path: Path, manifest: dict[str, Any], job: Computed, share: bool
) -> tuple[StoredKernel, Computed]:
    """The folder, made or found; and the job in tiles of the size that the folder has."""
    group = open_group(path, "r+")
    found: Any = None if group is None else group.attrs.get(MANIFEST)
    if found is None:
        others = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
        if others or path.is_file():
            held = repr(others[0]) if others else "a file"
            raise InputError(
                f"{os.fspath(path)!r} holds {held}, and no kernel. Give a folder that is new or "
                "empty."
            )
        found = manifest
        if not share:
            _check_room(path.parent, _bytes_of(manifest) * len(job.places))
        zarr = import_zarr()
        zarr.create_group(path, zarr_format=3, attributes={MANIFEST: manifest})
    if found["tile"] != job.side:
        job = Computed(
            job.net, job.x1, None if job.symmetric else job.x2, job.memory, found["tile"]
        )
    for name in manifest["kernels"]:
        _make_array(path, name, manifest | {"tile": found["tile"]})
    kernel = open_store(path)
    _check_same(path, found, manifest, kernel.complete)
    if not share:
        for part in path.rglob("*.partial"):
            part.unlink(missing_ok=True)
    missing = sum(not m.has(*place) for m in kernel.matrices.values() for place in m.places)
    _check_room(path, missing * _bytes_of(found) // len(kernel.matrices))
    # Written to through handles that may write.
    writable = open_group(path, "r+")
    matrices = {
        n: StoredMatrix(writable[n], m.folder, m.symmetric) for n, m in kernel.matrices.items()
    }
    return StoredKernel(matrices.get("nngp"), matrices.get("ntk"), kernel.manifest, path), job


def _make_array(path: Path, name: str, manifest: dict[str, Any]) -> None:
    if (path / name / "zarr.json").exists():
        return
    from zarr.codecs import Crc32cCodec

    tile, shape = manifest["tile"], manifest["shape"]
    import_zarr().create_array(
        path,
        name=name,
        shape=shape,
        chunks=(tile, tile, *shape[2:]),
        dtype=manifest["dtype"],
        fill_value=np.nan,
        compressors=[Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "/"},
        zarr_format=3,
        overwrite=False,
        attributes={"mirrored below the diagonal": manifest["x2"] is None},
    )


def _check_same(path: Path, found: dict, wanted: dict, complete: bool) -> None:
    exempt = {"tile", *(["versions"] if complete else [])}
    names = (found.keys() | wanted.keys()) - exempt
    different = sorted(name for name in names if found.get(name) != wanted.get(name))
    if different:
        detail = ""
        if different == ["versions"]:
            detail = f": it was begun with {found['versions']}, and this is {wanted['versions']}"
        raise InputError(
            f"the folder {os.fspath(path)!r} holds another kernel: {', '.join(different)} "
            f"differ{detail}. Give another folder, or delete this one."
        )


def bytes_of_tile(side: int, trailing: Sequence[int], dtype: np.dtype, kernels: int) -> int:
    """Of a tile of so many kernels on disk."""
    return kernels * (side**2 * math.prod(trailing) * dtype.itemsize + 4)


def _bytes_of(found: dict[str, Any]) -> int:
    dtype, trailing = np.dtype(found["dtype"]), found["shape"][2:]
    return bytes_of_tile(found["tile"], trailing, dtype, len(found["kernels"]))


def _check_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path).free
    if needed > free:
        raise InputError(
            f"the tiles that are missing in {os.fspath(path)!r} take {needed / 1e9:.3g} GB, but "
            f"its disk has {free / 1e9:.3g} GB free. Make room, or give a folder on another disk; "
            "what is there is kept."
        )


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what to do where the file system refuses."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "Make room" if full else "Change its permissions"
        raise InputError(
            f"the folder {os.fspath(path)!r} cannot be written: {error.strerror or error}. "
            f"{advice}, or give another folder; what is finished is kept."
        ) from error
