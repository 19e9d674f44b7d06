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

from numpy.typing import NDArray

from taskla.cli.checks_formats import relative, square, verdict
from taskla.cli.checks_tiled import (
    Case,
    cholesky_residual,
    expected_product,
    lu_residual,
    solution_residual,
)
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
    # processors may differ in the last bit
    return ranks.share(verdict(p, _error(case), matrices[0]))


def _error(c: Case) -> float:
    """Return the relative error of a call."""
    p, A = c.p, c.was("A")
    if p.op in PRODUCTS:
        B, C = c.was("B"), c.made("C")
        scale = abs(ALPHA) * A.norm("F") * B.norm("F") + abs(BETA) * c.was("C").norm("F")
        return _estimate(c, C.n, lambda c, Z: C.times(Z) - expected_product(c, Z), scale)
    if p.op == "potrf":
        return _estimate(c, p.n, cholesky_residual, A.norm("F"))
    if p.op == "getrf":
        return _estimate(c, p.n, lu_residual, A.norm("F"))
    X = c.made("B")
    return _estimate(c, X.n, solution_residual, A.norm("F") * X.norm("F"))


def _estimate(c: Case, n: int, residual: Callable[[Case, Array], Array], scale: float) -> float:
    """Return about ``|| R ||_F / scale``; the function multiplies R, of n columns, by others."""
    Z = c.probe(n)
    return relative(square(residual(c, Z)) * n / max(Z.shape[1], 1), scale)
