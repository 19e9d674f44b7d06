"""How a matrix is cut into tiles: sizes, index ranges, who visits them; no memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from operator import index
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from taskla.formats import format_of

__all__ = [
    "Layout",
    "MapTiles",
    "Part",
    "Uplo",
    "choose_nb",
    "each_tile",
    "in_sequence",
    "layout_of",
    "set_map_tiles",
]

Uplo: TypeAlias = Literal["lower", "upper"]

Part: TypeAlias = Literal["all", "hermitian", "lower", "upper", "unit lower"]
"""What counts of the entries that are stored, and stands for the others."""

MapTiles: TypeAlias = Callable[[Callable[[int, int], None], list[tuple[int, int]]], None]
"""Who calls a function for a list of tiles, see `set_map_tiles`."""


@dataclass(frozen=True)
class Layout:
    """An m x n matrix cut into nb x nb tiles, with smaller ones in the last tile row and column.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 0.
    nb : int
        The tile size, at least 1. It may exceed m and n.
    uplo : {None, "lower", "upper"}
        The triangle of tiles that exists, None for all tiles. A triangle demands m == n.

    Raises
    ------
    TypeError
        When a size is not an integer.
    ValueError
        When a size or `uplo` is not allowed.
    """

    m: int
    n: int
    nb: int
    uplo: Uplo | None = None

    def __post_init__(self) -> None:
        for name, least in (("m", 0), ("n", 0), ("nb", 1)):
            size = getattr(self, name)
            try:
                value = index(size)
            except TypeError:
                raise TypeError(f"{name} is {size!r}; it must be an integer") from None
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
            object.__setattr__(self, name, value)
        if self.uplo not in (None, "lower", "upper"):
            raise ValueError(f"uplo is {self.uplo!r}; allowed: None, 'lower', 'upper'")
        if self.uplo and self.m != self.n:
            raise ValueError(
                f"uplo is {self.uplo!r} and the shape ({self.m}, {self.n}); "
                "one triangle needs a square matrix"
            )

    @property
    def mt(self) -> int:
        """Number of tile rows."""
        return -(-self.m // self.nb)

    @property
    def nt(self) -> int:
        """Number of tile columns."""
        return -(-self.n // self.nb)

    def rows(self, i: int) -> slice:
        """Return the matrix rows of tile row i."""
        return _part(i, self.nb, self.m, self.mt, "row")

    def cols(self, j: int) -> slice:
        """Return the matrix columns of tile column j."""
        return _part(j, self.nb, self.n, self.nt, "column")

    def stores(self, i: int, j: int) -> bool:
        """Whether tile (i, j), inside the grid, exists: all do, or those of one triangle."""
        return self.uplo is None or i == j or (i > j) == (self.uplo == "lower")

    def tiles(self) -> Iterator[tuple[int, int]]:
        """Iterate over the indices (i, j) of the tiles that exist, column after column."""
        for j in range(self.nt):
            first = j if self.uplo == "lower" else 0
            last = min(j + 1, self.mt) if self.uplo == "upper" else self.mt
            for i in range(first, last):
                yield i, j

    @property
    def entries(self) -> int:
        """Number of entries in the tiles that exist; those on the diagonal are full squares."""
        if self.uplo is None:
            return self.m * self.n
        whole, rest = divmod(self.n, self.nb)
        return self.nb**2 * (whole * (whole + 1) // 2) + rest * self.n


def _part(k: int, nb: int, size: int, count: int, name: str) -> slice:
    """Return the index range of part k out of `count`."""
    if not 0 <= k < count:
        raise IndexError(f"tile {name} {k} is out of range; allowed: {_range(count)}")
    return slice(k * nb, min(size, (k + 1) * nb))


def _range(count: int) -> str:
    return f"0 to {count - 1}" if count else "none, the matrix is empty"


def in_sequence(function: Callable[[int, int], None], tiles: list[tuple[int, int]]) -> None:
    """Call ``function(i, j)`` for one tile after the other."""
    for i, j in tiles:
        function(i, j)


_map_tiles: MapTiles = in_sequence


def set_map_tiles(map_tiles: MapTiles) -> MapTiles:
    """Set who calls functions for the tiles of new matrices; return who did before.

    Parameters
    ----------
    map_tiles : callable
        ``map_tiles(function, tiles)`` calls ``function(i, j)`` once for each pair in the list
        `tiles`, in any order, from any threads, and raises what a call raises. At first this is
        `in_sequence`.
    """
    global _map_tiles
    before, _map_tiles = _map_tiles, map_tiles
    return before


def each_tile(
    tiles: list[tuple[int, int]],
    function: Callable[[int, int], None],
    map_tiles: MapTiles | None = None,
) -> None:
    """Have `map_tiles`, or the one that is set, call ``function(i, j)`` for some tiles."""
    (map_tiles or _map_tiles)(function, tiles)


_TILE_SIZES = {
    "float32": (512, 1024),
    "float64": (256, 512, 1024),
    "complex64": (256, 512),
    "complex128": (256, 512),
}


def choose_nb(n: int, dtype: DTypeLike = "float64", workers: int | None = None) -> int:
    """Return the tile size for a matrix of order n.

    The largest that leaves enough tile columns for all workers, ``5 sqrt(workers)`` for the second
    of these sizes and twice as many for the third; else the smallest, below which the overhead of
    tasks tells. `docs/tiles-and-nb.md` has the measurements.

    ==========  ===============
    dtype       tile sizes
    ==========  ===============
    float32     512, 1024
    float64     256, 512, 1024
    complex64   256, 512
    complex128  256, 512
    ==========  ===============

    Parameters
    ----------
    n : int
        The larger dimension.
    dtype : dtype-like
    workers : int, optional
        By default the processors that this process may use.

    Raises
    ------
    ValueError
        When `dtype` is not one of these.
    """
    format_of(dtype)
    if workers is None:
        affinity = getattr(os, "sched_getaffinity", None)
        workers = len(affinity(0)) if affinity else os.cpu_count() or 1
    smallest, *larger = _TILE_SIZES[np.dtype(dtype).name]
    columns = (n / nb / sqrt(workers) for nb in larger)
    enough = (5.0 * k for k in range(1, len(larger) + 1))
    fitting = (nb for nb, c, e in zip(larger, columns, enough, strict=True) if c >= e)
    return max(fitting, default=smallest)


def layout_of(shape: Sequence[int], nb: int | None, dtype: DTypeLike, uplo: Uplo | None) -> Layout:
    """Return the layout that a user asked for, with the chosen tile size when `nb` is None."""
    try:
        m, n = shape
    except (TypeError, ValueError):
        raise ValueError(f"shape is {shape!r}; it must be two integers") from None
    # The sizes are checked before they are computed with.
    layout = Layout(m, n, 1 if nb is None else nb, uplo)
    return layout if nb is not None else replace(layout, nb=choose_nb(max(m, n), dtype))
