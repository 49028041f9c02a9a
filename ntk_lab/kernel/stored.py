"""Kernel matrices on disk (extra: disk), read where they are looked at."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError, NumericalError
from ntk_lab.kernel.grid import Grid
from ntk_lab.kernel.result import Kernel

# Where the manifest is, among the attributes of a Zarr group.
MANIFEST = "ntk_lab_kernel"


class StoredMatrix(Grid):
    """A kernel matrix in a Zarr array, of which one half is there if it is symmetric.

    ``matrix[rows, columns]`` reads what it needs, the missing half from its mirror image; indices
    are slices, integers, and at most one integer or boolean array. ``numpy.asarray(matrix)``,
    :meth:`jax` and :meth:`dask` give the whole. Every tile is checked against its checksum when
    it is read.

    Attributes
    ----------
    shape, dtype
        Of the matrix, ``(n1, n2)`` and axes of positions of the outputs, if there are any.
    side
        Rows and columns of a tile, which is one chunk of the Zarr array.
    symmetric
        Whether it is the kernel of one set of inputs.
    """

    def __init__(self, array: Any, folder: Path, symmetric: bool):
        self._array, self.folder, self.symmetric = array, folder, symmetric
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype, self.side = np.dtype(array.dtype), int(array.chunks[0])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def has(self, i: int, j: int) -> bool:
        """Whether the tile is there, whole or damaged."""
        return self.file(i, j).exists()

    def file(self, i: int, j: int) -> Path:
        """Where a tile is kept."""
        return self.folder / "c" / str(i) / "/".join([str(j), *"0" * (self.ndim - 2)])

    def tile(self, i: int, j: int) -> np.ndarray:
        """One tile, from its mirror image if need be.

        Raises
        ------
        InputError
            If it was not computed yet.
        NumericalError
            If what is on disk is damaged.
        """
        if self.symmetric and i > j:
            return mirrored(self.tile(j, i))
        if not self.has(i, j):
            raise InputError(
                f"tile ({i}, {j}) of {os.fspath(self.folder)!r} was not computed yet; "
                "ntk.kernel.to_store with the same arguments goes on with it."
            )
        try:
            return np.asarray(self._array[self.span(i, 0), self.span(j, 1)])
        except (ValueError, OSError, IndexError, TypeError) as error:
            raise NumericalError(
                f"tile ({i}, {j}) of {os.fspath(self.folder)!r} is damaged: {error} "
                "ntk.kernel.to_store with the same arguments finds and computes it again."
            ) from error

    def tiles(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """All tiles that are kept, with their rows and columns."""
        for i, j in self.places:
            yield self.span(i, 0), self.span(j, 1), self.tile(i, j)

    def put(self, i: int, j: int, tile: np.ndarray) -> None:
        """Write one tile, which appears whole or not at all."""
        self._array[self.span(i, 0), self.span(j, 1)] = tile

    def diagonal(self) -> np.ndarray:
        """Entries of the diagonal, ``(n, *positions)``."""
        parts = [np.moveaxis(self.tile(i, i).diagonal(), -1, 0) for i in range(min(self.grid))]
        return np.concatenate(parts)

    def columns(self, chosen: Any) -> np.ndarray:
        """Some columns, ``(n, len(chosen))``."""
        return self[:, np.asarray(chosen)]

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, columns, rest, dropped = _indices(index, self.shape)
        out = np.empty((len(rows), len(columns), *self.shape[2:]), self.dtype)
        for i in np.unique(rows // self.side):
            at_rows = np.flatnonzero(rows // self.side == i)
            for j in np.unique(columns // self.side):
                at_columns = np.flatnonzero(columns // self.side == j)
                tile = self.tile(int(i), int(j))
                inside = rows[at_rows] - i * self.side, columns[at_columns] - j * self.side
                out[np.ix_(at_rows, at_columns)] = tile[np.ix_(*inside)]
        out = out[(slice(None), slice(None), *rest)]
        return out[tuple(0 if drop else slice(None) for drop in dropped)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a kernel on disk becomes an array by a copy only.")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def __len__(self) -> int:
        return self.shape[0]

    def jax(self) -> jax.Array:
        """The whole matrix in memory, as a JAX array."""
        return jnp.asarray(self[:])

    def dask(self) -> Any:
        """The matrix as a dask array, one block a tile; both halves of a symmetric one."""
        import dask.array

        chunks: Any = (self.side, self.side, *self.shape[2:])
        meta = np.empty((0,) * self.ndim, self.dtype)
        return dask.array.from_array(self, chunks=chunks, meta=meta, name=False, asarray=False)

    def __repr__(self) -> str:
        half = ", symmetric" if self.symmetric else ""
        return f"StoredMatrix({os.fspath(self.folder)!r}, {self.shape}, {self.dtype}{half})"


@dataclass(frozen=True)
class StoredKernel:
    """Kernels in a folder: what `to_store` and `open_store` return.

    Attributes
    ----------
    nngp, ntk
        The two kernels; None for one that was not asked for.
    manifest
        What they are of: architecture, fingerprints of the data, dtype, versions.
    folder
        Where they are.
    """

    nngp: StoredMatrix | None
    ntk: StoredMatrix | None
    manifest: dict[str, Any]
    folder: Path

    @property
    def matrices(self) -> dict[str, StoredMatrix]:
        """Those that there are, by name."""
        both = {"nngp": self.nngp, "ntk": self.ntk}
        return {name: matrix for name, matrix in both.items() if matrix is not None}

    @property
    def complete(self) -> bool:
        """Whether all tiles are there."""
        return all(m.has(*place) for m in self.matrices.values() for place in m.places)

    def kernel(self) -> Kernel:
        """Both kernels in memory, as `ntk_lab.nn.Module.kernel` returns them."""
        missing = [name for name in ("nngp", "ntk") if getattr(self, name) is None]
        if missing:
            raise InputError(
                f"{os.fspath(self.folder)!r} holds no {missing[0]}; read the other kernel alone, "
                "by .ntk.jax() or .nngp.jax()."
            )
        return Kernel(*(self.matrices[name].jax() for name in ("nngp", "ntk")))


def open_store(path: str | os.PathLike) -> StoredKernel:
    """Kernels that `to_store` wrote, to be read lazily; they need not be complete.

    Raises
    ------
    InputError
        If there are none in this folder, or their manifest is damaged.
    ImportError
        zarr is missing (extra ``disk``).
    """
    group = open_group(Path(path), "r")
    if group is None or MANIFEST not in group.attrs:
        raise InputError(f"the folder {os.fspath(path)!r} holds no kernel of ntk.kernel.to_store.")
    manifest: Any = group.attrs[MANIFEST]
    found = {
        name: StoredMatrix(group[name], Path(path) / name, bool(manifest["x2"] is None))
        for name in manifest["kernels"]
    }
    return StoredKernel(found.get("nngp"), found.get("ntk"), dict(manifest), Path(path))


def open_group(path: Path, mode: str) -> Any:
    """The Zarr group in a folder; None if there is none."""
    zarr = import_zarr()
    if not (path / "zarr.json").exists():
        return None
    try:
        return zarr.open_group(path, mode=mode, zarr_format=3)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{os.fspath(path / 'zarr.json')!r} is damaged, so that what is beside it cannot be "
            "trusted. Delete the folder, or give another one."
        ) from error


def import_zarr() -> Any:
    """The package, or an error that says how to get it."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError("kernels on disk need zarr: pip install 'ntk_lab[disk]'.") from error
    return zarr


