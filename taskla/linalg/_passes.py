"""Passes over a whole matrix that move memory and compute next to nothing.

Each reads or writes an element once, in blocks that fit a core's cache, on the workers of the
current engine; a matrix of a few blocks is done in the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import starmap
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla import engines

__all__ = [
    "Part",
    "check",
    "clear",
    "copied",
    "gathered",
    "is_mirrored",
    "largest_column_sum",
    "mirror",
    "row_order",
    "scatter_columns",
    "sum_of_squares",
]

Array: TypeAlias = NDArray[Any]
Part: TypeAlias = Literal["G", "L", "U"]

# The name of a part of a matrix in the transpose.
_TRANSPOSED: dict[Part, Part] = {"G": "G", "L": "U", "U": "L"}
_NOT_FINITE = "array must not contain infs or NaNs"

WIDTH = 128
"""Columns of a strip, the unit of work."""
TALL = 512
"""Rows of a block when memory runs down the columns: half a megabyte of float64 with WIDTH."""
SMALL = 2**18
"""Elements up to which waking the workers costs more than they save."""


def copied(
    a: Array, dtype: np.dtype[Any], order: Literal["F", "C"], part: Part, check_finite: bool
) -> Array:
    """Return a copy of a matrix, or of one triangle with zeros in the other, checked on the way.

    Parameters
    ----------
    a : ndarray, shape (m, n)
    dtype : numpy.dtype
        Of the copy.
    order : {"F", "C"}
        Of the copy.
    part : {"G", "L", "U"}
        All of `a`, or its lower or upper triangle (trapezium).
    check_finite : bool
        Whether the whole of `a` must be finite, the part that is not copied too.

    Raises
    ------
    ValueError
        When `a` is to be checked and holds infs or NaNs.
    """
    if order == "C":
        return copied(a.T, dtype, "F", _TRANSPOSED[part], check_finite).T
    check_finite = check_finite and a.dtype.kind in "fc"
    # Zeros from the system cost nothing until they are touched: a triangle's other half never is.
    out = (np.empty if part == "G" else np.zeros)(a.shape, dtype, order="F")

    def strip(cols: slice) -> bool:
        return all(_copy_block(a, out, rows, cols, part, check_finite) for rows in _rows(a))

    if not all(_map(strip, a)):
        raise ValueError(_NOT_FINITE)
    return out


def check(a: Array) -> None:
    """Raise ValueError unless all elements of a matrix are finite."""
    if a.dtype.kind not in "fc":
        return
    if _runs_along_rows(a):
        a = a.T

    def strip(cols: slice) -> bool:
        return all(np.isfinite(a[rows, cols]).all() for rows in _rows(a))

    if not all(_map(strip, a)):
        raise ValueError(_NOT_FINITE)


def clear(a: Array, part: Part) -> None:
    """Put zeros into the triangle of `a` that is not `part` ("L" or "U"), the diagonal left out."""
    if _runs_along_rows(a):
        a, part = a.T, _TRANSPOSED[part]
    keep = np.tril if part == "L" else np.triu

    def strip(cols: slice) -> None:
        for rows in _rows(a):
            inside = _inside(rows, cols, part)
            if inside is False:
                a[rows, cols] = 0
            elif inside is None:
                a[rows, cols] = keep(a[rows, cols], rows.start - cols.start)

    _map(strip, a)


def is_mirrored(a: Array, conjugate: bool) -> bool:
    """Whether a square matrix equals its transpose, or its conjugate transpose, exactly."""
    # One row tells almost every general matrix apart.
    if not np.array_equal(a[0], a[:, 0].conj() if conjugate else a[:, 0]):
        return False

    def strip(cols: slice) -> bool:
        for start in range(cols.start, len(a), WIDTH):
            rows = slice(start, start + WIDTH)
            image = a[cols, rows].T
            if not np.array_equal(a[rows, cols], image.conj() if conjugate else image):
                return False
        return True

    return all(_map(strip, a))


def mirror(a: Array, part: Part) -> None:
    """Fill the triangle of a square `a` that is not `part` with the other's conjugate transpose."""
    if part == "U":
        a = a.T

    def strip(cols: slice) -> None:
        block = a[cols, cols]
        block[...] = np.tril(block) + np.tril(block, -1).T.conj()
        for start in range(cols.stop, len(a), WIDTH):
            rows = slice(start, start + WIDTH)
            a[cols, rows] = a[rows, cols].T.conj()

    _map(strip, a)


