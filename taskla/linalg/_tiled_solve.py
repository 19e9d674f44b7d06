"""Linear equations and inverses with tiled matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.linalg import LinAlgError

from taskla import lapack
from taskla.errors import NotPositiveDefiniteError
from taskla.formats import dtype_of
from taskla.linalg import _condition
from taskla.linalg._inputs import Array, fetch, tiled
from taskla.linalg._tiled import (
    Given,
    clear,
    common_dtype,
    finite,
    matrix,
    mirror,
    read,
    result,
    rows_fit,
    tile_size,
    triangle_asked,
    writable,
)
from taskla.matrix import TiledMatrix
from taskla.matrix_layout import Uplo
from taskla.operands import diagonal, square
from taskla.refinement import RefinementInfo, full, low_format
from taskla.refinement_tiled import refined

__all__ = ["Structure", "inv", "solve", "solve_triangular", "structure_of"]

Structure: TypeAlias = Literal["general", "positive", "lower", "upper"]
Trans: TypeAlias = Literal["N", "T"]

_STRUCTURES: dict[Any, Structure] = {
    "gen": "general",
    "general": "general",
    "pos": "positive",
    "positive definite": "positive",
    "lower triangular": "lower",
    "upper triangular": "upper",
}


def solve(
    a: Any,
    b: Any,
    lower: Any,
    overwrite_a: bool,
    overwrite_b: bool,
    check_finite: bool,
    assume_a: Any,
    transposed: bool,
    nb: int | None,
    precision: str | None,
) -> tuple[Any, float, RefinementInfo]:
    """Return x, as `b` was given, the reciprocal condition number, and how x was found."""
    size = tile_size(nb, a, b)
    left, right = matrix("a", a), matrix("b", b)
    _square(left)
    rows_fit(left, right)
    dtype = common_dtype(a=left, b=right)
    if transposed and dtype.kind == "c":
        raise NotImplementedError("transposed is True and the matrices are complex")
    low = low_format(precision, dtype)
    structure, uplo = structure_of(left, assume_a, lower)
    finite(check_finite, left, uplo=uplo)
    finite(check_finite, right)
    X = writable(right, size, dtype, overwrite_b)
    trans: Trans = "T" if transposed else "N"
    info = full(dtype, precision)
    if low is not None and structure in ("general", "positive"):
        A = read(left, size, dtype)
        info, rcond = _refine(A, X, None if structure == "general" else _used(uplo), trans, low)
        if info.solver != "full":
            return result(X, b), rcond, info
    elif low is not None:
        info = full(dtype, precision, f"the matrix is {structure} triangular")
    if structure == "general":
        rcond = _solve_general(writable(left, size, dtype, overwrite_a), X, trans)
    elif structure == "positive":
        rcond = _solve_positive(writable(left, size, dtype, overwrite_a), X, _used(uplo))
    else:
        rcond = _solve_triangle(read(left, size, dtype), X, _used(uplo), trans)
    return result(X, b), rcond, info


def _refine(
    A: TiledMatrix, X: TiledMatrix, uplo: Uplo | None, trans: Trans, low: str
) -> tuple[RefinementInfo, float]:
    """Solve with factors in a lower precision; return what became of it, and rcond."""
    if uplo is None:
        found = refined(A, X, low, lapack.lu_solver("partial"), trans=trans)
    else:
        letter = "L" if uplo == "lower" else "U"
        found = refined(A, X, low, lapack.cholesky_solver(letter), uplo=letter)
    solve = found.solve
    if solve is None or not A.n:
        return found.info, 1.0

    # || op(A) || in the infinity norm is that of op(A)^H in the 1-norm
    def solve_adjoint(x: Array, which: str) -> None:
        solve(x, "C" if (which == "N") == (trans == "N") else "N")

    dtype = dtype_of("fp32", A.dtype.kind == "c")
    return found.info, _rcond_of(A, found.norm, _condition.inverse_norm(solve_adjoint, A.n, dtype))


def _solve_general(A: TiledMatrix, X: TiledMatrix, trans: str) -> float:
    norm = lapack.lange("1", A)
    piv = lapack.getrf(A)
    if (diagonal(A) == 0).any():
        raise _condition.singular(0)

    def solve(X: TiledMatrix, trans: str) -> None:
        lapack.getrs(A, piv, X, trans=trans)

    solve(X, trans)
    return _rcond(norm, solve, A)


def _solve_positive(A: TiledMatrix, X: TiledMatrix, uplo: Uplo) -> float:
    norm = _norm_of_hermitian(A, uplo)
    _factor(A, uplo)

    def solve(X: TiledMatrix, _: str) -> None:
        lapack.potrs(A, X, uplo)

    solve(X, "N")
    return _rcond(norm, solve, A)


def _solve_triangle(A: TiledMatrix, X: TiledMatrix, uplo: Uplo, trans: str) -> float:
    if (diagonal(A) == 0).any():
        raise _condition.singular(0)

    def solve(X: TiledMatrix, trans: str) -> None:
        lapack.trsm("L", uplo, trans, "N", 1.0, A, X)

    solve(X, trans)
    return _rcond(lapack.lantr("1", A, uplo), solve, A)


def solve_triangular(
    a: Any,
    b: Any,
    trans: Any,
    lower: Any,
    unit_diagonal: bool,
    overwrite_b: bool,
    check_finite: bool,
    nb: int | None,
) -> Any:
    """Return x, as `b` was given."""
    letter = {0: "N", 1: "T", 2: "C", "N": "N", "T": "T", "C": "C"}.get(trans)
    if letter is None:
        raise ValueError(f"trans is {trans!r}; allowed: 0, 1, 2, 'N', 'T', 'C'")
    size = tile_size(nb, a, b)
    left, right = matrix("a", a), matrix("b", b)
    _square(left)
    rows_fit(left, right)
    dtype = common_dtype(a=left, b=right)
    uplo = triangle_asked("a", left, lower, default=False)
    finite(check_finite, left, uplo=uplo)
    finite(check_finite, right)
    A = read(left, size, dtype)
    if not unit_diagonal:
        zeros = np.flatnonzero(diagonal(A) == 0)
        if zeros.size:
            raise LinAlgError(f"singular matrix: resolution failed at diagonal {zeros[0]}")
    X = writable(right, size, dtype, overwrite_b)
    lapack.trsm("L", uplo, letter, "U" if unit_diagonal else "N", 1.0, A, X)
    return result(X, b)


def inv(
    A: TiledMatrix,
    overwrite_a: bool,
    check_finite: bool,
    assume_a: Any,
    lower: Any,
    nb: int | None,
) -> tuple[TiledMatrix, float]:
    """Return the inverse and the reciprocal condition number."""
    square(a=A)
    size = tile_size(nb, A)
    structure, uplo = structure_of(A, assume_a, lower)
    finite(check_finite, A, uplo=uplo)
    X = writable(A, size, A.dtype, overwrite_a)
    if structure == "general":
        return _invert_general(X)
    if structure == "positive":
        return X, _invert_positive(X, _used(uplo))
    return X, _invert_triangle(X, _used(uplo))


def _invert_general(A: TiledMatrix) -> tuple[TiledMatrix, float]:
    """Return the inverse as the solution of A X = 1: no columns are interchanged across ranks."""
    norm = lapack.lange("1", A)
    piv = lapack.getrf(A)
    if (diagonal(A) == 0).any():
        raise _condition.singular(0)
    X = TiledMatrix.from_function(
        lambda rows, cols: rows[:, None] == cols,
        A.shape,
        A.nb,
        A.dtype,
        distribution=A.distribution,
    )
    lapack.getrs(A, piv, X)
    return X, _rcond_of(A, norm, lapack.lange("1", X))


def _invert_triangle(A: TiledMatrix, uplo: Uplo) -> float:
    """Replace a triangle by its inverse; return the reciprocal condition number."""
    if (diagonal(A) == 0).any():
        raise _condition.singular(0)
    norm = lapack.lantr("1", A, uplo)
    lapack.trtri(A, uplo)
    clear(A, uplo)
    return _rcond_of(A, norm, lapack.lantr("1", A, uplo))


def _invert_positive(A: TiledMatrix, uplo: Uplo) -> float:
    """Replace a matrix by its inverse; return the reciprocal condition number."""
    norm = _norm_of_hermitian(A, uplo)
    _factor(A, uplo)
    lapack.potri(A, uplo)
    mirror(A, uplo)
    return _rcond_of(A, norm, _norm_of_hermitian(A, uplo))


def _factor(A: TiledMatrix, uplo: Uplo) -> None:
    try:
        lapack.potrf(A, uplo)
    except NotPositiveDefiniteError:
        raise _condition.singular(0) from None


def _norm_of_hermitian(A: TiledMatrix, uplo: Uplo) -> float:
    return (lapack.lanhe if A.dtype.kind == "c" else lapack.lansy)("1", A, uplo)


def _rcond(norm: float, solve: Callable[[TiledMatrix, str], None], A: TiledMatrix) -> float:
    """Estimate the reciprocal condition number by a few solutions with thin right-hand sides."""
    if not A.n:
        return 1.0

    def solve_array(x: Array, trans: str) -> None:
        X = tiled(x, A.nb)
        solve(X, trans)
        fetch(X, x)

    return _rcond_of(A, norm, _condition.inverse_norm(solve_array, A.n, A.dtype))


def _rcond_of(A: TiledMatrix, norm: float, inverse_norm: float) -> float:
    return _condition.rcond(norm, inverse_norm) if A.n else 1.0


def _square(a: Given) -> None:
    if a.shape[0] != a.shape[1]:
        raise ValueError(f"a must be square, not {a.shape[0]} x {a.shape[1]}")


def structure_of(a: Given, assume_a: Any, lower: Any) -> tuple[Structure, Uplo | None]:
    """Return what a matrix is taken for, and the triangle of it that is used.

    Raises
    ------
    ValueError
        When no tiled algorithm is for that, or a stored triangle is not what is asked for.
    """
    stored = a.uplo if isinstance(a, TiledMatrix) else None
    if assume_a is None and stored:
        raise ValueError(
            f"assume_a is None and a stores its {stored} triangle; "
            f"allowed: 'pos', '{stored} triangular'"
        )
    structure = "general" if assume_a is None else _STRUCTURES.get(assume_a)
    if structure is None:
        raise ValueError(
            f"assume_a is {assume_a!r}; of a tiled matrix, and on Dask, allowed: None, {_LISTED}"
        )
    if structure == "general":
        if stored:
            raise ValueError(
                f"assume_a is {assume_a!r} and a stores its {stored} triangle; it must store all"
            )
        return structure, None
    if structure == "positive":
        return structure, triangle_asked("a", a, lower, default=False)
    return structure, triangle_asked("a", a, structure == "lower")


_LISTED = ", ".join(repr(name) for name in _STRUCTURES)


def _used(uplo: Uplo | None) -> Uplo:
    assert uplo is not None, "every structure but the general one uses a triangle"
    return uplo
