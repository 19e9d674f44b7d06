"""Cholesky factorisation of arrays and solution by it, with SciPy's signatures."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import (
    cho_factor as scipy_cho_factor,
    cho_solve as scipy_cho_solve,
    cholesky as scipy_cholesky,
)

from taskla import lapack
from taskla.linalg import _tiled_factors
from taskla.linalg._dispatch import or_on_dask
from taskla.linalg._inputs import (
    Array,
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
from taskla.linalg._passes import Part
from taskla.linalg._triangles import solve_factored
from taskla.matrix import TiledMatrix
from taskla.matrix_layout import Uplo
from taskla.precision import Precision

__all__ = ["cho_factor", "cho_solve", "cholesky"]


@or_on_dask
def cholesky(
    a: Any,
    lower: bool = False,
    overwrite_a: bool = False,
    check_finite: bool = True,
    *,
    nb: int | None = None,
    precision: Precision | None = None,
) -> Any:
    """Cholesky factor of a symmetric or Hermitian positive definite matrix.

    ``A = U^H U``, or ``A = L L^H`` with ``lower=True``.

    Parameters
    ----------
    a : array_like or TiledMatrix, shape (..., n, n)
        The matrix. Only the triangle named by `lower` is used.
    lower : bool, default False
        Which triangle, and which factor.
    overwrite_a : bool, default False
        Whether the factor may take the place of `a`: it does in a Fortran array of a LAPACK type;
        a large one may be in C order, too.
    check_finite : bool, default True
        Whether to raise when any element of `a`, used or not, is infinite or not a number.
    nb : int, optional
        The tile size; chosen from n, the type and the workers by default.
    precision : PrecisionMap, str or array of str, optional
        The number formats of the tiles, see `taskla.PrecisionMap`: "adaptive:1e-6" takes for each
        the lowest that a relative error of 1e-6 allows. Default: that of the result everywhere.

    Returns
    -------
    ndarray or TiledMatrix, shape (..., n, n)
        The factor, with zeros in the other triangle; float32 for float32, float16, booleans and
        integers of up to 16 bits, float64 for other reals; complex64 or complex128.

    Raises
    ------
    scipy.linalg.LinAlgError
        When `a` is not positive definite; the message has the order of the first leading minor
        that is not.
    ValueError
        When `a` is not square or not finite, `nb` is less than 1, or `precision` is not allowed.

    See Also
    --------
    scipy.linalg.cholesky : The specification.
    taskla.lapack.potrf : In place on a tiled matrix.

    Notes
    -----
    LAPACK's ``potrf`` [1]_ as a graph of tasks on tiles.

    References
    ----------
    .. [1] A. Buttari, J. Langou, J. Kurzak, J. Dongarra, "A class of parallel tiled linear algebra
       algorithms for multicore architectures", Parallel Computing 35 (2009) 38-53.

    Examples
    --------
    >>> import numpy as np
    >>> from taskla.linalg import cholesky
    >>> cholesky([[4.0, 2.0], [2.0, 10.0]], lower=True)
    array([[2., 0.],
           [1., 3.]])
    >>> x = np.random.default_rng(0).normal(size=(700, 700))
    >>> a = x @ x.T + 700 * np.eye(700)
    >>> upper = cholesky(a, nb=256)
    >>> np.allclose(upper.T @ upper, a)
    True
    """
    if is_tiled(a):
        return _tiled_factors.cholesky(a, lower, overwrite_a, check_finite, nb, precision)
    a, array = given(a)
    c = _factor(array, lower, overwrite_a, check_finite, nb, precision, clean=True)
    return scipy_cholesky(a, lower, overwrite_a, check_finite) if c is None else c


@or_on_dask
def cho_factor(
    a: Any,
    lower: bool = False,
    overwrite_a: bool = False,
    check_finite: bool = True,
    *,
    nb: int | None = None,
    precision: Precision | None = None,
) -> tuple[Any, Any]:
    """Cholesky factor of a positive definite matrix, for `cho_solve`.

    Parameters
    ----------
    a, lower, overwrite_a, check_finite, nb, precision
        As for `cholesky`.

    Returns
    -------
    c : ndarray or TiledMatrix, shape (..., n, n)
        The factor in the triangle named by `lower`. What the other holds is not specified.
    lower : bool
        `lower`; an array of it for a batch.

    Raises
    ------
    scipy.linalg.LinAlgError
        When `a` is not positive definite.
    ValueError
        When `a` is not square or not finite, or `nb` is less than 1.

    See Also
    --------
    scipy.linalg.cho_factor : The specification.
    taskla.lapack.potrf : In place on a tiled matrix; the LAPACK routine behind this.

    Examples
    --------
    >>> from taskla.linalg import cho_factor, cho_solve
    >>> factor = cho_factor([[4.0, 2.0], [2.0, 10.0]])
    >>> cho_solve(factor, [8.0, 22.0])
    array([1., 2.])
    """
    if is_tiled(a):
        return _tiled_factors.cho_factor(a, lower, overwrite_a, check_finite, nb, precision)
    a, array = given(a)
    c = _factor(array, lower, overwrite_a, check_finite, nb, precision, clean=False)
    if c is None:
        # SciPy returns a list for a batch.
        return tuple(scipy_cho_factor(a, lower, overwrite_a, check_finite))
    return c, lower if c.ndim == 2 else np.full(c.shape[:-2], lower)


@or_on_dask
def cho_solve(
    c_and_lower: tuple[Any, Any],
    b: Any,
    overwrite_b: bool = False,
    check_finite: bool = True,
    *,
    nb: int | None = None,
) -> Any:
    """Solve ``A x = b`` with the Cholesky factor of A.

    Parameters
    ----------
    c_and_lower : (array_like or TiledMatrix, bool)
        The factor, shape (..., n, n), and where it is, from `cho_factor`. The other triangle is
        not used.
    b : array_like or TiledMatrix, shape (n,) or (..., n, k)
        Right-hand sides.
    overwrite_b : bool, default False
        Whether x may take the place of `b`: it does in a Fortran array of the result's type.
    check_finite : bool, default True
        Whether to raise when any element of the factor or `b` is infinite or not a number.
    nb : int, optional
        The tile size; chosen from n, the type and the workers by default.

    Returns
    -------
    ndarray or TiledMatrix, shape (n,) or (..., n, k)
        x, of the LAPACK type that both fit.

    Raises
    ------
    ValueError
        When shapes do not fit, something is not finite, or `nb` is less than 1.

    See Also
    --------
    scipy.linalg.cho_solve : The specification.
    taskla.lapack.potrs : In place on tiled matrices; the LAPACK routine behind this.

    Examples
    --------
    >>> from taskla.linalg import cho_factor, cho_solve
    >>> factor = cho_factor([[4.0, 2.0], [2.0, 10.0]])
    >>> cho_solve(factor, [8.0, 22.0])
    array([1., 2.])
    """
    c, lower = c_and_lower
    if is_tiled(c, b):
        return _tiled_factors.cho_solve(c, lower, b, overwrite_b, check_finite, nb)
    if isinstance(lower, np.ndarray):
        # cho_factor of a batch says the same for each member.
        lower = lower.flat[0]
    (c, factor), (b, right) = given(c), given(b)
    x = _solve(factor, right, lower, overwrite_b, check_finite, nb)
    return scipy_cho_solve((c, lower), b, overwrite_b, check_finite) if x is None else x


def _factor(
    a: Array,
    lower: bool,
    overwrite_a: bool,
    check_finite: bool,
    nb: int | None,
    precision: Precision | None,
    clean: bool,
) -> Array | None:
    """Return the factor, with zeros in the other triangle if `clean`; None: SciPy is to answer."""
    if not is_square(a) or not (is_big(a.shape[-1], nb) or precision is not None):
        return None
    dtype = lapack_dtype(a)
    if dtype is None:
        return None
    if a.ndim > 2:
        factor = partial(
            _factor,
            lower=lower,
            overwrite_a=False,
            check_finite=check_finite,
            nb=nb,
            precision=precision,
            clean=clean,
        )
        return over_batch(factor, (a, 2))  # type: ignore[no-any-return]
    uplo: Uplo = "lower" if lower else "upper"
    if precision is not None:
        A = TiledMatrix.from_array(operand(a, dtype, check_finite), nb, uplo, precision=precision)
        return lapack.potrf(A).to_array(order="F")
    part: Part = "G" if not clean else "L" if lower else "U"
    c = scratch(a, dtype, check_finite, part=part, overwrite="FC" if overwrite_a else "")
    fetch(lapack.potrf(tiled(c, nb, uplo)), c)
    return c


def _solve(
    c: Array, b: Array, lower: bool, overwrite_b: bool, check_finite: bool, nb: int | None
) -> Array | None:
    """Return x; None: SciPy is to answer."""
    if not is_square(c) or not fits(c, b) or not is_big(c.shape[-1], nb):
        return None
    dtype = lapack_dtype(c, b)
    if dtype is None:
        return None
    if c.ndim > 2 or b.ndim > 2:
        solve = partial(_solve, lower=lower, overwrite_b=False, check_finite=check_finite, nb=nb)
        return over_batch(solve, (c, 2), (b, min(b.ndim, 2)))  # type: ignore[no-any-return]
    c = operand(c, dtype, check_finite)
    x = scratch(columns(b), dtype, check_finite, overwrite="FC" if overwrite_b else "")
    solve_factored(c, x, bool(lower), nb)
    return x if b.ndim == 2 else x[:, 0]
