"""The memory of a tiled matrix: one array, or one strip per tile column or row of a triangle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from taskla.matrix_layout import Layout, Uplo, layout_of
from taskla.tile import Order, Tile

__all__ = [
    "OwnStore",
    "Store",
    "allocate",
    "allocate_own",
    "carve",
    "layout_asked_for",
    "merge_triangles",
    "obstacle",
    "set_block",
    "triangle",
    "triangle_name",
]

#: Bytes: strips begin at cache lines.
_LINE = 64

_TRIANGLES: dict[str, Uplo] = {"l": "lower", "lower": "lower", "u": "upper", "upper": "upper"}


class Store:
    """Arrays that hold a matrix, and the cutting of tiles from them.

    Parameters
    ----------
    layout : Layout
    arrays : sequence of ndarray
        Either one array of the matrix's shape; or, for a triangle, one array per strip: tile column
        j of a lower triangle from the diagonal tile down, tile row i of an upper one from the
        diagonal tile to the right. Neighbours in a strip merge into one tile, and these are the
        directions in which a Cholesky factorisation fuses its updates.

    Attributes
    ----------
    arrays : tuple of ndarray
    order : {"F", "C"}
    writeable : bool
    """

    __slots__ = ("_is_whole", "_itemsize", "_layout", "_parts", "arrays", "order", "writeable")

    def __init__(self, layout: Layout, arrays: Sequence[NDArray[Any]]) -> None:
        self.arrays = tuple(arrays)
        self._layout = layout
        # An empty matrix has no tiles, and its array may have any strides.
        self._parts = tuple(Tile(array) for array in arrays if array.size)
        # A triangle of one tile is whole and a strip at once.
        self._is_whole = [array.shape for array in arrays] == [(layout.m, layout.n)]
        self._itemsize = arrays[0].itemsize if arrays else 0
        self.order: Order = self._parts[0].order if self._parts else "F"
        self.writeable = all(array.flags.writeable for array in arrays)

    def cut(self, i: int, j: int) -> Tile:
        """Return tile (i, j), which must exist, as a view."""
        rows, cols = self._layout.rows(i), self._layout.cols(j)
        if self._is_whole:
            part, top, left = self._parts[0], rows.start, cols.start
        elif self._layout.uplo == "lower":
            part, top, left = self._parts[j], rows.start - cols.start, 0
        else:
            part, top, left = self._parts[i], 0, cols.start - rows.start
        height, width = rows.stop - rows.start, cols.stop - cols.start
        distance = top + left * part.ld if part.order == "F" else top * part.ld + left
        return Tile.from_parts(
            part.array[top : top + height, left : left + width],
            part.pointer + distance * self._itemsize,
            part.ld,
            height,
            width,
            part.order,
        )


class OwnStore:
    """Memory for the tiles of one rank, and the cutting of tiles from it.

    The tiles of a tile column lie below one another, those of a tile row of an upper triangle
    beside one another: neighbours merge into one tile.

    Parameters
    ----------
    layout : Layout
    own : sequence of (int, int)
        The tiles that are here.
    arrays : sequence of ndarray
        As `allocate_own` makes them.

    Attributes
    ----------
    arrays : tuple of ndarray
    order : {"F"}
    writeable : bool
    """

    __slots__ = ("_upper", "_where", "arrays", "order", "writeable")

    def __init__(
        self, layout: Layout, own: Sequence[tuple[int, int]], arrays: Sequence[NDArray[Any]]
    ) -> None:
        self.arrays = tuple(arrays)
        self.order: Order = "F"
        self.writeable = all(array.flags.writeable for array in arrays)
        self._upper = layout.uplo == "upper"
        strips = _strips(layout, own)
        self._where = {
            tile: (strip, begin, end)
            for strip, places in zip(self.arrays, strips, strict=True)
            for tile, begin, end in places
        }

    def cut(self, i: int, j: int) -> Tile:
        """Return tile (i, j), which must be here, as a view."""
        return Tile(self.cut_array(i, j))

    def cut_array(self, i: int, j: int) -> NDArray[Any]:
        """Return the memory of tile (i, j), which must be here, of any data type."""
        strip, begin, end = self._where[i, j]
        return strip[:, begin:end] if self._upper else strip[begin:end]

    def __contains__(self, tile: tuple[int, int]) -> bool:
        return tile in self._where


def allocate_own(
    layout: Layout,
    own: Sequence[tuple[int, int]],
    dtype: np.dtype[Any],
    how: Callable[..., NDArray[Any]],
    memory: Callable[[int], NDArray[np.uint8]] | None = None,
) -> list[NDArray[Any]]:
    """Return new memory for some tiles of a matrix, as `OwnStore` takes it.

    Parameters
    ----------
    layout : Layout
    own : sequence of (int, int)
        The tiles.
    dtype : numpy.dtype
    how : callable
        ``np.empty`` or ``np.zeros``.
    memory : callable, optional
        Returns a block of so many bytes, all zero, in place of `how`.
    """
    strips = _strips(layout, own)
    size = sum(_room(layout, places, dtype)[1] for places in strips)
    block = how(size, np.uint8) if memory is None else memory(size)
    arrays = carve(layout, own, dtype, block)
    if layout.uplo and how is not np.zeros and memory is None:
        # what lies beside a triangle is never used, and must not trap
        for array, places in zip(arrays, strips, strict=True):
            for (i, j), begin, end in places:
                if i == j:
                    (array[:, begin:end] if layout.uplo == "upper" else array[begin:end])[...] = 0
    return arrays


def carve(
    layout: Layout,
    own: Sequence[tuple[int, int]],
    dtype: np.dtype[Any],
    block: NDArray[np.uint8],
) -> list[NDArray[Any]]:
    """Return the arrays that some tiles of a matrix lie in, as views of one block of bytes."""
    arrays, begin = [], 0
    for places in _strips(layout, own):
        shape, size = _room(layout, places, dtype)
        length = shape[0] * shape[1] * dtype.itemsize
        array = block[begin : begin + length].view(dtype).reshape(shape, order="F")
        arrays.append(array)
        begin += size
    return arrays


def _room(
    layout: Layout, places: list[tuple[tuple[int, int], int, int]], dtype: np.dtype[Any]
) -> tuple[tuple[int, int], int]:
    """The shape of a strip, and its bytes up to where the next one begins."""
    (i, j), _, _ = places[0]
    length = places[-1][2]
    if layout.uplo == "upper":
        rows = layout.rows(i)
        shape = rows.stop - rows.start, length
    else:
        cols = layout.cols(j)
        shape = length, cols.stop - cols.start
    return shape, -(-shape[0] * shape[1] * dtype.itemsize // _LINE) * _LINE


def _strips(
    layout: Layout, own: Sequence[tuple[int, int]]
) -> list[list[tuple[tuple[int, int], int, int]]]:
    """Tiles in strips, each with where it begins and ends."""
    upper = layout.uplo == "upper"
    strips: dict[int, list[tuple[tuple[int, int], int, int]]] = {}
    for i, j in sorted(own):
        places = strips.setdefault(i if upper else j, [])
        along = layout.cols(j) if upper else layout.rows(i)
        begin = places[-1][2] if places else 0
        places.append(((i, j), begin, begin + along.stop - along.start))
    return list(strips.values())


def triangle_name(uplo: object) -> Uplo | None:
    """Return "lower" or "upper" for these and LAPACK's letters, in either case; None for None."""
    if uplo is None:
        return None
    name = _TRIANGLES.get(uplo.lower()) if isinstance(uplo, str) else None
    if name is None:
        raise ValueError(f"uplo is {uplo!r}; allowed: None, 'lower', 'upper', 'L', 'U'")
    return name


