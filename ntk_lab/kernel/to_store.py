"""Kernels larger than memory, computed into a folder, and gone on with after any interruption."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ntk_lab.errors import InputError, NumericalError
from ntk_lab.kernel.claims import Claims
from ntk_lab.kernel.computed import Computed
from ntk_lab.kernel.folder import begin, explained, manifest
from ntk_lab.kernel.stored import StoredKernel, StoredMatrix, import_zarr
from ntk_lab.locks import locked

Progress = Callable[[int, int], None]
Which = Literal["nngp", "ntk"]
# Seconds between two looks at what other processes have finished.
_PATIENCE = 0.1


def to_store(
    net: Any,
    x1: Any,
    x2: Any,
    path: str | os.PathLike,
    *,
    which: Which | Sequence[Which] = ("nngp", "ntk"),
    memory: float | None = None,
    share: bool = False,
    progress: Progress | None = None,
) -> StoredKernel:
    """Compute the kernels of ``net`` into a folder, as far as they are not there yet.

    Parameters
    ----------
    net
        An architecture that can be written as JSON (`ntk_lab.nn.Module`), or the kernels of a
        finite network (`ntk_lab.empirical.FiniteKernel`).
    x1, x2
        Inputs ``(n1, *shape)`` and ``(n2, *shape)``; ``x2=None`` means ``x1``, and one half of the
        matrix is computed and kept. Memory maps, Zarr and dask arrays are read a tile at a time.
    path
        Folder of a Zarr (v3) group, made if it does not exist. It has an array for each kernel,
        each tile a chunk with a checksum, and a manifest among the attributes of the group.
    which
        "ntk", "nngp" or both. They are computed together in any case.
    memory
        Bytes that computing may take, half of what is free unless given. The data do not count.
    share
        Whether other processes that say so too, on this machine or on others that see the folder,
        compute tiles of the same kernel at the same time. Each waits for all tiles; what a process
        that is lost had claimed is computed by the others.
    progress
        Called as ``progress(done, total)`` after each tile, those found included.

    Returns
    -------
    StoredKernel
        ``.ntk`` and ``.nngp`` are read where they are looked at, as NumPy, dask or JAX arrays.

    Raises
    ------
    InputError
        A folder with another kernel, or of other versions of the libraries unless it is complete;
        that another process writes to; on a disk that is, or becomes, full (what is finished is
        kept); data that are not finite; a memory limit too small for a tile.
    NumericalError
        Kernel values that are not finite.
    ImportError
        zarr is missing (extra ``disk``).

    Notes
    -----
    Stop it at any moment, by Ctrl-C, SIGKILL or loss of power, and call it again with the same
    arguments: tiles that are there and agree with their checksums are kept, all others are
    computed, and the result has the same bits as that of an undisturbed run on this machine. What
    is lost are the tiles in flight: one that is computed, one that is written. Files appear under
    their names when they are whole. Cost: that of the kernel, and ``n1 n2`` numbers on disk for
    each kernel, half for a symmetric one.

    Examples
    --------
    >>> import tempfile, numpy as np, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> x = np.eye(5, dtype=np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     k = ntk.kernel.to_store(net, x, None, folder + "/k.zarr")
    ...     bool(np.allclose(k.ntk[1:3], net.kernel(x).ntk[1:3]))
    True
    """
    import_zarr()
    names = (which,) if isinstance(which, str) else tuple(which)
    if not names or not set(names) <= {"nngp", "ntk"} or len(set(names)) < len(names):
        raise InputError(f'which={which!r}; expected "ntk", "nngp" or both of them.')
    path = Path(path)
    with contextlib.ExitStack() as stack:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.with_name(f"{path.name}.lock")
            stack.enter_context(locked(lock, f"writes to {os.fspath(path)!r}", shared=share))
        job = Computed(net, x1, x2, memory)
        about = manifest(net, job, x2, names)
        claims = None
        if share:
            claims = stack.enter_context(Claims(path.with_name(f"{path.name}.claims")).opened())
        with explained(path), claims.alone() if claims else contextlib.nullcontext():
            kernel, job = begin(path, about, job, share)
        _fill(kernel, job, claims, progress)
    return kernel


def _fill(
    kernel: StoredKernel, job: Computed, claims: Claims | None, progress: Progress | None
) -> None:
    """Compute all tiles that are missing or damaged; one is written while the next is computed."""
    matrices, places = kernel.matrices, job.places
    done: set[tuple[int, int]] = set()
    # Those that others finish meanwhile are whole: a file appears when it is.
    old = {place for place in places if _is_there(matrices, place)}

    def finish(place: tuple[int, int]) -> None:
        done.add(place)
        if progress is not None:
            progress(len(done), len(places))

    def wait(future: Future | None, place: tuple[int, int] | None) -> None:
        if future is None or place is None:
            return
        with explained(kernel.folder):
            future.result()
        if claims is not None:
            claims.give(_name(place))
        finish(place)

    with ThreadPoolExecutor(1) as writer:
        pending: Future | None = None
        last: tuple[int, int] | None = None
        while len(done) + (last is not None) < len(places):
            before = len(done)
            for place in places:
                if place in done or place == last:
                    continue
                if claims is not None and not claims.take(_name(place)):
                    continue
                if _is_there(matrices, place) and (place not in old or _is_sound(matrices, place)):
                    if claims is not None:
                        claims.give(_name(place))
                    finish(place)
                    continue
                tiles = _compute(job, place, matrices)
                wait(pending, last)
                pending, last = writer.submit(_write, matrices, place, tiles), place
                del tiles
            if len(done) == before:
                wait(pending, last)
                pending, last = None, None
                time.sleep(_PATIENCE * (len(done) == before))
        wait(pending, last)


def _compute(
    job: Computed, place: tuple[int, int], matrices: dict[str, StoredMatrix]
) -> dict[str, np.ndarray]:
    kernel = job.tile(*place)
    return {name: np.asarray(getattr(kernel, name)) for name in matrices}


def _write(
    matrices: dict[str, StoredMatrix], place: tuple[int, int], tiles: dict[str, np.ndarray]
) -> None:
    for name, matrix in matrices.items():
        matrix.put(*place, tiles[name])


def _is_there(matrices: dict[str, StoredMatrix], place: tuple[int, int]) -> bool:
    """Whether all kernels of a tile are there."""
    return all(matrix.has(*place) for matrix in matrices.values())


def _is_sound(matrices: dict[str, StoredMatrix], place: tuple[int, int]) -> bool:
    """Whether all kernels of a tile agree with their checksums; damaged ones go."""
    sound = True
    for matrix in matrices.values():
        try:
            matrix.tile(*place)
        except NumericalError:
            matrix.file(*place).unlink()
            sound = False
    return sound


def _name(place: tuple[int, int]) -> str:
    return "tile-{}-{}".format(*place)
