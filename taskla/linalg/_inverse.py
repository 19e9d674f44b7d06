"""Inverses of arrays, with SciPy's signature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import inv as scipy_inv

from taskla import lapack
from taskla.errors import NotPositiveDefiniteError
from taskla.linalg import _condition, _lu, _passes, _tiled_solve
from taskla.linalg._dispatch import or_on_dask
from taskla.linalg._inputs import (
    Array,
    Overwrite,
    fetch,
    given,
    is_big,
    is_square,
    is_tiled,
    lapack_dtype,
    scratch,
    tiled,
)
from taskla.linalg._passes import Part
from taskla.linalg._structure import Structure, find_structure

__all__ = ["inv"]

_STRUCTURES: dict[Any, Structure | None] = {
    None: None,
    "gen": "general",
    "general": "general",
    "pos": "positive",
    "lower triangular": "lower",
    "upper triangular": "upper",
}


@or_on_dask
def inv(
    a: Any,
    overwrite_a: bool = False,
    check_finite: bool = True,
    *,
    assume_a: str | None = None,
    lower: bool = False,
    nb: int | None = None,
) -> Any:
    """Inverse of a matrix.

    Parameters
    ----------
    a : array_like or TiledMatrix, shape (..., n, n)
        The matrix.
    overwrite_a : bool, default False
        Whether the inverse may take the place of `a`: it does in a Fortran array of a LAPACK type
        that is general or whose structure `assume_a` tells.
    check_finite : bool, default True
        Whether to raise when any element of `a` is infinite or not a number.
    assume_a : str, optional
        "general" ("gen"), "pos", "lower triangular" and "upper triangular" are inverted by tiles;
        so is what None, the default, finds to be one of them. "sym", "her" and "diagonal" are left
        to SciPy.
    lower : bool, default False
        Which triangle of a positive definite, symmetric or Hermitian `a` is used.
    nb : int, optional
        The tile size; chosen from n, the type and the workers by default.

    Returns
    -------
    ndarray or TiledMatrix, shape (..., n, n)
        The inverse; float32 for float32, float16, booleans and integers of up to 16 bits, float64
        for other reals; complex64 or complex128.

    Warns
    -----
    scipy.linalg.LinAlgWarning
        When the estimated condition number leaves no correct digit.

    Raises
    ------
    scipy.linalg.LinAlgError
        When `a` is singular, or said to be positive definite and is not.
    ValueError
        When `a` is not square or not finite, or `nb` is less than 1.
    KeyError
        When `assume_a` is unknown.

    See Also
    --------
    scipy.linalg.inv : The specification.
    taskla.lapack.potri, taskla.lapack.trtri : In place on tiled matrices.

    Notes
    -----
    LAPACK's ``getrf`` and ``getri``, ``potrf`` and ``potri``, or ``trtri``, as graphs of tasks on
    tiles. The inverse of a general matrix needs a second one of its size while it is made.

    Examples
    --------
    >>> from taskla.linalg import inv
    >>> inv([[2.0, 0.0], [1.0, 4.0]])
    array([[ 0.5  ,  0.   ],
           [-0.125,  0.25 ]])
    """
    if is_tiled(a):
        X, rcond = _tiled_solve.inv(a, overwrite_a, check_finite, assume_a, lower, nb)
        _condition.warn_if_ill({0: rcond}, X.dtype)
        return X
    a, a1 = given(a)
    is_ours = is_square(a1) and is_big(a1.shape[-1], nb)
    dtype = lapack_dtype(a1) if is_ours else None
    if dtype is None or assume_a not in _STRUCTURES or np.ma.isMaskedArray(a):
        return scipy_inv(a, overwrite_a, check_finite, assume_a=assume_a, lower=lower)
    overwrite: Overwrite = "F" if overwrite_a and a1.ndim == 2 else ""
    told = _Told(dtype, _STRUCTURES[assume_a], bool(lower), check_finite, nb, overwrite)
    if a1.ndim == 2:
        inverse, rcond = _invert(a1, told, 0)
        rconds = {0: rcond}
    else:
        inverse = np.empty(a1.shape, dtype)
        rconds = {}
        for place, i in enumerate(np.ndindex(a1.shape[:-2])):
            inverse[i], rconds[place] = _invert(a1[i], told, place)
    _condition.warn_if_ill(rconds, dtype)
    return inverse


@dataclass(frozen=True)
class _Told:
    """What `inv` was told, apart from the array."""

    dtype: np.dtype[Any]
    structure: Structure | None
    lower: bool
    check_finite: bool
    nb: int | None
    overwrite: Overwrite


def _invert(a: Array, told: _Told, place: int) -> tuple[Array, float]:
    """Return the inverse and the reciprocal condition number of one matrix."""
    overwrite = told.overwrite
    if a.dtype != told.dtype:
        a, overwrite = _passes.copied(a, told.dtype, "F", "G", told.check_finite), "F"
    structure = told.structure or find_structure(a)
    if structure == "general":
        factors = scratch(a, told.dtype, told.check_finite, order="F", overwrite=overwrite)
        return factors, _invert_general(factors, told.nb, place)
    if structure in ("lower", "upper"):
        part: Part = "L" if structure == "lower" else "U"
        inverse = scratch(a, told.dtype, told.check_finite, part=part, overwrite=overwrite)
        return inverse, _invert_triangle(inverse, structure == "lower", told.nb, place)
    if structure == "positive":
        # A matrix only thought to be positive definite is needed again if it is not.
        overwrite = overwrite if told.structure else ""
        part = "L" if told.lower else "U"
        inverse = scratch(a, told.dtype, told.check_finite, part=part, overwrite=overwrite)
        rcond = _invert_positive(inverse, told, place)
        if rcond is not None:
            return inverse, rcond
    known = {"positive": "her" if told.dtype.kind == "c" else "sym"}.get(structure)
    inverse = scipy_inv(a, check_finite=told.check_finite, assume_a=known, lower=told.lower)
    return inverse, np.inf


def _invert_general(a: Array, nb: int | None, place: int) -> float:
    """Replace a matrix by its inverse, as getri; return the reciprocal condition number."""
    norm = lapack.lange("1", tiled(a, nb))
    piv, info = _lu.getrf(a, nb)
    if info:
        raise _condition.singular(place)
    # With P^T A = L U, inv(A) P = X solves X L = inv(U)
    fetch(lapack.trtri(tiled(a, nb, "upper")), a)
    x = _passes.copied(a, a.dtype, "F", "U", False)
    fetch(lapack.trsm("R", "L", "N", "U", 1.0, tiled(a, nb), tiled(x, nb)), x)
    _passes.scatter_columns(x, _passes.row_order(piv, len(a)), a)
    return _condition.rcond(norm, lapack.lange("1", tiled(a, nb)))


def _invert_triangle(a: Array, lower: bool, nb: int | None, place: int) -> float:
    """Replace a triangle by its inverse; return the reciprocal condition number."""
    if (a.diagonal() == 0).any():
        raise _condition.singular(place)
    A = tiled(a, nb, "lower" if lower else "upper")
    norm = lapack.lantr("1", A)
    fetch(lapack.trtri(A), a)
    return _condition.rcond(norm, lapack.lantr("1", A))


def _invert_positive(a: Array, told: _Told, place: int) -> float | None:
    """Replace a matrix by its inverse, as potri; return the reciprocal condition number.

    None if a matrix only thought to be positive definite is not.
    """
    A = tiled(a, told.nb, "lower" if told.lower else "upper")
    size = lapack.lanhe if a.dtype.kind == "c" else lapack.lansy
    norm = size("1", A)
    try:
        lapack.potrf(A)
    except NotPositiveDefiniteError:
        if told.structure is None:
            return None
        raise _condition.singular(place) from None
    fetch(lapack.potri(A), a)
    _passes.mirror(a, "L" if told.lower else "U")
    return _condition.rcond(norm, size("1", A))
