"""The functions on Dask arrays and on tiled matrices on Dask: lazy, as Dask's users expect.

Each adds tasks to a graph and returns at once: a Dask array for arrays, a tiled matrix for tiled
matrices. What can only be seen when numbers are there is seen by tasks, so errors come when a
result is computed. Only the norms that an adaptive precision asks for are computed at once, and
solutions that are refined: when these are good enough is seen by their numbers. The condition of a
matrix is not estimated, and nothing is overwritten.

`taskla.linalg._dispatch` calls them with the arguments of the public functions, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.linalg import slogdet as numpy_slogdet

from taskla import lapack
from taskla.engines import dask_engine
from taskla.linalg._inputs import lapack_dtype
from taskla.linalg._passes import row_order
from taskla.linalg._tiled import rows_fit, tile_size, triangle_asked
from taskla.linalg._tiled_factors import permuted_rows
from taskla.linalg._tiled_solve import Structure, structure_of
from taskla.matrix import TiledMatrix
from taskla.matrix_layout import Uplo
from taskla.operands import full, square
from taskla.precision import By, Precision, PrecisionMap, precision_map
from taskla.refinement import RefinementInfo, full as full_precision, low_format
from taskla.refinement_tiled import refined

if TYPE_CHECKING:
    from taskla.engines.dask import DaskEngine
    from taskla.engines.dask_matrix import DaskMatrix

__all__ = [
    "cho_factor",
    "cho_solve",
    "cholesky",
    "det",
    "inv",
    "lu",
    "lu_factor",
    "lu_solve",
    "matmul",
    "norm",
    "slogdet",
    "solve",
    "solve_triangular",
    "symm",
]

# -- Cholesky --------------------------------------------------------------------------------------


def cholesky(
    a: Any, lower: bool, check_finite: bool, nb: int | None, precision: Precision | None
) -> Any:
    """See `taskla.linalg.cholesky`."""
    factor, _ = cho_factor(a, lower, check_finite, nb, precision)
    return factor


def cho_factor(
    a: Any, lower: bool, check_finite: bool, nb: int | None, precision: Precision | None
) -> tuple[Any, bool]:
    """See `taskla.linalg.cho_factor`; what the factor does not use is zero."""
    inputs = _Inputs(nb, a)
    uplo = triangle_asked("a", a, lower, default=False)
    C = inputs.matrix("a", a, check_finite, uplo)
    square(a=C)
    C = _in(precision, C)
    lapack.potrf(C, uplo)
    return inputs.result(C, a), uplo == "lower"


def cho_solve(c_and_lower: tuple[Any, Any], b: Any, check_finite: bool, nb: int | None) -> Any:
    """See `taskla.linalg.cho_solve`."""
    c, lower = c_and_lower
    inputs = _Inputs(nb, c, b)
    uplo = triangle_asked("c", c, lower)
    C = inputs.matrix("c", c, check_finite, uplo)
    X = inputs.matrix("b", b, check_finite)
    square(c=C)
    rows_fit(C, X)
    lapack.potrs(C, X, uplo)
    return inputs.result(X, b)


# -- LU --------------------------------------------------------------------------------------------


def lu_factor(
    a: Any, check_finite: bool, nb: int | None, precision: Precision | None
) -> tuple[Any, Any]:
    """See `taskla.linalg.lu_factor`; the pivots are a Dask array, and of zeros nothing is said."""
    inputs = _Inputs(nb, a)
    A = _in(precision, inputs.matrix("a", a, check_finite), by="column")
    piv: Any = lapack.getrf(A)
    return inputs.result(A, a), piv.to_dask()


def lu_solve(
    lu_and_piv: tuple[Any, Any], b: Any, trans: int, check_finite: bool, nb: int | None
) -> Any:
    """See `taskla.linalg.lu_solve`."""
    if trans not in (0, 1, 2):
        raise ValueError(f"trans is {trans!r}; allowed: 0, 1, 2")
    factors, piv = lu_and_piv
    inputs = _Inputs(nb, factors, b)
    A = inputs.matrix("lu", factors, False)
    X = inputs.matrix("b", b, check_finite)
    square(lu=A)
    rows_fit(A, X)
    lapack.getrs(A, piv, X, trans="NTC"[trans])
    return inputs.result(X, b)


def lu(
    a: Any,
    permute_l: bool,
    check_finite: bool,
    p_indices: bool,
    nb: int | None,
    precision: Precision | None,
) -> tuple[Any, ...]:
    """See `taskla.linalg.lu`; all parts are Dask arrays."""
    import dask
    import dask.array as da

    inputs = _Inputs(nb, a)
    A = _in(precision, inputs.matrix("a", a, check_finite), by="column")
    piv: Any = lapack.getrf(A)
    factors, k = A.to_dask(), min(A.shape)
    lower = factors[:, :k].map_blocks(_lower, dtype=A.dtype)
    upper = factors[:k].map_blocks(_upper, dtype=A.dtype)
    if permute_l:
        L = inputs.matrix("l", lower, False)
        permuted_rows(L, piv)
        return L.to_dask(), upper
    order = dask.delayed(_permutation)(piv.to_dask(), A.m)
    p = da.from_delayed(order, (A.m,), dtype=np.int32).rechunk(A.nb)
    if p_indices:
        return p, lower, upper
    P = p[:, None] == da.arange(A.m, chunks=A.nb)[None, :]
    return P.astype(np.zeros(0, A.dtype).real.dtype), lower, upper


def _lower(block: Any, block_info: Any = None) -> Any:
    """A block of L: below the diagonal that of the factors, ones on it."""
    (top, _), (left, _) = _range(block_info)
    below = np.tril(block, top - left - 1)
    return below + np.eye(block.shape[0], block.shape[1], top - left, dtype=block.dtype)


def _upper(block: Any, block_info: Any = None) -> Any:
    (top, _), (left, _) = _range(block_info)
    return np.triu(block, top - left)


def _range(block_info: Any) -> Any:
    """Where a block begins and ends in the matrix; Dask also asks with an empty one."""
    return block_info[0]["array-location"] if block_info else ((0, 0), (0, 0))


def _permutation(piv: Any, m: int) -> Any:
    return np.argsort(row_order(piv, m)).astype(np.int32)


def _diagonal(a: Any, check_finite: bool, nb: int | None) -> tuple[Any, Any]:
    """The diagonal of U, and the sign of the permutation."""
    import dask.array as da

    A = _Inputs(nb, a).matrix("a", a, check_finite)
    square(a=A)
    pivots: Any = lapack.getrf(A)
    piv = pivots.to_dask()
    rows = da.arange(A.n, chunks=piv.chunks[0] if A.n else 1)
    sign = 1 - 2 * ((piv != rows).sum() % 2)
    return da.diagonal(A.to_dask()), sign.astype(np.zeros(0, A.dtype).real.dtype)


def det(a: Any, check_finite: bool, nb: int | None) -> Any:
    """See `taskla.linalg.det`; a Dask array without dimensions, double as SciPy's."""
    import dask.array as da

    diagonal, sign = _diagonal(a, check_finite, nb)
    diagonal = diagonal.astype(np.result_type(diagonal.dtype, np.float64))
    # what precedes a zero may overflow
    singular = (diagonal == 0).any()
    return da.where(singular, 0, da.where(singular, 1, diagonal).prod() * sign)


