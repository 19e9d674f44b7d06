"""The pieces of tournament pivoting.

Each block of a panel proposes the rows that partial pivoting would choose in it; the proposals play
each other in a binary tree; the winner's rows are the pivots of the whole panel (CALU: Grigori,
Demmel, Xiang, SIAM J. Matrix Anal. Appl. 32, 2011).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.kernels.arguments import mismatch
from taskla.kernels.lapack import permutation
from taskla.kernels.pointers import INFO, INT, LETTERS, Routine, function
from taskla.kernels.table import Kernel, register
from taskla.tile import Tile


@register("getrf_tnt_leaf")
def getrf_tnt_leaf(dtype: str, row0: int) -> Kernel:
    """Propose rows of A, whose first row is row `row0`: C holds them, I (int64) their numbers.

    They are the first min(rows, columns) rows of C and I, which are at least as long; the rest of C
    is zero, of I -1.
    """
    routine = function(LETTERS[dtype] + "getrf")

    def kernel(a: Tile, c: Tile, i: Tile) -> None:
        count = min(a.rows, a.cols)
        if c.rows < count or c.cols != a.cols or i.rows != c.rows or i.cols != 1:
            mismatch("getrf_tnt_leaf", a, c, i)
        chosen = _choose(routine, a.array)[:count]
        _propose(c, i, a.array[chosen], row0 + chosen)

    return kernel


@register("getrf_tnt_merge")
def getrf_tnt_merge(dtype: str) -> Kernel:
    """Let two proposals play; the winners replace the first."""
    routine = function(LETTERS[dtype] + "getrf")

    def kernel(c1: Tile, i1: Tile, c2: Tile, i2: Tile) -> None:
        if (
            c1.cols != c2.cols
            or (i1.rows, i1.cols) != (c1.rows, 1)
            or (i2.rows, i2.cols) != (c2.rows, 1)
        ):
            mismatch("getrf_tnt_merge", c1, i1, c2, i2)
        numbers = np.concatenate((i1.array[:, 0], i2.array[:, 0]))
        players = np.flatnonzero(numbers >= 0)
        rows = np.concatenate((c1.array, c2.array))[players]
        chosen = _choose(routine, rows)[: min(len(players), c1.rows, c1.cols)]
        _propose(c1, i1, rows[chosen], numbers[players[chosen]])

    return kernel


# a task is of the type that it writes, and this one writes pivots
@register("getrf_tnt_pivots", formats=(*LETTERS, "int32"))
def getrf_tnt_pivots(dtype: str, top: int, n: int) -> Kernel:
    """Turn the winners' numbers into LAPACK's pivots, from 1, of a panel that begins at `top`."""

    def kernel(i: Tile, p: Tile) -> None:
        if p.rows != n or p.cols != 1 or i.cols != 1:
            mismatch("getrf_tnt_pivots", i, p)
        # Where each row is by now, and which row is there; rows never moved are at home.
        place: dict[int, int] = {}
        occupant: dict[int, int] = {}
        winners = [row - top for row in i.array[:, 0].tolist() if row >= 0]
        pivots = list(range(top + 1, top + n + 1))
        for target, row in enumerate(winners[:n]):
            source = place.get(row, row)
            pivots[target] = top + source + 1
            evicted = occupant.get(target, target)
            occupant[source], place[evicted] = evicted, source
            occupant[target], place[row] = row, target
        p.array[:, 0] = pivots

    return kernel


def _choose(routine: Routine, rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return the numbers of all rows, in the order in which partial pivoting takes them."""
    work = np.array(rows, order="F")
    m, n = work.shape
    pivots = np.empty(min(m, n), np.int32)
    at = work.__array_interface__["data"][0]
    routine(INT[m], INT[n], at, INT[max(1, m)], pivots.__array_interface__["data"][0], INFO.at)
    return permutation(pivots, m)


def _propose(c: Tile, i: Tile, rows: NDArray[Any], numbers: NDArray[np.int64]) -> None:
    c.array[: len(rows)] = rows
    c.array[len(rows) :] = 0
    i.array[: len(rows), 0] = numbers
    i.array[len(rows) :, 0] = -1
