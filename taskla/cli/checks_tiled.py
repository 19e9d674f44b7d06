"""Whether a result on many ranks is right: the residuals of `taskla.cli.checks`, tried on probes.

No rank can hold a whole matrix. A residual matrix R is not computed, but R Z for a thin random Z,
by products of distributed tiles with thin matrices, from inputs made anew. With columns of Z of
2-norm 1, the largest 1-norm of a column of R Z stands for the 1-norm of R, and is about that when
the error is spread over R. Up to `PROBES` columns Z is the identity, and nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.cli.checks import hpl_mxp, permutation
from taskla.cli.generate import TRIANGULAR, entries
from taskla.cli.ranks import Ranks
from taskla.cli.spread import Shape, Spread
from taskla.engines import Engine
from taskla.formats import format_of
from taskla.matrix import TiledMatrix
from taskla.matrix_random import random_block
from taskla.routines import ALPHA, BETA, Problem

__all__ = [
    "PROBES",
    "Case",
    "check",
    "cholesky_residual",
    "expected_product",
    "lu_residual",
    "solution_residual",
]

Array = NDArray[Any]
Verdict = tuple[float, float]

#: Columns of Z.
PROBES = 8


def check(
    p: Problem,
    matrices: Sequence[TiledMatrix],
    outcome: Any,
    seed: int,
    engine: Engine,
    ranks: Ranks,
) -> tuple[float, bool]:
    """Return the scaled residual of a call, and whether it passes, the same on all ranks.

    Parameters
    ----------
    p, matrices, outcome, seed
        As of `taskla.cli.checks.check`.
    engine : Engine
        Whose workers compute this rank's part.
    ranks : Ranks
        Those that share the matrices; all of them call this.
    """
    residual, limit = _CHECKS[p.op](Case(p, matrices, outcome, seed, engine, ranks))
    # processors may differ in the last bit
    return ranks.share((residual, bool(residual <= limit)))


class Case:
    """A call to be checked.

    Parameters
    ----------
    p, matrices, outcome, seed, engine, ranks
        As of `check`.
    """

    def __init__(
        self,
        p: Problem,
        matrices: Sequence[TiledMatrix],
        outcome: Any,
        seed: int,
        engine: Engine,
        ranks: Ranks,
    ) -> None:
        self.p, self.outcome = p, outcome
        self._seed, self._engine, self._ranks = seed, engine, ranks
        self._made = {o.name: matrix for o, matrix in zip(p.operands, matrices, strict=True)}

    def was(self, name: str) -> Spread:
        """Return an operand as it was made."""
        number, operand = next(
            (number, o) for number, o in enumerate(self.p.operands) if o.name == name
        )
        kind = {"spd": "hermitian"}.get(operand.kind, operand.kind)
        shape: Any = operand.uplo if kind in TRIANGULAR else kind if operand.uplo else "full"
        block = entries(operand, self.p, self._seed + number)
        return self._spread(name, shape, block, self.p.diag == "U" and kind in TRIANGULAR)

    def made(self, name: str, shape: Shape = "full", unit: bool = False) -> Spread:
        """Return an operand as it is now."""
        return self._spread(name, shape, None, unit)

    def _spread(self, name: str, shape: Shape, block: Any, unit: bool) -> Spread:
        return Spread(self._made[name], shape, self._ranks, self._engine, block, unit)

    def triangle(self) -> Shape:
        """Return the triangle that A stores."""
        return "upper" if self.p.uplo == "U" else "lower"

    @property
    def eps(self) -> float:
        """The unit roundoff."""
        return format_of(self.p.dtype).unit_roundoff

    def probe(self, n: int, together: bool = False) -> Array:
        """Return Z, n x `PROBES` at most: each column, or all `together`, of 2-norm 1."""
        dtype = self.p.dtype
        if n <= PROBES:
            return np.eye(n, dtype=dtype)
        Z = random_block(2**63, np.arange(n), np.arange(PROBES), dtype, "general", n)
        size = np.linalg.norm(Z, 2) if together else np.linalg.norm(Z, axis=0)
        return np.asarray(Z / size, dtype=dtype)


def _ratio(error: float, scale: float) -> float:
    return 0.0 if error == 0 else float(np.divide(error, scale))


def _norm1(a: Array) -> float:
    return float(np.abs(a).sum(axis=0).max(initial=0))


# -- factorisations: || (A - L U) Z ||_1 / (|| A ||_1 n eps) ---------------------------------------


def cholesky_residual(c: Case, Z: Array) -> Array:
    """Return (A - L L^H) Z, or with U^H U."""
    factor = c.made("A", c.triangle())
    first, second = ("C", "N") if c.p.uplo == "L" else ("N", "C")
    return c.was("A").times(Z) - factor.times(factor.times(Z, first), second)


def lu_residual(c: Case, Z: Array) -> Array:
    """Return (P A - L U) Z."""
    p, UZ = c.p, c.made("A", "upper").times(Z)
    rows = min(p.m, p.n)
    thin = np.zeros((p.n, Z.shape[1]), UZ.dtype)
    thin[:rows] = UZ[:rows]
    order = permutation(c.outcome, p.m)
    return np.asarray(c.was("A").times(Z)[order] - c.made("A", "lower", unit=True).times(thin))


def _potrf(c: Case) -> Verdict:
    R = cholesky_residual(c, c.probe(c.p.n))
    return _ratio(_norm1(R), c.was("A").norm() * c.p.n * c.eps), 60


def _getrf(c: Case) -> Verdict:
    R = lu_residual(c, c.probe(c.p.n))
    return _ratio(_norm1(R), c.was("A").norm() * c.p.n * c.eps), 60


# -- solutions: || (B - A X) Z ||_1 / (|| A ||_1 || X ||_1 n eps) ----------------------------------


def solution_residual(c: Case, Z: Array) -> Array:
    """Return (B - op(A) X) Z."""
    return c.was("B").times(Z) - c.was("A").times(c.made("B").times(Z), c.p.trans)


def _solution(c: Case) -> Verdict:
    p, A, X = c.p, c.was("A"), c.made("B")
    R = solution_residual(c, c.probe(X.n))
    size = A.norm("1" if p.trans == "N" else "I")
    return _ratio(_norm1(R), size * X.norm() * p.n * c.eps), 60


def _hpl_mxp(c: Case) -> Verdict:
    A, one = c.was("A"), np.eye(1, dtype=c.p.dtype)
    x, b = c.made("B").times(one), c.was("B").times(one)
    return hpl_mxp(c.p, b - A.times(x), A.norm("I"), x, b, c.outcome)


def _trsm(c: Case) -> Verdict:
    p, A, X = c.p, c.was("A"), c.made("B")
    Z = c.probe(X.n)
    left = p.side == "L"
    product = A.times(X.times(Z), p.trans) if left else X.times(A.times(Z, p.trans))
    R = ALPHA * c.was("B").times(Z) - product
    size = A.norm("1" if p.trans == "N" else "I")
    return _ratio(_norm1(R), size * X.norm() * p.order * c.eps), 60


# -- inverses: || (I - A X) Z ||_1 / (|| A ||_1 || X ||_1 n eps) -----------------------------------


def _inverse(c: Case) -> Verdict:
    p, A, Z = c.p, c.was("A"), c.probe(c.p.n)
    potri = p.op == "potri"
    X = c.made("A", "hermitian" if potri else c.triangle(), unit=not potri and p.diag == "U")
    R = Z - A.times(X.times(Z))
    return _ratio(_norm1(R), A.norm() * X.norm() * p.n * c.eps), 60


# -- products: || (C - Cref) Z ||_F / (bound eps), as on one rank ----------------------------------


def _verdict(c: Case, C: Spread, expected: Callable[[Array], Array], bound: float) -> Verdict:
    Z = c.probe(C.n, together=True)
    return _ratio(float(np.linalg.norm(C.times(Z) - expected(Z))), bound * c.eps), 3


def _bound(k: int, A: Spread, B: Spread, C: Spread | None = None) -> float:
    product = np.sqrt(k + 2) * abs(ALPHA) * A.norm("F") * B.norm("F")
    return float(product + (2 * abs(BETA) * C.norm("F") if C else 0))


def expected_product(c: Case, Z: Array) -> Array:
    """Return what gemm, symm or hemm should have made of C, times Z."""
    p, A, B = c.p, c.was("A"), c.was("B")
    if p.op == "gemm":
        product = A.times(B.times(Z, p.transb), p.transa)
    else:
        product = A.times(B.times(Z)) if p.side == "L" else B.times(A.times(Z))
    return ALPHA * product + BETA * c.was("C").times(Z)


def _product(c: Case) -> Verdict:
    p = c.p
    terms = p.k if p.op == "gemm" else p.order
    bound = _bound(terms, c.was("A"), c.was("B"), c.was("C"))
    return _verdict(c, c.made("C"), partial(expected_product, c), bound)


def _rank_k(c: Case) -> Verdict:
    p, A, C = c.p, c.was("A"), c.was("C")
    flipped = "T" if p.op == "syrk" else "C"
    first, second = (flipped, "N") if p.trans == "N" else ("N", flipped)

    def expected(Z: Array) -> Array:
        return ALPHA * A.times(A.times(Z, first), second) + BETA * C.times(Z)

    result = c.made("C", "symmetric" if p.op == "syrk" else "hermitian")
    return _verdict(c, result, expected, _bound(p.k, A, A, C))


def _trmm(c: Case) -> Verdict:
    p, A, B = c.p, c.was("A"), c.was("B")

    def expected(Z: Array) -> Array:
        left = p.side == "L"
        return ALPHA * (A.times(B.times(Z), p.trans) if left else B.times(A.times(Z, p.trans)))

    return _verdict(c, c.made("B"), expected, _bound(p.order, A, B))


def _lauum(c: Case) -> Verdict:
    p, A = c.p, c.was("A")
    first, second = ("N", "C") if p.uplo == "L" else ("C", "N")

    def expected(Z: Array) -> Array:
        return A.times(A.times(Z, first), second)

    bound = float(np.sqrt(p.n + 2) * A.norm("F") ** 2)
    return _verdict(c, c.made("A", "hermitian"), expected, bound)


# -- norms: relative error in units of n eps -------------------------------------------------------


def _norm(c: Case) -> Verdict:
    p = c.p
    expected = c.was("A").norm(p.norm)
    return _ratio(abs(c.outcome - expected), expected * max(p.m, p.n) * c.eps), 3


_CHECKS: dict[str, Callable[[Case], Verdict]] = {
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
    "gemm": _product,
    "symm": _product,
    "hemm": _product,
    "syrk": _rank_k,
    "herk": _rank_k,
    "trsm": _trsm,
    "trmm": _trmm,
    "lange": _norm,
    "lansy": _norm,
}
