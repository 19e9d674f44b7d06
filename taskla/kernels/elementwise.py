"""Copies, fills, scalings and sums of tiles, whole or one triangle; NumPy releases the GIL."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla.kernels.arguments import FLIP_UPLO, choice, mismatch, number, transposition, value_of
from taskla.kernels.pointers import CHAR, INT, LETTERS, function
from taskla.kernels.table import Kernel, register
from taskla.tile import Tile

__all__ = ["Block", "blocks", "fortran"]

Array: TypeAlias = NDArray[Any]

# Blocks of this many columns: a square one fits the first-level cache, with its transpose.
_WIDTH = 64

#: rows, columns, and which of the elements belong to the part (None: all)
Block: TypeAlias = tuple[slice, slice, NDArray[np.bool_] | None]


def blocks(x: Array, uplo: str, height: int = sys.maxsize) -> Iterator[Block]:
    """Cut a part of a matrix into blocks that are 64 columns wide.

    Parameters
    ----------
    x : ndarray, shape (rows, cols)
        The matrix.
    uplo : {"L", "U", "G"}
        The part: lower or upper triangle with the diagonal, or all.
    height : int, optional
        Most rows of a block. Default: as many as there are.

    Yields
    ------
    (slice, slice, mask)
        Rows, columns, and a boolean array where only some of the block's elements belong to the
        part: a square block on the diagonal.
    """
    rows, cols = x.shape
    for left in range(0, cols, _WIDTH):
        right = min(left + _WIDTH, cols)
        first, last = 0, rows
        if uplo != "G":
            low, high = min(left, rows), min(right, rows)
            if low < high:
                yield slice(low, high), slice(left, right), _mask(uplo, high - low, right - left)
            first, last = (high, rows) if uplo == "L" else (0, low)
        for top in range(first, last, height):
            yield slice(top, min(top + height, last)), slice(left, right), None


@cache
def _mask(uplo: str, rows: int, cols: int) -> NDArray[np.bool_]:
    lower = np.tri(rows, cols, 0 if uplo == "L" else -1, dtype=np.bool_)
    mask = lower if uplo == "L" else ~lower
    mask.flags.writeable = False
    return mask


def fortran(tile: Tile) -> Array:
    """Return the tile's memory as an array with contiguous columns: A, or A^T for order C."""
    return tile.array if tile.order == "F" else tile.array.T


def _aligned(operation: str, trans: str, a: Tile, b: Tile) -> tuple[Array, Array, int]:
    """Return op(A) without its conjugation, and B, both transposed if B's memory is; and a height.

    The height is that of blocks that can be walked through in both without missing the cache.
    """
    source = a.array if trans == "N" else a.array.T
    if source.shape != b.shape:
        mismatch(operation, a, b)
    if b.order == "C":
        source = source.T
    alike = (a.order == b.order) == (trans == "N")
    return source, fortran(b), sys.maxsize if alike else _WIDTH


@register("lacpy")
def lacpy(dtype: str, uplo: str, trans: str) -> Kernel:
    """B = op(A) over a part of B: lower or upper triangle with the diagonal, or all ("G")."""
    choice("lacpy", "uplo", uplo, "LUG")
    trans = transposition("lacpy", "trans", trans, LETTERS[dtype])

    def kernel(a: Tile, b: Tile) -> None:
        source, target, height = _aligned("lacpy", trans, a, b)
        part = uplo if b.order == "F" else FLIP_UPLO[uplo]
        for rows, cols, mask in blocks(target, part, height):
            where = True if mask is None else mask
            if trans == "C":
                np.conjugate(source[rows, cols], out=target[rows, cols], where=where)
            else:
                np.copyto(target[rows, cols], source[rows, cols], where=where)

    return kernel


@register("geadd")
def geadd(dtype: str, trans: str, alpha: complex, beta: complex) -> Kernel:
    """B = alpha op(A) + beta B; as in BLAS, what a zero multiplies is not read."""
    letter = LETTERS[dtype]
    trans = transposition("geadd", "trans", trans, letter)
    x = value_of("geadd", "alpha", alpha, letter)
    y = value_of("geadd", "beta", beta, letter)

    @np.errstate(all="ignore")
    def kernel(a: Tile, b: Tile) -> None:
        source, target, height = _aligned("geadd", trans, a, b)
        for rows, cols, _ in blocks(target, "G", height):
            block = target[rows, cols]
            _scale(block, y)
            if x:
                term = source[rows, cols]
                if trans == "C":
                    term = np.conjugate(term)
                block += term if x == 1 else x * term

    return kernel


@register("lascl")
def lascl(dtype: str, uplo: str, alpha: complex) -> Kernel:
    """A = alpha A over a triangle or all ("G"); as in BLAS, A is not read when alpha is zero."""
    letter = LETTERS[dtype]
    choice("lascl", "uplo", uplo, "LUG")
    x = value_of("lascl", "alpha", alpha, letter)

    @np.errstate(all="ignore")
    def kernel(a: Tile) -> None:
        target = fortran(a)
        part = uplo if a.order == "F" else FLIP_UPLO[uplo]
        for rows, cols, mask in blocks(target, part):
            _scale(target[rows, cols], x, True if mask is None else mask)

    return kernel


def _scale(block: Array, factor: complex, where: NDArray[np.bool_] | bool = True) -> None:
    if factor == 0:
        np.copyto(block, 0, where=where)
    elif factor != 1:
        np.multiply(block, factor, out=block, where=where)


@register("laset")
def laset(dtype: str, uplo: str, offdiag: complex, diag: complex) -> Kernel:
    """Set the diagonal of A, and what is off it in a triangle or in all of A ("G")."""
    letter = LETTERS[dtype]
    choice("laset", "uplo", uplo, "LUG")
    x = number("laset", "offdiag", offdiag, letter)
    y = number("laset", "diag", diag, letter)
    routine = function(letter + "laset")
    straight, flipped = CHAR[uplo], CHAR[FLIP_UPLO[uplo]]

    def kernel(a: Tile) -> None:
        M, N, LDA = INT[a.rows], INT[a.cols], INT[a.ld]
        if a.order == "F":
            routine(straight, M, N, x.at, y.at, a.pointer, LDA)
        else:
            routine(flipped, N, M, x.at, y.at, a.pointer, LDA)

    return kernel


@register("diagonal")
def diagonal(dtype: str) -> Kernel:
    """D = the diagonal of A, as a column."""

    def kernel(a: Tile, d: Tile) -> None:
        if (d.rows, d.cols) != (min(a.shape), 1):
            mismatch("diagonal", a, d)
        d.array[:, 0] = a.array.diagonal()

    return kernel


@register("noop")
def noop(dtype: str) -> Kernel:
    """Nothing: what an engine costs by itself is measured with this."""

    def kernel(*tiles: Tile) -> None:
        pass

    return kernel
