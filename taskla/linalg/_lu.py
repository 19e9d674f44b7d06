"""LU factorisation of arrays, what is solved and computed with it, with SciPy's signatures."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import (
    LinAlgWarning,
    lu as scipy_lu,
    lu_factor as scipy_lu_factor,
    lu_solve as scipy_lu_solve,
)

from taskla import lapack
from taskla.linalg import _passes, _tiled_factors
from taskla.linalg._dispatch import or_on_dask
from taskla.linalg._inputs import (
    Array,
    Overwrite,
    columns,
    fetch,
    fits,
    given,
    is_big,
    is_square,
    is_tiled,
    lapack_dtype,
    operand,
    over_batch,
    scratch,
    tiled,
)
from taskla.linalg._triangles import is_narrow, solve_triangle
from taskla.matrix import TiledMatrix
from taskla.precision import Precision, precision_map

__all__ = ["lu", "lu_factor", "lu_solve"]


@or_on_dask
def lu_factor(
    a: Any,
    overwrite_a: bool = False,
    check_finite: bool = True,
    *,
    nb: int | None = None,
    precision: Precision | None = None,
) -> tuple[Any, Array]:
    """LU factors of a matrix with partial pivoting, ``A = P L U``, in one matrix.

    Parameters
    ----------
    a : array_like or TiledMatrix, shape (..., m, n)
        The matrix.
    overwrite_a : bool, default False
        Whether the factors may take the place of `a`: they do in a Fortran array of a LAPACK type.
    check_finite : bool, default True
        Whether to raise when any element of `a` is infinite or not a number.
    nb : int, optional
        The tile size; chosen from the shape, the type and the workers by default. The pivots do
        not depend on it.
    precision : PrecisionMap, str or array of str, optional
        The number formats of the tiles, see `taskla.PrecisionMap`. As rows move from tile to tile,
        "adaptive:1e-6" gives each tile column the lowest that a relative error of 1e-6 allows.

    Returns
    -------
    lu : ndarray or TiledMatrix, shape (..., m, n)
        U in the upper triangle, L below it (its diagonal is 1); a Fortran array. float32 for
        float32, float16, booleans and integers of up to 16 bits, float64 for other reals; complex64
        or complex128.
    piv : ndarray of int32, shape (..., min(m, n))
        Row i was interchanged with row ``piv[i]``, counted from 0.

    Warns
    -----
    scipy.linalg.LinAlgWarning
        When U has an exact zero on its diagonal.

    Raises
    ------
    ValueError
        When `a` is not finite, or `nb` is less than 1.

    See Also
    --------
    scipy.linalg.lu_factor : The specification.
    taskla.lapack.getrf : In place on a tiled matrix; the LAPACK routine behind this.

    Examples
    --------
    >>> from taskla.linalg import lu_factor, lu_solve
    >>> factors, piv = lu_factor([[1.0, 2.0], [4.0, 4.0]])
    >>> factors
    array([[4.  , 4.  ],
           [0.25, 1.  ]])
    >>> piv
    array([1, 1], dtype=int32)
    >>> lu_solve((factors, piv), [5.0, 12.0])
    array([1., 2.])
    """
    factors: Any
    info: Any
    if is_tiled(a):
        by_column = _by_column(precision)
        factors, piv, info = _tiled_factors.lu_factor(a, overwrite_a, check_finite, nb, by_column)
    else:
        a, array = given(a)
        dtype = _dtype(array, nb, precision)
        if dtype is None:
            # SciPy returns a list for a batch.
            return tuple(scipy_lu_factor(a, overwrite_a, check_finite))
        factor = partial(
            _factor, dtype=dtype, check_finite=check_finite, nb=nb, precision=precision
        )
        if array.ndim > 2:
            factors, piv, info = over_batch(factor, (array, 2))
        else:
            factors, piv, info = factor(array, overwrite_a=overwrite_a)
    for number in np.ravel(info).tolist():
        if number:
            message = f"Diagonal number {number} is exactly zero. Singular matrix."
            warnings.warn(message, LinAlgWarning, stacklevel=3)
    return factors, piv


@or_on_dask
def lu_solve(
    lu_and_piv: tuple[Any, ArrayLike],
    b: Any,
    trans: int = 0,
    overwrite_b: bool = False,
    check_finite: bool = True,
    *,
    nb: int | None = None,
) -> Any:
    """Solve ``A x = b``, ``A^T x = b`` or ``A^H x = b`` with the LU factors of A.

    Parameters
    ----------
    lu_and_piv : (array_like or TiledMatrix, array_like)
        Factors, shape (..., n, n), and pivots, shape (..., n), from `lu_factor`.
    b : array_like or TiledMatrix, shape (n,) or (..., n, k)
        Right-hand sides.
    trans : {0, 1, 2}, default 0
        A, its transpose or its conjugate transpose.
    overwrite_b : bool, default False
        Whether x may take the place of `b`: it does in a Fortran array of the result's type.
    check_finite : bool, default True
        Whether to raise when any element of `b` is infinite or not a number.
    nb : int, optional
        The tile size; chosen from n, the type and the workers by default.

    Returns
    -------
    ndarray or TiledMatrix, shape (n,) or (..., n, k)
        x, of the LAPACK type that factors and `b` fit.

    Raises
    ------
    ValueError
        When shapes do not fit, a pivot is no row's number, `b` is not finite, or `nb` is less than
        1.

    See Also
    --------
    scipy.linalg.lu_solve : The specification.
    taskla.lapack.getrs : In place on tiled matrices; the LAPACK routine behind this.

    Examples
    --------
    >>> from taskla.linalg import lu_factor, lu_solve
    >>> factors = lu_factor([[1.0, 2.0], [4.0, 4.0]])
    >>> lu_solve(factors, [5.0, 12.0])
    array([1., 2.])
    >>> lu_solve(factors, [9.0, 10.0], trans=1)
    array([1., 2.])
    """
    factors, piv = lu_and_piv
    if is_tiled(factors, b):
        return _tiled_factors.lu_solve(factors, piv, b, trans, overwrite_b, check_finite, nb)
    (factors, matrix), (piv, swaps), (b, right) = given(factors), given(piv), given(b)
    x = _solve(matrix, swaps, right, trans, overwrite_b, check_finite, nb)
    return scipy_lu_solve((factors, piv), b, trans, overwrite_b, check_finite) if x is None else x


@or_on_dask
def lu(
    a: Any,
    permute_l: bool = False,
    overwrite_a: bool = False,
    check_finite: bool = True,
    p_indices: bool = False,
    *,
    nb: int | None = None,
    precision: Precision | None = None,
) -> tuple[Any, ...]:
    """LU factors of a matrix with partial pivoting, ``A = P L U``, as separate matrices.

    Parameters
    ----------
    a : array_like or TiledMatrix, shape (..., m, n)
        The matrix; k is min(m, n).
    permute_l : bool, default False
        Whether to return P L instead of P and L.
    overwrite_a : bool, default False
        Whether `a` may be overwritten.
    check_finite : bool, default True
        Whether to raise when any element of `a` is infinite or not a number.
    p_indices : bool, default False
        Whether to return P as row indices.
    nb : int, optional
        The tile size; chosen from the shape, the type and the workers by default.
    precision : PrecisionMap, str or array of str, optional
        As for `lu_factor`.

    Returns
    -------
    p : ndarray or TiledMatrix, shape (..., m, m), or of int32, shape (..., m)
        The permutation: ``A = P @ L @ U``, or ``A = L[p] @ U`` with `p_indices`. Not returned with
        `permute_l`.
    l : ndarray or TiledMatrix, shape (..., m, k)
        Lower triangle or trapezium with ones on the diagonal; with `permute_l`, P times that.
    u : ndarray or TiledMatrix, shape (..., k, n)
        Upper triangle or trapezium.

    Raises
    ------
    ValueError
        When `a` has fewer than two dimensions or is not finite, or `nb` is less than 1.

    See Also
    --------
    scipy.linalg.lu : The specification.
    taskla.lapack.getrf : In place on a tiled matrix; the LAPACK routine behind this.

    Examples
    --------
    >>> from taskla.linalg import lu
    >>> p, l, u = lu([[1.0, 2.0], [4.0, 4.0]], p_indices=True)
    >>> p
    array([1, 0], dtype=int32)
    >>> l[p] @ u
    array([[1., 2.],
           [4., 4.]])
    """
    if is_tiled(a):
        by_column = _by_column(precision)
        return _tiled_factors.lu(a, permute_l, overwrite_a, check_finite, p_indices, nb, by_column)
    a, array = given(a)
    dtype = _dtype(array, nb, precision)
    if dtype is None:
        return scipy_lu(  # type: ignore[no-any-return]
            a, permute_l, overwrite_a, check_finite, p_indices
        )
    if array.ndim > 2:
        split = partial(
            lu,
            permute_l=permute_l,
            check_finite=check_finite,
            p_indices=p_indices,
            nb=nb,
            precision=precision,
        )
        return over_batch(split, (array, 2))  # type: ignore[no-any-return]
    factors, piv, _ = _factor(array, dtype, overwrite_a, check_finite, nb, precision)
    return _separated(factors, piv, permute_l, p_indices)


def _dtype(a: Array, nb: int | None, precision: Precision | None) -> np.dtype[Any] | None:
    """Return the type in which matrices are factored by tiles; None: SciPy is to answer."""
    if a.ndim < 2 or a.size == 0:
        return None
    if not (is_big(min(a.shape[-2:]), nb) or precision is not None):
        return None
    return lapack_dtype(a)


def _by_column(precision: Precision | None) -> Precision | None:
    """Return a precision of which an adaptive one is for whole tile columns, as rows move."""
    return None if precision is None else precision_map(precision, by="column")


def _factor(
    a: Array,
    dtype: np.dtype[Any],
    overwrite_a: bool = False,
    check_finite: bool = True,
    nb: int | None = None,
    precision: Precision | None = None,
) -> tuple[Array, Array, int]:
    """Return factors, pivots and LAPACK's info."""
    if precision is not None:
        A = TiledMatrix.from_array(
            operand(a, dtype, check_finite), nb, precision=_by_column(precision)
        )
        piv = np.asarray(lapack.getrf(A))
        factors = A.to_array(order="F")
        return factors, piv, _first_zero(factors)
    factors = scratch(a, dtype, check_finite, order="F", overwrite="F" if overwrite_a else "")
    return factors, *getrf(factors, nb)


