"""GMRES, for corrections of iterative refinement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

__all__ = ["gmres"]

Array: TypeAlias = NDArray[Any]


def gmres(
    apply: Callable[[Array], Array], b: Array, tolerance: float, iterations: int
) -> tuple[Array, int]:
    """Solve ``A x = b`` approximately from ``x = 0``, without restarts.

    Parameters
    ----------
    apply : callable
        From x to A x, vectors of shape (n,).
    b : ndarray, shape (n,)
        float64 or complex128.
    tolerance : float
        For ``||b - A x||_2 / ||b||_2``.
    iterations : int
        At most; so many vectors are kept. At least 1.

    Returns
    -------
    x : ndarray, shape (n,)
        The best in the space that was built, of whatever residual.
    iterations : int
        Products with A, 0 when b is zero or not finite; x is then b.

    Notes
    -----
    Arnoldi's process by the modified Gram-Schmidt method, and Givens rotations [1]_.

    References
    ----------
    .. [1] Y. Saad, M. H. Schultz, "GMRES: a generalized minimal residual algorithm for solving
       nonsymmetric linear systems", SIAM J. Sci. Stat. Comput. 7 (1986) 856-869.
    """
    n, size = len(b), float(np.linalg.norm(b))
    if not 0 < size < np.inf:
        return b.copy(), 0
    # in exact arithmetic n are enough
    most = min(iterations, n)
    basis = [b / size]
    R = np.zeros((most, most), b.dtype)
    rotations: list[tuple[Any, float]] = []
    # what is left of the residual, in the rotated basis
    rest = np.zeros(most + 1, b.dtype)
    rest[0] = size
    for j in range(most):
        w, column, below = _orthogonalised(apply(basis[j]), basis)
        for i, (c, s) in enumerate(rotations):
            upper, lower = column[i], column[i + 1]
            column[i], column[i + 1] = np.conj(c) * upper + s * lower, c * lower - s * upper
        length = float(np.hypot(abs(column[j]), below))
        if not 0 < length < np.inf:
            # A is singular to working precision, or what it gave is no number
            return _combination(basis, R, rest, j), j + 1
        c, s = column[j] / length, below / length
        rotations.append((c, s))
        R[:j, j], R[j, j] = column[:j], length
        rest[j], rest[j + 1] = np.conj(c) * rest[j], -s * rest[j]
        if abs(rest[j + 1]) <= tolerance * size or below == 0:
            break
        basis.append(w / below)
    return _combination(basis, R, rest, j + 1), j + 1


def _orthogonalised(w: Array, basis: list[Array]) -> tuple[Array, Array, float]:
    """Return the part of w orthogonal to the basis, its coefficients there, and its length."""
    column = np.zeros(len(basis) + 1, w.dtype)
    for i, q in enumerate(basis):
        column[i] = np.vdot(q, w)
        w = w - column[i] * q
    below = float(np.linalg.norm(w))
    column[-1] = below
    return w, column, below


def _combination(basis: list[Array], R: Array, rest: Array, size: int) -> Array:
    if size == 0:
        return np.zeros_like(basis[0])
    y = solve_triangular(R[:size, :size], rest[:size], check_finite=False)
    return np.asarray(np.stack(basis[:size], axis=1) @ y)