def sum_of_squares(a: Array) -> float:
    """Return the sum of ``|a_ij|**2``: of a strip in the type of `a`, of strips in double."""
    if _runs_along_rows(a):
        a = a.T

    def strip(cols: slice) -> float:
        # A view if the columns follow each other in memory.
        run = a[:, cols].reshape(-1, order="F")
        return float(np.vdot(run, run).real)

    with np.errstate(all="ignore"):
        return float(sum(_map(strip, a)))


def largest_column_sum(a: Array) -> float:
    """Return the largest sum of absolute values in a column; NaN if there is one."""

    def strip(cols: slice) -> float:
        return float(np.abs(a[:, cols]).sum(axis=0).max())

    with np.errstate(all="ignore"):
        return float(np.max(_map(strip, a)))


def gathered(a: Array, order: Array) -> Array:
    """Return ``a[order]``, the rows of a matrix in another order, as a Fortran array."""
    out = np.empty(a.shape, a.dtype, order="F")

    def strip(cols: slice) -> None:
        for j in range(cols.start, min(cols.stop, a.shape[1])):
            np.take(a[:, j], order, out=out[:, j], mode="clip")

    _map(strip, a)
    return out


def row_order(piv: Array, m: int) -> Array:
    """Return the indices q with ``A[q] = L U`` for the interchanges of an m-row LU."""
    order = list(range(m))
    for i, p in enumerate(piv.tolist()):
        order[i], order[p] = order[p], order[i]
    return np.array(order, np.intp)


def scatter_columns(a: Array, order: Array, out: Array) -> None:
    """Set ``out[:, order] = a``, the columns of a matrix in another order."""

    def strip(cols: slice) -> None:
        for j in range(cols.start, min(cols.stop, a.shape[1])):
            out[:, order[j]] = a[:, j]

    _map(strip, a)


def _copy_block(
    a: Array, out: Array, rows: slice, cols: slice, part: Part, check_finite: bool
) -> bool:
    """Copy one block; return False for one that is not finite."""
    block = a[rows, cols]
    if part == "G" or (inside := _inside(rows, cols, part)) is True:
        out[rows, cols] = block
    elif inside is None:
        keep = np.tril if part == "L" else np.triu
        out[rows, cols] = keep(block, rows.start - cols.start)
    return not check_finite or bool(np.isfinite(block).all())


def _inside(rows: slice, cols: slice, part: Part) -> bool | None:
    """Whether a block is inside a triangle (with the diagonal), outside, or both (None)."""
    if part == "U":
        rows, cols = cols, rows
    if rows.start >= cols.stop - 1:
        return True
    return False if rows.stop <= cols.start else None


def _runs_along_rows(a: Array) -> bool:
    """Whether memory runs along the rows of a matrix rather than down its columns."""
    return abs(a.strides[1]) < abs(a.strides[0])


def _rows(a: Array) -> Iterator[slice]:
    """Cut the rows into blocks: long ones where memory runs down them, else square ones."""
    height = WIDTH if _runs_along_rows(a) else TALL
    return (slice(i, i + height) for i in range(0, a.shape[0], height))


def _map(function: Callable[[slice], Any], a: Array) -> list[Any]:
    """Call a function for each strip of columns, on the engine's workers if there are several."""
    strips = [(slice(j, j + WIDTH),) for j in range(0, a.shape[1], WIDTH)]
    if len(strips) == 1 or a.size <= SMALL:
        return list(starmap(function, strips))
    return list(engines.current().map(function, strips))
