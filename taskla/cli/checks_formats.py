"""Whether a result in several number formats is as accurate as its map promises.

Residuals are relative errors in the Frobenius norm, in units of the tolerance that the formats
follow from, of which three are allowed; where none was given, of the unit roundoff of the lowest
format in use, of which 30 are allowed, LAPACK's limit: a factorisation may let errors grow. What
many ranks share is checked by `taskla.cli.checks_formats_tiled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.cli.checks import permutation, random_columns
from taskla.cli.generate import Known, known, strips
from taskla.formats import FORMATS, format_of
from taskla.matrix import TiledMatrix
from taskla.precision import PrecisionMap
from taskla.routines import ALPHA, BETA, PRODUCTS, Problem

__all__ = ["check_formats", "relative", "square", "verdict"]

Array = NDArray[Any]


def check_formats(
    p: Problem, matrices: Sequence[TiledMatrix], outcome: Any, seed: int
) -> tuple[float, bool]:
    """Return the scaled residual of a call, and whether it passes: as `taskla.cli.checks.check`."""
    made = dict(zip([operand.name for operand in p.operands], matrices, strict=True))
    was = known(p, seed)
    if p.op in PRODUCTS:
        error = _product(p, was, made["C"])
    elif p.op == "potrf":
        error = _cholesky(p, was["A"], made["A"])
    elif p.op == "getrf":
        error = _lu(p, was["A"], made["A"], outcome)
    else:
        error = _solution(p, was, made["B"])
    return verdict(p, error, made["A"])


def verdict(p: Problem, error: float, A: TiledMatrix) -> tuple[float, bool]:
    """Return a relative error in its unit, and whether it passes.

    Parameters
    ----------
    p : Problem
    error : float
        In the Frobenius norm.
    A : TiledMatrix
        After the call; whose tiles have formats, if any have.
    """
    assert p.formats is not None
    precision = PrecisionMap(p.formats)
    if precision.tol is not None:
        return error / precision.tol, bool(error <= 3 * precision.tol)
    names = [precision.uniform] if precision.uniform else np.unique(A.format_map).tolist()
    # no tile is wider than the matrix
    least = format_of(p.dtype).unit_roundoff
    unit = max(least, *(FORMATS[str(name)].unit_roundoff for name in names))
    return error / unit, bool(error <= 30 * unit)


def relative(squares: float, scale: float) -> float:
    """Return the root of a sum of squares over a scale; what is exact is right at any scale."""
    return 0.0 if squares == 0 else float(np.divide(np.sqrt(squares), scale))


def square(a: Array) -> float:
    """Return the sum of squares of the entries."""
    return float((np.abs(a).astype(np.float64) ** 2).sum())


def _cholesky(p: Problem, A: Known, made: TiledMatrix) -> float:
    L = made.to_array()
    if p.uplo == "U":
        L = L.conj().T
    total = 0.0
    for s in strips(p.n):
        total += square(A.rows(s) - L[s] @ L.conj().T)
    return relative(total, A.norm("F"))


def _lu(p: Problem, A: Known, made: TiledMatrix, piv: Array) -> float:
    LU = made.to_array()
    U, order, total = np.triu(LU[: p.n]), permutation(piv, p.m), 0.0
    for s in strips(p.m):
        L = np.tril(LU[s, : p.m], s.start - 1)
        inside = np.arange(s.start, min(s.stop, L.shape[1]))
        L[inside - s.start, inside] = 1
        total += square(A.rows(order[s]) - L @ U)
    return relative(total, A.norm("F"))


def _solution(p: Problem, was: dict[str, Known], made: TiledMatrix) -> float:
    X = made.to_array()
    residual = was["B"].dense() - was["A"].times(X, p.trans)
    return relative(square(residual), was["A"].norm("F") * float(np.linalg.norm(X)))


def _product(p: Problem, was: dict[str, Known], made: TiledMatrix) -> float:
    """``|| (C - Cref) X ||_F``, X random, is an estimate of that of the error itself."""
    A, B, C = was["A"], was["B"], was["C"]
    X = random_columns(p, made.n)
    X = X * np.sqrt(made.n * X.shape[1]) / max(float(np.linalg.norm(X)), 1e-300)
    if p.op == "gemm":
        product = A.times(B.times(X, p.transb), p.transa)
    else:
        product = A.times(B.times(X)) if p.side == "L" else B.times(A.times(X))
    difference = made.to_array() @ X - ALPHA * product - BETA * C.times(X)
    scale = abs(ALPHA) * A.norm("F") * B.norm("F") + abs(BETA) * C.norm("F")
    return relative(square(difference) / max(X.shape[1], 1), scale)
