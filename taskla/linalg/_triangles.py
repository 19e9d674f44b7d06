"""Triangular solutions in place, by tiles or, for a few columns, by one call of LAPACK.

With few right-hand sides a solution is a matter of reading the matrix once. LAPACK does that in the
calling thread at the speed of memory; tiles would only add their overhead.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from scipy.linalg.lapack import get_lapack_funcs

from taskla import kernels, lapack
from taskla.linalg._inputs import Array, fetch, tiled

__all__ = ["Trans", "is_narrow", "solve_factored", "solve_triangle"]

Trans: TypeAlias = Literal["N", "T", "C"]

NARROW = 16
"""Columns up to which one call is no slower than tiles."""


def is_narrow(x: Array) -> bool:
    """Whether a matrix has so few columns that tiles do not help to solve for it."""
    return bool(x.shape[1] <= NARROW)


def solve_triangle(
    a: Array, x: Array, lower: bool, trans: str, unit: bool = False, nb: int | None = None
) -> None:
    """Set ``x = inv(op(A)) x``; A is a triangle of `a` without a zero on its diagonal.

    Parameters
    ----------
    a : ndarray, shape (n, n)
        Only the triangle named by `lower` is used.
    x : ndarray, shape (n, k)
        Changed in place.
    lower, unit : bool
        Which triangle; whether its diagonal is taken for 1.
    trans : {"N", "T", "C"}
        A, its transpose or its conjugate transpose.
    nb : int, optional
        The tile size.
    """
    # LAPACK's wrapper would copy a matrix that is part of a larger one.
    if not is_narrow(x) or not (a.flags.f_contiguous or a.flags.c_contiguous):
        A = tiled(a, nb)
        uplo, diag = "L" if lower else "U", "U" if unit else "N"
        fetch(lapack.trsm("L", uplo, trans, diag, 1.0, A, tiled(x, A.nb)), x)
        return
    conjugate = False
    if not a.flags.f_contiguous:
        # The same memory is the transpose in Fortran's order; A^H is its conjugate.
        a, lower, conjugate = a.T, not lower, trans == "C"
        trans = "T" if trans == "N" else "N"
    trtrs = get_lapack_funcs("trtrs", (a, x))
    right = x.conj() if conjugate else x
    # Two threads would each read the matrix, and wait for the other.
    with kernels.blas_threads(1):
        y, _ = trtrs(a, right, lower, "NTC".index(trans), unit, overwrite_b=True)
    x[...] = y.conj() if conjugate else y


def solve_factored(c: Array, x: Array, lower: bool, nb: int | None = None) -> None:
    """Set ``x = inv(A) x``; a triangle of `c` is the Cholesky factor of A."""
    if is_narrow(x):
        for trans in ("N", "C") if lower else ("C", "N"):
            solve_triangle(c, x, lower, trans)
    else:
        C = tiled(c, nb, "lower" if lower else "upper")
        fetch(lapack.potrs(C, tiled(x, C.nb)), x)