def layout_asked_for(
    shape: Sequence[int], nb: int | None, dtype: DTypeLike, uplo: str | None
) -> Layout:
    """Return the layout that a user asked for: `layout_of`, for every spelling of `uplo`.

    Raises
    ------
    TypeError
        When a size is not an integer, or `nb` a bool.
    ValueError
        When an argument is not allowed.
    """
    if isinstance(nb, bool):
        raise TypeError(f"nb is {nb!r}; it must be an integer")
    return layout_of(shape, nb, dtype, triangle_name(uplo))


def allocate(
    layout: Layout, dtype: np.dtype[Any], how: Callable[..., NDArray[Any]], order: Order = "F"
) -> list[NDArray[Any]]:
    """Return new memory for a matrix, as `Store` takes it.

    Parameters
    ----------
    layout : Layout
    dtype : numpy.dtype
    how : callable
        ``np.empty`` or ``np.zeros``. The diagonal tiles of a triangle are zero either way, so that
        their unused halves hold nothing that could trap.
    order : {"F", "C"}
        Of a full matrix; the strips of a triangle are "F".
    """
    if layout.uplo is None:
        return [how((layout.m, layout.n), dtype, order=order)]
    strips = []
    for k in range(layout.nt):
        start, stop = layout.rows(k).start, layout.rows(k).stop
        shape = layout.n - start, stop - start
        strip = how(shape if layout.uplo == "lower" else shape[::-1], dtype, order="F")
        diagonal = strip[: stop - start, : stop - start]
        if how is not np.zeros:
            diagonal[...] = 0
        strips.append(strip)
    return strips


def obstacle(array: NDArray[Any], dtype: np.dtype[Any]) -> str:
    """Return why no tile of a dtype can be a view of a 2-D array; "" if one can."""
    if array.dtype != dtype:
        return f"its dtype is {array.dtype.str}, not {dtype.str}"
    if not array.flags.aligned:
        return "its elements are not aligned"
    if array.size == 0:
        return ""
    try:
        Tile(array)
    except ValueError as error:
        return str(error)
    return ""


def triangle(tile: NDArray[Any], uplo: Uplo | None) -> NDArray[Any]:
    """Return a diagonal tile with zeros where `uplo` has no entries."""
    if uplo is None:
        return tile
    return np.tril(tile) if uplo == "lower" else np.triu(tile)


def set_block(target: NDArray[Any], block: NDArray[Any], i: int, j: int, uplo: Uplo | None) -> None:
    """Copy a block into the array of tile (i, j), the triangle that counts if it is diagonal.

    Raises
    ------
    ValueError
        When the block has another shape.
    TypeError
        When it cannot be cast safely: complex into real.
    """
    if block.shape != target.shape:
        hint = "; use rows[:, None] to make it two-dimensional" if block.ndim == 1 else ""
        raise ValueError(f"block ({i}, {j}) has shape {block.shape}, not {target.shape}{hint}")
    if not np.can_cast(block.dtype, target.dtype, "same_kind"):
        raise TypeError(f"block ({i}, {j}) has dtype {block.dtype}, not {target.dtype}")
    target[...] = triangle(block, uplo) if i == j else block


def merge_triangles(a: NDArray[Any], b: NDArray[Any], uplo: Uplo) -> NDArray[Any]:
    """Return a diagonal tile: triangle `uplo` of a with the diagonal, the rest of b."""
    k = np.arange(len(a))
    return np.where(k[:, None] >= k if uplo == "lower" else k[:, None] <= k, a, b)
