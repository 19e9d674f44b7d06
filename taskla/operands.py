"""What the LAPACK-named functions share: checks of arguments, and running a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla import engines
from taskla.algorithms import diagonal as _diagonal
from taskla.matrix import TiledMatrix
from taskla.matrix_store import triangle_name
from taskla.mixed_run import is_mixed, run_mixed, run_products
from taskla.precision import PrecisionMap, precision_map
from taskla.programs import Layout, program
from taskla.tile import Tile

__all__ = [
    "Columns",
    "choice",
    "diagonal",
    "full",
    "interchanges_of",
    "layouts",
    "match",
    "norm_letter",
    "pivot_column",
    "products_map",
    "run",
    "scalar",
    "square",
    "stored_triangle",
    "tiled",
]

_NORMS = {"M": "M", "MAX": "M", "1": "1", "O": "1", "ONE": "1", "I": "I", "INF": "I"}
_NORMS |= {"F": "F", "E": "F", "FRO": "F"}


class Columns:
    """Small per-tile columns beside a matrix: pivots, shares of a norm.

    Parameters
    ----------
    columns : (mt, nt) nested lists of 1-D arrays
    """

    def __init__(self, columns: list[list[NDArray[Any]]]) -> None:
        self.columns = columns
        self._tiles = [[Tile(column) for column in row] for row in columns]
        self._vector: NDArray[Any] = np.empty(0)

    @classmethod
    def of_vector(cls, vector: NDArray[Any], nb: int) -> Columns:
        """Tiles of `nb` entries each of one vector, as views."""
        columns = cls([[vector[start : start + nb]] for start in range(0, vector.size, nb)])
        columns._vector = vector
        return columns

    def from_zero(self) -> NDArray[Any]:
        """Return the vector of pivots, which LAPACK counts from 1, counted from 0: in its place."""
        self._vector -= 1
        return self._vector

    def tile(self, i: int, j: int) -> Tile:
        """Tile (i, j)."""
        return self._tiles[i][j]


def choice(name: str, value: Any, allowed: str) -> str:
    """One of the letters `allowed`, by its first letter in either case ("lower" is "L")."""
    letter = value[:1].upper() if isinstance(value, str) else ""
    if not letter or letter not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return letter


def norm_letter(norm: Any) -> str:
    """Return "M", "1", "I" or "F", whichever of LAPACK's and NumPy's spellings was given."""
    key = "INF" if norm == np.inf else str(norm).upper()
    if key not in _NORMS:
        raise ValueError(f"norm must be 'M' (max), '1', 'I' (inf) or 'F' (fro), not {norm!r}")
    return _NORMS[key]


def stored_triangle(A: TiledMatrix, uplo: Any) -> str:
    """The triangle to use: what was asked for, if it is stored."""
    stored = None if A.uplo is None else A.uplo[0].upper()
    name = triangle_name(uplo)
    if name is None:
        return stored or "L"
    letter = name[0].upper()
    if stored not in (None, letter):
        raise ValueError(f"uplo is {uplo!r}, but the matrix stores its {A.uplo} triangle only")
    return letter


def tiled(**matrices: Any) -> None:
    """Refuse what is no tiled matrix."""
    for name, matrix in matrices.items():
        if not isinstance(matrix, TiledMatrix):
            raise TypeError(f"{name} must be a TiledMatrix, not {type(matrix).__name__}")


def square(**matrices: TiledMatrix) -> None:
    """Refuse matrices that are not square."""
    tiled(**matrices)
    for name, matrix in matrices.items():
        if matrix.m != matrix.n:
            raise ValueError(f"{name} must be square, not {matrix.m} x {matrix.n}")


def full(**matrices: TiledMatrix) -> None:
    """Refuse matrices that store one triangle only."""
    tiled(**matrices)
    for name, matrix in matrices.items():
        if matrix.uplo is not None:
            raise ValueError(f"{name} must store all of its tiles, not its {matrix.uplo} triangle")


def match(what: str, expected: tuple[int, int], **matrix: TiledMatrix) -> None:
    """Refuse a matrix of another shape."""
    ((name, given),) = matrix.items()
    if (given.m, given.n) != expected:
        raise ValueError(
            f"{name} must be {expected[0]} x {expected[1]} {what}, not {given.m} x {given.n}"
        )


def layouts(written: tuple[str, ...], **matrices: TiledMatrix) -> tuple[Layout, ...]:
    """What a program needs to know of matrices of one call.

    Those written must be writeable, and no other matrix of the call.
    """
    first_name, first = next(iter(matrices.items()))
    for name, matrix in matrices.items():
        if matrix.dtype != first.dtype:
            raise ValueError(
                f"{name} has data type {matrix.dtype} and {first_name} {first.dtype}: "
                "they must be the same"
            )
        if matrix.nb != first.nb:
            raise ValueError(
                f"{name} has nb={matrix.nb} and {first_name} nb={first.nb}: they must be the same"
            )
        if name in written and not matrix.writeable:
            raise ValueError(f"{name} is read-only and is worked on in place: pass a copy()")
        for other in written:
            if other != name and matrix is matrices[other]:
                raise ValueError(f"{other} is worked on in place and must not be {name} as well")
    return tuple(Layout(a.m, a.n, a.nb, a.dtype, name) for name, a in matrices.items())


def pivot_column(k: int, A: TiledMatrix) -> tuple[Any, Layout]:
    """Room for k pivots beside a matrix, wherever that is, and what a program knows of it."""
    make = getattr(A, "vector", None)
    dtype = np.dtype(np.int32)
    column = Columns.of_vector(np.ones(k, dtype), A.nb) if make is None else make(k, dtype)
    return column, Layout(k, 1, A.nb, dtype, "P", everywhere=True)


def interchanges_of(piv: Any, k: int, A: TiledMatrix) -> tuple[Any, Layout]:
    """The interchanges of `getrf` as LAPACK counts rows, from 1, and what a program knows of them.

    Raises
    ------
    ValueError
        When they are not k integers with ``i <= piv[i] < A.m``.
    """
    pivots = Layout(k, 1, A.nb, np.dtype(np.int32), "P", everywhere=True)
    lazy = getattr(A, "interchanges", None)
    column = None if lazy is None else lazy(piv, k)
    if column is not None:
        return column, pivots
    given = np.asarray(piv)
    if given.shape != (k,) or given.dtype.kind not in "iu":
        raise ValueError(f"piv must be ({k},) integers, not {given.dtype} of shape {given.shape}")
    if k and ((given < np.arange(k)) | (given >= A.m)).any():
        raise ValueError(f"piv must have i <= piv[i] < {A.m} for every i")
    return Columns.of_vector(given.astype(np.int32) + 1, A.nb), pivots


def scalar(value: Any, X: TiledMatrix) -> complex | float:
    """A scalar in Python's own type, which graphs can be told apart by."""
    number = complex(value)
    if number.imag and X.dtype.kind != "c":
        raise ValueError(f"a complex scalar, {value!r}, with real matrices")
    return number if number.imag else number.real


