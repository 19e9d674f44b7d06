"""Products and norms of arrays, with NumPy's, BLAS's and SciPy's signatures."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, Literal

import numpy as np
from numpy import matmul as numpy_matmul
from scipy.linalg import get_blas_funcs, norm as scipy_norm

from taskla import engines, lapack
from taskla.linalg import _passes, _tiled_products
from taskla.linalg._dispatch import or_on_dask
from taskla.linalg._inputs import (
    Array,
    fetch,
    given,
    is_big,
    is_tiled,
    lapack_dtype,
    operand,
    scratch,
    tileable,
    tiled,
)
from taskla.precision import PrecisionMap

__all__ = ["matmul", "norm", "symm"]

LARGE = 2**20
"""Elements up to which a norm is left to SciPy: it reads them faster than workers wake up."""


def _frobenius(a: Array) -> float:
    # As NumPy has it. LAPACK scales all elements lest a square overflow, several times slower.
    return math.sqrt(_passes.sum_of_squares(a))


_NORMS: dict[Hashable, Callable[[Array], float]] = {
    None: _frobenius,
    "fro": _frobenius,
    1: _passes.largest_column_sum,
    np.inf: lambda a: _passes.largest_column_sum(a.T),
}


@or_on_dask
def matmul(
    x1: Any,
    x2: Any,
    /,
    out: Any = None,
    *,
    nb: int | None = None,
    precision: PrecisionMap | str | None = None,
    **options: Any,
) -> Any:
    """Matrix product.

    Parameters
    ----------
    x1, x2 : array_like or TiledMatrix
        As for NumPy: shapes (..., m, k) and (..., k, n), or (k,) for one of them or both.
    out : ndarray or TiledMatrix, optional
        Where to put the result, shape (..., m, n).
    nb : int, optional
        The tile size; chosen from the shapes, the type and the workers by default.
    precision : PrecisionMap or str, optional
        The formats that products of tiles are made in: one, or "adaptive:1e-6" for each the lowest
        with which the error stays within some 1e-6 of ``||x1||_F ||x2||_F``. Default: that of both.
    **options
        NumPy's others: ``casting``, ``order``, ``dtype``, ``subok``, ``signature``, ``axes``,
        ``axis``. With any of these NumPy computes.

    Returns
    -------
    ndarray or scalar
        The product, of NumPy's common type.

    Raises
    ------
    ValueError
        When shapes do not fit, or `nb` is less than 1.

    See Also
    --------
    numpy.matmul : The specification.
    taskla.lapack.gemm : Into a tiled matrix; the BLAS routine behind this.

    Examples
    --------
    >>> from taskla.linalg import matmul
    >>> matmul([[1.0, 2.0], [3.0, 4.0]], [[1.0], [1.0]])
    array([[3.],
           [7.]])
    """
    if is_tiled(x1, x2, out):
        return _tiled_products.matmul(x1, x2, out, nb, precision, options)
    product = None
    if precision is not None:
        if options:
            raise TypeError(f"matmul with a precision takes no {', '.join(options)}")
        x1, x2 = np.asarray(x1), np.asarray(x2)
    if type(x1) is np.ndarray and type(x2) is np.ndarray and not options:
        product = _product(x1, x2, out, nb, precision)
    if product is None and precision is not None:
        raise ValueError(
            f"x1 has shape {x1.shape} and dtype {x1.dtype}, x2 {x2.shape} and {x2.dtype}; with a "
            "precision they must be matrices that fit, of one LAPACK type, and out an array for "
            "the product"
        )
    return numpy_matmul(x1, x2, out=out, **options) if product is None else product


@or_on_dask
def symm(
    a: Any,
    b: Any,
    c: Any = None,
    *,
    alpha: complex = 1.0,
    beta: complex = 0.0,
    side: Literal["left", "right"] = "left",
    lower: bool = True,
    overwrite_c: bool = False,
    nb: int | None = None,
    precision: PrecisionMap | str | None = None,
) -> Any:
    """Product with a symmetric matrix, ``alpha A B + beta C`` or ``alpha B A + beta C``.

    Parameters
    ----------
    a : array_like or TiledMatrix, shape (m, m), or (n, n) for the right side
        The symmetric matrix (not Hermitian, if complex). Only the triangle named by `lower` is
        used.
    b : array_like or TiledMatrix, shape (m, n)
        The other factor.
    c : array_like or TiledMatrix, shape (m, n), optional
        What the product is added to; required for a `beta` other than 0.
    alpha, beta : number, default 1 and 0
        The coefficients. With ``beta=0`` the elements of `c` do not matter.
    side : {"left", "right"}, default "left"
        On which side of B is A.
    lower : bool, default True
        Which triangle of `a` is used.
    overwrite_c : bool, default False
        Whether the result may take the place of `c`: it does in a contiguous array of the result's
        type.
    nb : int, optional
        The tile size; chosen from the shapes, the type and the workers by default.
    precision : PrecisionMap or str, optional
        As for `matmul`, with the error within that of ``|alpha| ||A||_F ||B||_F``.

    Returns
    -------
    ndarray or TiledMatrix, shape (m, n)
        The product, of the LAPACK type that all arrays fit.

    Raises
    ------
    TypeError
        When arrays cannot be converted to a LAPACK type.
    ValueError
        When shapes do not fit, an argument is not allowed, or `nb` is less than 1.

    See Also
    --------
    scipy.linalg.blas.dsymm : BLAS's routine for float64, which takes Fortran arrays.
    taskla.lapack.symm : Into a tiled matrix.

    Examples
    --------
    >>> from taskla.linalg import symm
    >>> symm([[1.0, 0.0], [2.0, 3.0]], [[1.0], [1.0]])
    array([[3.],
           [5.]])
    """
    if side not in ("left", "right"):
        raise ValueError(f"side is {side!r}; allowed: 'left', 'right'")
    if is_tiled(a, b, c):
        rest = overwrite_c, nb, precision
        return _tiled_products.symm(a, b, c, alpha, beta, side, lower, *rest)
    arrays = [np.asarray(array) for array in (a, b, c) if array is not None]
    dtype = lapack_dtype(*arrays)
    if dtype is None:
        raise TypeError("a, b or c has a dtype that does not fit complex128")
    _check_symm(arrays, side, dtype, alpha, beta)
    if c is None:
        # in the order of b, or the kernels would have to copy its tiles
        x = np.empty_like(arrays[1], dtype, order="A", subok=False)
    else:
        x = scratch(arrays[2], dtype, False, overwrite="FC" if overwrite_c else "")
    if x.size and (is_big(min(x.shape), nb) or precision is not None):
        X = tiled(x, nb or _product_nb(*x.shape))
        A, B = (tiled(operand(factor, dtype, False), X.nb) for factor in arrays[:2])
        uplo = "lower" if lower else "upper"
        fetch(lapack.symm(side, uplo, alpha, A, B, beta, X, precision=precision), x)
    elif x.size:
        _symm_at_once(alpha, arrays[0], arrays[1], beta, x, side == "right", bool(lower))
    return x


@or_on_dask
def norm(
    a: Any,
    ord: Any = None,
    axis: Any = None,
    keepdims: bool = False,
    check_finite: bool = True,
) -> Any:
    """Norm of a matrix or vector.

    Parameters
    ----------
    a : array_like or TiledMatrix
        The matrix or vector, or a batch of them with `axis`.
    ord : {None, "fro", 1, inf, ...}, optional
        Frobenius norm (of a vector: 2-norm), largest column sum, largest row sum; SciPy's other
        orders. The first four of a large matrix are computed on all workers.
    axis : int or (int, int), optional
        Where the vectors or matrices lie in `a`.
    keepdims : bool, default False
        Whether the result keeps the reduced dimensions.
    check_finite : bool, default True
        Whether to raise when any element of `a` is infinite or not a number.

    Returns
    -------
    float or ndarray
        The norm.

    Raises
    ------
    ValueError
        When `a` is not finite, or `ord` or `axis` is not allowed.

    See Also
    --------
    scipy.linalg.norm : The specification.
    taskla.lapack.lange : Of a tiled matrix, with LAPACK's guard against overflow.

    Examples
    --------
    >>> from taskla.linalg import norm
    >>> norm([[3.0, 0.0], [0.0, 4.0]], 1)
    4.0
    """
    if is_tiled(a):
        return _tiled_products.norm(a, ord, axis, keepdims, check_finite)
    a, array = given(a)
    if array.ndim != 2 or array.size <= LARGE or array.dtype.char not in "fdFD":
        return scipy_norm(a, ord, axis, keepdims, check_finite)
    if not isinstance(ord, Hashable) or ord not in _NORMS or axis is not None or keepdims:
        return scipy_norm(a, ord, axis, keepdims, check_finite)
    value = _NORMS[ord](array)
    if check_finite and not math.isfinite(value):
        # Either the norm overflows or an element is not finite: only now is another pass needed.
        _passes.check(array)
    # LAPACK's norms are Python's floats in SciPy, NumPy's is of the real type of `a`.
    return value if ord in (1, np.inf) else array.real.dtype.type(value)


def _product(
    a: Array, b: Array, out: Any, nb: int | None, precision: PrecisionMap | str | None
) -> Array | None:
    """Return the product by tiles; None: NumPy is to answer."""
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        return None
    if a.dtype.char not in "fdFD" or b.dtype.char not in "fdFD":
        return None
    dtype = np.result_type(a, b)
    order = min(*a.shape[-2:], b.shape[-1])
    # A product is what BLAS threads do best: tiles catch up at twice the order of other functions.
    if not (is_big(order if nb else order // 2, nb) or precision is not None):
        return None
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    if out is None:
        c = np.empty(shape, dtype)
    elif _can_hold(out, dtype, shape, a, b):
        c = out
    else:
        return None
    a = np.broadcast_to(a, batch + a.shape[-2:])
    b = np.broadcast_to(b, batch + b.shape[-2:])
    nb = nb or _product_nb(*shape[-2:])
    for i in np.ndindex(batch):
        C = tiled(c[i], nb)
        A, B = (tiled(operand(factor[i], dtype, False), C.nb) for factor in (a, b))
        fetch(lapack.gemm(1.0, A, B, 0.0, C, precision=precision), c[i])
    return c


def _product_nb(m: int, n: int) -> int:
    """Return a tile size for a product, whose tiles wait for nothing: large ones are fastest.

    Measured at n=4096 with two workers, Gflop/s: 127 with 512, 148 with 1024, 158 with 2048, which
    is two for each worker; 164 by the BLAS threads of NumPy.
    """
    workers = getattr(engines.current(), "workers", 1)
    return min(max(256, round(math.sqrt(m * n / (2 * workers)) / 64) * 64), 2048)


def _can_hold(out: Any, dtype: np.dtype[Any], shape: tuple[int, ...], *factors: Array) -> bool:
    """Whether the product can be written straight into `out`."""
    return (
        type(out) is np.ndarray
        and out.shape == shape
        and out.flags.writeable
        and tileable(out[(0,) * (out.ndim - 2)], dtype)
        and not any(np.may_share_memory(out, factor) for factor in factors)
    )


def _check_symm(
    arrays: list[Array], side: str, dtype: np.dtype[Any], alpha: complex, beta: complex
) -> None:
    a, b, *c = arrays
    if b.ndim != 2:
        raise ValueError(f"b has {b.ndim} dimensions; symm takes matrices")
    order = b.shape[0 if side == "left" else 1]
    if a.shape != (order, order):
        raise ValueError(
            f"a has shape {a.shape}; to the {side} of b of shape {b.shape} it must have "
            f"({order}, {order})"
        )
    if c and c[0].shape != b.shape:
        raise ValueError(f"c has shape {c[0].shape}; it must have that of b, {b.shape}")
    if not c and beta:
        raise ValueError(f"beta is {beta!r} and there is no c")
    for name, value in (("alpha", alpha), ("beta", beta)):
        if dtype.kind != "c" and np.iscomplexobj(value):
            raise ValueError(f"{name} is {value!r}; it must be real with real arrays")


def _symm_at_once(
    alpha: complex, a: Array, b: Array, beta: complex, x: Array, right: bool, lower: bool
) -> None:
    """Compute the product in place of `x`, a contiguous array, by one call of BLAS."""
    if not x.flags.f_contiguous:
        a, b, x, right, lower = a.T, b.T, x.T, not right, not lower
    if not beta:
        # Zero times what is in new memory need not be zero.
        x[...] = 0
    routine = get_blas_funcs("symm", dtype=x.dtype)
    routine(alpha, a, b, beta, x, side=right, lower=lower, overwrite_c=True)
