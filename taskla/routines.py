"""What can be timed, checked and planned by name: one entry a LAPACK-named function.

An entry says which options a routine has, what its operands are for given sizes, how it is called
and how many flops count for it. `taskla.plan` calls routines on outlines of matrices, the command
line on random ones, so that both see the same task graph.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from taskla import lapack
from taskla.formats import format_of
from taskla.matrix import TiledMatrix
from taskla.matrix_layout import Uplo, choose_nb
from taskla.operations import OPERATIONS
from taskla.precision import NAMES, PrecisionMap
from taskla.refinement import LOW, low_format

__all__ = [
    "ALPHA",
    "BETA",
    "FACTORED",
    "MOST_TASKS",
    "PRODUCTS",
    "ROUTINES",
    "TYPES",
    "Operand",
    "Problem",
    "Routine",
    "keeps_formats",
    "problem",
    "refuse_too_many_tasks",
]

#: LAPACK's letters
TYPES = {"s": "float32", "d": "float64", "c": "complex64", "z": "complex128"}

#: Scalars of the products: neither 0 nor 1, which kernels treat apart, and exact in every format.
ALPHA, BETA = -0.5, 1.5

#: The routines whose A may have tiles of several number formats, and the products that may be made
#: in a lower one.
FACTORED = ("potrf", "potrs", "posv", "getrf", "getrs", "gesv")
PRODUCTS = ("gemm", "symm", "hemm")

#: A graph of more tile tasks than these, of 300 bytes each, is not built.
MOST_TASKS = 20_000_000

Matrices = Sequence[TiledMatrix]


@dataclass(frozen=True)
class Problem:
    """One call: the routine, its sizes, its options. `problem` checks and completes them.

    Attributes
    ----------
    op : str
        A name in `ROUTINES`.
    m, n, k, nrhs : int
        Sizes. A routine on square matrices has the order n; k is the inner dimension of a product,
        nrhs the number of right-hand sides.
    nb : int
        Tile size.
    type : {"s", "d", "c", "z"}
    uplo, side, trans, transa, transb, diag : str
        BLAS's letters.
    pivot : {"partial", "tournament", "none"}
    norm : {"M", "1", "I", "F"}
    stationary : {"C", "A", "B"}
    factors : {None, "fp32", "bf16", "fp16"}
        The format in which hpl-mxp factors.
    formats : str, optional
        A rule of `taskla.PrecisionMap`, for the tiles of A (`FACTORED`) or for products.
    """

    op: str
    n: int
    m: int
    k: int
    nrhs: int
    nb: int
    type: str
    uplo: str = "L"
    side: str = "L"
    trans: str = "N"
    transa: str = "N"
    transb: str = "N"
    diag: str = "N"
    pivot: str = "partial"
    norm: str = "1"
    stationary: str = "C"
    factors: str | None = None
    formats: str | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's data type."""
        return np.dtype(TYPES[self.type])

    @property
    def precision(self) -> str:
        """Name of the number format, as in `taskla.formats`: of the tiles, or of their factors."""
        return self.factors or self.formats or format_of(self.dtype).name

    @property
    def routine(self) -> Routine:
        """The entry of the table."""
        return ROUTINES[self.op]

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The matrices, in the order in which the routine takes them."""
        return self.routine.operands(self)

    @property
    def flops(self) -> float:
        """Flops that count for the routine (LAPACK working note 41), however it is tiled."""
        if self.routine.flops is not None:
            return self.routine.flops(self)
        parts = self.routine.cost(self)
        complex_type = self.dtype.kind == "c"
        return float(sum(OPERATIONS[name].flops(shapes, complex_type) for name, *shapes in parts))

    @property
    def tile_tasks(self) -> int:
        """Tile tasks of the routine, about: its products, were each tile one number."""
        sizes = ("n", "m", "k", "nrhs")
        tiles = replace(self, nb=1, **{name: -(-getattr(self, name) // self.nb) for name in sizes})
        costs = [OPERATIONS[name].cost(shapes) for name, *shapes in tiles.routine.cost(tiles)]
        return round(sum(max(float(part) for part in cost) for cost in costs))

    @property
    def order(self) -> int:
        """Order of the square operand beside an m x n one."""
        return self.m if self.side == "L" else self.n


@dataclass(frozen=True)
class Operand:
    """A matrix of a routine: its name, its shape, what random entries it needs, what it stores.

    ``kind`` is one of `taskla.matrix_random.KINDS`, or "triangular", well-conditioned, or "factor",
    the same with the real diagonal of a Cholesky factor. ``uplo`` is the triangle that is stored,
    None for all tiles.
    """

    name: str
    m: int
    n: int
    kind: str = "general"
    uplo: Uplo | None = None


@dataclass(frozen=True)
class Routine:
    """How a routine is called; p, X and given below are a problem, its matrices, what was prepared.

    Attributes
    ----------
    options : frozenset of str
        The fields of `Problem` that it uses besides n, nb and type.
    operands : callable
        From a problem to its matrices.
    call : callable
        ``call(p, X, given)`` computes, in place, and returns what the routine returns.
    cost : callable
        From a problem to ``(operation, *shapes)`` whose flops count.
    prepare : callable, optional
        ``prepare(p, X)`` computes what the routine wants first, a factor say; the pivots of one are
        `given`.
    flops : callable, optional
        From a problem to the flops that count, where those of LAPACK do not.
    """

    options: frozenset[str]
    operands: Callable[[Problem], tuple[Operand, ...]]
    call: Callable[[Problem, Matrices, Any], Any]
    cost: Callable[[Problem], Sequence[tuple[Any, ...]]]
    prepare: Callable[[Problem, Matrices], Any] | None = None
    flops: Callable[[Problem], float] | None = None


def problem(
    op: str, n: int, nb: int | None = None, type: str = "d", workers: int = 1, **options: Any
) -> Problem:
    """Return a problem; options that are None take their defaults.

    Parameters
    ----------
    op : str
        A name in `ROUTINES`.
    n : int
        Columns, or the order of a square matrix.
    nb : int, optional
        Tile size. Default: that of `taskla.matrix_layout.choose_nb` for `workers`.
    type : str, default "d"
        A letter, or NumPy's name of the data type.
    workers : int, default 1
        Only to choose `nb`.
    **options
        Other fields of `Problem`; m and k default to n, nrhs to 1. ``precision`` is that of the
        factors of hpl-mxp, by default fp32; of `FACTORED` a rule for the tiles of A, of `PRODUCTS`
        one for products: see `taskla.PrecisionMap`. Of these a format that `type` has anyway, or a
        wider one, is as none.

    Raises
    ------
    FileNotFoundError
        When a rule is a file that is not there.
    ValueError
        When there is no such routine, it does not have an option, or a value is not allowed.
    """
    if op not in ROUTINES:
        close = get_close_matches(op, ROUTINES, n=1)
        hint = f"did you mean {close[0]}? There are" if close else "there are"
        raise ValueError(f"no operation {op!r}; {hint} {', '.join(ROUTINES)}")
    given = {name: value for name, value in options.items() if value is not None}
    allowed = ROUTINES[op].options
    for name in given:
        if name not in allowed:
            has = ", ".join(sorted(allowed)) or "none"
            raise ValueError(f"{op} has no option {name}; it has {has}")
    letters = {name: letter for letter, name in TYPES.items()} | {t: t for t in TYPES}
    if type not in letters:
        raise ValueError(f"type is {type!r}; allowed: {', '.join(letters)}")
    letter = letters[type]
    sizes = {"n": n, "m": given.pop("m", n), "k": given.pop("k", n), "nrhs": given.pop("nrhs", 1)}
    for name, size in sizes.items():
        if size < 0:
            raise ValueError(f"{name} is {size}; it must be at least 0")
    if op in FACTORED + PRODUCTS:
        given["formats"] = _rule(op, given.pop("precision", None), np.dtype(TYPES[letter]))
    elif "precision" in allowed:
        precision = given.pop("precision", "fp32")
        if precision not in LOW:
            raise ValueError(
                f"precision is {precision!r}; {op} is for factors in a lower precision than fp64: "
                f"{', '.join(LOW)}"
            )
        given["factors"] = low_format(precision, np.dtype(TYPES[letter]))
    if nb is None:
        nb = choose_nb(max(sizes["n"], sizes["m"]), TYPES[letter], workers)
    if nb < 1:
        raise ValueError(f"nb is {nb}; it must be at least 1")
    made = Problem(op=op, nb=nb, type=letter, **sizes, **given)
    if made.formats is not None and made.stationary != "C":
        raise ValueError(f"stationary is {made.stationary!r}; with a precision it must be 'C'")
    if made.formats is not None and PrecisionMap(made.formats).is_file:
        # what is wrong with a file is said before anything runs
        PrecisionMap(made.formats).of_shape(-(-made.m // nb), -(-made.n // nb))
    return made


def keeps_formats(precision: PrecisionMap, dtype: np.dtype[Any]) -> bool:
    """Whether a rule leaves all tiles of a matrix as they are, by naming its format or a wider one.

    Parameters
    ----------
    precision : PrecisionMap
    dtype : numpy.dtype
        Of the matrix.
    """
    if precision.uniform is None:
        return False
    return NAMES.index(precision.uniform) <= NAMES.index(format_of(dtype).name)


def _rule(op: str, precision: str | None, dtype: np.dtype[Any]) -> str | None:
    """Return a rule for formats, as it is written; ValueError for one that the routine has not."""
    if precision is None:
        return None
    found = PrecisionMap(precision)
    if keeps_formats(found, dtype):
        return None
    if op in PRODUCTS and not (found.uniform or found.needs_norms):
        raise ValueError(f"precision is {precision!r}; products take a format or 'adaptive:1e-6'")
    return str(found)


def refuse_too_many_tasks(p: Problem) -> None:
    """Raise ValueError for a problem with more tile tasks than `MOST_TASKS`, before it is built."""
    if p.tile_tasks <= MOST_TASKS:
        return
    sizes = range(max(p.n, p.m, p.k, p.nrhs) + 1)
    fit = bisect_left(sizes, True, p.nb, key=lambda nb: replace(p, nb=nb).tile_tasks <= MOST_TASKS)
    raise ValueError(
        f"{p.op} with n={p.n} and nb={p.nb} has about {p.tile_tasks:.2g} tile tasks, and "
        f"{MOST_TASKS:.0e} is the limit; nb from {fit} on would do"
    )


# -- operands --------------------------------------------------------------------------------------


def _stored(p: Problem) -> Uplo:
    return "lower" if p.uplo == "L" else "upper"


def _square(kind: str, uplo: bool = True) -> Callable[[Problem], tuple[Operand, ...]]:
    return lambda p: (Operand("A", p.n, p.n, kind, _stored(p) if uplo else None),)


def _with_rhs(kind: str, uplo: bool) -> Callable[[Problem], tuple[Operand, ...]]:
    return lambda p: (*_square(kind, uplo)(p), Operand("B", p.n, p.nrhs))


def _getrf_operands(p: Problem) -> tuple[Operand, ...]:
    return (Operand("A", p.m, p.n, "dominant" if p.pivot == "none" else "general"),)


def _hpl_mxp_operands(p: Problem) -> tuple[Operand, ...]:
    return Operand("A", p.n, p.n, "dominant"), Operand("B", p.n, 1)


def _lu_with_rhs(p: Problem) -> tuple[Operand, ...]:
    return (*_getrf_operands(p), Operand("B", p.n, p.nrhs))


def _gemm_operands(p: Problem) -> tuple[Operand, ...]:
    a = (p.m, p.k) if p.transa == "N" else (p.k, p.m)
    b = (p.k, p.n) if p.transb == "N" else (p.n, p.k)
    return Operand("A", *a), Operand("B", *b), Operand("C", p.m, p.n)


def _symm_operands(kind: str) -> Callable[[Problem], tuple[Operand, ...]]:
    return lambda p: (
        Operand("A", p.order, p.order, kind, _stored(p)),
        Operand("B", p.m, p.n),
        Operand("C", p.m, p.n),
    )


def _rank_k_operands(kind: str) -> Callable[[Problem], tuple[Operand, ...]]:
    return lambda p: (
        Operand("A", *((p.n, p.k) if p.trans == "N" else (p.k, p.n))),
        Operand("C", p.n, p.n, kind, _stored(p)),
    )


def _triangular_operands(p: Problem) -> tuple[Operand, ...]:
    return Operand("A", p.order, p.order, "triangular", _stored(p)), Operand("B", p.m, p.n)


# -- calls -----------------------------------------------------------------------------------------


def _factor(p: Problem, matrices: Matrices) -> None:
    lapack.potrf(matrices[0])


def _factor_lu(p: Problem, matrices: Matrices) -> Any:
    return lapack.getrf(matrices[0], p.pivot)  # type: ignore[arg-type]


def _gesv(p: Problem, matrices: Matrices, given: Any) -> Any:
    pivot: Any = p.pivot
    return lapack.gesv(matrices[0], matrices[1], pivot)


def _hpl_mxp(p: Problem, matrices: Matrices, given: Any) -> Any:
    pivot: Any = p.pivot
    return lapack.gesv(matrices[0], matrices[1], pivot, precision=p.factors)


def _gemm(p: Problem, matrices: Matrices, given: Any) -> Any:
    A, B, C = matrices
    letters = {"transa": p.transa, "transb": p.transb, "stationary": p.stationary}
    return lapack.gemm(ALPHA, A, B, BETA, C, **letters, precision=p.formats)


def _symm(routine: Callable[..., Any]) -> Callable[[Problem, Matrices, Any], Any]:
    return lambda p, X, _: routine(
        p.side,
        p.uplo,
        ALPHA,
        X[0],
        X[1],
        BETA,
        X[2],
        stationary=p.stationary,
        precision=p.formats,
    )


def _rank_k(routine: Callable[..., Any]) -> Callable[[Problem, Matrices, Any], Any]:
    return lambda p, X, _: routine(p.uplo, p.trans, ALPHA, X[0], BETA, X[1])


def _triangular(routine: Callable[..., Any]) -> Callable[[Problem, Matrices, Any], Any]:
    return lambda p, X, _: routine(p.side, p.uplo, p.trans, p.diag, ALPHA, X[0], X[1])


# -- flops -----------------------------------------------------------------------------------------

Cost = Callable[[Problem], Sequence[tuple[Any, ...]]]


def _on_square(*names: str) -> Cost:
    return lambda p: [(name, (p.n, p.n)) for name in names]


def _solves(p: Problem) -> list[tuple[Any, ...]]:
    return [("trsm", (p.n, p.n), (p.n, p.nrhs))] * 2


def _getrf_cost(p: Problem) -> list[tuple[Any, ...]]:
    return [("getrf", (p.m, p.n))]


def _gemm_cost(p: Problem) -> list[tuple[Any, ...]]:
    return [("gemm", (p.m, p.k), (p.k, p.n), (p.m, p.n))]


def _symm_cost(p: Problem) -> list[tuple[Any, ...]]:
    return [("symm", (p.order, p.order), (p.m, p.n), (p.m, p.n))]


def _rank_k_cost(p: Problem) -> list[tuple[Any, ...]]:
    return [("syrk", (p.n, p.k), (p.n, p.n))]


def _triangular_cost(p: Problem) -> list[tuple[Any, ...]]:
    return [("trsm", (p.order, p.order), (p.m, p.n))]


# -- the table -------------------------------------------------------------------------------------


def _routine(
    options: str,
    operands: Callable[[Problem], tuple[Operand, ...]],
    call: Callable[[Problem, Matrices, Any], Any],
    cost: Cost,
    prepare: Callable[[Problem, Matrices], Any] | None = None,
    flops: Callable[[Problem], float] | None = None,
) -> Routine:
    return Routine(frozenset(options.split()), operands, call, cost, prepare, flops)


ROUTINES: dict[str, Routine] = {
    "potrf": _routine(
        "uplo precision", _square("spd"), lambda p, X, _: lapack.potrf(X[0]), _on_square("potrf")
    ),
    "potrs": _routine(
        "uplo nrhs precision",
        _with_rhs("spd", True),
        lambda p, X, _: lapack.potrs(X[0], X[1]),
        _solves,
        _factor,
    ),
    "posv": _routine(
        "uplo nrhs precision",
        _with_rhs("spd", True),
        lambda p, X, _: lapack.posv(X[0], X[1]),
        lambda p: [*_on_square("potrf")(p), *_solves(p)],
    ),
    "potri": _routine(
        "uplo",
        _square("spd"),
        lambda p, X, _: lapack.potri(X[0]),
        _on_square("trtri", "lauum"),
        _factor,
    ),
    "trtri": _routine(
        "uplo diag",
        _square("triangular"),
        lambda p, X, _: lapack.trtri(X[0], diag=p.diag),
        _on_square("trtri"),
    ),
    "lauum": _routine(
        "uplo", _square("factor"), lambda p, X, _: lapack.lauum(X[0]), _on_square("lauum")
    ),
    "getrf": _routine(
        "m pivot precision", _getrf_operands, lambda p, X, _: _factor_lu(p, X), _getrf_cost
    ),
    "getrs": _routine(
        "nrhs trans pivot precision",
        _lu_with_rhs,
        lambda p, X, piv: lapack.getrs(X[0], piv, X[1], p.trans),
        _solves,
        _factor_lu,
    ),
    "gesv": _routine(
        "nrhs pivot precision", _lu_with_rhs, _gesv, lambda p: [*_getrf_cost(p), *_solves(p)]
    ),
    "hpl-mxp": _routine(
        "pivot precision",
        _hpl_mxp_operands,
        _hpl_mxp,
        lambda p: [*_getrf_cost(p), *_solves(p)],
        # HPL-MxP's rules; refinement counts for nothing
        flops=lambda p: 2 / 3 * p.n**3 + 3 / 2 * p.n**2,
    ),
    "gemm": _routine("m k transa transb stationary precision", _gemm_operands, _gemm, _gemm_cost),
    "symm": _routine(
        "m side uplo stationary precision",
        _symm_operands("symmetric"),
        _symm(lapack.symm),
        _symm_cost,
    ),
    "hemm": _routine(
        "m side uplo stationary precision",
        _symm_operands("hermitian"),
        _symm(lapack.hemm),
        _symm_cost,
    ),
    "syrk": _routine(
        "k uplo trans", _rank_k_operands("symmetric"), _rank_k(lapack.syrk), _rank_k_cost
    ),
    "herk": _routine(
        "k uplo trans", _rank_k_operands("hermitian"), _rank_k(lapack.herk), _rank_k_cost
    ),
    "trsm": _routine(
        "m side uplo trans diag", _triangular_operands, _triangular(lapack.trsm), _triangular_cost
    ),
    "trmm": _routine(
        "m side uplo trans diag", _triangular_operands, _triangular(lapack.trmm), _triangular_cost
    ),
    "lange": _routine(
        "m norm",
        lambda p: (Operand("A", p.m, p.n),),
        lambda p, X, _: lapack.lange(p.norm, X[0]),
        lambda p: [("lange", (p.m, p.n))],
    ),
    "lansy": _routine(
        "uplo norm",
        _square("symmetric"),
        lambda p, X, _: lapack.lansy(p.norm, X[0]),
        _on_square("lange"),
    ),
}
