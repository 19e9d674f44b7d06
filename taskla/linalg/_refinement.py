"""Solutions of arrays with factors in a lower precision, refined to double."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from scipy.linalg.blas import get_blas_funcs

from taskla import lapack
from taskla.errors import NotPositiveDefiniteError, SingularMatrixError
from taskla.formats import FORMATS
from taskla.linalg import _condition, _lu, _passes
from taskla.linalg._inputs import Array, fetch, operand, tiled
from taskla.linalg._triangles import solve_factored
from taskla.matrix import TiledMatrix
from taskla.matrix_layout import Uplo
from taskla.refinement import (
    FAILED,
    OVERFLOW,
    RefinementInfo,
    Solver,
    System,
    failed,
    refine,
    scale_into,
)

__all__ = ["Low", "Refined", "solve_general", "solve_positive"]


@dataclass(frozen=True)
class Low:
    """What a solution with low factors needs to know beside the arrays.

    Attributes
    ----------
    precision : str
        The format of the factors.
    check_finite : bool
        Whether infs and NaNs are an error.
    nb : int or None
        The tile size.
    """

    precision: str
    check_finite: bool
    nb: int | None


@dataclass(frozen=True)
class Refined:
    """A solution, None if there is none, with the reciprocal condition number and how it came."""

    x: Array | None
    rcond: float
    info: RefinementInfo


class _Factors(Protocol):
    """Factors of a matrix in an array, of single or double precision."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def solve(self, x: Array, trans: str) -> None:
        """Solve in place."""

    def widened(self) -> Self:
        """Return the same factors in double precision."""


@dataclass(frozen=True)
class _LU:
    factors: Array
    piv: Array
    nb: int | None

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.factors.dtype

    def solve(self, x: Array, trans: str) -> None:
        _lu.getrs(self.factors, self.piv, x, trans, self.nb)

    def widened(self) -> Self:
        return replace(self, factors=_double(self.factors))


@dataclass(frozen=True)
class _Cholesky:
    factor: Array
    lower: bool
    nb: int | None

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.factor.dtype

    def solve(self, x: Array, trans: str) -> None:
        solve_factored(self.factor, x, self.lower, self.nb)

    def widened(self) -> Self:
        return replace(self, factor=_double(self.factor))


def solve_general(a: Array, b: Array, trans: str, low: Low) -> Refined:
    """Solve op(A) X = B with LU factors.

    Parameters
    ----------
    a : ndarray, shape (n, n)
        float64 or complex128; not changed.
    b : ndarray, shape (n, k)
        Of any type that fits; not changed.
    trans : {"N", "T"}
        A or its transpose; "T" for real A only.
    low : Low

    Raises
    ------
    ValueError
        When `a` or `b` is to be checked and holds infs or NaNs.
    """
    a = operand(a, a.dtype, False)
    op = a if trans == "N" else a.T
    norm = lapack.lange("I" if trans == "N" else "1", tiled(a, low.nb))
    scale = _scale(a, norm, low)
    if scale is None:
        return _failed(low, OVERFLOW, "the matrix is not finite")
    b = operand(b, a.dtype, low.check_finite)
    factors = _lowered(a, scale)
    if low.precision == "fp32":
        piv, _ = _lu.getrf(factors, low.nb)
    else:
        A = TiledMatrix.from_array(factors, low.nb, precision=low.precision)
        piv, factors = lapack.getrf(A), A.to_array()
    zeros = np.flatnonzero(factors.diagonal() == 0)
    if zeros.size:
        error = SingularMatrixError(int(zeros[0]) + 1)
        return _failed(low, FAILED, f"in {low.precision}: {error}")
    return _refined(lambda x: op @ x, norm, _LU(factors, piv, low.nb), scale, b, trans, low)