def getrf(a: Array, nb: int | None) -> tuple[Array, int]:
    """Factor a matrix in place; return the pivots, counted from 0, and LAPACK's ``info``.

    ``info`` is the position, counted from 1, of the first exact zero on U's diagonal; 0 if none.
    """
    A = tiled(a, nb)
    piv = np.asarray(lapack.getrf(A))
    fetch(A, a)
    return piv, _first_zero(a)


def _first_zero(a: Array) -> int:
    zeros = np.flatnonzero(a.diagonal() == 0)
    return int(zeros[0]) + 1 if zeros.size else 0


def _solve(
    factors: Array,
    piv: Array,
    b: Array,
    trans: int,
    overwrite_b: bool,
    check_finite: bool,
    nb: int | None,
) -> Array | None:
    """Return x; None: SciPy is to answer."""
    if trans not in (0, 1, 2) or not is_square(factors) or not fits(factors, b):
        return None
    n = factors.shape[-1]
    dtype = lapack_dtype(factors, b) if is_big(n, nb) else None
    if dtype is None or piv.dtype.kind not in "iu" or piv.size == 0 or piv.shape[-1:] != (n,):
        return None
    if max(factors.ndim, piv.ndim + 1, b.ndim) > 2:
        solve = partial(_solve, trans=trans, overwrite_b=False, check_finite=check_finite, nb=nb)
        return over_batch(solve, (factors, 2), (piv, 1), (b, min(b.ndim, 2)))  # type: ignore[no-any-return]
    if not 0 <= piv.min() <= piv.max() < n:
        raise ValueError(f"piv has values from {piv.min()} to {piv.max()}; allowed: 0 to {n - 1}")
    overwrite: Overwrite = "FC" if overwrite_b else ""
    x = scratch(columns(b), dtype, check_finite, overwrite=overwrite)
    getrs(operand(factors, dtype, False), piv, x, "NTC"[trans], nb)
    return x if b.ndim == 2 else x[:, 0]


