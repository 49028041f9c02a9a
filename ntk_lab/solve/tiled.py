"""Symmetric matrices that are known tile by tile, and their products."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

_SIDE = 2048
# Rows that are widened to double precision together: few enough to stay in the cache.
_WIDENED = 256


class Tiled(Protocol):
    """A symmetric matrix of shape ``(n, n)`` in tiles on and above its diagonal.

    Wherever they come from: memory, disk, or a computation that is done anew for each product.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, n)``."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Of the entries."""
        ...

    def tiles(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Rows, columns and entries of each tile; columns equal rows, or come after them."""
        ...

    def diagonal(self) -> np.ndarray:
        """The diagonal, ``(n,)``."""
        ...

    def columns(self, chosen: np.ndarray) -> np.ndarray:
        """Some columns, ``(n, len(chosen))``."""
        ...


class InMemory:
    """A matrix that is there as an array, or the tiles of another one, kept.

    Parameters
    ----------
    matrix
        An array ``(n, n)``, of which the upper triangle counts, or a `Tiled`, whose tiles are all
        taken into memory: half of the matrix.
    """

    def __init__(self, matrix: Any):
        self._source = matrix
        self.shape, self.dtype = tuple(matrix.shape), np.dtype(matrix.dtype)
        self._kept = list(matrix.tiles()) if hasattr(matrix, "tiles") else list(self._cut())

    def _cut(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        array, n = np.asarray(self._source), self.shape[0]
        for i in range(0, n, _SIDE):
            for j in range(i, n, _SIDE):
                rows, columns = slice(i, min(i + _SIDE, n)), slice(j, min(j + _SIDE, n))
                yield rows, columns, array[rows, columns]

    def tiles(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """All tiles."""
        return iter(self._kept)

    def diagonal(self) -> np.ndarray:
        """The diagonal."""
        return np.concatenate([tile.diagonal() for rows, cols, tile in self._kept if rows == cols])

    def columns(self, chosen: np.ndarray) -> np.ndarray:
        """Some columns."""
        found = np.empty((self.shape[0], len(chosen)), self.dtype)
        for rows, columns, tile in self._kept:
            for own, other, block in ((rows, columns, tile), (columns, rows, tile.T)):
                here = np.flatnonzero((chosen >= other.start) & (chosen < other.stop))
                if len(here):
                    found[own, here] = block[:, chosen[here] - other.start]
        return found


def product(matrix: Any, v: np.ndarray, precise: bool = True) -> np.ndarray:
    """``matrix @ v`` for ``v`` of shape ``(n, m)``, in double precision.

    Parameters
    ----------
    matrix
        Each tile is read once, for itself and for its mirror image.
    v
        The vectors.
    precise
        Whether tiles are widened to double precision first. Without, sums over a tile are in the
        matrix's own dtype, several times faster, and are added up in double precision.

    Returns
    -------
    numpy.ndarray
        ``(n, m)``, float64.
    """
    if hasattr(matrix, "product"):  # it knows better, such as one that is spread over devices
        return matrix.product(v, precise)
    out = np.zeros(v.shape)
    narrow = matrix.dtype if not precise else np.float64
    v = np.ascontiguousarray(v, narrow)
    columnwise = np.asfortranarray(v)
    for rows, columns, tile in matrix.tiles():
        step = _WIDENED if precise and tile.dtype != np.float64 else len(tile)
        for start in range(0, len(tile), step):
            part = tile[start : start + step].astype(narrow, copy=False)
            here = slice(rows.start + start, rows.start + start + len(part))
            out[here] += part @ columnwise[columns]
            if rows != columns:
                out[columns] += part.T @ v[here]
    return out