def slogdet(a: Any, nb: int | None) -> Any:
    """See `taskla.linalg.slogdet`; Dask arrays without dimensions."""
    import dask.array as da

    diagonal, sign = _diagonal(a, False, nb)
    singular = (diagonal == 0).any()
    diagonal = da.where(singular, 1, diagonal)
    size = abs(diagonal)
    phase, logdet = (diagonal / size).prod() * sign, da.log(size).sum()
    result = type(numpy_slogdet(np.eye(1)))
    return result(da.where(singular, 0, phase), da.where(singular, -np.inf, logdet))


# -- equations -------------------------------------------------------------------------------------


def solve(
    a: Any,
    b: Any,
    lower: bool,
    check_finite: bool,
    assume_a: str | None,
    transposed: bool,
    nb: int | None,
    precision: str | None,
    full_output: bool,
) -> Any:
    """See `taskla.linalg.solve`; a matrix of which nothing is said is taken for a general one."""
    inputs = _Inputs(nb, a, b)
    structure, uplo = structure_of(a, assume_a, lower)
    A = inputs.matrix("a", a, check_finite, uplo)
    X = inputs.matrix("b", b, check_finite)
    square(a=A)
    rows_fit(A, X)
    if transposed and A.dtype.kind == "c":
        raise NotImplementedError("transposed is True and the matrices are complex")
    info = full_precision(A.dtype, precision)
    trans: Literal["N", "T"] = "T" if transposed else "N"
    if (low := low_format(precision, A.dtype)) is not None:
        info = _refined(A, X, structure, uplo, trans, low)
    if info.solver == "full":
        _solve(A, X, structure, uplo, trans)
    x = inputs.result(X, b)
    return (x, info) if full_output else x


