"""Triangular routines and factorisations on Fortran-ordered memory, by recursion.

Each takes what the routine of BLAS or LAPACK takes, as Python integers and addresses. On one tile
OpenBLAS's own routines run at a third to two thirds of the rate of its gemm; halving the triangular
operand until it is small leaves most of the work to gemm. Recursive formulations: Elmroth,
Gustavson, Jonsson, Kagstrom, "Recursive blocked algorithms and hybrid data structures for dense
matrix library software", SIAM Review 46 (2004). They are as stable as the routines they replace:
the same products are summed in another order.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np

from taskla.errors import NotPositiveDefiniteError, SingularMatrixError
from taskla.kernels.pointers import (
    CHAR,
    INFO,
    INT,
    SIZES,
    Routine,
    Scalar,
    function,
    is_complex,
    library,
)

__all__ = ["getrf_nopiv", "lauum", "potrf", "triangular", "trtri"]

# Orders up to which the library's own routine is called, measured with OpenBLAS 0.3.30.
_TRIANGULAR, _POTRF, _LAUUM, _TRTRI = 64, 256, 128, 64
# A panel of LU without pivoting that is factored column by column.
_COLUMNS = 16
# Takes every subnormal number to a normal one.
_LIFT = 2.0**60

# The conjugate transpose, and the Hermitian update, in the words of each type.
_H = {"s": "T", "d": "T", "c": "C", "z": "C"}
_HERK = {"s": "syrk", "d": "syrk", "c": "herk", "z": "herk"}


class Triangular(Protocol):
    """Solve with or multiply by a triangle: B is m x n, in place."""

    def __call__(self, m: int, n: int, alpha: int, a: int, lda: int, b: int, ldb: int) -> None: ...


#: n, address, leading dimension
Square = Callable[[int, int, int], None]


@cache
def triangular(
    letter: str, routine: str, side: str, uplo: str, trans: str, diag: str
) -> Triangular:
    """Return ``trsm`` or ``trmm``, as `routine` says: B = alpha inv(op(A)) B, B = alpha op(A) B."""
    leaf, gemm = function(letter + routine), function(letter + "gemm")
    SIDE, UPLO, TRANS, DIAG, N = (CHAR[option] for option in (side, uplo, trans, diag, "N"))
    plus, minus = Scalar(letter, 1), Scalar(letter, -1)
    size, base = SIZES[letter], _base(_TRIANGULAR)
    left, lower, solve = side == "L", uplo == "L", routine == "trsm"
    # The part of B that the other part depends on is the first, or else the second:
    # B2 -= op(A)_21 B1 if op(A) is a lower triangle on the left or an upper one on the right.
    forward = (lower == (trans == "N")) == left

    def recurse(m: int, n: int, alpha: int, a: int, lda: int, b: int, ldb: int) -> None:
        order = m if left else n
        if order <= base:
            leaf(SIDE, UPLO, TRANS, DIAG, INT[m], INT[n], alpha, a, INT[lda], b, INT[ldb])
            return
        h = _half(order)
        coupling = a + (h if lower else h * lda) * size
        k1, a1, b1 = h, a, b
        k2, a2, b2 = order - h, a + h * (lda + 1) * size, b + (h if left else h * ldb) * size
        if not forward:
            k1, a1, b1, k2, a2, b2 = k2, a2, b2, k1, a1, b1
        m1, n1, m2, n2 = (k1, n, k2, n) if left else (m, k1, m, k2)
        if solve:
            # B1 = alpha inv(A_11) B1;  B2 = inv(A_22) (alpha B2 - A_21 B1)
            recurse(m1, n1, alpha, a1, lda, b1, ldb)
            factor, scale = minus.at, alpha
        else:
            # B2 = alpha A_22 B2 + alpha A_21 B1;  B1 = alpha A_11 B1
            recurse(m2, n2, alpha, a2, lda, b2, ldb)
            factor, scale = alpha, plus.at
        M, N2, K, LDA, LDB = INT[m2], INT[n2], INT[k1], INT[lda], INT[ldb]
        if left:
            gemm(TRANS, N, M, N2, K, factor, coupling, LDA, b1, LDB, scale, b2, LDB)
        else:
            gemm(N, TRANS, M, N2, K, factor, b1, LDB, coupling, LDA, scale, b2, LDB)
        if solve:
            recurse(m2, n2, plus.at, a2, lda, b2, ldb)
        else:
            recurse(m1, n1, alpha, a1, lda, b1, ldb)

    return recurse


@cache
def potrf(letter: str, uplo: str) -> Square:
    """Return ``potrf``: A = L L^H (lower) or U^H U (upper)."""
    leaf, real_part = function(letter + "potrf"), "s" if letter in "sc" else "d"
    asum, stride = function(real_part + "asum"), 2 if is_complex(letter) else 1
    herk = function(letter + _HERK[letter])
    UPLO, lower, H = CHAR[uplo], uplo == "L", _H[letter]
    TRANS = CHAR["N" if lower else H]
    trsm = triangular(letter, "trsm", "R" if lower else "L", uplo, H, "N")
    plus, minus = Scalar(letter, 1), Scalar(letter, -1)
    size, base = SIZES[letter], _base(_POTRF)

    def factor_leaf(n: int, a: int, lda: int, offset: int) -> None:
        info = INFO.value
        leaf(UPLO, INT[n], a, INT[lda], INFO.at)
        minor = info.value
        # LAPACK takes a NaN for a minor that is not positive; OpenBLAS goes on and returns NaNs.
        passed = minor - 1 if minor else n
        if math.isnan(asum(INT[passed], a, INT[stride * (lda + 1)])):
            minor = 1 + next(i for i in range(passed) if _is_nan(asum, a + i * (lda + 1) * size))
        if minor:
            raise NotPositiveDefiniteError(offset + minor)

    def recurse(n: int, a: int, lda: int, offset: int = 0) -> None:
        if n <= base:
            factor_leaf(n, a, lda, offset)
            return
        h = _half(n)
        a22 = a + h * (lda + 1) * size
        other = a + (h if lower else h * lda) * size
        recurse(h, a, lda, offset)
        # L21 = A21 inv(L11)^H, or U12 = inv(U11)^H A12
        trsm(*((n - h, h) if lower else (h, n - h)), plus.at, a, lda, other, lda)
        # A22 -= L21 L21^H, or U12^H U12
        LDA = INT[lda]
        herk(UPLO, TRANS, INT[n - h], INT[h], minus.at, other, LDA, plus.at, a22, LDA)
        recurse(n - h, a22, lda, offset + h)

    return recurse


@cache
def trtri(letter: str, uplo: str, diag: str) -> Square:
    """Return ``trtri``: A = inv(A), a triangle without a zero on its diagonal.

    The blocks in the order of LAPACK's blocked routine: of the methods with a small right residual
    ("method 2B" of Du Croz and Higham, IMA J. Numer. Anal. 12, 1992).
    """
    leaf, lower = function(letter + "trtri"), uplo == "L"
    UPLO, DIAG = CHAR[uplo], CHAR[diag]
    trmm = triangular(letter, "trmm", "L", uplo, "N", diag)
    trsm = triangular(letter, "trsm", "R", uplo, "N", diag)
    plus, minus = Scalar(letter, 1), Scalar(letter, -1)
    size, base = SIZES[letter], _base(_TRTRI)

    def recurse(n: int, a: int, lda: int) -> None:
        if n <= base:
            leaf(UPLO, DIAG, INT[n], a, INT[lda], INFO.at)
            return
        h = _half(n)
        a22 = a + h * (lda + 1) * size
        if lower:
            # A21 = -inv(A22) A21 inv(A11)
            last, rest, m, k, other = a22, a, n - h, h, a + h * size
        else:
            # A12 = -inv(A11) A12 inv(A22)
            last, rest, m, k, other = a, a22, h, n - h, a + h * lda * size
        recurse(m, last, lda)
        trmm(m, k, plus.at, last, lda, other, lda)
        trsm(m, k, minus.at, rest, lda, other, lda)
        recurse(k, rest, lda)

    return recurse


@cache
def lauum(letter: str, uplo: str) -> Square:
    """Return ``lauum``: A = L^H L (lower) or U U^H (upper), over the triangle."""
    leaf, herk = function(letter + "lauum"), function(letter + _HERK[letter])
    UPLO, lower, H = CHAR[uplo], uplo == "L", _H[letter]
    TRANS = CHAR[H if lower else "N"]
    trmm = triangular(letter, "trmm", "L" if lower else "R", uplo, H, "N")
    plus = Scalar(letter, 1)
    size, base = SIZES[letter], _base(_LAUUM)

    def recurse(n: int, a: int, lda: int) -> None:
        if n <= base:
            leaf(UPLO, INT[n], a, INT[lda], INFO.at)
            return
        h = _half(n)
        a22 = a + h * (lda + 1) * size
        other = a + (h if lower else h * lda) * size
        recurse(h, a, lda)
        # A11 += L21^H L21, or U12 U12^H
        LDA = INT[lda]
        herk(UPLO, TRANS, INT[h], INT[n - h], plus.at, other, LDA, plus.at, a, LDA)
        # A21 = L22^H L21, or A12 = U12 U22^H
        trmm(*((n - h, h) if lower else (h, n - h)), plus.at, a22, lda, other, lda)
        recurse(n - h, a22, lda)

    return recurse


@cache
def getrf_nopiv(letter: str) -> Callable[[int, int, int, int], None]:
    """Return LU without pivoting of an m x n matrix, L with a unit diagonal: (m, n, a, lda)."""
    gemm = function(letter + "gemm")
    trsm = triangular(letter, "trsm", "L", "L", "N", "U")
    plus, minus = Scalar(letter, 1), Scalar(letter, -1)
    size, N = SIZES[letter], CHAR["N"]
    columns = _getrf_nopiv_columns(letter)

    def recurse(m: int, n: int, a: int, lda: int, offset: int = 0) -> None:
        order = min(m, n)
        if order <= _COLUMNS:
            columns(m, n, a, lda, offset)
            return
        h = _half(order)
        a21, a12 = a + h * size, a + h * lda * size
        a22 = a12 + h * size
        # A11 = L11 U11, A21 = L21 U11
        recurse(m, h, a, lda, offset)
        # U12 = inv(L11) A12
        trsm(h, n - h, plus.at, a, lda, a12, lda)
        # A22 -= L21 U12
        LDA = INT[lda]
        gemm(
            *(N, N, INT[m - h], INT[n - h], INT[h]),
            *(minus.at, a21, LDA, a12, LDA, plus.at, a22, LDA),
        )
        recurse(m - h, n - h, a22, lda, offset + h)

    return recurse


def _getrf_nopiv_columns(letter: str) -> Callable[[int, int, int, int, int], None]:
    """Return LU without pivoting one column after the other, for few columns or few rows."""
    scal = function(letter + "scal")
    ger = function(letter + ("geru" if is_complex(letter) else "ger"))
    minus, size, ONE = Scalar(letter, -1), SIZES[letter], INT[1]
    part = ctypes.c_float if letter in "sc" else ctypes.c_double
    pair = part * (2 if is_complex(letter) else 1)
    safe = float(np.finfo("f4" if letter in "sc" else "f8").tiny)

    def columns(m: int, n: int, a: int, lda: int, offset: int) -> None:
        LDA = INT[lda]
        for j in range(min(m, n)):
            pivot = a + j * (lda + 1) * size
            value = complex(*pair.from_address(pivot))
            if value == 0:
                raise SingularMatrixError(offset + j + 1)
            below, right = pivot + size, pivot + lda * size
            rows, cols = INT[m - j - 1], INT[n - j - 1]
            # The reciprocal of a subnormal number may be infinite: two steps then.
            factors = [1 / value] if abs(value) > safe else [_LIFT, 1 / (value * _LIFT)]
            for factor in factors:
                scalar = Scalar(letter, factor)
                scal(rows, scalar.at, below, ONE)
            ger(rows, cols, minus.at, below, ONE, right, LDA, right + size, LDA)

    return columns


def _base(order: int) -> int:
    """Return the largest order that is left to the library: any where recursion gains nothing."""
    return order if library().recursive else sys.maxsize


def _half(n: int) -> int:
    """Return where to cut n: near the middle, at a multiple of what the kernels of gemm like."""
    return (n // 2 + 31) // 32 * 32 if n > 64 else (n + 1) // 2


def _is_nan(asum: Routine, at: int) -> bool:
    return math.isnan(asum(INT[1], at, INT[1]))