def mirrored(tile: np.ndarray) -> np.ndarray:
    """The tile on the other side of the diagonal; exchanging examples exchanges their positions."""
    return tile.transpose([axis ^ 1 for axis in range(tile.ndim)])


def _indices(index: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, tuple, list]:
    """Rows, columns, what remains for further axes, and which of the first two axes go."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is Ellipsis for part in parts):
        at = next(k for k, part in enumerate(parts) if part is Ellipsis)
        fill = [slice(None)] * (len(shape) - len(parts) + 1)
        parts = parts[:at] + fill + parts[at + 1 :]
    parts += [slice(None)] * (2 - len(parts))
    arrays = [np.ndim(p) for p in parts if not isinstance(p, slice)]
    if len(parts) > len(shape) or any(p is None for p in parts) or sum(arrays) > 1:
        raise InputError(
            f"the index {index!r} is not one of slices, integers and at most one array of "
            "integers or booleans. For some rows of some columns write matrix[rows][:, columns]."
        )
    chosen = []
    for part, size in zip(parts[:2], shape[:2], strict=True):
        everything = np.arange(size)
        chosen.append(
            np.atleast_1d(everything[part if isinstance(part, slice) else np.asarray(part)])
        )
    dropped = [not isinstance(p, slice) and np.ndim(p) == 0 for p in parts[:2]]
    return chosen[0], chosen[1], tuple(parts[2:]), dropped