def diagonal(A: TiledMatrix) -> NDArray[Any]:
    """The diagonal of a matrix, (min(m, n),), on all ranks."""
    found = np.zeros(min(A.m, A.n), A.dtype)
    (a,) = layouts((), A=A)
    column = Layout(found.size, 1, A.nb, A.dtype, "D", everywhere=True)
    run(_diagonal.diagonal, [A, Columns.of_vector(found, A.nb)], (a, column))
    return found


def products_map(precision: PrecisionMap | str | None, stationary: str) -> PrecisionMap | None:
    """Return the map of ``precision=`` of a product, None for none.

    Raises
    ------
    ValueError
        When it is neither a format nor adaptive, or the result does not stay where it is.
    """
    if precision is None:
        return None
    if stationary != "C":
        raise ValueError(f"stationary is {stationary!r}; with a precision it must be 'C'")
    found = precision_map(precision)
    if isinstance(found, PrecisionMap) and (found.uniform or found.needs_norms):
        return found
    raise ValueError(f"precision is {precision!r}; products take a format or 'adaptive:1e-6'")


def run(
    algorithm: Callable[..., None],
    matrices: Sequence[TiledMatrix | Columns],
    shapes: tuple[Layout, ...],
    params: tuple[Any, ...] = (),
    precision: PrecisionMap | None = None,
) -> None:
    """Run an algorithm on the current engine; `shapes` has the scratch matrices too, last.

    Matrices that belong to an engine, wherever they are used, stay on it. `precision` is for
    products, see `taskla.mixed_run.run_products`.
    """
    graph = program(algorithm, shapes, params)
    if graph.n:
        own = [matrix.engine for matrix in matrices if hasattr(matrix, "engine")]
        engine = own[0] if own else engines.current()
        if precision is not None:
            run_products(engine, graph, matrices, precision)
        elif any(map(is_mixed, matrices)):
            run_mixed(engine, graph, matrices)
        else:
            engine.run(graph, matrices)
