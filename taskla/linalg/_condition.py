"""Condition numbers, and what SciPy says of a matrix that is singular or nearly so."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, LinAlgWarning

from taskla.linalg._inputs import Array

__all__ = ["inverse_norm", "rcond", "singular", "warn_if_ill"]


def rcond(norm: float, inverse_norm: float) -> float:
    """Return the reciprocal condition number; 0 for a norm that is infinite, NaN for NaN."""
    return 1 / inverse_norm / norm if norm and inverse_norm else 0.0


def inverse_norm(solve: Callable[[Array, str], None], n: int, dtype: np.dtype[Any]) -> float:
    """Estimate the 1-norm of a matrix's inverse from below, by a few solutions.

    Parameters
    ----------
    solve : callable
        ``solve(x, trans)`` overwrites x, a Fortran array of shape (n, k), with inv(A) x for trans
        "N" and with inv(A)^H x for "C".
    n : int
        Order of the matrix.
    dtype : numpy.dtype
        Of the matrix.

    Notes
    -----
    The method of LAPACK's ``lacn2`` [1]_, which ``gecon`` and ``pocon`` call: here its solutions
    are by tiles, so in parallel, and its last one shares the way through memory with the first.

    References
    ----------
    .. [1] N. J. Higham, "FORTRAN codes for estimating the one-norm of a real or complex matrix",
       ACM Trans. Math. Softw. 14 (1988) 381-396.
    """
    x = np.empty((n, 2), dtype, order="F")
    x[:, 0] = 1 / n
    # Sees what the search for the largest column may miss by cancellation.
    x[:, 1] = (1 + np.arange(n) / max(n - 1, 1)) * (-1.0) ** np.arange(n)
    with np.errstate(all="ignore"):
        solve(x, "N")
        estimate, other = np.abs(x).sum(axis=0) * (1, 2 / (3 * n))
        largest = -1
        for _ in range(5):
            # The gradient of |inv(A) x| says which unit vector to try next.
            size = np.abs(x[:, :1])
            x = np.where(size > 0, x[:, :1] / size, 1).astype(dtype, order="F")
            solve(x, "C")
            before, largest = largest, int(np.argmax(np.abs(x)))
            if largest == before:
                break
            x = np.zeros((n, 1), dtype, order="F")
            x[largest] = 1
            solve(x, "N")
            column = np.abs(x).sum()
            if not column > estimate:
                break
            estimate = column
    return float(np.maximum(estimate, other))


def singular(place: int) -> LinAlgError:
    """Return SciPy's error for the matrix at a place in a batch."""
    return LinAlgError(f"A singular matrix detected: slice(s) [{place}] are singular.")


def warn_if_ill(rconds: Mapping[int, float], dtype: np.dtype[Any]) -> None:
    """Warn as SciPy does of the matrices in a batch whose condition leaves no digit.

    Parameters
    ----------
    rconds : mapping of int to float
        The reciprocal condition number of each matrix, by its place; NaN counts as ill.
    dtype : numpy.dtype
        In which was computed.
    """
    eps = np.finfo(dtype).eps
    ill = [
        f"slice {place} has rcond = {value}" for place, value in rconds.items() if not value >= eps
    ]
    if ill:
        warnings.warn(
            f"An ill-conditioned matrix detected: {','.join(ill)}.", LinAlgWarning, stacklevel=4
        )