def _refined(
    A: DaskMatrix,
    X: DaskMatrix,
    structure: Structure,
    uplo: Uplo | None,
    trans: Literal["N", "T"],
    low: str,
) -> RefinementInfo:
    """Solve in place with factors in a lower precision, at once; if that fails X is as it was."""
    if structure == "general":
        return refined(A, X, low, lapack.lu_solver("partial"), trans=trans).info
    if structure == "positive":
        letter = "U" if uplo == "upper" else "L"
        return refined(A, X, low, lapack.cholesky_solver(letter), uplo=letter).info
    return full_precision(A.dtype, low, f"the matrix is {structure} triangular")


def _solve(
    A: DaskMatrix, X: DaskMatrix, structure: Structure, uplo: Uplo | None, trans: str
) -> None:
    """Solve in place."""
    if structure == "general":
        piv = lapack.getrf(A)
        A.guard_diagonal("matrix")
        lapack.getrs(A, piv, X, trans=trans)
    elif structure == "positive":
        lapack.posv(A, X, uplo)
    else:
        A.guard_diagonal("matrix")
        lapack.trsm("L", uplo, trans, "N", 1.0, A, X)


def solve_triangular(
    a: Any,
    b: Any,
    trans: int | str,
    lower: bool,
    unit_diagonal: bool,
    check_finite: bool,
    nb: int | None,
) -> Any:
    """See `taskla.linalg.solve_triangular`."""
    letter = {0: "N", 1: "T", 2: "C", "N": "N", "T": "T", "C": "C"}.get(trans)
    if letter is None:
        raise ValueError(f"trans is {trans!r}; allowed: 0, 1, 2, 'N', 'T', 'C'")
    inputs = _Inputs(nb, a, b)
    uplo = triangle_asked("a", a, lower, default=False)
    A = inputs.matrix("a", a, check_finite, uplo)
    X = inputs.matrix("b", b, check_finite)
    square(a=A)
    rows_fit(A, X)
    if not unit_diagonal:
        A.guard_diagonal("triangle")
    lapack.trsm("L", uplo, letter, "U" if unit_diagonal else "N", 1.0, A, X)
    return inputs.result(X, b)


def inv(a: Any, check_finite: bool, assume_a: str | None, lower: bool, nb: int | None) -> Any:
    """See `taskla.linalg.inv`."""
    inputs = _Inputs(nb, a)
    structure, uplo = structure_of(a, assume_a, lower)
    A = inputs.matrix("a", a, check_finite, uplo)
    square(a=A)
    if structure == "general":
        X = A.like_function(_identity)
        _solve(A, X, structure, uplo, "N")
        return inputs.result(X, a)
    if structure == "positive":
        lapack.potri(lapack.potrf(A, uplo), uplo)
        fill = "hermitian" if A.dtype.kind == "c" else "symmetric"
        return A if isinstance(a, TiledMatrix) else A.to_dask(fill)  # type: ignore[arg-type]
    A.guard_diagonal("matrix")
    lapack.trtri(A, uplo)
    return inputs.result(A, a)


def _identity(rows: Any, cols: Any) -> Any:
    return np.equal(rows[:, None], cols).astype(np.float32)


# -- products, norms -------------------------------------------------------------------------------


def matmul(
    x1: Any,
    x2: Any,
    out: Any,
    nb: int | None,
    precision: PrecisionMap | str | None,
    options: dict[str, Any],
) -> Any:
    """See `taskla.linalg.matmul`."""
    if out is not None or options:
        names = ", ".join([*(["out"] if out is not None else []), *options])
        raise TypeError(f"matmul on Dask takes no {names}")
    inputs = _Inputs(nb, x1, x2)
    A, B = inputs.matrix("x1", x1, False), inputs.matrix("x2", x2, False)
    full(x1=A, x2=B)
    transa = "T" if np.ndim(x1) == 1 and not isinstance(x1, TiledMatrix) else "N"
    m, k = A.shape[::-1] if transa == "T" else A.shape
    if k != B.m:
        raise ValueError(f"x1 has {k} columns and x2 {B.m} rows; they must be as many")
    C = inputs.zeros((m, B.n))
    lapack.gemm(1.0, A, B, 0.0, C, transa=transa, precision=precision)
    if isinstance(x1, TiledMatrix) and isinstance(x2, TiledMatrix):
        return C
    product = C.in_pieces()
    if np.ndim(x2) == 1 and not isinstance(x2, TiledMatrix):
        product = product[:, 0]
    return product[0] if transa == "T" else product


