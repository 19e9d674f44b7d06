"""Level 3 BLAS on tiles.

A tile of order C is, in the same memory, the transpose of a Fortran matrix. So where the result is
of order C, the routine computes its transpose; an operand of the other order is read transposed. An
operand that would have to be conjugated without being transposed, for which BLAS has no option, is
copied into the order of the result.
"""

from __future__ import annotations

from collections.abc import Callable

from taskla.kernels import recursive
from taskla.kernels.arguments import (
    FLIP_SIDE,
    FLIP_UPLO,
    TRANSPOSE,
    choice,
    mismatch,
    number,
    reordered,
    transposition,
)
from taskla.kernels.pointers import CHAR, INT, LETTERS, function, is_complex
from taskla.kernels.recursive import Solve
from taskla.kernels.table import Kernel, register
from taskla.tile import Tile


@register("gemm")
def gemm(dtype: str, transa: str, transb: str, alpha: complex, beta: complex) -> Kernel:
    """C = alpha op(A) op(B) + beta C."""
    letter = LETTERS[dtype]
    transa = transposition("gemm", "transa", transa, letter)
    transb = transposition("gemm", "transb", transb, letter)
    x = number("gemm", "alpha", alpha, letter)
    y = number("gemm", "beta", beta, letter)
    call = function(letter + "gemm")
    across_a, across_b = transa != "N", transb != "N"
    # How the routine reads op(A) from a tile of C's order, and of the other: 0 where it cannot.
    alike_a, other_a = CHAR[transa], _other(transa)
    alike_b, other_b = CHAR[transb], _other(transb)

    def kernel(a: Tile, b: Tile, c: Tile) -> None:
        order = c.order
        op_a = alike_a if a.order == order else other_a
        op_b = alike_b if b.order == order else other_b
        if not (op_a and op_b):
            kernel(a if op_a else reordered(a, order), b if op_b else reordered(b, order), c)
            return
        m, n = c.rows, c.cols
        (m_a, k) = (a.cols, a.rows) if across_a else (a.rows, a.cols)
        (k_b, n_b) = (b.cols, b.rows) if across_b else (b.rows, b.cols)
        if m_a != m or n_b != n or k_b != k:
            mismatch("gemm", a, b, c)
        A, LDA, B, LDB, C, LDC = a.pointer, INT[a.ld], b.pointer, INT[b.ld], c.pointer, INT[c.ld]
        if order == "F":
            call(op_a, op_b, INT[m], INT[n], INT[k], x.at, A, LDA, B, LDB, y.at, C, LDC)
        else:
            # C^T = alpha op(B)^T op(A)^T + beta C^T
            call(op_b, op_a, INT[n], INT[m], INT[k], x.at, B, LDB, A, LDA, y.at, C, LDC)

    return kernel


@register("trsm")
def trsm(dtype: str, side: str, uplo: str, trans: str, diag: str, alpha: complex) -> Kernel:
    """B = alpha inv(op(A)) B, or alpha B inv(op(A)); A is a triangle."""
    return _triangular("trsm", recursive.trsm, dtype, side, uplo, trans, diag, alpha)


@register("trmm")
def trmm(dtype: str, side: str, uplo: str, trans: str, diag: str, alpha: complex) -> Kernel:
    """B = alpha op(A) B, or alpha B op(A); A is a triangle."""
    return _triangular("trmm", _multiply, dtype, side, uplo, trans, diag, alpha)


def _multiply(letter: str, side: str, uplo: str, trans: str, diag: str) -> Solve:
    routine = function(letter + "trmm")
    SIDE, UPLO, TRANS, DIAG = (CHAR[option] for option in (side, uplo, trans, diag))

    def call(m: int, n: int, alpha: int, a: int, lda: int, b: int, ldb: int) -> None:
        routine(SIDE, UPLO, TRANS, DIAG, INT[m], INT[n], alpha, a, INT[lda], b, INT[ldb])

    return call


def _triangular(
    routine: str,
    prepare: Callable[..., Solve],
    dtype: str,
    side: str,
    uplo: str,
    trans: str,
    diag: str,
    alpha: complex,
) -> Kernel:
    letter = LETTERS[dtype]
    choice(routine, "side", side, "LR")
    choice(routine, "uplo", uplo, "LU")
    choice(routine, "diag", diag, "NU")
    trans = transposition(routine, "trans", trans, letter)
    x = number(routine, "alpha", alpha, letter)
    left, other = side == "L", TRANSPOSE.get(trans)

    # (order of A, order of B) -> routine. A is transposed for its own order and, with the side, for
    # that of B; twice is not at all.
    calls = {
        ("F", "F"): prepare(letter, side, uplo, trans, diag),
        ("C", "C"): prepare(letter, FLIP_SIDE[side], FLIP_UPLO[uplo], trans, diag),
    }
    if other:
        calls["C", "F"] = prepare(letter, side, FLIP_UPLO[uplo], other, diag)
        calls["F", "C"] = prepare(letter, FLIP_SIDE[side], uplo, other, diag)

    def kernel(a: Tile, b: Tile) -> None:
        m, n = b.rows, b.cols
        # The last diagonal tile of an oblong matrix's factors holds a triangle and more.
        if min(a.rows, a.cols) != (m if left else n):
            mismatch(routine, a, b)
        call = calls.get((a.order, b.order))
        if not alpha:
            # BLAS does not read A then; recursion would.
            b.array[...] = 0
        elif call is None:
            kernel(reordered(a, b.order), b)
        elif b.order == "F":
            call(m, n, x.at, a.pointer, a.ld, b.pointer, b.ld)
        else:
            call(n, m, x.at, a.pointer, a.ld, b.pointer, b.ld)

    return kernel


