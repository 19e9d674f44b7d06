"""Iterative refinement: solutions in double precision from factors in a lower one.

Written once over a few functions on thin arrays, so that what factors a matrix, and where it lies,
does not matter here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, isfinite, log2, sqrt
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla.formats import FORMATS
from taskla.refinement_gmres import gmres

__all__ = [
    "FAILED",
    "LOW",
    "NOT_CONVERGED",
    "NOT_TRIED",
    "OVERFLOW",
    "REFINABLE",
    "RefinementInfo",
    "Solver",
    "System",
    "failed",
    "full",
    "low_format",
    "refine",
    "scale_into",
]

Array: TypeAlias = NDArray[Any]
Solver: TypeAlias = Literal["lu-ir", "cholesky-ir", "gmres-ir", "full"]

#: The formats that a matrix is factored in, and these with that of the result.
LOW = ("fp32", "bf16", "fp16")
REFINABLE = ("fp64", *LOW)

#: LAPACK's limit, ITERMAX of dsgesv.
ITERATIONS = 30
#: Rows that count at least: for fewer LAPACK's rule asks for less than the rounding of a residual.
FEWEST = 16
#: A correction larger than this part of the one before says that more will not help.
STAGNATION = 0.9
#: Relative residual to which GMRES solves for a correction, and its iterations at most.
INNER_TOLERANCE, INNER_ITERATIONS = 1e-4, 200

# LAPACK's ITER of dsgesv where it is negative.
NOT_TRIED, OVERFLOW, FAILED, NOT_CONVERGED = -1, -2, -3, -(ITERATIONS + 1)


@dataclass(frozen=True)
class RefinementInfo:
    """How a solution was found.

    Attributes
    ----------
    solver : {"lu-ir", "cholesky-ir", "gmres-ir", "full"}
        Iterative refinement with LU or Cholesky factors, with GMRES for the corrections, or a
        factorisation in the precision of the result.
    precision : str
        The format of the factors that were asked for: "fp64", "fp32", "bf16" or "fp16"; of single
        precision throughout "fp32".
    iterations : int
        Corrections added to the first solution; of a refinement that failed, until it did.
    inner_iterations : int
        Those of GMRES, of all corrections and right-hand sides together.
    reason : str
        Why not the solver before it in the list, empty where nothing failed.
    iter : int
        LAPACK's ITER: `iterations` where they converged, and for solver "full" 0 when that was
        asked for, -1 where there is nothing to factor, -2 for a matrix that is not finite or
        overflows when its entries are summed, -3 for a factorisation that failed in the lower
        precision, -31 for a refinement that did not converge.
    backward_error : float or None
        The largest ``||b - A x|| / (||A|| ||x|| + ||b||)`` of a right-hand side, in the infinity
        norm; None for "full".

    Examples
    --------
    >>> import numpy as np
    >>> from taskla.linalg import solve
    >>> a = np.random.default_rng(0).standard_normal((50, 50))
    >>> x, info = solve(a, a.sum(axis=1), precision="fp32", full_output=True)
    >>> info.solver, info.reason
    ('lu-ir', '')
    >>> bool(np.abs(x - 1).max() < 1e-12)
    True
    """

    solver: Solver
    precision: str
    iterations: int = 0
    inner_iterations: int = 0
    reason: str = ""
    iter: int = 0
    backward_error: float | None = None


@dataclass(frozen=True)
class System:
    """Equations op(A) X = B, and factors of op(A), as functions from an array (n, k) to another.

    Attributes
    ----------
    times : callable
        op(A) times an array, in double precision.
    solve : callable
        The solution with the factors, in their precision or a better one. It gets columns with
        entries of at most 1, and gives double precision.
    widen : callable
        Without arguments; returns `solve` in double precision, with the same factors.
    norm : float
        ``||op(A)||``, the largest row sum.
    """

    times: Callable[[Array], Array]
    solve: Callable[[Array], Array]
    widen: Callable[[], Callable[[Array], Array]]
    norm: float


def low_format(precision: Any, dtype: np.dtype[Any]) -> str | None:
    """Return the format to factor in, None for that of the result.

    Parameters
    ----------
    precision : {None, "fp64", "fp32", "bf16", "fp16"}
    dtype : numpy.dtype
        Of the result, a LAPACK type.

    Raises
    ------
    ValueError
        When there is no such format, or the result is not in double precision.
    """
    if precision is None:
        return None
    if precision not in REFINABLE:
        raise ValueError(f"precision is {precision!r}; allowed: None, {', '.join(REFINABLE)}")
    if precision == "fp64":
        return None
    if dtype.char not in "dD":
        raise ValueError(
            f"precision is {precision!r} and the result {dtype}; only float64 and complex128 are "
            "refined to, so None and fp64 are allowed"
        )
    return str(precision)


def scale_into(precision: str, largest: float) -> float | None:
    """Return the power of 2 that a matrix is multiplied by before it is factored.

    Parameters
    ----------
    precision : str
    largest : float
        The largest absolute value in the matrix, or a bound of it.

    Returns
    -------
    float or None
        For fp16 such that no entry is above 1 % of the range, so that the factors have room to
        grow [1]_; otherwise 1, unless the matrix is near an end of the range. None when it is not
        finite.

    References
    ----------
    .. [1] N. J. Higham, S. Pranesh, M. Zounon, "Squeezing a matrix into half precision, with an
       application to solving linear systems", SIAM J. Sci. Comput. 41 (2019) A2536-A2551.
    """
    if not isfinite(largest):
        return None
    if largest == 0 or (precision != "fp16" and 2.0**-60 <= largest <= 2.0**60):
        return 1.0
    target = 0.01 * FORMATS["fp16"].max if precision == "fp16" else 1.0
    exponent = floor(log2(target) - log2(largest))
    # one with an inverse
    return float(2.0 ** min(max(exponent, -1000), 1000))


def full(dtype: np.dtype[Any], precision: str | None = None, reason: str = "") -> RefinementInfo:
    """Return what is said of a solution that was never to be refined, or could not be for a reason.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the result.
    precision : str, optional
        What was asked for. Default: the format of the result.
    reason : str, optional
    """
    own = "fp64" if dtype.char in "dD" else "fp32"
    precision = own if precision is None or precision == "fp64" else precision
    return RefinementInfo("full", precision, reason=reason, iter=NOT_TRIED if reason else 0)


def failed(precision: str, iter: int, reason: str) -> RefinementInfo:
    """Return what is said of a matrix that could not be factored in low precision."""
    return RefinementInfo("full", precision, reason=reason, iter=iter)


@dataclass(frozen=True)
class _Tried:
    """What became of a sequence of corrections; a `reason` says why it failed."""

    X: Array
    iterations: int
    backward_error: float
    reason: str


def refine(
    system: System,
    B: Array,
    precision: str,
    solver: Solver,
    *,
    iterations: int = ITERATIONS,
    inner_iterations: int = INNER_ITERATIONS,
    work: int | None = None,
) -> tuple[Array | None, RefinementInfo]:
    """Solve op(A) X = B to double precision with factors in a lower one.

    Parameters
    ----------
    system : System
    B : ndarray, shape (n, k)
        float64 or complex128.
    precision : str
        Of the factors, for the information.
    solver : {"lu-ir", "cholesky-ir"}
        What `system.solve` is.
    iterations : int
        Corrections at most.
    inner_iterations : int
        Iterations of GMRES at most, for one correction of one right-hand side.
    work : int, optional
        The same for all together. Default: as many as take about a second, or as long as a
        factorisation in double precision where that is longer.

    Returns
    -------
    X : ndarray, shape (n, k), or None
        The solution, None where refinement failed.
    info : RefinementInfo

    Notes
    -----
    First with corrections solved for with the factors, as LAPACK's dsgesv [1]_: it converges for
    condition numbers up to about ``1/u`` of the factors. Where it does not, from the first solution
    again, with corrections by GMRES on the system preconditioned by the factors from the left, in
    double precision (GMRES-IR [2]_). Both end when ``||r|| <= ||x|| ||A|| sqrt(n) u``, dsgesv's
    rule with n at least 16, for every right-hand side; they fail after `iterations` of them, or
    when a correction is more than 0.9 of the one before it.

    References
    ----------
    .. [1] J. Langou et al., "Exploiting the performance of 32 bit floating point arithmetic in
       obtaining 64 bit accuracy", Proc. SC 2006.
    .. [2] E. Carson, N. J. Higham, "Accelerating the solution of linear systems by iterative
       refinement in three precisions", SIAM J. Sci. Comput. 40 (2018) A817-A847.
    """
    with np.errstate(all="ignore"):
        first = _scaled(system.solve, B)
        if not np.isfinite(first).all():
            return None, failed(precision, FAILED, f"the factors in {precision} are not finite")
        tried = _correct(system, B, first, system.solve, iterations)
        if not tried.reason:
            return tried.X, _converged(tried, solver, precision)
        name = "Cholesky-IR" if solver == "cholesky-ir" else "LU-IR"
        reason = f"{name} {tried.reason}"
        n = len(B)
        inner = _Corrections(system, inner_iterations, _affordable(n) if work is None else work)
        tried = _correct(system, B, first, inner, iterations)
        if inner.spent:
            reason = f"{reason}, GMRES-IR took too long"
        elif tried.reason:
            reason = f"{reason}, GMRES-IR {tried.reason}"
        else:
            info = _converged(tried, "gmres-ir", precision, inner.iterations, reason)
            return tried.X, info
        return None, _not_converged(tried, precision, reason, inner.iterations)


def _converged(
    tried: _Tried, solver: Solver, precision: str, inner: int = 0, reason: str = ""
) -> RefinementInfo:
    done = tried.iterations
    return RefinementInfo(solver, precision, done, inner, reason, done, tried.backward_error)


def _not_converged(tried: _Tried, precision: str, reason: str, inner: int) -> RefinementInfo:
    return RefinementInfo("full", precision, tried.iterations, inner, reason, NOT_CONVERGED)


def _affordable(n: int) -> int:
    """Iterations of GMRES that a solution may take.

    One reads A and the factors, 24 n^2 bytes, at the speed of memory. By experiment n/100 of them
    take as long as a factorisation in double precision; where that is less than a second or so,
    nobody minds a second.
    """
    return max(n // 100, min(2000, 2**30 // max(n, 1) ** 2))


def _correct(
    system: System, B: Array, first: Array, correction: Callable[[Array], Array], most: int
) -> _Tried:
    """Add corrections to a first solution until all residuals are small, or will not become so."""
    X = first.copy()
    limit = system.norm * FORMATS["fp64"].unit_roundoff * sqrt(max(len(B), FEWEST))
    last = np.full(B.shape[1], np.inf)
    stagnates = False
    for done in range(most + 1):
        R = B - system.times(X)
        residual, size = _largest(R), _largest(X)
        # NaN is open
        open_ = ~(residual <= size * limit)
        scale = system.norm * size + _largest(B)
        error = float(np.max(np.divide(residual, scale, where=scale > 0, out=0 * scale), initial=0))
        if not open_.any():
            return _Tried(X, done, error, "")
        if not np.isfinite(residual).all():
            return _Tried(X, done, error, f"diverged after {_count(done)}")
        if stagnates:
            return _Tried(X, done, error, f"stagnated after {_count(done)}")
        if done < most:
            D = _scaled(correction, R[:, open_])
            X[:, open_] += D
            step = _largest(D)
            stagnates = bool((step > STAGNATION * last[open_]).any())
            last[open_] = step
    return _Tried(X, most, error, f"did not converge in {_count(most)}")


def _count(iterations: int) -> str:
    return f"{iterations} iteration{'s' * (iterations != 1)}"


def _largest(X: Array) -> NDArray[np.float64]:
    """Return the infinity norm of each column; NaN if it has one."""
    return np.asarray(np.abs(X).max(axis=0, initial=0.0))


def _scaled(solve: Callable[[Array], Array], R: Array) -> Array:
    """Solve for columns of any size, each brought to 1: low precisions have a short range."""
    scale = _largest(R)
    scale[scale == 0] = 1.0
    return solve(R / scale) * scale


class _Corrections:
    """Solves for corrections by GMRES, a column at a time, while iterations are left."""

    def __init__(self, system: System, most: int, work: int) -> None:
        self._system, self._most, self._work = system, most, work
        self._solve: Callable[[Array], Array] | None = None
        self.iterations = 0
        self.spent = False

    def __call__(self, R: Array) -> Array:
        """Return the corrections; NaN once nothing is left, which ends the refinement."""
        if self._solve is None:
            self._solve = self._system.widen()
        solve, times = self._solve, self._system.times
        D = np.full_like(R, np.nan)

        def preconditioned(v: Array) -> Array:
            return solve(times(v[:, None]))[:, 0]

        starts = solve(R)
        for j in range(R.shape[1]):
            most = min(self._most, self._work - self.iterations)
            if most <= 0:
                self.spent = True
                break
            D[:, j], taken = gmres(preconditioned, starts[:, j], INNER_TOLERANCE, most)
            self.iterations += taken
        return D
