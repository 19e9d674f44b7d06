"""Row interchanges of a tile column that several ranks share.

A panel's interchanges bring pivot rows to the top, and rows from the top to where these were: what
comes from below goes to the top tile, what goes below comes from it. So the rank of the top tile
and each other rank swap some rows, and no other two do. A rank takes the rows that go to another
one out of its tiles, in the order of where they go; the other puts them into its own.

Rows are those of the matrix; `mine` and `theirs` are the first rows of the tiles that a rank has of
the column, `nb` rows high but for the matrix's last one. Pivots count rows from 1.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from taskla.kernels.arguments import mismatch
from taskla.kernels.table import Kernel, register
from taskla.tile import Tile

Rows = tuple[int, ...]
Int64 = NDArray[np.int64]


@register("laswp_take")
def laswp_take(dtype: str, row: int, nb: int, forward: bool, mine: Rows, theirs: Rows) -> Kernel:
    """X = the rows of A, the tiles of one rank, that interchanges move to the tiles of another."""

    def kernel(p: Tile, a: Tile, x: Tile) -> None:
        _, source = _between(p, row, nb, forward, theirs, mine)
        if a.cols != x.cols or len(source) > x.rows:
            mismatch("laswp_take", p, a, x)
        if len(source):
            # of the transpose, whose rows are contiguous: twice as fast
            x.array.T[:, : len(source)] = a.array.T.take(_inside(source, nb, mine), axis=1)

    return kernel


@register("laswp_own")
def laswp_own(dtype: str, row: int, nb: int, forward: bool, mine: Rows) -> Kernel:
    """Move the rows of A, the tiles of one rank, that interchanges move among these tiles."""

    def kernel(p: Tile, a: Tile) -> None:
        target, source = _between(p, row, nb, forward, mine, mine)
        if len(source):
            moved = a.array.T.take(_inside(source, nb, mine), axis=1)
            a.array.T[:, _inside(target, nb, mine)] = moved

    return kernel


@register("laswp_put")
def laswp_put(dtype: str, row: int, nb: int, forward: bool, mine: Rows, theirs: Rows) -> Kernel:
    """Put X, rows that interchanges move from the tiles of another rank, into A."""

    def kernel(p: Tile, x: Tile, a: Tile) -> None:
        target, source = _between(p, row, nb, forward, mine, theirs)
        if a.cols != x.cols or len(source) > x.rows:
            mismatch("laswp_put", p, x, a)
        if len(source):
            a.array.T[:, _inside(target, nb, mine)] = x.array.T[:, : len(source)]

    return kernel


def _between(p: Tile, row: int, nb: int, forward: bool, to: Rows, of: Rows) -> tuple[Int64, Int64]:
    """The rows that move to some tiles from others, by where they go, and where they come from."""
    target, source = _moves(p.array[:, 0].tobytes(), p.array.dtype.char, row, forward)
    found = np.isin(target // nb * nb, to) & np.isin(source // nb * nb, of)
    return target[found], source[found]


# The tasks of one panel ask for the same, column after column.
@lru_cache(maxsize=64)
def _moves(pivots: bytes, dtype: str, row: int, forward: bool) -> tuple[Int64, Int64]:
    """The rows that interchanges change, in order, and the rows whose content they get."""
    content: dict[int, int] = {}
    swaps = list(enumerate((np.frombuffer(pivots, dtype) - 1).tolist(), start=row))
    for i, other in swaps if forward else reversed(swaps):
        content[i], content[other] = content.get(other, other), content.get(i, i)
    moved = sorted((target, source) for target, source in content.items() if target != source)
    pairs = np.array(moved, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _inside(rows: Int64, nb: int, mine: Rows) -> Int64:
    """Where rows of the matrix are in the tiles of one rank, one below the other."""
    starts = np.array(mine)
    tile = np.searchsorted(starts, rows, side="right") - 1
    return np.asarray(tile * nb + rows - starts[tile])