@register("syrk")
def syrk(dtype: str, uplo: str, trans: str, alpha: complex, beta: complex) -> Kernel:
    """C = alpha A A^T + beta C, or alpha A^T A + beta C, over one triangle of C."""
    letter = LETTERS[dtype]
    allowed = "NT" if is_complex(letter) else "NTC"
    trans = choice("syrk", "trans", trans, allowed).replace("C", "T")
    return _rank_k("syrk", letter, uplo, trans, alpha, beta)


@register("herk")
def herk(dtype: str, uplo: str, trans: str, alpha: float, beta: float) -> Kernel:
    """C = alpha A A^H + beta C, or alpha A^H A + beta C, over one triangle of C; real factors."""
    letter = LETTERS[dtype]
    number("herk", "alpha", alpha, "d")
    number("herk", "beta", beta, "d")
    if not is_complex(letter):
        return syrk(dtype, uplo, trans, alpha, beta)
    return _rank_k("herk", letter, uplo, choice("herk", "trans", trans, "NC"), alpha, beta)


def _rank_k(
    routine: str, letter: str, uplo: str, trans: str, alpha: complex, beta: complex
) -> Kernel:
    choice(routine, "uplo", uplo, "LU")
    x = number(routine, "alpha", alpha, letter)
    y = number(routine, "beta", beta, letter)
    call = function(letter + routine)
    across, hermitian = trans != "N", routine == "herk"
    # The order of C decides the triangle, that of A the transposition.
    uplos = {"F": CHAR[uplo], "C": CHAR[FLIP_UPLO[uplo]]}
    turned = ("C" if hermitian else "T") if trans == "N" else "N"
    ops = {"F": CHAR[trans], "C": CHAR[turned]}

    def kernel(a: Tile, c: Tile) -> None:
        if hermitian and a.order != c.order:
            # A^T conj(A), which is not among the options
            a = reordered(a, c.order)
        n, k = (a.cols, a.rows) if across else (a.rows, a.cols)
        if c.rows != n or c.cols != n:
            mismatch(routine, a, c)
        A, LDA, C, LDC = a.pointer, INT[a.ld], c.pointer, INT[c.ld]
        call(uplos[c.order], ops[a.order], INT[n], INT[k], x.at, A, LDA, y.at, C, LDC)

    return kernel


@register("symm")
def symm(dtype: str, side: str, uplo: str, alpha: complex, beta: complex) -> Kernel:
    """C = alpha A B + beta C, or alpha B A + beta C; A is symmetric, one triangle of it stored."""
    return _symmetric("symm", dtype, side, uplo, alpha, beta)


@register("hemm")
def hemm(dtype: str, side: str, uplo: str, alpha: complex, beta: complex) -> Kernel:
    """C = alpha A B + beta C, or alpha B A + beta C; A is Hermitian, one triangle of it stored."""
    routine = "hemm" if is_complex(LETTERS[dtype]) else "symm"
    return _symmetric(routine, dtype, side, uplo, alpha, beta)


def _symmetric(
    routine: str, dtype: str, side: str, uplo: str, alpha: complex, beta: complex
) -> Kernel:
    letter = LETTERS[dtype]
    choice(routine, "side", side, "LR")
    choice(routine, "uplo", uplo, "LU")
    x = number(routine, "alpha", alpha, letter)
    y = number(routine, "beta", beta, letter)
    call = function(letter + routine)
    left, hermitian = side == "L", routine == "hemm"
    # The order of C decides the side, that of A the triangle.
    sides = {"F": CHAR[side], "C": CHAR[FLIP_SIDE[side]]}
    uplos = {"F": CHAR[uplo], "C": CHAR[FLIP_UPLO[uplo]]}

    def kernel(a: Tile, b: Tile, c: Tile) -> None:
        m, n, order = c.rows, c.cols, c.order
        if a.rows != a.cols or a.rows != (m if left else n) or b.rows != m or b.cols != n:
            mismatch(routine, a, b, c)
        if b.order != order:
            b = reordered(b, order)
        if hermitian and a.order != order:
            a = reordered(a, order)
        M, N = (INT[m], INT[n]) if order == "F" else (INT[n], INT[m])
        A, LDA, B, LDB, C, LDC = a.pointer, INT[a.ld], b.pointer, INT[b.ld], c.pointer, INT[c.ld]
        call(sides[order], uplos[a.order], M, N, x.at, A, LDA, B, LDB, y.at, C, LDC)

    return kernel


def _other(trans: str) -> int:
    """Return the option that reads op(A) out of the memory of A's transpose; 0 if none does."""
    return CHAR[TRANSPOSE[trans]] if trans in TRANSPOSE else 0
