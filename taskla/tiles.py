"""Symbolic tiles: what a program names when it submits tasks."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from taskla.graph import Grid

__all__ = ["Op", "Tiles", "compose", "flip"]

#: as it is, transposed, conjugate-transposed
Op = Literal["N", "T", "C"]


def compose(outer: Op, inner: Op, dtype: np.dtype[Any]) -> Op:
    """The operation ``outer(inner(X))`` on a tile, in BLAS's letters.

    Raises
    ------
    ValueError
        If that conjugates without transposing, which BLAS has no letter for.
    """
    if dtype.kind != "c":
        return "N" if (outer == "N") == (inner == "N") else "T"
    if outer == inner:
        return "N"
    if "N" in (outer, inner):
        return inner if outer == "N" else outer
    raise ValueError(
        f"the {outer!r} of a {inner!r} conjugates a complex tile without transposing it; "
        "use T and H consistently"
    )


def flip(uplo: str, op: Op) -> str:
    """The triangle that `uplo` becomes under `op`."""
    if op == "N":
        return uplo
    return "U" if uplo == "L" else "L"


class Tiles:
    """A rectangle of tiles of one matrix, as it is, transposed (`T`) or conjugate-transposed (`H`).

    Indexing is NumPy's, with tile rows and tile columns, except that an integer keeps its axis:
    ``A[trailing, k]`` is a column of tiles. The result of a slice broadcasts like an array when
    it is given to a `TaskFlow`: one task a tile.

    Parameters
    ----------
    grid : Grid
        The matrix.
    ids : (mt, nt) int array, optional
        Tile numbers; default: all of the grid.
    op : {"N", "T", "C"}, default "N"
        What stands between the stored tiles and those that the selection shows.
    mask : (mt, nt) bool array, optional
        The tiles that count; default: all.
    stacked : bool, default False
        Whether each tile column is one operand.
    """

    __slots__ = ("grid", "ids", "mask", "op", "stacked")

    def __init__(
        self,
        grid: Grid,
        ids: NDArray[np.int32] | None = None,
        op: Op = "N",
        mask: NDArray[np.bool_] | None = None,
        stacked: bool = False,
    ) -> None:
        if ids is None:
            numbers = np.arange(grid.base, grid.end, dtype=np.int32)
            ids = numbers.reshape(grid.nt, grid.mt).T
        self.grid = grid
        self.ids = ids
        self.op = op
        self.mask = mask
        self.stacked = stacked

    @property
    def mt(self) -> int:
        """Number of tile rows."""
        return int(self.ids.shape[0])

    @property
    def nt(self) -> int:
        """Number of tile columns."""
        return int(self.ids.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the matrix."""
        return self.grid.dtype

    @property
    def nb(self) -> int:
        """Tile size."""
        return self.grid.nb

    @property
    def shape(self) -> tuple[int, int]:
        """What a task submission broadcasts over."""
        return (1 if self.stacked else self.mt, self.nt)

    def __getitem__(self, index: Any) -> Tiles:
        if self.mask is not None or self.stacked:
            raise ValueError("choose tiles first, then `below_diagonal` or `columns`")
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        chosen = self.ids[_axis(rows, self.mt), :][:, _axis(columns, self.nt)]
        return Tiles(self.grid, chosen, self.op)

    @property
    def T(self) -> Tiles:
        """The transpose."""
        return self._transposed("T")

    @property
    def H(self) -> Tiles:
        """The conjugate transpose."""
        return self._transposed("C")

    def _transposed(self, op: Op) -> Tiles:
        if self.stacked:
            raise ValueError("a panel of tiles has no transpose")
        mask = None if self.mask is None else self.mask.T
        return Tiles(self.grid, self.ids.T, compose(op, self.op, self.dtype), mask)

    @property
    def diagonal(self) -> Tiles:
        """The diagonal tiles, as a column."""
        return Tiles(self.grid, self.ids.diagonal()[:, None], self.op)

    @property
    def below_diagonal(self) -> Tiles:
        """Only the tiles strictly below the diagonal of this selection."""
        below = np.arange(self.mt)[:, None] > np.arange(self.nt)
        return Tiles(self.grid, self.ids, self.op, below)

    @property
    def columns(self) -> Tiles:
        """Each tile column as one operand: a panel."""
        return Tiles(self.grid, self.ids, self.op, stacked=True)

    def __repr__(self) -> str:
        suffix = {"N": "", "T": ".T", "C": ".H"}[self.op]
        return f"<{self.mt} x {self.nt} tiles of {self.grid.name}{suffix}>"


def _axis(index: Any, size: int) -> Any:
    if isinstance(index, slice):
        return index
    if isinstance(index, (int, np.integer)):
        if not -size <= index < size:
            raise IndexError(f"tile index {index} is out of range for {size} tiles")
        at = int(index) % size
        return slice(at, at + 1)
    return np.asarray(index)
