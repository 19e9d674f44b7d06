"""Solution of linear equations on arrays, with SciPy's signatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
from scipy.linalg import (
    LinAlgError,
    solve as scipy_solve,
    solve_triangular as scipy_solve_triangular,
)

from taskla import lapack
from taskla.errors import NotPositiveDefiniteError
from taskla.linalg import _condition, _lu, _passes, _refinement, _tiled_solve
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
from taskla.linalg._passes import Part
from taskla.linalg._refinement import Low, Refined
from taskla.linalg._structure import Structure, find_structure
from taskla.linalg._triangles import solve_factored, solve_triangle
from taskla.refinement import FAILED, RefinementInfo, full, low_format

__all__ = ["solve", "solve_triangular"]

_STRUCTURES: dict[Any, Structure | None] = {
    None: None,
    "gen": "general",
    "general": "general",
    "pos": "positive",
    "positive definite": "positive",
    "lower triangular": "lower",
    "upper triangular": "upper",
}


@or_on_dask
def solve(
    a: Any,
    b: Any,
    lower: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
    assume_a: str | None = None,
    transposed: bool = False,
    *,
    nb: int | None = None,
    precision: str | None = None,
    full_output: bool = False,
) -> Any:
    """Solve ``A x = b`` for a square matrix A.

    Parameters
    ----------
    a : array_like or TiledMatrix, shape (..., n, n)
        The matrix.
    b : array_like or TiledMatrix, shape (n,) or (..., n, k)
        Right-hand sides.
    lower : bool, default False
        Which triangle of a positive definite, symmetric or Hermitian `a` is used.
    overwrite_a, overwrite_b : bool, default False
        Whether `a` and `b` may be overwritten: Fortran arrays of the result's type are, where that
        saves a copy.
    check_finite : bool, default True
        Whether to raise when any element of `a` or `b` is infinite or not a number.
    assume_a : str, optional
        "general", "positive definite", "lower triangular" or "upper triangular" ("gen" and "pos"
        for short) are solved by tiles; so is what None, the default, finds to be one of them. A
        symmetric matrix is tried as a positive definite one first. "symmetric", "hermitian",
        "diagonal", "tridiagonal" and "banded" are left to SciPy.
    transposed : bool, default False
        Whether to solve ``A^T x = b`` instead, for real `a` only.
    nb : int, optional
        The tile size; chosen from n, the type and the workers by default.
    precision : {None, "fp64", "fp32", "bf16", "fp16"}, optional
        The format in which a general or positive definite matrix is factored. With the last three
        x is refined to double precision, by LU-IR or its like with Cholesky factors, else by
        GMRES-IR; where that fails, and for other matrices, all is in double precision. None and
        "fp64" have the precision of x. bf16 and fp16 are emulated, and slower than double
        precision: they show what such hardware would do. On Dask a refinement is computed at once.
    full_output : bool, default False
        Whether to return how x was found as well.

    Returns
    -------
    x : ndarray or TiledMatrix, shape (n,) or (..., n, k)
        float64 for integers, otherwise of the LAPACK type that both fit.
    info : RefinementInfo, or ndarray of objects, shape (...)
        Only with `full_output`: the solver, its iterations, why it was not the first choice. Of a
        batch of matrices an array.

    Warns
    -----
    scipy.linalg.LinAlgWarning
        When the estimated condition number leaves no correct digit. After a refinement it is that
        of the low-precision factors, which are often better conditioned than A: that refinement
        converged says more.

    Raises
    ------
    scipy.linalg.LinAlgError
        When `a` is singular, or said to be positive definite and is not.
    ValueError
        When shapes do not fit, something is not finite, `assume_a` is unknown, or `nb` is less
        than 1; when `precision` is unknown, or lower than that of x where x is in single precision
        or `assume_a` is left to SciPy.
    NotImplementedError
        For the transpose of a complex matrix.

    See Also
    --------
    scipy.linalg.solve : The specification.
    taskla.lapack.gesv, taskla.lapack.posv : In place on tiled matrices.
    taskla.refinement : The refinement, and what is returned of it.

    Notes
    -----
    LAPACK's ``getrf``, ``getrs``, ``potrf``, ``potrs`` and ``trtrs`` as graphs of tasks on tiles,
    and its ``gecon``, ``pocon`` and ``trcon`` for the condition number.

    Examples
    --------
    >>> from taskla.linalg import solve
    >>> solve([[1.0, 2.0], [4.0, 4.0]], [5.0, 12.0])
    array([1., 2.])
    >>> solve([[4.0, 2.0], [2.0, 10.0]], [8.0, 22.0], assume_a="pos")
    array([1., 2.])
    """
    if is_tiled(a, b):
        rest = overwrite_a, overwrite_b, check_finite, assume_a, transposed
        x, rcond, info = _tiled_solve.solve(a, b, lower, *rest, nb, precision)
        _condition.warn_if_ill({0: rcond}, x.dtype)
        return (x, info) if full_output else x
    (a, a1), (b, b1) = given(a), given(b)
    low = _low_format(precision, a1, b1, assume_a)
    # what is small is left to SciPy, which refines nothing
    is_ours = is_square(a1) and fits(a1, b1) and (is_big(a1.shape[-1], nb) or low is not None)
    dtype = _dtype(a1, b1) if is_ours else None
    if (
        dtype is None
        or assume_a not in _STRUCTURES
        or np.ma.isMaskedArray(a)
        or np.ma.isMaskedArray(b)
        or (transposed and dtype.kind == "c")
    ):
        x = scipy_solve(a, b, lower, overwrite_a, overwrite_b, check_finite, assume_a, transposed)
        return (x, _infos_of_scipy(x, a1, precision)) if full_output else x
    system = _System(
        dtype,
        _STRUCTURES[assume_a],
        bool(lower),
        "T" if transposed else "N",
        check_finite,
        nb,
        "F" if overwrite_a and a1.ndim == 2 else "",
        "F" if overwrite_b and b1.ndim <= 2 else "",
        precision,
    )
    x, found = _solve_batch(a1, columns(b1), system)
    _condition.warn_if_ill(dict(enumerate(rcond for rcond, _ in found.flat)), dtype)
    x = x[..., 0] if b1.ndim == 1 else x
    return (x, _infos(found)) if full_output else x


@or_on_dask
def solve_triangular(
    a: Any,
    b: Any,
    trans: int | str = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
    *,
    nb: int | None = None,
) -> Any:
    """Solve ``A x = b``, ``A^T x = b`` or ``A^H x = b`` for a triangular matrix A.

    Parameters
    ----------
    a : array_like or TiledMatrix, shape (..., n, n)
        The matrix. Only the triangle named by `lower` is used.
    b : array_like or TiledMatrix, shape (n,) or (..., n, k)
        Right-hand sides.
    trans : {0, 1, 2, "N", "T", "C"}, default 0
        A, its transpose or its conjugate transpose.
    lower : bool, default False
        Which triangle of `a` is A.
    unit_diagonal : bool, default False
        Whether A's diagonal is 1, whatever that of `a`.
    overwrite_b : bool, default False
        Whether x may take the place of `b`: it does in a Fortran array of the result's type.
    check_finite : bool, default True
        Whether to raise when any element of `a`, used or not, or `b` is infinite or not a number.
    nb : int, optional
        The tile size; chosen from n, the type and the workers by default.

    Returns
    -------
    ndarray or TiledMatrix, shape (n,) or (..., n, k)
        x, of the LAPACK type that both fit.

    Raises
    ------
    scipy.linalg.LinAlgError
        When an element of A's diagonal is zero; the message has its index, from 0.
    ValueError
        When shapes do not fit, something is not finite, or `nb` is less than 1.

    See Also
    --------
    scipy.linalg.solve_triangular : The specification.
    taskla.lapack.trsm : In place on tiled matrices; LAPACK's ``trtrs`` checks and calls that.

    Examples
    --------
    >>> from taskla.linalg import solve_triangular
    >>> solve_triangular([[2.0, 0.0], [1.0, 3.0]], [2.0, 7.0], lower=True)
    array([1., 2.])
    """
    rest = trans, lower, unit_diagonal, overwrite_b, check_finite
    if is_tiled(a, b):
        return _tiled_solve.solve_triangular(a, b, *rest, nb)
    (a, matrix), (b, right) = given(a), given(b)
    x = _solve_triangular(matrix, right, *rest, nb)
    return scipy_solve_triangular(a, b, *rest) if x is None else x


def _solve_triangular(
    a: Array,
    b: Array,
    trans: int | str,
    lower: bool,
    unit_diagonal: bool,
    overwrite_b: bool,
    check_finite: bool,
    nb: int | None,
) -> Array | None:
    """Return x; None: SciPy is to answer."""
    if not is_square(a) or not fits(a, b) or not is_big(a.shape[-1], nb):
        return None
    dtype = lapack_dtype(a, b)
    letter = {0: "N", 1: "T", 2: "C", "N": "N", "T": "T", "C": "C"}.get(trans)
    if dtype is None or letter is None:
        return None
    if a.ndim > 2 or b.ndim > 2:
        solve_one = partial(
            _solve_triangular,
            trans=trans,
            lower=lower,
            unit_diagonal=unit_diagonal,
            overwrite_b=False,
            check_finite=check_finite,
            nb=nb,
        )
        return over_batch(solve_one, (a, 2), (b, min(b.ndim, 2)))  # type: ignore[no-any-return]
    a = operand(a, dtype, check_finite)
    x = scratch(columns(b), dtype, check_finite, overwrite="FC" if overwrite_b else "")
    zeros = np.flatnonzero(a.diagonal() == 0)
    if zeros.size and not unit_diagonal:
        raise LinAlgError(f"singular matrix: resolution failed at diagonal {zeros[0]}")
    solve_triangle(a, x, bool(lower), letter, bool(unit_diagonal), nb)
    return x if b.ndim == 2 else x[:, 0]


@dataclass(frozen=True)
class _System:
    """What `solve` was told, apart from the arrays."""

    dtype: np.dtype[Any]
    structure: Structure | None
    lower: bool
    trans: str
    check_finite: bool
    nb: int | None
    overwrite_a: Overwrite
    overwrite_b: Overwrite
    precision: str | None

    @property
    def low(self) -> Low | None:
        """How to factor in a lower precision, None where that was not asked for."""
        precision = low_format(self.precision, self.dtype)
        return None if precision is None else Low(precision, self.check_finite, self.nb)


def _dtype(a: Array, b: Array) -> np.dtype[Any] | None:
    """Return the type in which `solve` computes: float64 if both are integers, however small."""
    if a.dtype.kind in "biu" and b.dtype.kind in "biu":
        return np.dtype(np.float64)
    return lapack_dtype(a, b)


def _low_format(precision: Any, a: Array, b: Array, assume_a: Any) -> str | None:
    """Return the format to factor in, None for that of x."""
    # of what no type holds SciPy has something to say
    low = low_format(precision, _dtype(a, b) or np.dtype(np.float64))
    if low is not None and assume_a not in _STRUCTURES:
        allowed = ", ".join(map(repr, _STRUCTURES))
        raise ValueError(
            f"assume_a is {assume_a!r}; with precision {precision!r} allowed: {allowed}"
        )
    return low


def _solve_batch(a: Array, b: Array, system: _System) -> tuple[Array, Array]:
    """Return x, and for each matrix of the batch its reciprocal condition number and its info."""
    if a.ndim == b.ndim == 2:
        x, *found = _solve_matrix(a, b, system, 0)
        return x, _objects((), [tuple(found)])
    if a.ndim == 2:
        # One matrix: it is factored once, for all right-hand sides side by side.
        rows = np.moveaxis(b, -2, 0)
        x, *found = _solve_matrix(a, rows.reshape(len(rows), -1), system, 0)
        return np.moveaxis(x.reshape(rows.shape), 0, -2), _objects((), [tuple(found)])
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, batch + a.shape[-2:])
    b = np.broadcast_to(b, batch + b.shape[-2:])
    x = np.empty(b.shape, system.dtype)
    each = []
    for place, i in enumerate(np.ndindex(batch)):
        x[i], *found = _solve_matrix(a[i], b[i], system, place)
        each.append(tuple(found))
    return x, _objects(batch, each)


def _objects(shape: tuple[int, ...], members: list[Any]) -> Array:
    """Return an array of objects, which NumPy is not to look into."""
    array = np.empty(len(members), object)
    for i, member in enumerate(members):
        array[i] = member
    return array.reshape(shape)


def _infos(found: Array) -> Any:
    """Return the info of one matrix, or those of a batch."""
    infos = _objects(found.shape, [info for _, info in found.flat])
    return infos if infos.ndim else infos.item()


def _infos_of_scipy(x: Array, a: Array, precision: str | None) -> Any:
    """Return what is said of solutions that SciPy found."""
    batch = a.shape[:-2]
    dtype = x.dtype if x.dtype.char in "fdFD" else np.dtype(np.float64)
    infos = _objects(batch, [full(dtype, precision)] * prod(batch))
    return infos if batch else infos.item()


def _solve_matrix(
    a: Array, b: Array, system: _System, place: int
) -> tuple[Array, float, RefinementInfo]:
    """Return x, the reciprocal condition number of one matrix, and how x was found."""
    if a.dtype != system.dtype:
        a = _passes.copied(a, system.dtype, "F", "G", system.check_finite)
        system = replace(system, overwrite_a="F")
    structure = system.structure or find_structure(a)
    info = full(system.dtype, system.precision)
    low = system.low
    if low is not None and structure in ("general", "positive"):
        refined = _refine(a, b, structure, system, low)
        if refined.x is not None:
            return refined.x, refined.rcond, refined.info
        info = refined.info
    elif low is not None:
        what = "of a form that SciPy solves" if structure == "other" else f"{structure} triangular"
        info = full(system.dtype, system.precision, f"the matrix is {what}")
    return *_solve_in_full(a, b, structure, system, place), info


def _refine(a: Array, b: Array, structure: str, system: _System, low: Low) -> Refined:
    """Solve with factors in a lower precision."""
    if structure == "positive":
        whole = system.structure is None
        refined = _refinement.solve_positive(a, b, system.lower, whole, low)
        if refined.info.iter != FAILED or not whole:
            return refined
    # also a matrix that was only thought to be positive definite
    return _refinement.solve_general(a, b, system.trans, low)


def _solve_in_full(
    a: Array, b: Array, structure: str, system: _System, place: int
) -> tuple[Array, float]:
    """Solve with factors in the precision of x."""
    x = scratch(b, system.dtype, system.check_finite, overwrite=system.overwrite_b)
    if structure == "general":
        return x, _solve_general(a, x, system, place)
    if structure == "positive":
        rcond = _solve_positive(a, x, system, place)
        if rcond is not None:
            return x, rcond
    elif structure != "other":
        return x, _solve_triangle(a, x, structure == "lower", system, place)
    known = {"positive": "her" if system.dtype.kind == "c" else "sym"}.get(structure)
    x = scipy_solve(
        a,
        b,
        lower=system.lower,
        check_finite=system.check_finite,
        assume_a=known,
        transposed=system.trans == "T",
    )
    return x, np.inf


def _solve_general(a: Array, x: Array, system: _System, place: int) -> float:
    factors = scratch(a, system.dtype, system.check_finite, order="F", overwrite=system.overwrite_a)
    norm = lapack.lange("1", tiled(factors, system.nb))
    piv, info = _lu.getrf(factors, system.nb)
    if info:
        raise _condition.singular(place)
    solve = partial(_lu.getrs, factors, piv, nb=system.nb)
    solve(x, system.trans)
    return _rcond(norm, solve, factors)


def _solve_positive(a: Array, x: Array, system: _System, place: int) -> float | None:
    """Solve by Cholesky; None if a matrix only thought to be positive definite is not."""
    # A matrix only thought to be positive definite is needed again if it is not.
    overwrite = system.overwrite_a if system.structure else ""
    part: Part = "L" if system.lower else "U"
    factor = scratch(a, system.dtype, system.check_finite, part=part, overwrite=overwrite)
    C = tiled(factor, system.nb, "lower" if system.lower else "upper")
    norm = (lapack.lanhe if system.dtype.kind == "c" else lapack.lansy)("1", C)
    try:
        fetch(lapack.potrf(C), factor)
    except NotPositiveDefiniteError:
        if system.structure is None:
            return None
        raise _condition.singular(place) from None

    def solve(x: Array, _: str) -> None:
        solve_factored(factor, x, system.lower, system.nb)

    solve(x, "N")
    return _rcond(norm, solve, factor)


def _solve_triangle(a: Array, x: Array, lower: bool, system: _System, place: int) -> float:
    a = operand(a, system.dtype, system.check_finite)
    if (a.diagonal() == 0).any():
        raise _condition.singular(place)

    def solve(x: Array, trans: str) -> None:
        solve_triangle(a, x, lower, trans, nb=system.nb)

    solve(x, system.trans)
    return _rcond(lapack.lantr("1", tiled(a, system.nb), "L" if lower else "U"), solve, a)


def _rcond(norm: float, solve: Callable[[Array, str], None], a: Array) -> float:
    return _condition.rcond(norm, _condition.inverse_norm(solve, len(a), a.dtype))