def symm(
    a: Any,
    b: Any,
    c: Any,
    alpha: complex,
    beta: complex,
    side: str,
    lower: bool,
    nb: int | None,
    precision: PrecisionMap | str | None,
) -> Any:
    """See `taskla.linalg.symm`."""
    if c is None and beta:
        raise ValueError(f"beta is {beta!r} and there is no c")
    inputs = _Inputs(nb, a, b, *([] if c is None else [c]))
    uplo = triangle_asked("a", a, lower, default=True)
    A, B = inputs.matrix("a", a, False, uplo), inputs.matrix("b", b, False)
    C = inputs.zeros(B.shape) if c is None else inputs.matrix("c", c, False)
    lapack.symm(side, uplo, alpha, A, B, beta, C, precision=precision)
    return inputs.result(C, b)


def norm(a: Any, ord: Any, axis: Any, keepdims: bool, check_finite: bool) -> Any:
    """See `taskla.linalg.norm`: Dask's own, of the chunks; a Dask array."""
    import dask.array as da

    if isinstance(a, TiledMatrix):
        full(a=a)
        a = a.to_dask()
    if check_finite:
        a = a.map_blocks(_checked, dtype=a.dtype)
    return da.linalg.norm(a, ord, axis, keepdims)


def _checked(block: Any) -> Any:
    return np.asarray_chkfinite(block)


def _in(precision: Precision | None, A: DaskMatrix, by: By = "tile") -> DaskMatrix:
    """Return a matrix in the formats that are asked for; "adaptive" is for tiles or columns."""
    return A if precision is None else A.with_precision(precision_map(precision, by))


# -- arguments -------------------------------------------------------------------------------------


class _Inputs:
    """The arguments of one call, as matrices on one engine, of one type and tile size.

    Parameters
    ----------
    nb : int or None
        The tile size that was asked for.
    *given : array or TiledMatrix
        All matrices of the call, the one that decides on tiles first.
    """

    def __init__(self, nb: int | None, *given: Any) -> None:
        self._given = given
        self.engine = self._engine()
        types = [x if hasattr(x, "dtype") else np.asarray(x) for x in given]
        dtype = lapack_dtype(*types)
        if dtype is None:
            raise TypeError(f"no LAPACK type holds all of {', '.join(str(x.dtype) for x in types)}")
        if all(x.dtype.kind in "biu" for x in types):
            dtype = np.dtype(np.float64)
        self.dtype = dtype
        tiled = [x for x in given if isinstance(x, TiledMatrix)]
        self.nb: int | None = tile_size(nb, *tiled) if tiled else nb

    def _engine(self) -> DaskEngine:
        for x in self._given:
            if hasattr(x, "engine"):
                return x.engine  # type: ignore[no-any-return]
        return dask_engine()  # type: ignore[no-any-return]

    def matrix(self, name: str, x: Any, check_finite: bool, uplo: Uplo | None = None) -> DaskMatrix:
        """Return an argument as a matrix that may be worked on in place."""
        A = self._matrix(name, x, check_finite, uplo)
        self.nb = A.nb
        return A

    def _matrix(self, name: str, x: Any, check_finite: bool, uplo: Uplo | None) -> DaskMatrix:
        from taskla.engines.dask_matrix import DaskMatrix

        if isinstance(x, DaskMatrix):
            A = x if x.dtype == self.dtype else x.astype(self.dtype)
            A = A.stored_as(x.uplo or uplo)
            A.unchecked = check_finite
            return A
        if isinstance(x, TiledMatrix):
            uplo, x = x.uplo or uplo, x.to_array(copy=None)
        if not hasattr(x, "__dask_graph__"):
            import dask.array as da

            x = np.asarray_chkfinite(x) if check_finite else np.asarray(x)
            check_finite = False
            x = da.from_array(x, chunks=self.nb or x.shape)
        if x.ndim not in (1, 2):
            raise ValueError(f"{name} has {x.ndim} dimensions; on Dask a matrix has 2, a vector 1")
        if np.isnan(x.shape).any():
            raise ValueError(
                f"{name} has chunks of unknown size; {name}.compute_chunk_sizes() finds them"
            )
        if x.dtype != self.dtype:
            x = x.astype(self.dtype)
        A = self.engine.matrix(x, self.nb, uplo)
        A.unchecked = check_finite
        return A

    def zeros(self, shape: tuple[int, int]) -> DaskMatrix:
        """Return a matrix of zeros."""
        return self.engine.zeros(shape, self.nb, self.dtype)

    def result(self, X: DaskMatrix, like: Any) -> Any:
        """Return X as `like` was given: tiled, or a Dask array."""
        if isinstance(like, TiledMatrix):
            return X
        x = X.in_pieces()
        return x[:, 0] if np.ndim(like) == 1 else x
