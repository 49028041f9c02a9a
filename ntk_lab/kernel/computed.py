"""A kernel matrix that is computed piece by piece and never held as a whole."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel.graph import Graph
from ntk_lab.kernel.grid import Grid
from ntk_lab.kernel.masked import Masked
from ntk_lab.kernel.plan import available_memory
from ntk_lab.kernel.result import Kernel
from ntk_lab.kernel.source import check_shape, kernels_of, operations_of

# Entries of a tile at most: of vectors, larger ones are no faster.
_LARGEST = 2048
# Elementwise results of a tile, some seconds: what is lost if it is cut off.
_OPERATIONS = 2e9
# Arrays of a tile that live at a time beside what it takes to compute it: both kernels, what is
# written or multiplied of them, and copies on the way.
_COPIES = 8
# Rows of a tile at least, where memory allows: a tile is a file, and a file is not for one pair.
_SMALLEST = 16
# Bytes for the kernel of one pair, whatever the limit.
_ENOUGH = 2**40
# Rows of the data that are looked at together.
_ROWS = 2**14


class Computed(Grid):
    """Kernel of ``net`` on ``x1`` and ``x2``, in tiles that keep to a memory limit.

    Parameters
    ----------
    net
        The architecture, or what computes its kernel itself (`ntk_lab.kernel.source.Computes`).
    x1, x2
        Inputs ``(n1, *shape)`` and ``(n2, *shape)``; ``x2=None`` means ``x1``. Anything with a
        ``shape`` whose slices are arrays: NumPy and JAX arrays, memory maps, Zarr and dask
        arrays, ``Masked`` inputs. Only the rows of a tile are read at a time.
    memory
        Bytes for everything that a tile takes, half of what is free unless given. The data
        themselves do not count.
    side
        Rows and columns of a tile, for a matrix that was begun with such tiles.

    Raises
    ------
    InputError
        Data that are empty or not finite, or of which no single pair fits into memory.
    """

    def __init__(self, net: Any, x1: Any, x2: Any, memory: float | None, side: int | None = None):
        self.net, self.symmetric = net, x2 is None
        self.x1 = _readable("x1", x1)
        self.x2 = self.x1 if x2 is None else _readable("x2", x2)
        if self.x1.shape[1:] != self.x2.shape[1:]:
            raise InputError(
                f"x1 has examples of shape {self.x1.shape[1:]} and x2 of {self.x2.shape[1:]}; "
                "they must be equal. Inputs are (n, *shape), batch first and channels last."
            )
        check_shape(net, tuple(self.x1.shape[1:]))
        first = kernels_of(net, self.x1[:1], self.x2[:1], _ENOUGH).ntk
        self.dtype, self.trailing = np.dtype(first.dtype), first.shape[2:]
        self.shape = (_length(self.x1), _length(self.x2))
        self.memory = available_memory(None if memory is None else int(memory), math.inf)
        self._examples = 4 * math.prod(self.x1.shape[1:]) * self.dtype.itemsize
        entry = math.prod(self.trailing) * self.dtype.itemsize
        self.side = self._side(entry) if side is None else side
        self.bytes = int(_COPIES * entry * self.side**2 + self._examples * self.side)
        if self.bytes >= self.memory:
            raise InputError(
                f"tiles of {self.side} x {self.side} examples take {self.bytes:,} bytes and what "
                f"it takes to compute them, but memory={self.memory:,}. Allow more."
            )

    def tile(self, i: int, j: int) -> Kernel:
        """Both kernels of tile ``(i, j)``."""
        rows = self.x1[self.span(i, 0)]
        columns = None if self.symmetric and i == j else self.x2[self.span(j, 1)]
        return self.piece(rows, columns)

    def piece(self, x1: Any, x2: Any) -> Kernel:
        """Both kernels of some examples, within the memory limit."""
        return kernels_of(self.net, x1, x2, self.memory - self.bytes // 2)

    @property
    def operations(self) -> float:
        """Elementwise results of the whole matrix, about."""
        n1, n2 = self.shape
        return self._operations * n1 * n2 * (0.5 if self.symmetric else 1)

    @property
    def _operations(self) -> float:
        """Elementwise results of a pair of examples."""
        return operations_of(self.net, self.x1, self.dtype)

    def _side(self, entry: int) -> int:
        """Rows of a tile that takes a few seconds and leaves half of the memory to compute it."""
        room = self.memory / 2 / (_COPIES * entry)
        wanted = max(_OPERATIONS / max(self._operations, 1e-9), _SMALLEST**2)
        pairs = min(room, wanted, _LARGEST**2)
        # What examples take by themselves: side^2 copies + side examples <= memory / 2.
        side = max(1, math.isqrt(int(pairs)))
        while side > 1 and (_COPIES * entry * side + self._examples) * side > self.memory / 2:
            side = side * 3 // 4
        longest = max(self.shape)
        return -(-longest // -(-longest // min(side, longest)))


def blocks(x: Any, rows: int = _ROWS) -> Iterator[tuple[int, Any]]:
    """Consecutive rows of data, each with the number of its first."""
    for start in range(0, _length(x), rows):
        yield start, x[start : start + rows]


def _length(x: Any) -> int:
    return x.shape[0]


def _readable(name: str, x: Any) -> Any:
    """Data that can be sliced and are finite throughout."""
    x = x if hasattr(x, "shape") and hasattr(x, "__getitem__") else np.asarray(x)
    if len(x.shape) == 0 or x.shape[0] == 0:
        raise InputError(f"{name} has shape {tuple(x.shape)}; at least one example is needed.")
    if isinstance(x, Graph | Masked) or np.dtype(x.dtype).kind not in "f":
        return x  # checked where it is used
    bad, first = 0, None
    for start, block in blocks(x):
        finite = np.isfinite(np.asarray(block)).reshape(block.shape[0], -1).all(axis=1)
        if not finite.all():
            bad += int((~finite).sum())
            first = start + int(np.argmin(finite)) if first is None else first
    if bad:
        raise InputError(
            f"{name} has NaN or infinite values in {bad} of {_length(x)} examples, the first of "
            f"them number {first}. Remove or repair these examples first."
        )
    return x
