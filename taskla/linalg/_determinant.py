"""Determinants of arrays by LU factorisation, with SciPy's and NumPy's signatures."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.linalg import slogdet as numpy_slogdet
from scipy.linalg import LinAlgError, det as scipy_det

from taskla.linalg import _tiled_factors
from taskla.linalg._dispatch import or_on_dask
from taskla.linalg._inputs import (
    Array,
    given,
    is_big,
    is_square,
    is_tiled,
    lapack_dtype,
    over_batch,
    scratch,
)
from taskla.linalg._lu import getrf
from taskla.matrix import TiledMatrix

__all__ = ["det", "slogdet"]

_Result = type(numpy_slogdet(np.ones((1, 1))))


@or_on_dask
def det(
    a: Any, overwrite_a: bool = False, check_finite: bool = True, *, nb: int | None = None
) -> Any:
    """Determinant of a matrix.

    Parameters
    ----------
    a : array_like or TiledMatrix, shape (..., n, n)
        The matrix.
    overwrite_a : bool, default False
        Whether `a` may be overwritten.
    check_finite : bool, default True
        Whether to raise when any element of `a` is infinite or not a number.
    nb : int, optional
        The tile size; chosen from n, the type and the workers by default.

    Returns
    -------
    float64 or complex128, or an array of them of shape (...)
        The product of the diagonal of U in ``A = P L U``, with P's sign. It overflows early:
        `slogdet` does not.

    Raises
    ------
    ValueError
        When `a` is not square or not finite, or `nb` is less than 1.
    TypeError
        When `a` cannot be converted safely, extended precision for example.

    See Also
    --------
    scipy.linalg.det : The specification.
    taskla.lapack.getrf : The LAPACK routine behind this.

    Examples
    --------
    >>> from taskla.linalg import det
    >>> print(det([[1.0, 2.0], [3.0, 4.0]]))
    -2.0
    """
    if is_tiled(a):
        _require_square(a, ValueError)
        return _det(*_tiled_factors.lu_diagonal(a, overwrite_a, check_finite, nb))
    a, array = given(a)
    is_ours = is_square(array) and is_big(array.shape[-1], nb) and array.dtype.char not in "gG"
    dtype = lapack_dtype(array) if is_ours else None
    if dtype is None:
        return scipy_det(a, overwrite_a, check_finite)
    if array.ndim > 2:
        return over_batch(partial(det, check_finite=check_finite, nb=nb), (array, 2))
    # The determinant is that of the transpose: no order of memory needs another.
    factors = scratch(array, dtype, check_finite, overwrite="FC" if overwrite_a else "")
    if not factors.flags.f_contiguous:
        factors = factors.T
    piv, _ = getrf(factors, nb)
    return _det(factors.diagonal(), piv)


@or_on_dask
def slogdet(a: Any, *, nb: int | None = None) -> Any:
    """Sign and logarithm of the absolute value of a determinant.

    Parameters
    ----------
    a : array_like or TiledMatrix, shape (..., n, n)
        The matrix.
    nb : int, optional
        The tile size; chosen from n, the type and the workers by default.

    Returns
    -------
    sign : number or ndarray, shape (...)
        1, -1, or 0 for a singular matrix; a number of absolute value 1 or 0 for a complex one.
    logabsdet : float or ndarray of floats, shape (...)
        The natural logarithm; -inf for a singular matrix. ``det(a) = sign * exp(logabsdet)``.
        Both are fields of a named tuple.

    Raises
    ------
    numpy.linalg.LinAlgError
        When `a` is not square.
    TypeError
        When `a` is of float16 or extended precision.
    ValueError
        When `nb` is less than 1.

    See Also
    --------
    numpy.linalg.slogdet : The specification.
    taskla.lapack.getrf : The LAPACK routine behind this.

    Examples
    --------
    >>> from taskla.linalg import slogdet
    >>> sign, logabsdet = slogdet([[1.0, 2.0], [3.0, 4.0]])
    >>> print(sign, logabsdet.round(6))
    -1.0 0.693147
    """
    if is_tiled(a):
        _require_square(a, LinAlgError)
        return _slogdet(*_tiled_factors.lu_diagonal(a, False, False, nb), a.dtype)
    a, array = given(a)
    is_ours = is_square(array) and is_big(array.shape[-1], nb)
    integer = array.dtype.kind in "biu"
    if not is_ours or not (integer or array.dtype.char in "fdFD"):
        return numpy_slogdet(a)
    if array.ndim > 2:
        return _Result(*over_batch(partial(slogdet, nb=nb), (array, 2)))
    dtype = np.dtype(np.float64) if integer else array.dtype.newbyteorder("=")
    factors = scratch(array, dtype, check_finite=False)
    if not factors.flags.f_contiguous:
        factors = factors.T
    piv, _ = getrf(factors, nb)
    return _slogdet(factors.diagonal(), piv, dtype)


def _det(diagonal: Array, piv: Array) -> Any:
    """Return the determinant that the diagonal of U and the interchanges have."""
    # Python's numbers are double and multiply in order, as SciPy does: no overflow of single
    # precision, and no inf times zero from partial products that only a tree of them has.
    value = 0.0 if (diagonal == 0).any() else math.prod(diagonal.tolist())
    sign = -1 if _is_odd(piv) else 1
    kind = np.complex128 if diagonal.dtype.kind == "c" else np.float64
    return kind(sign * value)


def _slogdet(diagonal: Array, piv: Array, dtype: np.dtype[Any]) -> Any:
    """Return sign and logarithm of the determinant, of a dtype and its real one."""
    real = diagonal.real.dtype.type
    if (diagonal == 0).any():
        return _Result(dtype.type(0), real(-np.inf))
    # In double precision, like `det`: the rounding of n factors adds up.
    diagonal = diagonal.astype(np.result_type(dtype, np.float64))
    with np.errstate(all="ignore"):
        absolute = np.abs(diagonal)
        sign = np.prod(diagonal / absolute) * (-1 if _is_odd(piv) else 1)
        return _Result(dtype.type(sign), real(np.log(absolute).sum()))


def _require_square(a: TiledMatrix, error: type[ValueError]) -> None:
    if a.m != a.n:
        raise error(f"a must be square, not {a.m} x {a.n}")


def _is_odd(piv: Array) -> bool:
    """Whether a sequence of interchanges is an odd permutation."""
    return bool(np.count_nonzero(piv != np.arange(piv.size)) % 2)
