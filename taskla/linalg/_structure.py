"""What a square matrix is, as far as one algorithm or another is concerned."""

from __future__ import annotations

from typing import Literal, TypeAlias

from scipy.linalg import bandwidth

from taskla.linalg import _passes
from taskla.linalg._inputs import Array

__all__ = ["Structure", "find_structure"]

Structure: TypeAlias = Literal["general", "positive", "lower", "upper", "other"]


def find_structure(a: Array) -> Structure:
    """Return what the elements of a matrix say, in the order in which SciPy asks.

    Parameters
    ----------
    a : ndarray, shape (n, n)
        float32, float64, complex64 or complex128.

    Returns
    -------
    {"lower", "upper", "positive", "general", "other"}
        A triangle; a symmetric or Hermitian matrix (which may turn out not to be positive
        definite); neither. "other" is what has no tiled algorithm: diagonal, of one diagonal beside
        it on either side, or complex symmetric.
    """
    below, above = bandwidth(a)
    if max(below, above) <= 1:
        return "other"
    if below == 0 or above == 0:
        return "lower" if above == 0 else "upper"
    is_complex = a.dtype.kind == "c"
    if _passes.is_mirrored(a, conjugate=is_complex):
        return "positive"
    if is_complex and _passes.is_mirrored(a, conjugate=False):
        return "other"
    return "general"
