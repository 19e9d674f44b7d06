"""Factorisations of tiled matrices, and what is solved with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla import lapack
from taskla.flow import TaskFlow, Tiles
from taskla.linalg._passes import Array, row_order
from taskla.linalg._tiled import (
    clear,
    common_dtype,
    finite,
    matrix,
    read,
    result,
    rows_fit,
    tile_size,
    triangle_asked,
    writable,
)
from taskla.matrix import TiledMatrix
from taskla.operands import diagonal, full, interchanges_of, layouts, run, square
from taskla.precision import Precision

__all__ = [
    "cho_factor",
    "cho_solve",
    "cholesky",
    "lu",
    "lu_diagonal",
    "lu_factor",
    "lu_solve",
    "permuted_rows",
]


# Cholesky -----------------------------------------------------------------------------------------


def cholesky(
    A: TiledMatrix,
    lower: Any,
    overwrite_a: bool,
    check_finite: bool,
    nb: int | None,
    precision: Precision | None = None,
) -> TiledMatrix:
    """Return the factor; of a full matrix with zeros in the other triangle."""
    C, is_lower = cho_factor(A, lower, overwrite_a, check_finite, nb, precision)
    clear(C, "lower" if is_lower else "upper")
    return C


def cho_factor(
    A: TiledMatrix,
    lower: Any,
    overwrite_a: bool,
    check_finite: bool,
    nb: int | None,
    precision: Precision | None = None,
) -> tuple[TiledMatrix, bool]:
    """Return the factor and whether it is the lower one."""
    square(a=A)
    size = tile_size(nb, A)
    uplo = triangle_asked("a", A, lower, default=False)
    finite(check_finite, A, uplo=uplo)
    C = writable(A, size, A.dtype, overwrite_a, precision)
    return lapack.potrf(C, uplo), uplo == "lower"


def cho_solve(
    c: Any, lower: Any, b: Any, overwrite_b: bool, check_finite: bool, nb: int | None
) -> Any:
    """Return x, as `b` was given."""
    size = tile_size(nb, c, b)
    factor, right = matrix("c", c), matrix("b", b)
    rows_fit(factor, right)
    dtype = common_dtype(c=factor, b=right)
    uplo = triangle_asked("c", factor, lower)
    finite(check_finite, factor, uplo=uplo)
    finite(check_finite, right)
    C = read(factor, size, dtype)
    X = lapack.potrs(C, writable(right, size, dtype, overwrite_b), uplo)
    return result(X, b)


# LU -----------------------------------------------------------------------------------------------


def lu_factor(
    A: TiledMatrix,
    overwrite_a: bool,
    check_finite: bool,
    nb: int | None,
    precision: Precision | None = None,
) -> tuple[TiledMatrix, NDArray[np.int32], int]:
    """Return factors, pivots and LAPACK's info: where the first zero is, from 1; 0 if none."""
    full(a=A)
    size = tile_size(nb, A)
    finite(check_finite, A)
    factors = writable(A, size, A.dtype, overwrite_a, precision)
    piv = lapack.getrf(factors)
    zeros = np.flatnonzero(diagonal(factors) == 0)
    return factors, piv, int(zeros[0]) + 1 if zeros.size else 0


def lu_solve(
    factors: Any,
    piv: Any,
    b: Any,
    trans: Any,
    overwrite_b: bool,
    check_finite: bool,
    nb: int | None,
) -> Any:
    """Return x, as `b` was given."""
    if trans not in (0, 1, 2):
        raise ValueError(f"trans is {trans!r}; allowed: 0, 1, 2")
    size = tile_size(nb, factors, b)
    lu, right = matrix("lu", factors), matrix("b", b)
    rows_fit(lu, right)
    dtype = common_dtype(lu=lu, b=right)
    finite(check_finite, right)
    A = read(lu, size, dtype)
    X = lapack.getrs(A, piv, writable(right, size, dtype, overwrite_b), trans="NTC"[trans])
    return result(X, b)


def lu(
    A: TiledMatrix,
    permute_l: bool,
    overwrite_a: bool,
    check_finite: bool,
    p_indices: bool,
    nb: int | None,
    precision: Precision | None = None,
) -> tuple[Any, ...]:
    """Return P, L and U, or P L and U; P is tiled, or an array of indices on all ranks."""
    factors, piv, _ = lu_factor(A, overwrite_a, check_finite, nb, precision)
    lower, upper = _triangles(factors)
    if permute_l:
        permuted_rows(lower, piv)
        return lower, upper
    p = np.argsort(row_order(piv, A.m))
    if p_indices:
        return p.astype(np.int32), lower, upper
    permutation = TiledMatrix.from_function(
        lambda rows, cols: p[rows, None] == cols,
        (A.m, A.m),
        A.nb,
        np.zeros(0, A.dtype).real.dtype,
        distribution=A.distribution,
    )
    return permutation, lower, upper


def lu_diagonal(
    A: TiledMatrix, overwrite_a: bool, check_finite: bool, nb: int | None
) -> tuple[Array, NDArray[np.int32]]:
    """Return the diagonal of U and the pivots, on all ranks."""
    factors, piv, _ = lu_factor(A, overwrite_a, check_finite, nb)
    return diagonal(factors), piv


def _triangles(factors: TiledMatrix) -> tuple[TiledMatrix, TiledMatrix]:
    """Return L and U; each rank takes its own tiles apart."""
    (m, n), nb = factors.shape, factors.nb

    def part(rows: NDArray[np.intp], cols: NDArray[np.intp]) -> Array:
        i, j = int(rows[0]) // nb, int(cols[0]) // nb
        block: Array = factors.tile(i, j).array[: len(rows), : len(cols)]
        return block

    def lower(rows: NDArray[np.intp], cols: NDArray[np.intp]) -> Array:
        below: Array = np.where(rows[:, None] > cols, part(rows, cols), 0)
        below[rows[:, None] == cols] = 1
        return below

    def upper(rows: NDArray[np.intp], cols: NDArray[np.intp]) -> Array:
        return np.where(rows[:, None] <= cols, part(rows, cols), 0)

    k, type_, owner = min(m, n), factors.dtype, factors.distribution
    return (
        TiledMatrix.from_function(lower, (m, k), nb, type_, distribution=owner),
        TiledMatrix.from_function(upper, (k, n), nb, type_, distribution=owner),
    )


def permuted_rows(A: TiledMatrix, piv: Any) -> None:
    """Undo the interchanges of `getrf` in the rows of a matrix."""
    column, pivots = interchanges_of(piv, min(A.m, A.n), A)
    run(_permuted, [A, column], (*layouts(("A",), A=A), pivots))


def _permuted(flow: TaskFlow, A: Tiles, P: Tiles) -> None:
    """A := P A, the interchanges of `getrf` undone."""
    flow.laswp(P.columns, A.columns, forward=False)
