"""LAPACK-named functions on tiled matrices, in place.

Each builds the task graph of its algorithm and runs it on the current engine (`taskla.engine`).
``uplo`` takes ``"L"`` or ``"lower"`` and ``"U"`` or ``"upper"``; its default is the triangle that
the matrix stores, else the lower one. Matrices of one call have one data type and one tile size;
otherwise, and for shapes that do not fit, `ValueError` says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from taskla import accuracy
from taskla.algorithms import (
    getrf as _getrf,
    getri as _getri,
    getrs as _getrs,
    lauum as _lauum,
    posv as _posv,
    potrf as _potrf,
    potri as _potri,
    potrs as _potrs,
    trtri as _trtri,
)
from taskla.errors import SingularMatrixError
from taskla.level3 import gemm, hemm, herk, symm, syrk, trmm, trsm
from taskla.matrix import TiledMatrix
from taskla.norms import lange, lanhe, lansy, lantr
from taskla.operands import (
    choice,
    diagonal,
    full,
    interchanges_of,
    layouts,
    match,
    pivot_column,
    run,
    square,
    stored_triangle,
)
from taskla.programs import Layout
from taskla.refinement import RefinementInfo, full as full_precision, low_format
from taskla.refinement_tiled import Factor, Solve, refined, refuse_formats, settled

__all__ = [
    "gemm",
    "gesv",
    "getrf",
    "getri",
    "getrs",
    "hemm",
    "herk",
    "lange",
    "lanhe",
    "lansy",
    "lantr",
    "lauum",
    "posv",
    "potrf",
    "potri",
    "potrs",
    "symm",
    "syrk",
    "trmm",
    "trsm",
    "trtri",
]

Pivot = Literal["partial", "tournament", "none"]
Pivots = NDArray[np.int32]


# -- Cholesky --------------------------------------------------------------------------------------


def potrf(A: TiledMatrix, uplo: str | None = None, *, estimate: bool = False) -> TiledMatrix:
    """Cholesky factorisation A = L L^H (lower) or U^H U (upper), in place.

    Parameters
    ----------
    A : TiledMatrix
        (n, n), symmetric or Hermitian positive definite; only the triangle `uplo` is used.
    uplo : str, optional
    estimate : bool, default False
        Whether to estimate the error ``||A - L L^H||_F / ||A||_F`` of the factorisation and of the
        formats that an adaptive map gave the tiles, in ``A.accuracy``: three passes over the
        matrix. On Dask A and the factor are computed at once.

    Returns
    -------
    TiledMatrix
        A, its triangle overwritten by the factor.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a leading minor is not positive definite; the message gives its order.

    References
    ----------
    LAPACK dpotrf.
    """
    square(A=A)
    letter = stored_triangle(A, uplo)
    params: tuple[str | int, ...] = (letter,)
    if A.slices > 1:
        params += (A.slices,)
    before = accuracy.probe(A, estimate)
    run(_potrf.potrf, [A], layouts(("A",), A=A), params)
    accuracy.after_cholesky(A, before, letter)
    return A


def potrs(A: TiledMatrix, B: TiledMatrix, uplo: str | None = None) -> TiledMatrix:
    """Solve A X = B with the Cholesky factor in A; B, (n, nrhs), is overwritten by X and returned.

    References
    ----------
    LAPACK dpotrs.
    """
    square(A=A)
    full(B=B)
    match("(rows as A)", (A.n, B.n), B=B)
    run(_potrs.potrs, [A, B], layouts(("B",), A=A, B=B), (stored_triangle(A, uplo),))
    return B


@overload
def posv(
    A: TiledMatrix, B: TiledMatrix, uplo: str | None = None, *, precision: None = None
) -> TiledMatrix: ...
@overload
def posv(
    A: TiledMatrix, B: TiledMatrix, uplo: str | None = None, *, precision: str
) -> RefinementInfo: ...
def posv(
    A: TiledMatrix, B: TiledMatrix, uplo: str | None = None, *, precision: str | None = None
) -> TiledMatrix | RefinementInfo:
    """Solve A X = B with a positive definite A; A becomes its factor and B, (n, nrhs), X.

    Parameters
    ----------
    A : TiledMatrix
        (n, n), symmetric or Hermitian positive definite; only the triangle `uplo` is used.
    B : TiledMatrix
    uplo : str, optional
    precision : {None, "fp64", "fp32", "bf16", "fp16"}, optional
        As of `gesv`.

    Returns
    -------
    TiledMatrix, or RefinementInfo
        B; with `precision` how it was solved.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a leading minor is not positive definite.
    ValueError
        As of `gesv`.

    References
    ----------
    LAPACK dposv; with `precision` dsposv, zcposv.
    """
    square(A=A)
    full(B=B)
    match("(rows as A)", (A.n, B.n), B=B)
    shapes, letter = layouts(("A", "B"), A=A, B=B), stored_triangle(A, uplo)
    refuse_formats(precision, A=A, B=B)
    low = low_format(precision, A.dtype)
    info = full_precision(A.dtype, precision)
    if low is not None:
        info = refined(A, B, low, cholesky_solver(letter), uplo=letter).info
    if low is None or info.solver == "full":
        run(_posv.posv, [A, B], shapes, (letter,))
    return B if precision is None else info


def cholesky_solver(uplo: str) -> Factor:
    """Return what factors a matrix by Cholesky and solves with the factor, for refinement."""

    def factor(A: TiledMatrix) -> Callable[[TiledMatrix], Solve]:
        potrf(A, uplo)
        settled(A)
        return lambda factors: lambda X, _: potrs(factors, X, uplo)

    return factor


def potri(A: TiledMatrix, uplo: str | None = None) -> TiledMatrix:
    """Inverse from the Cholesky factor in A: one triangle of it, in place.

    Returns A. Raises `numpy.linalg.LinAlgError` on an exactly zero diagonal entry.

    References
    ----------
    LAPACK dpotri.
    """
    square(A=A)
    run(_potri.potri, [A], layouts(("A",), A=A), (stored_triangle(A, uplo),))
    A.accuracy = None
    return A


def lauum(A: TiledMatrix, uplo: str | None = None) -> TiledMatrix:
    """L^H L (lower) or U U^H (upper) of a triangular A, in place. Returns A.

    References
    ----------
    LAPACK dlauum.
    """
    square(A=A)
    run(_lauum.lauum, [A], layouts(("A",), A=A), (stored_triangle(A, uplo),))
    A.accuracy = None
    return A


# -- LU --------------------------------------------------------------------------------------------


def getrf(A: TiledMatrix, pivot: Pivot = "partial", *, estimate: bool = False) -> Pivots:
    """LU factorisation P A = L U, in place.

    Parameters
    ----------
    A : TiledMatrix
        (m, n).
    pivot : {"partial", "tournament", "none"}
        Partial pivoting gives LAPACK's pivots. Tournament pivoting (CALU) chooses a panel's pivot
        rows by a reduction over its tiles. "none" is for matrices known to allow it.
    estimate : bool, default False
        Whether to estimate the error ``||P A - L U||_F / ||A||_F``: see `potrf`.

    Returns
    -------
    (min(m, n),) int32 array
        Row i was interchanged with row ``piv[i]``, counted from 0 as in `scipy.linalg.lu_factor`.
        Of a matrix on Dask a lazy one: NumPy computes it, ``to_dask()`` does not.

    Raises
    ------
    ValueError
        When rows may move to tiles whose formats an adaptive map chose for others.
    numpy.linalg.LinAlgError
        With "none" or "tournament", if a pivot is exactly zero. With "partial" the factorisation
        goes on, as in LAPACK: look for zeros on the diagonal of U.

    References
    ----------
    LAPACK dgetrf; Grigori, Demmel, Xiang, "CALU", SIAM J. Matrix Anal. Appl. 32 (2011).
    """
    full(A=A)
    if pivot not in ("partial", "tournament", "none"):
        raise ValueError(f"pivot must be 'partial', 'tournament' or 'none', not {pivot!r}")
    if pivot != "none" and A.precision is not None and A.precision.moves(A.mt):
        raise ValueError(
            f"A has formats by {A.precision!r}, tile by tile, and rows move from tile to tile: use "
            "PrecisionMap(..., by='column'), or pivot='none'"
        )
    shapes = layouts(("A",), A=A)
    k = min(A.m, A.n)
    before = accuracy.probe(A, estimate)
    if pivot == "none":
        run(_getrf.getrf_nopiv, [A], shapes)
        piv: Pivots = np.arange(k, dtype=np.int32)
        accuracy.after_lu(A, before, piv)
        return piv
    column, pivots = pivot_column(k, A)
    if pivot == "partial":
        run(_getrf.getrf, [A, column], (*shapes, pivots))
    else:
        candidates = shapes[0]._replace(name="C", scratch=True)
        rows = Layout(A.m, 1, A.nb, np.dtype(np.int64), "R", scratch=True)
        run(_getrf.getrf_tntpiv, [A, column], (*shapes, pivots, candidates, rows))
    piv = column.from_zero()
    accuracy.after_lu(A, before, piv)
    return piv


def getrs(A: TiledMatrix, piv: Any, B: TiledMatrix, trans: str = "N") -> TiledMatrix:
    """Solve op(A) X = B with the factors and pivots of `getrf`; B, (n, nrhs), becomes X.

    A zero on the diagonal of U is not looked for, as in LAPACK: X then has infs and NaNs.

    Parameters
    ----------
    A : TiledMatrix
        (n, n) factors.
    piv : (n,) integer array
    B : TiledMatrix
    trans : {"N", "T", "C"}
        A, its transpose or its conjugate transpose.

    Returns
    -------
    TiledMatrix
        B.

    References
    ----------
    LAPACK dgetrs.
    """
    square(A=A)
    full(A=A, B=B)
    match("(rows as A)", (A.n, B.n), B=B)
    a, b = layouts(("B",), A=A, B=B)
    column, pivots = interchanges_of(piv, min(A.m, A.n), A)
    run(_getrs.getrs, [A, column, B], (a, pivots, b), (choice("trans", trans, "NTC"),))
    return B


@overload
def gesv(
    A: TiledMatrix, B: TiledMatrix, pivot: Pivot = "partial", *, precision: None = None
) -> Pivots: ...
@overload
def gesv(
    A: TiledMatrix, B: TiledMatrix, pivot: Pivot = "partial", *, precision: str
) -> RefinementInfo: ...
def gesv(
    A: TiledMatrix, B: TiledMatrix, pivot: Pivot = "partial", *, precision: str | None = None
) -> Pivots | RefinementInfo:
    """Solve A X = B; A becomes its LU factors and B, (n, nrhs), X.

    Parameters
    ----------
    A : TiledMatrix
        (n, n). With `precision` it stays as it is where refinement converges, as in LAPACK.
    B : TiledMatrix
    pivot : {"partial", "tournament", "none"}
        That of `getrf`.
    precision : {None, "fp64", "fp32", "bf16", "fp16"}, optional
        Factor a copy of A in this format, refine X to double precision, and where that fails factor
        A itself in double precision. "fp64" does that at once. Whole right-hand sides are on all
        ranks meanwhile. On Dask X is computed at once, and A stays with the workers.

    Returns
    -------
    (n,) int32 array, or RefinementInfo
        The pivots; with `precision` how X was found, of which LAPACK returns ``iter``.

    Raises
    ------
    taskla.errors.SingularMatrixError
        If a pivot is exactly zero, whatever the choice of pivots; `pivot` of the error is its
        position on the diagonal, counted from 1. B is then as it was. It is a
        `numpy.linalg.LinAlgError`.
    ValueError
        When `precision` is unknown, or lower than that of A where A is in single precision.

    See Also
    --------
    taskla.refinement.refine : How.

    References
    ----------
    LAPACK dgesv; with `precision` dsgesv, zcgesv.
    """
    square(A=A)
    full(A=A, B=B)
    match("(rows as A)", (A.n, B.n), B=B)
    # before A is overwritten
    layouts(("A", "B"), A=A, B=B)
    if precision is None:
        return _gesv(A, B, pivot)
    refuse_formats(precision, A=A, B=B)
    low = low_format(precision, A.dtype)
    info = full_precision(A.dtype, precision)
    if low is not None:
        info = refined(A, B, low, lu_solver(pivot)).info
    if info.solver == "full":
        _gesv(A, B, pivot)
    return info


def _gesv(A: TiledMatrix, B: TiledMatrix, pivot: Pivot) -> Pivots:
    piv = getrf(A, pivot)
    if hasattr(A, "guard_diagonal"):
        # nothing is computed yet: tasks are to look
        A.guard_diagonal("pivot")
        getrs(A, piv, B)
        return piv
    _refuse_singular(A)
    getrs(A, piv, B)
    return piv


def _refuse_singular(A: TiledMatrix) -> None:
    zeros = np.flatnonzero(diagonal(A) == 0)
    if zeros.size:
        raise SingularMatrixError(int(zeros[0]) + 1)


def lu_solver(pivot: Pivot) -> Factor:
    """Return what factors a matrix by LU and solves with the factors, for refinement."""

    def factor(A: TiledMatrix) -> Callable[[TiledMatrix], Solve]:
        piv = getrf(A, pivot)
        settled(A, piv)
        _refuse_singular(A)
        return lambda factors: lambda X, trans: getrs(factors, piv, X, trans)

    return factor


def getri(A: TiledMatrix, X: TiledMatrix) -> TiledMatrix:
    """U^-1 L^-1 of the factors in A, into X, (n, n).

    The inverse is X with the interchanges of `getrf` applied to its columns in reverse order.

    References
    ----------
    LAPACK dgetri.
    """
    square(A=A)
    full(A=A, X=X)
    match("(as A)", (A.n, A.n), X=X)
    run(_getri.getri, [A, X], layouts(("X",), A=A, X=X))
    return X


# -- triangular -----------------------------------------------------------------------------------


def trtri(A: TiledMatrix, uplo: str | None = None, diag: str = "N") -> TiledMatrix:
    """Inverse of a triangular A, in place. Returns A.

    Raises `numpy.linalg.LinAlgError` if a diagonal entry is exactly zero; the message names it.

    References
    ----------
    LAPACK dtrtri.
    """
    square(A=A)
    params = (stored_triangle(A, uplo), choice("diag", diag, "NU"))
    run(_trtri.trtri, [A], layouts(("A",), A=A), params)
    A.accuracy = None
    return A
