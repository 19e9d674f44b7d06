"""Level 3 BLAS on tiled matrices; `taskla.lapack` has them all under one roof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskla.algorithms import (
    gemm as _gemm,
    symm as _symm,
    symm_a as _symm_a,
    syrk as _syrk,
    trmm as _trmm,
    trsm as _trsm,
)
from taskla.flow import TaskFlow, Tiles
from taskla.matrix import TiledMatrix
from taskla.operands import (
    choice,
    full,
    layouts,
    match,
    products_map,
    run,
    scalar,
    square,
    stored_triangle,
)
from taskla.precision import PrecisionMap

__all__ = ["gemm", "hemm", "herk", "symm", "syrk", "trmm", "trsm"]


def _op(trans: str, X: Tiles) -> Tiles:
    return {"N": X, "T": X.T, "C": X.H}[trans]


def _op_shape(trans: str, X: TiledMatrix) -> tuple[int, int]:
    return (X.m, X.n) if trans == "N" else (X.n, X.m)


def _gemm_program(
    flow: TaskFlow,
    A: Tiles,
    B: Tiles,
    C: Tiles,
    transa: str,
    transb: str,
    alpha: Any,
    beta: Any,
    stationary: str = "C",
) -> None:
    _gemm.gemm(flow, _op(transa, A), _op(transb, B), C, alpha, beta, stationary)


def gemm(
    alpha: Any,
    A: TiledMatrix,
    B: TiledMatrix,
    beta: Any,
    C: TiledMatrix,
    *,
    transa: str = "N",
    transb: str = "N",
    stationary: str = "C",
    precision: PrecisionMap | str | None = None,
) -> TiledMatrix:
    """C := alpha op(A) op(B) + beta C. Returns C.

    Parameters
    ----------
    alpha, beta : scalar
    A, B, C : TiledMatrix
        op(A) is (m, k), op(B) (k, n) and C (m, n).
    transa, transb : {"N", "T", "C"}
    stationary : {"C", "A", "B"}
        The matrix whose tiles stay on their ranks; with A or B, C is summed up from partial sums.
    precision : PrecisionMap or str, optional
        The formats that products of tiles are made in: one, or "adaptive:1e-6" for each the lowest
        with which ``||C^ - C||_F`` stays within the tolerance of ``|alpha| ||A||_F ||B||_F``. Sums
        are in fp32 for these, and in the format of C for others.

    References
    ----------
    BLAS dgemm.
    """
    stationary = choice("stationary", stationary, "CAB")
    transa, transb = choice("transa", transa, "NTC"), choice("transb", transb, "NTC")
    full(A=A, B=B, C=C)
    (m, k), (_, n) = _op_shape(transa, A), _op_shape(transb, B)
    match("(as op(A) op(B) asks)", (k, n) if transb == "N" else (n, k), B=B)
    match("(rows as op(A), columns as op(B))", (m, n), C=C)
    params = (transa, transb, scalar(alpha, C), scalar(beta, C), stationary)
    chosen = products_map(precision, stationary)
    run(_gemm_program, [A, B, C], layouts(("C",), A=A, B=B, C=C), params, chosen)
    return C


def symm(
    side: str,
    uplo: str | None,
    alpha: Any,
    A: TiledMatrix,
    B: TiledMatrix,
    beta: Any,
    C: TiledMatrix,
    *,
    stationary: str = "C",
    precision: PrecisionMap | str | None = None,
) -> TiledMatrix:
    """C := alpha A B + beta C (side L) or alpha B A + beta C (side R), A symmetric. Returns C.

    Only the triangle `uplo` of A is read. `stationary` is the matrix whose tiles stay on their
    ranks, "C" or "A"; with A, C is summed up from partial sums. `precision` is that of `gemm`.

    References
    ----------
    BLAS dsymm.
    """
    stationary = choice("stationary", stationary, "CA")
    program = {"C": _symm.symm, "A": _symm_a.symm_a}[stationary]
    products = products_map(precision, stationary)
    return _symmetric(program, side, uplo, alpha, A, B, beta, C, products)


def hemm(
    side: str,
    uplo: str | None,
    alpha: Any,
    A: TiledMatrix,
    B: TiledMatrix,
    beta: Any,
    C: TiledMatrix,
    *,
    stationary: str = "C",
    precision: PrecisionMap | str | None = None,
) -> TiledMatrix:
    """C := alpha A B + beta C (side L) or alpha B A + beta C (side R), A Hermitian. Returns C.

    `stationary` and `precision` are those of `symm`.

    References
    ----------
    BLAS zhemm.
    """
    stationary = choice("stationary", stationary, "CA")
    program = {"C": _symm.hemm, "A": _symm_a.hemm_a}[stationary]
    products = products_map(precision, stationary)
    return _symmetric(program, side, uplo, alpha, A, B, beta, C, products)


def _symmetric(
    algorithm: Callable[..., None],
    side: str,
    uplo: str | None,
    alpha: Any,
    A: TiledMatrix,
    B: TiledMatrix,
    beta: Any,
    C: TiledMatrix,
    precision: PrecisionMap | None,
) -> TiledMatrix:
    side = choice("side", side, "LR")
    square(A=A)
    full(B=B, C=C)
    match("(as A and C ask)", (A.n, C.n) if side == "L" else (C.m, A.n), B=B)
    match("(as B)", (B.m, B.n), C=C)
    params = (side, stored_triangle(A, uplo), scalar(alpha, C), scalar(beta, C))
    shapes = layouts(("C",), A=A, B=B, C=C)
    run(algorithm, [A, B, C], shapes, params, precision)
    return C


def _syrk_program(
    flow: TaskFlow, A: Tiles, C: Tiles, uplo: str, trans: str, alpha: Any, beta: Any
) -> None:
    _syrk.syrk(flow, _op(trans, A), C, uplo, alpha, beta)


def _herk_program(
    flow: TaskFlow, A: Tiles, C: Tiles, uplo: str, trans: str, alpha: float, beta: float
) -> None:
    _syrk.herk(flow, _op(trans, A), C, uplo, alpha, beta)


def syrk(
    uplo: str | None, trans: str, alpha: Any, A: TiledMatrix, beta: Any, C: TiledMatrix
) -> TiledMatrix:
    """C := alpha A A^T + beta C (trans N) or alpha A^T A + beta C (trans T); one triangle of C.

    Returns C.

    References
    ----------
    BLAS dsyrk.
    """
    allowed = "NT" if C.dtype.kind == "c" else "NTC"
    return _rank_k(_syrk_program, uplo, choice("trans", trans, allowed), alpha, A, beta, C)


def herk(
    uplo: str | None, trans: str, alpha: float, A: TiledMatrix, beta: float, C: TiledMatrix
) -> TiledMatrix:
    """C := alpha A A^H + beta C (trans N) or alpha A^H A + beta C (trans C); one triangle of C.

    Returns C.

    References
    ----------
    BLAS zherk.
    """
    allowed = "NC" if C.dtype.kind == "c" else "NTC"
    for name, value in (("alpha", alpha), ("beta", beta)):
        if complex(value).imag:
            raise ValueError(f"{name} must be real for herk, not {value!r}")
    return _rank_k(_herk_program, uplo, choice("trans", trans, allowed), alpha, A, beta, C)


def _rank_k(
    algorithm: Callable[..., None],
    uplo: str | None,
    trans: str,
    alpha: Any,
    A: TiledMatrix,
    beta: Any,
    C: TiledMatrix,
) -> TiledMatrix:
    square(C=C)
    full(A=A)
    match("(as C asks)", (C.n, A.n) if trans == "N" else (A.m, C.n), A=A)
    params = (stored_triangle(C, uplo), trans, scalar(alpha, C), scalar(beta, C))
    run(algorithm, [A, C], layouts(("C",), A=A, C=C), params)
    return C


def _trsm_program(flow: TaskFlow, A: Tiles, B: Tiles, side: str, *params: Any) -> None:
    _triangular_program(_trsm.trsm, flow, A, B, side, *params)


def _trmm_program(flow: TaskFlow, A: Tiles, B: Tiles, side: str, *params: Any) -> None:
    _triangular_program(_trmm.trmm, flow, A, B, side, *params)


def _triangular_program(
    algorithm: Callable[..., None],
    flow: TaskFlow,
    A: Tiles,
    B: Tiles,
    side: str,
    uplo: str,
    trans: str,
    diag: str,
    alpha: Any,
) -> None:
    if trans != "N":
        uplo = "U" if uplo == "L" else "L"
    algorithm(flow, _op(trans, A), B, side, uplo, diag, alpha)


def trsm(
    side: str,
    uplo: str | None,
    trans: str,
    diag: str,
    alpha: Any,
    A: TiledMatrix,
    B: TiledMatrix,
) -> TiledMatrix:
    """B := alpha op(A)^-1 B (side L) or alpha B op(A)^-1 (side R), A triangular. Returns B.

    A zero on the diagonal is not looked for, as in BLAS: B then has infs and NaNs.

    References
    ----------
    BLAS dtrsm.
    """
    return _triangular(_trsm_program, side, uplo, trans, diag, alpha, A, B)


def trmm(
    side: str,
    uplo: str | None,
    trans: str,
    diag: str,
    alpha: Any,
    A: TiledMatrix,
    B: TiledMatrix,
) -> TiledMatrix:
    """B := alpha op(A) B (side L) or alpha B op(A) (side R), A triangular. Returns B.

    References
    ----------
    BLAS dtrmm.
    """
    return _triangular(_trmm_program, side, uplo, trans, diag, alpha, A, B)


def _triangular(
    algorithm: Callable[..., None],
    side: str,
    uplo: str | None,
    trans: str,
    diag: str,
    alpha: Any,
    A: TiledMatrix,
    B: TiledMatrix,
) -> TiledMatrix:
    side = choice("side", side, "LR")
    square(A=A)
    full(B=B)
    match("(as A asks)", (A.n, B.n) if side == "L" else (B.m, A.n), B=B)
    params = (
        side,
        stored_triangle(A, uplo),
        choice("trans", trans, "NTC"),
        choice("diag", diag, "NU"),
        scalar(alpha, B),
    )
    run(algorithm, [A, B], layouts(("B",), A=A, B=B), params)
    return B
