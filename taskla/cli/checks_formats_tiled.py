"""Whether a result in several number formats on many ranks is as accurate as its map promises.

The errors, units and limits are those of `taskla.cli.checks_formats`. No rank can hold a residual
matrix R of n columns, whose Frobenius norm is estimated: ``|| R Z ||_F sqrt(n / p)``, Z random with
p columns of 2-norm 1. The square of that is right in the mean, whatever R is. With `PROBES` columns
the estimate is good to a few per cent where errors are spread over R; at worst, when all rows are
multiples of one, it is a chi-square of p degrees of freedom: off by a factor of 2 in one case of
50, and by one of 3 in one of 900.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.cli.checks import permutation
from taskla.cli.checks_formats import relative, square, verdict
from taskla.cli.checks_tiled import Case
from taskla.cli.ranks import Ranks
from taskla.engines import Engine
from taskla.matrix import TiledMatrix
from taskla.routines import ALPHA, BETA, PRODUCTS, Problem

__all__ = ["check_formats"]

Array = NDArray[Any]


def check_formats(
    p: Problem,
    matrices: Sequence[TiledMatrix],
    outcome: Any,
    seed: int,
    engine: Engine,
    ranks: Ranks,
) -> tuple[float, bool]:
    """Return the scaled residual of a call, and whether it passes: as `checks_tiled.check`."""
    case = Case(p, matrices, outcome, seed, engine, ranks)
    if p.op in PRODUCTS:
        error = _product(case)
    elif p.op == "potrf":
        error = _cholesky(case)
    elif p.op == "getrf":
        error = _lu(case)
    else:
        error = _solution(case)
    # processors may differ in the last bit
    return ranks.share(verdict(p, error, matrices[0]))


def _error(c: Case, n: int, residual: Callable[[Array], Array], scale: float) -> float:
    """Estimate ``|| R ||_F / scale``; the function multiplies R, which has n columns, by others."""
    Z = c.probe(n)
    return relative(square(residual(Z)) * n / max(Z.shape[1], 1), scale)


def _cholesky(c: Case) -> float:
    A, factor = c.was("A"), c.made("A", c.triangle())
    first, second = ("C", "N") if c.p.uplo == "L" else ("N", "C")

    def residual(Z: Array) -> Array:
        return np.asarray(A.times(Z) - factor.times(factor.times(Z, first), second))

    return _error(c, c.p.n, residual, A.norm("F"))


def _lu(c: Case) -> float:
    p, A = c.p, c.was("A")
    L, U = c.made("A", "lower", unit=True), c.made("A", "upper")
    order, rows = permutation(c.outcome, p.m), min(p.m, p.n)

    def residual(Z: Array) -> Array:
        UZ = U.times(Z)
        thin = np.zeros((p.n, Z.shape[1]), UZ.dtype)
        thin[:rows] = UZ[:rows]
        return np.asarray(A.times(Z)[order] - L.times(thin))

    return _error(c, p.n, residual, A.norm("F"))


def _solution(c: Case) -> float:
    A, B, X = c.was("A"), c.was("B"), c.made("B")

    def residual(Z: Array) -> Array:
        return np.asarray(B.times(Z) - A.times(X.times(Z), c.p.trans))

    return _error(c, X.n, residual, A.norm("F") * X.norm("F"))


def _product(c: Case) -> float:
    p, A, B, C = c.p, c.was("A"), c.was("B"), c.was("C")
    made = c.made("C")

    def residual(Z: Array) -> Array:
        if p.op == "gemm":
            product = A.times(B.times(Z, p.transb), p.transa)
        else:
            product = A.times(B.times(Z)) if p.side == "L" else B.times(A.times(Z))
        return np.asarray(made.times(Z) - ALPHA * product - BETA * C.times(Z))

    scale = abs(ALPHA) * A.norm("F") * B.norm("F") + abs(BETA) * C.norm("F")
    return _error(c, made.n, residual, scale)