def solve_positive(a: Array, b: Array, lower: bool, whole: bool, low: Low) -> Refined:
    """Solve A X = B with the Cholesky factor; otherwise as `solve_general`.

    Parameters
    ----------
    a, b, low
        As there.
    lower : bool
        Which triangle of `a` is used.
    whole : bool
        Whether the other one is known to mirror it.
    """
    a = operand(a, a.dtype, False)
    uplo: Uplo = "lower" if lower else "upper"
    lanhe = lapack.lanhe if a.dtype.kind == "c" else lapack.lansy
    norm = lanhe("I", tiled(a, low.nb, uplo))
    scale = _scale(a, norm, low)
    if scale is None:
        return _failed(low, OVERFLOW, "the matrix is not finite")
    b = operand(b, a.dtype, low.check_finite)
    factor = _lowered(a, scale, "L" if lower else "U")
    try:
        if low.precision == "fp32":
            fetch(lapack.potrf(tiled(factor, low.nb, uplo)), factor)
        else:
            C = TiledMatrix.from_array(factor, low.nb, uplo, precision=low.precision)
            factor = lapack.potrf(C).to_array(fill="triangle")
    except NotPositiveDefiniteError as error:
        return _failed(low, FAILED, f"in {low.precision}: {error}")
    times = (lambda x: a @ x) if whole else _product(a, lower)
    return _refined(times, norm, _Cholesky(factor, lower, low.nb), scale, b, "N", low)


def _scale(a: Array, norm: float, low: Low) -> float | None:
    """Return the power of 2 by which to scale a matrix; None if it is not finite."""
    scale = scale_into(low.precision, norm)
    if scale is None and low.check_finite:
        _passes.check(a)
    return scale


def _failed(low: Low, iter: int, reason: str) -> Refined:
    return Refined(None, np.nan, failed(low.precision, iter, reason))


def _lowered(a: Array, scale: float, part: _passes.Part = "G") -> Array:
    """Return a scaled copy in single precision, in which the lower formats are computed as well."""
    dtype = FORMATS["fp32"].complex if a.dtype.kind == "c" else FORMATS["fp32"].real
    return _passes.copied(a if scale == 1 else a * scale, dtype, "F", part, False)


def _double(a: Array) -> Array:
    dtype = FORMATS["fp64"].complex if a.dtype.kind == "c" else FORMATS["fp64"].real
    return _passes.copied(a, dtype, "F", "G", False)


def _product(a: Array, lower: bool) -> Callable[[Array], Array]:
    """Return what multiplies a matrix of which one triangle is stored with an array."""
    (symm,) = get_blas_funcs(("hemm" if a.dtype.kind == "c" else "symm",), (a,))
    # BLAS's wrapper would copy what is neither, each time
    if not a.flags.f_contiguous and not a.flags.c_contiguous:
        a = np.asfortranarray(a)
    if a.flags.f_contiguous:
        return lambda x: np.asarray(symm(1.0, a, x, lower=lower))
    # the same memory in Fortran's order is A's conjugate
    return lambda x: np.asarray(symm(1.0, a.T, x.conj(), lower=not lower).conj())


def _refined(
    times: Callable[[Array], Array],
    norm: float,
    factors: _Factors,
    scale: float,
    b: Array,
    trans: str,
    low: Low,
) -> Refined:
    def solution(factors: _Factors) -> Callable[[Array], Array]:
        def solve(R: Array) -> Array:
            x = np.array(R, factors.dtype, order="F")
            factors.solve(x, trans)
            return np.asarray(np.multiply(x, scale, dtype=b.dtype))

        return solve

    system = System(times, solution(factors), lambda: solution(factors.widened()), norm)
    solver: Solver = "lu-ir" if isinstance(factors, _LU) else "cholesky-ir"
    X, info = refine(system, b, low.precision, solver)
    if X is None:
        return Refined(None, np.nan, info)

    # || op(A) || in the infinity norm is that of op(A)^H in the 1-norm
    def solve_adjoint(x: Array, which: str) -> None:
        factors.solve(x, "C" if (which == "N") == (trans == "N") else "N")

    inverse = scale * _condition.inverse_norm(solve_adjoint, len(b), factors.dtype)
    return Refined(X, _condition.rcond(norm, inverse), info)
