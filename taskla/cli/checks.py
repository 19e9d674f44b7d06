"""Whether a routine's result is right: scaled residuals and their limits.

``eps`` is the unit roundoff. A factorisation, a solution or an inverse of order n may be wrong by
60, in units of ``n eps`` (Chameleon's and DPLASMA's limit), a product by 3 in units of its error
bound; hpl-mxp has the limit of its rules.
NumPy computes the residuals, from inputs made anew and with its own BLAS, not with tiles. What many
ranks share is checked by `taskla.cli.checks_tiled`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.cli.generate import Known, known, strips
from taskla.formats import format_of
from taskla.matrix import TiledMatrix
from taskla.matrix_random import random_block
from taskla.refinement import RefinementInfo
from taskla.routines import ALPHA, BETA, Problem

__all__ = ["check", "hpl_mxp", "permutation", "random_columns"]

Array = NDArray[Any]

#: Columns of the matrix that a product is tried on.
_PROBES = 8


def check(
    p: Problem, matrices: Sequence[TiledMatrix], outcome: Any, seed: int
) -> tuple[float, bool]:
    """Return the scaled residual of a call, and whether it passes.

    Parameters
    ----------
    p : Problem
    matrices : sequence of TiledMatrix
        The operands after the call.
    outcome : object
        What the call returned.
    seed : int
        That the operands were made with.

    Returns
    -------
    residual : float
    passed : bool
        False for NaN.
    """
    names = [operand.name for operand in p.operands]
    made = dict(zip(names, matrices, strict=True))
    residual, limit = _CHECKS[p.op](p, known(p, seed), made, outcome)
    return residual, bool(residual <= limit)


def _ratio(error: float, scale: float) -> float:
    """Return error / scale; an exact result is right at any scale, even of an empty matrix."""
    return 0.0 if error == 0 else float(np.divide(error, scale))


def _eps(p: Problem) -> float:
    return format_of(p.dtype).unit_roundoff


def _norm1(a: Array) -> float:
    return float(np.abs(a).sum(axis=0).max(initial=0))


# -- factorisations: || A - L U ||_1 / (|| A ||_1 n eps) -------------------------------------------

Matrices = dict[str, Known]
Made = dict[str, TiledMatrix]
Verdict = tuple[float, float]


def _potrf(p: Problem, was: Matrices, made: Made, _: Any) -> Verdict:
    L = made["A"].to_array()
    if p.uplo == "U":
        L = L.conj().T
    sums = np.zeros(p.n)
    for s in strips(p.n):
        # the lower half of a Hermitian residual, and the sums of its mirror image
        upto = slice(s.stop)
        R = np.abs(was["A"].rows(s)[:, upto] - L[s, upto] @ L[upto, upto].conj().T)
        sums[upto] += R.sum(axis=0)
        sums[s] += R[:, : s.start].sum(axis=1)
    return _ratio(float(sums.max(initial=0)), was["A"].norm() * p.n * _eps(p)), 60


def _getrf(p: Problem, was: Matrices, made: Made, piv: Array) -> Verdict:
    LU = made["A"].to_array(copy=None)
    U = np.triu(LU[: p.n])
    order = permutation(piv, p.m)
    sums = np.zeros(p.n)
    for s in strips(p.m):
        L = np.tril(LU[s, : p.m], s.start - 1)
        inside = np.arange(s.start, min(s.stop, L.shape[1]))
        L[inside - s.start, inside] = 1
        sums += np.abs(was["A"].rows(order[s]) - L @ U).sum(axis=0)
    return _ratio(float(sums.max(initial=0)), was["A"].norm() * p.n * _eps(p)), 60


def permutation(piv: Array, m: int) -> Array:
    """Return m row indices in the order that the interchanges i <-> piv[i] give."""
    order = np.arange(m)
    for i, other in enumerate(piv.tolist()):
        order[[i, other]] = order[[other, i]]
    return order


# -- solutions: || B - A X ||_1 / (|| A ||_1 || X ||_1 n eps) --------------------------------------


def _solution(p: Problem, was: Matrices, made: Made, _: Any) -> Verdict:
    X = made["B"].to_array(copy=None)
    R = was["B"].dense() - was["A"].times(X, p.trans)
    # of the transpose, the 1-norm is the largest sum of a row
    size = was["A"].norm("1" if p.trans == "N" else "I")
    return _ratio(_norm1(R), size * _norm1(X) * p.n * _eps(p)), 60


def _hpl_mxp(p: Problem, was: Matrices, made: Made, info: RefinementInfo) -> Verdict:
    A, x, b = was["A"], made["B"].to_array(copy=None), was["B"].dense()
    return hpl_mxp(p, b - A.times(x), A.norm("I"), x, b, info)


def hpl_mxp(
    p: Problem, r: Array, norm: float, x: Array, b: Array, info: RefinementInfo
) -> tuple[float, float]:
    """Return the residual of HPL-MxP's rules and their limit, below any for a full factorisation.

    || b - A x ||_inf / ((|| A ||_inf || x ||_inf + || b ||_inf) n eps) < 16.
    """

    def size(vector: Array) -> float:
        return float(np.abs(vector).max(initial=0))

    residual = _ratio(size(r), (norm * size(x) + size(b)) * p.n * _eps(p))
    return residual, -1.0 if info.solver == "full" else float(np.nextafter(16, 0))


def _trsm(p: Problem, was: Matrices, made: Made, _: Any) -> Verdict:
    X, A = made["B"].to_array(copy=None), _op(was["A"].dense(), p.trans)
    R = ALPHA * was["B"].dense() - (A @ X if p.side == "L" else X @ A)
    return _ratio(_norm1(R), _norm1(A) * _norm1(X) * p.order * _eps(p)), 60


def _op(a: Array, op: str) -> Array:
    return {"N": a, "T": a.T, "C": a.conj().T}[op]


# -- inverses: || I - A X ||_1 / (|| A ||_1 || X ||_1 n eps) ---------------------------------------


def _inverse(p: Problem, was: Matrices, made: Made, _: Any) -> Verdict:
    if p.op == "potri":
        X = made["A"].to_array(fill="hermitian")
    else:
        X = made["A"].to_array(fill="triangle")
        if p.diag == "U":
            np.fill_diagonal(X, 1)
    sums = np.zeros(p.n)
    for s in strips(p.n):
        R = was["A"].rows(s) @ X
        R[np.arange(s.stop - s.start), np.arange(s.start, s.stop)] -= 1
        sums += np.abs(R).sum(axis=0)
    return _ratio(float(sums.max(initial=0)), was["A"].norm() * _norm1(X) * p.n * _eps(p)), 60


# -- products: || (C - Cref) X ||_F / (bound eps) for a random thin X with || X ||_2 = 1, where the
#    bound is sqrt(k + 2) |alpha| || A ||_F || B ||_F + 2 |beta| || C0 ||_F ------------------------


def random_columns(p: Problem, n: int) -> Array:
    """Return a thin random matrix of n rows whose largest singular value is 1."""
    X = random_block(2**63, np.arange(n), np.arange(_PROBES), p.dtype, "general", n)
    size = np.linalg.norm(X, 2) if n else 1
    return np.asarray(X / size, dtype=p.dtype)


def _verdict(p: Problem, C: Array, expected: Callable[[Array], Array], bound: float) -> Verdict:
    X = random_columns(p, C.shape[1])
    return _ratio(float(np.linalg.norm(C @ X - expected(X))), bound * _eps(p)), 3


def _gemm(p: Problem, was: Matrices, made: Made, _: Any) -> Verdict:
    A, B, C = was["A"], was["B"], was["C"]

    def expected(X: Array) -> Array:
        return ALPHA * A.times(B.times(X, p.transb), p.transa) + BETA * C.times(X)

    return _verdict(p, made["C"].to_array(copy=None), expected, _bound(p.k, A, B, C))


def _symm(p: Problem, was: Matrices, made: Made, _: Any) -> Verdict:
    A, B, C = was["A"], was["B"], was["C"]

    def expected(X: Array) -> Array:
        product = A.times(B.times(X)) if p.side == "L" else B.times(A.times(X))
        return ALPHA * product + BETA * C.times(X)

    return _verdict(p, made["C"].to_array(copy=None), expected, _bound(p.order, A, B, C))


def _rank_k(p: Problem, was: Matrices, made: Made, _: Any) -> Verdict:
    A, C = was["A"], was["C"]
    symmetric = p.op == "syrk"
    flipped = "T" if symmetric else "C"

    def expected(X: Array) -> Array:
        first, second = (flipped, "N") if p.trans == "N" else ("N", flipped)
        return ALPHA * A.times(A.times(X, first), second) + BETA * C.times(X)

    result = made["C"].to_array(fill="symmetric" if symmetric else "hermitian")
    return _verdict(p, result, expected, _bound(p.k, A, A, C))


def _trmm(p: Problem, was: Matrices, made: Made, _: Any) -> Verdict:
    A, B = was["A"], was["B"]

    def expected(X: Array) -> Array:
        left = p.side == "L"
        product = A.times(B.times(X), p.trans) if left else B.times(A.times(X, p.trans))
        return ALPHA * product

    return _verdict(p, made["B"].to_array(copy=None), expected, _bound(p.order, A, B))


def _lauum(p: Problem, was: Matrices, made: Made, _: Any) -> Verdict:
    A = was["A"]

    def expected(X: Array) -> Array:
        first, second = ("N", "C") if p.uplo == "L" else ("C", "N")
        return A.times(A.times(X, first), second)

    result = made["A"].to_array(fill="hermitian")
    return _verdict(p, result, expected, np.sqrt(p.n + 2) * A.norm("F") ** 2)


def _bound(k: int, A: Known, B: Known, C: Known | None = None) -> float:
    product = np.sqrt(k + 2) * abs(ALPHA) * A.norm("F") * B.norm("F")
    return float(product + (2 * abs(BETA) * C.norm("F") if C else 0))


# -- norms: relative error in units of n eps -------------------------------------------------------


def _norm(p: Problem, was: Matrices, _: Made, value: float) -> Verdict:
    expected = was["A"].norm(p.norm)
    return _ratio(abs(value - expected), expected * max(p.m, p.n) * _eps(p)), 3


_CHECKS: dict[str, Callable[[Problem, Matrices, Made, Any], Verdict]] = {
    "potrf": _potrf,
    "potrs": _solution,
    "posv": _solution,
    "potri": _inverse,
    "trtri": _inverse,
    "lauum": _lauum,
    "getrf": _getrf,
    "getrs": _solution,
    "gesv": _solution,
    "hpl-mxp": _hpl_mxp,
    "gemm": _gemm,
    "symm": _symm,
    "hemm": _symm,
    "syrk": _rank_k,
    "herk": _rank_k,
    "trsm": _trsm,
    "trmm": _trmm,
    "lange": _norm,
    "lansy": _norm,
}
