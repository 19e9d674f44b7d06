"""BLAS and LAPACK calls on tiles, as methods of the task flow.

Parameters speak of the operands as the program sees them, `T` and `H` included: after ``X = A.H``,
``uplo="L"`` is the lower triangle of X, whatever A stores. Here that becomes what BLAS wants to be
told of the stored tiles; in particular an output seen transposed is updated by the transposed
equation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from taskla.tiles import Op, Tiles, compose, flip

__all__ = ["BlasCalls"]

# algorithms hand BLAS's letters on as plain strings
Uplo = str
Side = str
Diag = str


class BlasCalls(ABC):
    """The routines; `taskla.flow.TaskFlow` says what submission means.

    Every method takes the keywords of `submit` (``priority``, ``precision``, ``compression``,
    ``accumulate``, ``at``) and raises its errors, and `ValueError` for a letter that is not
    allowed.
    """

    @abstractmethod
    def submit(
        self,
        operation: str,
        *operands: Tiles,
        params: tuple[Any, ...] = (),
        priority: float | None = None,
        precision: str | None = None,
        compression: str | None = None,
        accumulate: bool = False,
        distinct: bool = False,
        at: Tiles | None = None,
    ) -> None:
        """Submit an operation on every tile of the operands."""

    def _submit(
        self, operation: str, *operands: Tiles, params: tuple[Any, ...] = (), **tags: Any
    ) -> None:
        self.submit(operation, *operands, params=params, distinct=True, **tags)

    # -- level 3 -----------------------------------------------------------------------------------

    def gemm(
        self, A: Tiles, B: Tiles, C: Tiles, alpha: Any = 1.0, beta: Any = 1.0, **tags: Any
    ) -> None:
        """C := alpha A B + beta C."""
        if C.op != "N":
            A, B = _through(C.op, B), _through(C.op, A)
            C, alpha, beta = _stored(C), _conj(C.op, alpha), _conj(C.op, beta)
        self._submit("gemm", A, B, C, params=(A.op, B.op, alpha, beta), **tags)

    def symm(
        self,
        A: Tiles,
        B: Tiles,
        C: Tiles,
        side: Side = "L",
        uplo: Uplo = "L",
        alpha: Any = 1.0,
        beta: Any = 1.0,
        **tags: Any,
    ) -> None:
        """C := alpha A B + beta C (side L) or alpha B A + beta C (side R), A symmetric."""
        self._symm("symm", "T", A, B, C, side, uplo, alpha, beta, tags)

    def hemm(
        self,
        A: Tiles,
        B: Tiles,
        C: Tiles,
        side: Side = "L",
        uplo: Uplo = "L",
        alpha: Any = 1.0,
        beta: Any = 1.0,
        **tags: Any,
    ) -> None:
        """C := alpha A B + beta C (side L) or alpha B A + beta C (side R), A Hermitian."""
        name = "hemm" if A.dtype.kind == "c" else "symm"
        self._symm(name, "C", A, B, C, side, uplo, alpha, beta, tags)

    def _symm(
        self,
        name: str,
        same: Op,
        A: Tiles,
        B: Tiles,
        C: Tiles,
        side: Side,
        uplo: Uplo,
        alpha: Any,
        beta: Any,
        tags: dict[str, Any],
    ) -> None:
        _letters(side=side, uplo=uplo)
        _require(name, A, same)
        uplo = flip(uplo, A.op)
        if C.op != "N":
            _require(name, C, same)
            B = _through(C.op, B)
            side = "R" if side == "L" else "L"
            C, alpha, beta = _stored(C), _conj(C.op, alpha), _conj(C.op, beta)
        if B.op != "N":
            raise ValueError(f"{name} takes B and C seen the same way; B is {B!r}")
        self._submit(name, A, B, C, params=(side, uplo, alpha, beta), **tags)

    def syrk(
        self,
        A: Tiles,
        C: Tiles,
        uplo: Uplo = "L",
        alpha: Any = 1.0,
        beta: Any = 1.0,
        **tags: Any,
    ) -> None:
        """C := alpha A A^T + beta C, one triangle of a symmetric C."""
        _letters(uplo=uplo)
        _require("syrk", A, "T")
        _require("syrk", C, "T")
        params = (flip(uplo, C.op), A.op, alpha, beta)
        self._submit("syrk", A, _stored(C), params=params, **tags)

    def herk(
        self,
        A: Tiles,
        C: Tiles,
        uplo: Uplo = "L",
        alpha: float = 1.0,
        beta: float = 1.0,
        **tags: Any,
    ) -> None:
        """C := alpha A A^H + beta C, one triangle of a Hermitian C."""
        if C.dtype.kind != "c":
            return self.syrk(A, C, uplo, alpha, beta, **tags)
        _letters(uplo=uplo)
        _require("herk", A, "C")
        _require("herk", C, "C")
        params = (flip(uplo, C.op), A.op, alpha, beta)
        return self._submit("herk", A, _stored(C), params=params, **tags)

    def trsm(
        self,
        A: Tiles,
        B: Tiles,
        side: Side = "L",
        uplo: Uplo = "L",
        diag: Diag = "N",
        alpha: Any = 1.0,
        **tags: Any,
    ) -> None:
        """B := alpha A^-1 B (side L) or alpha B A^-1 (side R), A triangular."""
        self._triangular("trsm", A, B, side, uplo, diag, alpha, tags)

    def trmm(
        self,
        A: Tiles,
        B: Tiles,
        side: Side = "L",
        uplo: Uplo = "L",
        diag: Diag = "N",
        alpha: Any = 1.0,
        **tags: Any,
    ) -> None:
        """B := alpha A B (side L) or alpha B A (side R), A triangular."""
        self._triangular("trmm", A, B, side, uplo, diag, alpha, tags)

    def _triangular(
        self,
        name: str,
        A: Tiles,
        B: Tiles,
        side: Side,
        uplo: Uplo,
        diag: Diag,
        alpha: Any,
        tags: dict[str, Any],
    ) -> None:
        _letters(side=side, uplo=uplo, diag=diag)
        stored = flip(uplo, A.op)
        if B.op != "N":
            A, B, alpha = _through(B.op, A), _stored(B), _conj(B.op, alpha)
            side = "R" if side == "L" else "L"
        self._submit(name, A, B, params=(side, stored, A.op, diag, alpha), **tags)

    # -- LAPACK on one tile ------------------------------------------------------------------------

    def potrf(self, A: Tiles, uplo: Uplo = "L", **tags: Any) -> None:
        """A := L with A = L L^H (uplo L), or U with A = U^H U (uplo U)."""
        _letters(uplo=uplo)
        self._submit("potrf", _stored(A), params=(flip(uplo, A.op),), **tags)

    def trtri(self, A: Tiles, uplo: Uplo = "L", diag: Diag = "N", **tags: Any) -> None:
        """A := A^-1, A triangular."""
        _letters(uplo=uplo, diag=diag)
        self._submit("trtri", _stored(A), params=(flip(uplo, A.op), diag), **tags)

    def lauum(self, A: Tiles, uplo: Uplo = "L", **tags: Any) -> None:
        """A := L^H L (uplo L) or U U^H (uplo U)."""
        _letters(uplo=uplo)
        _require("lauum", A, "C")
        self._submit("lauum", _stored(A), params=(flip(uplo, A.op),), **tags)

    def lascl(self, A: Tiles, alpha: Any, uplo: str = "G", **tags: Any) -> None:
        """A := alpha A, all of it or one triangle."""
        part = _part(uplo, A.op)
        self._submit("lascl", _stored(A), params=(part, _conj(A.op, alpha)), **tags)

    def laset(
        self,
        A: Tiles,
        offdiag: Any = 0.0,
        diag: Any = 0.0,
        uplo: str = "G",
        **tags: Any,
    ) -> None:
        """A := offdiag off and diag on the diagonal, all of it or one triangle."""
        part = _part(uplo, A.op)
        values = _conj(A.op, offdiag), _conj(A.op, diag)
        self._submit("laset", _stored(A), params=(part, *values), **tags)

    def lacpy(self, A: Tiles, B: Tiles, uplo: str = "G", **tags: Any) -> None:
        """B := A, all of it or one triangle."""
        part = _part(uplo, B.op)
        A = _through(B.op, A)
        self._submit("lacpy", A, _stored(B), params=(part, A.op), **tags)

    def geadd(self, A: Tiles, B: Tiles, alpha: Any = 1.0, beta: Any = 1.0, **tags: Any) -> None:
        """B := alpha A + beta B."""
        A, alpha, beta = _through(B.op, A), _conj(B.op, alpha), _conj(B.op, beta)
        self._submit("geadd", A, _stored(B), params=(A.op, alpha, beta), **tags)

    # -- LU on tile columns ------------------------------------------------------------------------

    def getrf(self, A: Tiles, P: Tiles, row: int = 0, **tags: Any) -> None:
        """P A := L U by partial pivoting of a panel (`Tiles.columns`) that begins at `row`."""
        self._submit("getrf", _plain("getrf", A), P, params=(row,), **tags)

    def getrf_nopiv(self, A: Tiles, **tags: Any) -> None:
        """A := L U without pivoting."""
        self._submit("getrf_nopiv", _plain("getrf_nopiv", A), **tags)

    def laswp(self, P: Tiles, A: Tiles, row: int = 0, forward: bool = True, **tags: Any) -> None:
        """Apply row interchanges P to tile columns A (`Tiles.columns`) that begin at `row`."""
        self._submit("laswp", P, _plain("laswp", A), params=(row, forward), **tags)

    def getrf_tnt_leaf(self, A: Tiles, C: Tiles, R: Tiles, row: int, **tags: Any) -> None:
        """C, R := the rows that partial pivoting of A chooses, and their numbers, from `row` on."""
        self._submit("getrf_tnt_leaf", _plain("getrf_tnt_leaf", A), C, R, params=(row,), **tags)

    def getrf_tnt_merge(self, C1: Tiles, R1: Tiles, C2: Tiles, R2: Tiles, **tags: Any) -> None:
        """C1, R1 := the rows that partial pivoting of C1 above C2 chooses."""
        self._submit("getrf_tnt_merge", C1, R1, C2, R2, **tags)

    def getrf_tnt_pivots(self, R: Tiles, P: Tiles, row: int, **tags: Any) -> None:
        """P := the interchanges that bring the rows R to `row` and on."""
        length, _ = P.grid.shapes(P.ids[0, 0])
        self._submit("getrf_tnt_pivots", R, P, params=(row, int(length)), **tags)

    def diagonal(self, A: Tiles, D: Tiles, **tags: Any) -> None:
        """D := the diagonal of A, as a column."""
        self._submit("diagonal", _plain("diagonal", A), D, **tags)

    # -- norms of tiles ----------------------------------------------------------------------------

    def lange(self, A: Tiles, S: Tiles, norm: str, **tags: Any) -> None:
        """S := the tile's share of a norm: see `taskla.kernels`."""
        _letters(norm=norm)
        self._submit("lange", A, S, params=(norm,), **tags)

    def lansy(
        self, A: Tiles, S: Tiles, norm: str, uplo: Uplo, hermitian: bool, **tags: Any
    ) -> None:
        """S := the share of a diagonal tile of which one triangle is stored."""
        _letters(norm=norm, uplo=uplo)
        self._submit("lansy", A, S, params=(norm, uplo, hermitian), **tags)

    def lantr(self, A: Tiles, S: Tiles, norm: str, uplo: Uplo, diag: Diag, **tags: Any) -> None:
        """S := the share of a triangular diagonal tile."""
        _letters(norm=norm, uplo=uplo, diag=diag)
        self._submit("lantr", A, S, params=(norm, uplo, diag), **tags)