def getrs(factors: Array, piv: Array, x: Array, trans: str, nb: int | None) -> None:
    """Solve in place with the factors of `getrf`."""
    if not is_narrow(x):
        A = tiled(factors, nb)
        fetch(lapack.getrs(A, piv, tiled(x, A.nb), trans=trans), x)
        return
    order = _passes.row_order(piv, len(x))
    if trans == "N":
        x[...] = x[order]
        solve_triangle(factors, x, True, trans, unit=True)
        solve_triangle(factors, x, False, trans)
    else:
        solve_triangle(factors, x, False, trans)
        solve_triangle(factors, x, True, trans, unit=True)
        x[order] = x.copy()


def _separated(factors: Array, piv: Array, permute_l: bool, p_indices: bool) -> tuple[Array, ...]:
    """Return what `lu` returns for the factors of one matrix, which are destroyed."""
    m, n = factors.shape
    k = min(m, n)
    lower = _passes.copied(factors[:, :k], factors.dtype, "F", "L", False)
    np.fill_diagonal(lower, 1)
    if m > k:
        upper = _passes.copied(factors[:k], factors.dtype, "F", "U", False)
    else:
        _passes.clear(factors, "U")
        upper = factors
    p = np.argsort(_passes.row_order(piv, m))
    if permute_l:
        return _passes.gathered(lower, p), upper
    if p_indices:
        return p.astype(np.int32), lower, upper
    permutation = np.zeros((m, m), factors.real.dtype)
    permutation[np.arange(m), p] = 1
    return permutation, lower, upper
