"""Patterns: ranks of a few rows and columns of tiles, repeated over the matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taskla.distributions.base import Ranks

__all__ = ["RectangularPattern", "SymmetricPattern"]


class RectangularPattern:
    """Tile (i, j) belongs to the rank at (i mod rows, j mod cols) of a table.

    Parameters
    ----------
    table : (rows, cols) array of int
    """

    def __init__(self, table: ArrayLike) -> None:
        self.table = np.asarray(table, dtype=np.intp)

    def __call__(self, i: Ranks, j: Ranks) -> Ranks:
        """Return the ranks of tiles (i, j)."""
        rows, columns = self.table.shape
        return np.asarray(self.table[i % rows, j % columns])

    @property
    def cost(self) -> float:
        """Mean number of ranks in a row plus that in a column.

        The volume of an LU factorisation of N x N tiles is about N^2 (cost - 2) / 2.
        """
        rows = np.mean([np.unique(row).size for row in self.table])
        columns = np.mean([np.unique(column).size for column in self.table.T])
        return float(rows + columns)


class SymmetricPattern:
    """Tiles (i, j) and (j, i) have one owner; the diagonal changes from copy to copy.

    Off the pattern's diagonal the owner is at (i mod r, j mod r) of a symmetric table. On it any
    rank of that row and column may own a tile without more messages, so copies of the pattern take
    the rows of a list of diagonals in turn, for balance.

    Parameters
    ----------
    table : (r, r) array of int
        Symmetric; its diagonal is not looked at.
    diagonals : (d, r) array of int
        Cell a of the diagonal of the copy at block row I and block column J <= I is
        ``diagonals[(I (I + 1) / 2 + J) mod d][a]``.
    """

    def __init__(self, table: ArrayLike, diagonals: ArrayLike) -> None:
        self.table = np.asarray(table, dtype=np.intp)
        self.diagonals = np.asarray(diagonals, dtype=np.intp)

    @property
    def r(self) -> int:
        """Rows of the pattern."""
        return int(self.table.shape[0])

    def __call__(self, i: Ranks, j: Ranks) -> Ranks:
        """Return the ranks of tiles (i, j)."""
        row, column = np.maximum(i, j), np.minimum(i, j)
        block_row, a = np.divmod(row, self.r)
        block_column, b = np.divmod(column, self.r)
        copy = block_row * (block_row + 1) // 2 + block_column
        diagonal = self.diagonals[copy % len(self.diagonals), a]
        return np.where(a == b, diagonal, self.table[a, b])

    @property
    def cost(self) -> float:
        """Mean number of ranks in row i and column i together, the diagonal left out.

        The volume of a Cholesky factorisation of N x N tiles is about (cost - 1) N (N + 1) / 2.
        """
        off = ~np.eye(self.r, dtype=np.bool_)
        others = (row[mine] for row, mine in zip(self.table, off, strict=True))
        return float(np.mean([np.unique(row).size for row in others])) if self.r else 0.0

    def loads(self) -> NDArray[np.int64]:
        """Return the number of off-diagonal cells of each rank in one triangle of the pattern."""
        below = self.table[np.tril_indices(self.r, -1)]
        return np.bincount(below, minlength=int(max(below.max(), self.diagonals.max())) + 1)
