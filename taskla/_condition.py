"""Condition numbers from factors, and what SciPy says of a matrix that is singular or nearly so."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, LinAlgWarning
from scipy.linalg.lapack import get_lapack_funcs

from taskla._inputs import Array

__all__ = ["cholesky_rcond", "lu_rcond", "singular", "triangular_rcond", "warn_if_ill"]


def lu_rcond(factors: Array, norm: float) -> float:
    """Estimate 1 / (|A| |inv(A)|) in the 1-norm by LAPACK's gecon, given |A|."""
    gecon = get_lapack_funcs("gecon", (factors,))
    return float(gecon(factors, norm)[0])


def cholesky_rcond(factor: Array, norm: float, lower: bool) -> float:
    """Estimate 1 / (|A| |inv(A)|) in the 1-norm by LAPACK's pocon, given |A|.

    The matrix and its conjugate have the same, so a factor in C order is read as the transpose.
    """
    if not factor.flags.f_contiguous:
        factor, lower = factor.T, not lower
    pocon = get_lapack_funcs("pocon", (factor,))
    return float(pocon(factor, norm, "L" if lower else "U")[0])


def triangular_rcond(a: Array, lower: bool) -> float:
    """Estimate 1 / (|A| |inv(A)|) of a triangle in the 1-norm by LAPACK's trcon."""
    norm = "1"
    if not a.flags.f_contiguous and a.flags.c_contiguous:
        a, lower, norm = a.T, not lower, "I"
    trcon = get_lapack_funcs("trcon", (a,))
    return float(trcon(a, norm, "L" if lower else "U")[0])


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
        f"slice {place} has rcond = {rcond}" for place, rcond in rconds.items() if not rcond >= eps
    ]
    if ill:
        warnings.warn(
            f"An ill-conditioned matrix detected: {','.join(ill)}.", LinAlgWarning, stacklevel=3
        )
