"""Solves with triangles, and factorisations, on Fortran-ordered memory, by recursion.

Each takes what the routine of BLAS or LAPACK takes, as Python integers and addresses. On one tile
some routines of the libraries run far below the rate of their gemm; halving the triangle until it
is small leaves most of the work to gemm. Recursive formulations: Elmroth, Gustavson, Jonsson,
Kagstrom, "Recursive blocked algorithms and hybrid data structures for dense matrix library
software", SIAM Review 46 (2004). They are as stable as the routines they replace: the same products
are summed in another order.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from functools import cache

import numpy as np

from taskla.errors import NotPositiveDefiniteError, SingularMatrixError
from taskla.kernels.pointers import (
    CHAR,
    INFO,
    INT,
    SIZES,
    Routine,
    Scalar,
    Workspace,
    function,
    is_complex,
    library,
)

__all__ = ["Solve", "getrf_nopiv", "potrf", "trsm", "trtri"]

# The order up to which the library's own routine is the fastest, where that is not any order.
# Measured on one thread a core of a processor with AVX-512, with OpenBLAS 0.3.30 and MKL 2026.2.
_LEAVES = {
    "scipy": {"strsm": 64, "dtrsm": 64, "spotrf": 512, "dpotrf": 512}
    | {"strtri": 32, "dtrtri": 32, "ctrtri": 32, "ztrtri": 32},
    "mkl": {"spotrf": 256, "dpotrf": 256},
}
# Where trsm is so slow that small triangles had better be inverted, for right-hand sides from this
# many vectors on, and up to this condition number: see `_inverse`.
_INVERTED = {"scipy": "sd", "mkl": ""}
_WIDE, _CONDITION = 192, 1e3
# A panel of LU without pivoting that is factored column by column.
_COLUMNS = 16
# Takes every subnormal number to a normal one.
_LIFT = 2.0**60

# The conjugate transpose, and the Hermitian update, in the words of each type.
_H = {"s": "T", "d": "T", "c": "C", "z": "C"}
_HERK = {"s": "syrk", "d": "syrk", "c": "herk", "z": "herk"}


#: m and n of B, alpha's address, A's address and leading dimension, B's
Solve = Callable[[int, int, int, int, int, int, int], None]
#: n, address, leading dimension
Square = Callable[[int, int, int], None]


@cache
def trsm(letter: str, side: str, uplo: str, trans: str, diag: str) -> Solve:
    """Return ``trsm``: B = alpha inv(op(A)) B, or alpha B inv(op(A))."""
    gemm, leaf = function(letter + "gemm"), _trsm_leaf(letter, side, uplo, trans, diag)
    N, TRANS = CHAR["N"], CHAR[trans]
    plus, minus = Scalar(letter, 1), Scalar(letter, -1)
    size, largest = SIZES[letter], _leaf(letter + "trsm")
    left, lower = side == "L", uplo == "L"
    # Which part of B is solved first, for the other to be updated with it: the upper part for a
    # lower triangle on the left, the left part for an upper triangle on the right.
    forward = (lower == (trans == "N")) == left

    def recurse(m: int, n: int, alpha: int, a: int, lda: int, b: int, ldb: int) -> None:
        order = m if left else n
        if order <= largest:
            leaf(m, n, alpha, a, lda, b, ldb)
            return
        h = _half(order)
        coupling = a + (h if lower else h * lda) * size
        k1, a1, b1 = h, a, b
        k2, a2, b2 = order - h, a + h * (lda + 1) * size, b + (h if left else h * ldb) * size
        if not forward:
            k1, a1, b1, k2, a2, b2 = k2, a2, b2, k1, a1, b1
        K1, K2, LDA, LDB = INT[k1], INT[k2], INT[lda], INT[ldb]
        # B1 = alpha inv(A11) B1;  B2 = alpha B2 - A21 B1;  B2 = inv(A22) B2;  or from the right
        if left:
            recurse(k1, n, alpha, a1, lda, b1, ldb)
            gemm(TRANS, N, K2, INT[n], K1, minus.at, coupling, LDA, b1, LDB, alpha, b2, LDB)
            recurse(k2, n, plus.at, a2, lda, b2, ldb)
        else:
            recurse(m, k1, alpha, a1, lda, b1, ldb)
            gemm(N, TRANS, INT[m], K2, K1, minus.at, b1, LDB, coupling, LDA, alpha, b2, LDB)
            recurse(m, k2, plus.at, a2, lda, b2, ldb)

    return recurse


def _trsm_leaf(letter: str, side: str, uplo: str, trans: str, diag: str) -> Solve:
    """Return ``trsm`` for small triangles."""
    solve, multiply = function(letter + "trsm"), function(letter + "trmm")
    SIDE, UPLO, TRANS, DIAG = (CHAR[option] for option in (side, uplo, trans, diag))
    left, inverse = side == "L", _inverse(letter, uplo, diag)

    def leaf(m: int, n: int, alpha: int, a: int, lda: int, b: int, ldb: int) -> None:
        M, N, LDB = INT[m], INT[n], INT[ldb]
        order, vectors = (m, n) if left else (n, m)
        if vectors >= _WIDE and (w := inverse(order, a, lda)):
            multiply(SIDE, UPLO, TRANS, DIAG, M, N, alpha, w, INT[order], b, LDB)
        else:
            solve(SIDE, UPLO, TRANS, DIAG, M, N, alpha, a, INT[lda], b, LDB)

    return leaf


def _inverse(letter: str, uplo: str, diag: str) -> Callable[[int, int, int], int]:
    """Return the inversion of a small triangle out of place: (n, a, lda) -> address, or 0.

    0 where the inverse should not be used. A solve by multiplication with the inverse of T is
    stable up to a factor of the condition number of T (Higham, "Accuracy and Stability of Numerical
    Algorithms", 2nd ed., chapter 14), substitution without it. Blocks of this order in triangular
    factors are nearly always well conditioned: numbers of 300 to 1200 were seen in LU factors of
    random matrices, below 30 in Cholesky factors of covariances, with normwise backward errors as
    small as those of substitution. The others, up to 2^n in random triangles, are left to it.
    """
    if letter not in _INVERTED[library().name]:
        return lambda n, a, lda: 0
    copy, norm = function(letter + "lacpy"), function(letter + "lantr")
    UPLO, DIAG, ONE = CHAR[uplo], CHAR[diag], CHAR["1"]
    invert, work = trtri(letter, uplo, diag), Workspace(letter, _leaf(letter + "trsm"))

    def inverse(n: int, a: int, lda: int) -> int:
        w, N, LDA = work.at, INT[n], INT[lda]
        copy(UPLO, N, N, a, LDA, w, N)
        if not invert(n, w, n):
            return 0
        size = norm(ONE, UPLO, DIAG, N, N, a, LDA, 0)
        # false for what is not a number, too
        return w if size * norm(ONE, UPLO, DIAG, N, N, w, N, 0) <= _CONDITION else 0

    return inverse


@cache
def potrf(letter: str, uplo: str) -> Callable[[int, int, int], None]:
    """Return ``potrf``: A = L L^H (lower) or U^H U (upper)."""
    leaf, real_part = function(letter + "potrf"), "s" if letter in "sc" else "d"
    asum, stride = function(real_part + "asum"), 2 if is_complex(letter) else 1
    herk = function(letter + _HERK[letter])
    UPLO, lower, H = CHAR[uplo], uplo == "L", _H[letter]
    TRANS = CHAR["N" if lower else H]
    solve = trsm(letter, "R" if lower else "L", uplo, H, "N")
    plus, minus = Scalar(letter, 1), Scalar(letter, -1)
    size, largest = SIZES[letter], _leaf(letter + "potrf")

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
        if n <= largest:
            factor_leaf(n, a, lda, offset)
            return
        h = _half(n)
        a22 = a + h * (lda + 1) * size
        other = a + (h if lower else h * lda) * size
        recurse(h, a, lda, offset)
        # L21 = A21 inv(L11)^H, or U12 = inv(U11)^H A12
        m, k = (n - h, h) if lower else (h, n - h)
        solve(m, k, plus.at, a, lda, other, lda)
        # A22 -= L21 L21^H, or U12^H U12
        LDA = INT[lda]
        herk(UPLO, TRANS, INT[n - h], INT[h], minus.at, other, LDA, plus.at, a22, LDA)
        recurse(n - h, a22, lda, offset + h)

    return recurse


@cache
def trtri(letter: str, uplo: str, diag: str) -> Callable[[int, int, int], bool]:
    """Return ``trtri``: A = inv(A), a triangle; false where a zero on its diagonal forbids it.

    Blocks are inverted in the order of LAPACK's blocked routine, for whose stability see Du Croz
    and Higham, "Stability of methods for matrix inversion", IMA J. Numer. Anal. 12 (1992).
    """
    leaf, trmm, lower = function(letter + "trtri"), function(letter + "trmm"), uplo == "L"
    L, UPLO, N, DIAG = CHAR["L"], CHAR[uplo], CHAR["N"], CHAR[diag]
    plus, minus = Scalar(letter, 1), Scalar(letter, -1)
    size, largest = SIZES[letter], _leaf(letter + "trtri")

    def recurse(n: int, a: int, lda: int) -> bool:
        LDA = INT[lda]
        if n <= largest:
            leaf(UPLO, DIAG, INT[n], a, LDA, INFO.at)
            return not INFO.value.value
        h = _half(n)
        a22 = a + h * (lda + 1) * size
        if lower:
            # A21 = -inv(A22) A21 inv(A11)
            first, last, m, k, other = a22, a, n - h, h, a + h * size
        else:
            # A12 = -inv(A11) A12 inv(A22)
            first, last, m, k, other = a, a22, h, n - h, a + h * lda * size
        if not recurse(m, first, lda):
            return False
        trmm(L, UPLO, N, DIAG, INT[m], INT[k], minus.at, first, LDA, other, LDA)
        # asked for here and not above, because trsm itself begins with asking for trtri
        trsm(letter, "R", uplo, "N", diag)(m, k, plus.at, last, lda, other, lda)
        return recurse(k, last, lda)

    return recurse


@cache
def getrf_nopiv(letter: str) -> Callable[[int, int, int, int], None]:
    """Return LU without pivoting of an m x n matrix, L with a unit diagonal: (m, n, a, lda)."""
    gemm = function(letter + "gemm")
    solve = trsm(letter, "L", "L", "N", "U")
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
        solve(h, n - h, plus.at, a, lda, a12, lda)
        # A22 -= L21 U12
        LDA = INT[lda]
        M2, N2, K = INT[m - h], INT[n - h], INT[h]
        gemm(N, N, M2, N2, K, minus.at, a21, LDA, a12, LDA, plus.at, a22, LDA)
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


def _leaf(routine: str) -> int:
    """Return the largest order that is left to the library's routine."""
    return _LEAVES[library().name].get(routine, sys.maxsize)


def _half(n: int) -> int:
    """Return where to cut n: near the middle, at a multiple of what the kernels of gemm like."""
    return (n // 2 + 31) // 32 * 32 if n > 64 else (n + 1) // 2


def _is_nan(asum: Routine, at: int) -> bool:
    return math.isnan(asum(INT[1], at, INT[1]))
