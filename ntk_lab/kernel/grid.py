"""Which tiles a kernel matrix has, whether it is computed or read."""


class Grid:
    """Tiles of ``side`` rows and columns; of a symmetric matrix those on and above the diagonal."""

    shape: tuple[int, ...]
    side: int
    symmetric: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.shape[0] // self.side), -(-self.shape[1] // self.side)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Row and column of each tile."""
        rows, columns = self.grid
        return [(i, j) for i in range(rows) for j in range(columns) if not self.symmetric or j >= i]

    def span(self, i: int, axis: int) -> slice:
        """Rows (or columns) of the i-th row (column) of tiles."""
        return slice(i * self.side, min((i + 1) * self.side, self.shape[axis]))
