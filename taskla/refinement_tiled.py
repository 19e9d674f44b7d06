"""Refinement of solutions with tiled matrices: factors in a lower precision, A as it is.

Right-hand sides and corrections are thin: all ranks have them whole, as arrays, and only what
multiplies or solves with them is done by tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.linalg import LinAlgError
from numpy.typing import NDArray

from taskla.formats import dtype_of
from taskla.level3 import gemm, hemm, symm
from taskla.matrix import TiledMatrix
from taskla.matrix_layout import each_tile
from taskla.norms import lange, lanhe, lansy
from taskla.refinement import (
    FAILED,
    OVERFLOW,
    RefinementInfo,
    Solver,
    System,
    failed,
    refine,
    scale_into,
)

__all__ = ["Factor", "Refined", "Solve", "refined", "refuse_formats", "settled"]

#: Iterations of GMRES on Dask, where one takes two programs: a second or two.
WORK_ON_DASK = 10

Array: TypeAlias = NDArray[Any]
Solve: TypeAlias = Callable[[TiledMatrix, str], Any]
"""``solve(X, trans)`` overwrites X with the solution of op(A) Y = X."""
Factor: TypeAlias = Callable[[TiledMatrix], Callable[[TiledMatrix], Solve]]
"""Factors a matrix in place; what it returns gives `Solve` for these factors in any precision."""


@dataclass(frozen=True)
class Refined:
    """What became of a refinement.

    Attributes
    ----------
    info : RefinementInfo
    solve : callable or None
        ``solve(x, trans)`` overwrites an array with a solution by the low factors, those of a
        multiple of A that is in their range; None without.
    norm : float
        The largest row sum of ``|op(A)|`` of that multiple.
    """

    info: RefinementInfo
    solve: Callable[[Array, str], None] | None = None
    norm: float = np.nan


def refuse_formats(precision: str | None, **matrices: TiledMatrix) -> None:
    """Raise ValueError where refinement is asked for matrices whose tiles have formats already."""
    for name, matrix in matrices.items():
        if precision is not None and matrix.mixed is not None:
            raise ValueError(
                f"the tiles of {name} have number formats of their own, and precision is "
                f"{precision!r}: refinement wants {name}.astype({str(matrix.dtype)!r})"
            )


def settled(A: TiledMatrix, *others: Any) -> None:
    """Have lazy matrices computed where they are, with what belongs to them; they are kept there.

    When to stop is only known when numbers are.
    """
    if hasattr(A, "settle"):
        A.settle(*(other for other in others if hasattr(other, "tile_keys")))


def refined(
    A: TiledMatrix,
    B: TiledMatrix,
    precision: str,
    factor: Factor,
    *,
    uplo: str | None = None,
    trans: Literal["N", "T"] = "N",
) -> Refined:
    """Solve op(A) X = B with factors in a lower precision.

    Parameters
    ----------
    A : TiledMatrix
        (n, n), in double precision; not changed.
    B : TiledMatrix
        (n, nrhs), overwritten by X where that is found, else as it was.
    precision : {"fp32", "bf16", "fp16"}
        Of the factors.
    factor : callable
        Raises `numpy.linalg.LinAlgError` when it fails.
    uplo : {None, "L", "U"}
        The triangle to use of a symmetric or Hermitian A, factored by Cholesky.
    trans : {"N", "T"}
        A, or the transpose of a real general A.

    Returns
    -------
    Refined
    """
    is_complex = A.dtype.kind == "c"
    settled(A)
    if uplo is None:
        norm = lange("I" if trans == "N" else "1", A)
    else:
        norm = (lanhe if is_complex else lansy)("I", A, uplo)
    scale = scale_into(precision, norm)
    if scale is None:
        return Refined(failed(precision, OVERFLOW, "the matrix is not finite"))
    low = _converted(A, dtype_of("fp32", is_complex), scale)
    try:
        if precision == "fp32":
            factored = factor(low)
        else:
            emulated = low.with_precision(precision)
            factored = factor(emulated)
            low = emulated.astype(low.dtype)
            settled(low)
    except LinAlgError as error:
        return Refined(failed(precision, FAILED, f"in {precision}: {error}"))

    def in_place(factors: TiledMatrix) -> Callable[[Array, str], None]:
        solve_tiled = factored(factors)

        def solve(x: Array, op: str) -> None:
            X = _tiled(x, A.nb)
            solve_tiled(X, op)
            _fetch(X, x)

        return solve

    def solution(factors: TiledMatrix) -> Callable[[Array], Array]:
        solve = in_place(factors)

        def solved(R: Array) -> Array:
            x = np.array(R, factors.dtype, order="F")
            solve(x, trans)
            # what low precision has no room for, the result may have
            return np.asarray(np.multiply(x, scale, dtype=A.dtype))

        return solved

    wide = dtype_of("fp64", is_complex)
    system = System(
        _product(A, uplo, trans), solution(low), lambda: solution(_converted(low, wide)), norm
    )
    solver: Solver = "lu-ir" if uplo is None else "cholesky-ir"
    b = B.to_array(copy=True)
    if getattr(B, "unchecked", False):
        b = np.asarray_chkfinite(b)
    work = WORK_ON_DASK + A.n // 100 if hasattr(A, "engine") else None
    X, info = refine(system, b, precision, solver, work=work)
    if X is None:
        return Refined(info)
    for i, j in B.own_tiles():
        B.put(i, j, X[B.rows(i), B.cols(j)])
    return Refined(info, in_place(low), norm * scale)


def _converted(A: TiledMatrix, dtype: np.dtype[Any], scale: float = 1.0) -> TiledMatrix:
    """Return a multiple of A in another data type, made by all workers."""
    if hasattr(A, "scaled"):
        lazy: TiledMatrix = A.scaled(dtype, scale)
        settled(lazy)
        return lazy
    copy = A.like(dtype)

    def put(i: int, j: int) -> None:
        tile = A.tile(i, j).array
        # what a triangle leaves unused may be anything
        with np.errstate(all="ignore"):
            copy.tile(i, j).array[...] = tile if scale == 1 else tile * scale

    each_tile(A.own_tiles(), put)
    return copy


def _product(A: TiledMatrix, uplo: str | None, trans: str) -> Callable[[Array], Array]:
    # beside thin arrays it is A that is not to travel
    stationary = "C" if A.distribution is None else "A"

    def times(x: Array) -> Array:
        X = _tiled(np.asfortranarray(x), A.nb)
        y = np.zeros(x.shape, A.dtype, order="F")
        Y = _tiled(y, A.nb)
        if uplo is None:
            gemm(1.0, A, X, 0.0, Y, transa=trans, stationary=stationary)
        else:
            multiply = hemm if A.dtype.kind == "c" else symm
            multiply("L", uplo, 1.0, A, X, 0.0, Y, stationary=stationary)
        _fetch(Y, y)
        return y

    return times


def _tiled(x: Array, nb: int) -> TiledMatrix:
    """Return the tiles of a Fortran array: views of it, on several ranks copies."""
    return TiledMatrix.from_array(x, nb)


def _fetch(X: TiledMatrix, x: Array) -> None:
    """Bring what the tiles of an array have become back into it, on all ranks."""
    if X.distribution is not None:
        x[...] = X.to_array()
