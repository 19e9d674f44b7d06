"""Factorisations and inversions of one tile or one panel.

The factor of a tile of order C is that of its transpose in Fortran's eyes, with the other triangle;
LU, which treats rows and columns differently, works on a copy in Fortran's order then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.errors import SingularMatrixError
from taskla.kernels import recursive
from taskla.kernels.arguments import FLIP_UPLO, choice, mismatch, reordered
from taskla.kernels.pointers import CHAR, INFO, INT, LETTERS, function
from taskla.kernels.table import Kernel, register
from taskla.tile import Tile

__all__ = ["permutation"]


@register("potrf")
def potrf(dtype: str, uplo: str) -> Kernel:
    """A = L L^H or U^H U, in place.

    The kernel raises NotPositiveDefiniteError for a leading minor that is not positive or not a
    number.
    """
    letter = LETTERS[dtype]
    choice("potrf", "uplo", uplo, "LU")
    calls = {o: recursive.potrf(letter, u) for o, u in (("F", uplo), ("C", FLIP_UPLO[uplo]))}

    def kernel(a: Tile) -> None:
        if a.rows != a.cols:
            mismatch("potrf", a)
        calls[a.order](a.rows, a.pointer, a.ld)

    return kernel


@register("lauum")
def lauum(dtype: str, uplo: str) -> Kernel:
    """A = L^H L or U U^H, over the triangle."""
    choice("lauum", "uplo", uplo, "LU")
    routine = function(LETTERS[dtype] + "lauum")
    triangles = {"F": CHAR[uplo], "C": CHAR[FLIP_UPLO[uplo]]}

    def kernel(a: Tile) -> None:
        if a.rows != a.cols:
            mismatch("lauum", a)
        routine(triangles[a.order], INT[a.rows], a.pointer, INT[a.ld], INFO.at)

    return kernel


@register("trtri")
def trtri(dtype: str, uplo: str, diag: str) -> Kernel:
    """A = inv(A), a triangle.

    The kernel raises SingularMatrixError for a zero on the diagonal, and leaves the tile as it was.
    """
    letter = LETTERS[dtype]
    choice("trtri", "uplo", uplo, "LU")
    choice("trtri", "diag", diag, "NU")
    calls = {o: recursive.trtri(letter, u, diag) for o, u in (("F", uplo), ("C", FLIP_UPLO[uplo]))}

    def kernel(a: Tile) -> None:
        if a.rows != a.cols:
            mismatch("trtri", a)
        if diag == "N" and len(zeros := np.flatnonzero(a.array.diagonal() == 0)):
            raise SingularMatrixError(int(zeros[0]) + 1)
        calls[a.order](a.rows, a.pointer, a.ld)

    return kernel


@register("getrf")
def getrf(dtype: str, row: int) -> Kernel:
    """A = P L U of a panel, m x n, with LAPACK's pivots: int32, one column of min(m, n).

    Pivots are row numbers of the matrix, from 1; the panel begins below its first `row` rows.

    A zero pivot does not stop it (LAPACK's ``info > 0``): U is singular then.
    """
    # OpenBLAS's routine is itself recursive, and no slower than one written here.
    routine = function(LETTERS[dtype] + "getrf")

    def kernel(a: Tile, p: Tile) -> None:
        order = min(a.rows, a.cols)
        if p.rows != order or p.cols != 1:
            mismatch("getrf", a, p)
        pivots = np.empty(order, np.int32)
        work = a if a.order == "F" else reordered(a, "F")
        m, n, at = INT[a.rows], INT[a.cols], pivots.__array_interface__["data"][0]
        routine(m, n, work.pointer, INT[work.ld], at, INFO.at)
        np.add(pivots, row, out=p.array[:, 0])
        if work is not a:
            a.array[...] = work.array

    return kernel


@register("getrf_nopiv")
def getrf_nopiv(dtype: str) -> Kernel:
    """A = L U without pivoting, m x n, L with a unit diagonal.

    The kernel raises SingularMatrixError for a pivot that is exactly zero.
    """
    factor = recursive.getrf_nopiv(LETTERS[dtype])

    def kernel(a: Tile) -> None:
        work = a if a.order == "F" else reordered(a, "F")
        try:
            factor(work.rows, work.cols, work.pointer, work.ld)
        finally:
            if work is not a:
                a.array[...] = work.array

    return kernel


@register("laswp")
def laswp(dtype: str, row: int, forward: bool) -> Kernel:
    """Interchange row i of A with row P[i], for all i in order, or in reverse to undo it.

    Pivots count the rows of the matrix from 1; A begins below its first `row` rows.
    """
    routine = function(LETTERS[dtype] + "laswp")
    direction = INT[1 if forward else -1]

    def kernel(p: Tile, a: Tile) -> None:
        if p.cols != 1 or p.rows > a.rows:
            mismatch("laswp", p, a)
        # LAPACK would follow a stray index anywhere.
        pivots = np.subtract(p.array[:, 0], row, dtype=np.int32)
        if len(pivots) and not 1 <= pivots.min() <= pivots.max() <= a.rows:
            raise ValueError(
                f"laswp: pivots from {pivots.min() + row} to {pivots.max() + row}; "
                f"allowed: {row + 1} to {row + a.rows}"
            )
        if a.order == "F":
            at = pivots.__array_interface__["data"][0]
            last = INT[len(pivots)]
            routine(INT[a.cols], a.pointer, INT[a.ld], INT[1], last, at, direction)
            return
        source = permutation(pivots, a.rows, forward)
        moved = np.flatnonzero(source != np.arange(a.rows))
        a.array[moved] = a.array[source[moved]]

    return kernel


def permutation(pivots: NDArray[np.int32], rows: int, forward: bool = True) -> NDArray[Any]:
    """Return what LAPACK's interchanges make of the numbers 0 to rows - 1.

    Parameters
    ----------
    pivots : (k,) int32 array
        Row i is interchanged with row pivots[i] - 1.
    rows : int
        The number of rows.
    forward : bool, default True
        From the first interchange to the last, or back.

    Returns
    -------
    (rows,) int64 array
        Row i of the result is row ``permutation[i]`` of the matrix.
    """
    order = list(range(rows))
    swaps = list(enumerate(pivots.tolist()))
    for i, pivot in swaps if forward else reversed(swaps):
        order[i], order[pivot - 1] = order[pivot - 1], order[i]
    return np.array(order, dtype=np.int64)