_ALLOWED = {"side": "LR", "uplo": "LU", "diag": "NU", "norm": "M1IF"}


def _letters(**letters: str) -> None:
    """Refuse letters that BLAS does not know."""
    for name, letter in letters.items():
        _letter(name, letter, _ALLOWED[name])


def _letter(name: str, letter: str, allowed: str) -> None:
    if letter not in tuple(allowed):
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {letter!r}")


def _part(uplo: str, op: Op) -> str:
    """All of a tile, or the triangle that `uplo` becomes under `op`."""
    _letter("uplo", uplo, "GLU")
    return uplo if uplo == "G" else flip(uplo, op)


def _stored(X: Tiles) -> Tiles:
    """The tiles of a selection without its `T` or `H`, each where it stands in the selection."""
    return X if X.op == "N" else Tiles(X.grid, X.ids, "N", X.mask, X.stacked)


def _through(op: Op, X: Tiles) -> Tiles:
    """Each tile of X under `op`, where it stands in the selection."""
    if op == "N":
        return X
    return Tiles(X.grid, X.ids, compose(op, X.op, X.dtype), X.mask, X.stacked)


def _conj(op: Op, scalar: Any) -> Any:
    return np.conj(scalar).item() if op == "C" and isinstance(scalar, complex) else scalar


def _require(name: str, X: Tiles, same: Op) -> None:
    """Refuse a complex operand seen as the conjugate of what `name` can use."""
    if X.dtype.kind == "c" and X.op not in ("N", same):
        word = {"T": "T", "C": "H"}[same]
        raise ValueError(f"{name} on complex tiles takes X or X.{word}, not {X!r}")


def _plain(name: str, X: Tiles) -> Tiles:
    if X.op != "N":
        raise ValueError(f"{name} takes tiles as they are stored, not {X!r}")
    return X
