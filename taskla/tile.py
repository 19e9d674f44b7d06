"""A tile: a block of a matrix in memory, as BLAS sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

__all__ = ["Order", "Tile"]

Order: TypeAlias = Literal["F", "C"]


class Tile:
    """A rectangular block in memory with unit stride in one direction.

    Parameters
    ----------
    array : ndarray, shape (rows, cols) or (rows,)
        The elements; the tile is a view, nothing is copied. A 1-D array is one column.

    Attributes
    ----------
    array : ndarray, shape (rows, cols)
        The elements, and what keeps their memory alive.
    pointer : int
        Address of element (0, 0).
    ld : int
        Leading dimension, in elements: the distance between columns (order F) or rows (order C).
        At least 1 and at least the length of a column (row), as BLAS demands.
    rows, cols : int
        The shape; either may be 0.
    order : {"F", "C"}
        Element (i, j) lies ``i + j * ld`` elements after the first for "F", ``i * ld + j`` for "C".
        A single row or column has the order that its strides tell, "F" if they leave it open.

    Raises
    ------
    ValueError
        When `array` has more than two dimensions, a negative stride, or no unit stride.
    """

    __slots__ = ("array", "cols", "ld", "order", "pointer", "rows")

    array: NDArray[Any]
    pointer: int
    ld: int
    rows: int
    cols: int
    order: Order

    def __init__(self, array: NDArray[Any]) -> None:
        if array.ndim != 2:
            if array.ndim != 1:
                raise ValueError(
                    f"array has {array.ndim} dimensions; a tile has 2, or 1 for a column"
                )
            array = array[:, np.newaxis]
        self.array = array
        self.rows, self.cols = array.shape
        self.order, self.ld = _layout(array)
        self.pointer = array.__array_interface__["data"][0]

    @classmethod
    def from_parts(
        cls, array: NDArray[Any], pointer: int, ld: int, rows: int, cols: int, order: Order
    ) -> Tile:
        """Return a tile from attributes that the caller vouches for; nothing is checked or derived.

        For those who cut many tiles from one array and know where each of them begins.
        """
        tile = cls.__new__(cls)
        tile.array = array
        tile.pointer = pointer
        tile.ld = ld
        tile.rows = rows
        tile.cols = cols
        tile.order = order
        return tile

    @staticmethod
    def merge(tiles: Sequence[Tile], shape: tuple[int, int]) -> Tile | None:
        """Return a grid of tiles as one tile, without a copy, when their memory allows.

        Parameters
        ----------
        tiles : sequence of Tile, length r * c
            The grid, column after column.
        shape : (int, int)
            The grid's shape (r, c), both at least 1.

        Returns
        -------
        Tile or None
            One tile over the same memory; None unless all are cut from one array, have one order
            and one leading dimension, and each begins where its neighbours end.

        Raises
        ------
        ValueError
            When `tiles` does not hold r * c tiles, or none.
        """
        r, c = shape
        if len(tiles) != r * c or not tiles:
            raise ValueError(
                f"tiles has length {len(tiles)}, shape {shape} asks for {r * c} (at least 1)"
            )
        first = tiles[0]
        if len(tiles) == 1:
            return first
        ld, order = first.ld, first.order
        owner, size = _owner(first.array), first.array.itemsize
        down, right = (size, ld * size) if order == "F" else (ld * size, size)
        cols = 0
        for j in range(c):
            rows = 0
            width = tiles[j * r].cols
            for i in range(r):
                tile = tiles[i + j * r]
                if (
                    tile.pointer != first.pointer + rows * down + cols * right
                    or tile.ld != ld
                    or tile.order != order
                    or tile.cols != width
                    or tile.rows != tiles[i].rows
                    or _owner(tile.array) is not owner
                ):
                    return None
                rows += tile.rows
            cols += width
        if (rows if order == "F" else cols) > ld:
            return None
        array = as_strided(first.array, (rows, cols), (down, right))
        return Tile.from_parts(array, first.pointer, ld, rows, cols, order)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols

    def __repr__(self) -> str:
        dtype = self.array.dtype
        return f"Tile({self.rows} x {self.cols} {dtype}, order={self.order!r}, ld={self.ld})"


def _owner(array: NDArray[Any]) -> object:
    """Return the object that owns the memory of `array`: the same for all views of one array."""
    owner: Any = array
    # as_strided puts an object of its own between array and base: not every base is an array.
    while (base := getattr(owner, "base", None)) is not None:
        owner = base
    return owner


def _layout(array: NDArray[Any]) -> tuple[Order, int]:
    """Return the order and the leading dimension of a 2-D array."""
    rows, cols = array.shape
    down, right = array.strides
    size = array.itemsize
    if not array.size:
        return "F", max(1, rows)
    # Strides are taken at their word first: a single row cut from a C-ordered matrix stays of order
    # C, with the matrix's leading dimension, and so merges with its neighbours.
    if down == size and (ld := _leading(right, size, rows, cols)):
        return "F", ld
    if right == size and (ld := _leading(down, size, cols, rows)):
        return "C", ld
    # The stride of a dimension that holds at most one index says nothing.
    if rows <= 1 and (ld := _leading(right, size, rows, cols)):
        return "F", ld
    if cols <= 1 and (ld := _leading(down, size, cols, rows)):
        return "C", ld
    raise ValueError(
        f"array of shape {array.shape} has strides {array.strides} bytes; a tile needs one that is "
        f"the size of an element ({size}), the other a multiple of it that spans a column or row"
    )


def _leading(stride: int, size: int, length: int, count: int) -> int:
    """Return the leading dimension of `count` vectors of `length`, `stride` bytes apart, or 0."""
    least = max(1, length)
    ld, odd = divmod(stride, size)
    if ld >= least and not odd:
        return ld
    return least if count <= 1 else 0
