"""What the functions do with tiled matrices before and after anything is computed.

A matrix may be shared by several ranks: each looks at, copies and changes its own tiles. Only what
is thin is gathered: right-hand sides given as arrays, diagonals, one value of each rank.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla import distributions, engines
from taskla.flow import TaskFlow, Tiles
from taskla.linalg._inputs import Array, columns, lapack_dtype, operand, scratch, tiled
from taskla.matrix import TiledMatrix
from taskla.matrix_layout import Uplo, each_tile
from taskla.matrix_store import merge_triangles, triangle
from taskla.operands import layouts, run
from taskla.precision import Precision

__all__ = [
    "Given",
    "clear",
    "common_dtype",
    "finite",
    "matrix",
    "mirror",
    "read",
    "result",
    "rows_fit",
    "tile_size",
    "triangle_asked",
    "writable",
]

Given: TypeAlias = TiledMatrix | Array


# Arguments ----------------------------------------------------------------------------------------


def matrix(name: str, a: Any) -> Given:
    """Return an argument as a TiledMatrix or a 2-D array, a vector as one column.

    Raises
    ------
    ValueError
        When `a` is a batch.
    """
    if isinstance(a, TiledMatrix):
        return a
    array = np.asanyarray(a)
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array; fill it first")
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name} has {array.ndim} dimensions; beside a TiledMatrix an array has 1 or 2"
        )
    return columns(np.asarray(array))


def tile_size(nb: int | None, *matrices: object) -> int:
    """Return the tile size of the first TiledMatrix; ValueError if `nb` is given and another."""
    own = next(a.nb for a in matrices if isinstance(a, TiledMatrix))
    if nb not in (None, own):
        raise ValueError(f"nb is {nb!r}; a TiledMatrix has its tile size, here {own}")
    return own


def common_dtype(**matrices: Given) -> np.dtype[Any]:
    """Return the LAPACK type that all matrices fit; TypeError if there is none."""
    # a TiledMatrix has a dtype as well, and no more is asked
    found = lapack_dtype(*matrices.values())  # type: ignore[arg-type]
    if found is None:
        types = ", ".join(f"{name} {a.dtype}" for name, a in matrices.items())
        raise TypeError(f"no LAPACK type holds all of {types}")
    return found


def rows_fit(a: Given, b: Given) -> None:
    """Raise ValueError unless `b` has as many rows as `a`."""
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"b has {b.shape[0]} rows and a {a.shape[0]}; they must be as many")


def triangle_asked(name: str, a: Given, lower: Any, default: bool | None = None) -> Uplo:
    """Return the triangle to use: the stored one, else what `lower` says.

    Raises
    ------
    ValueError
        When `lower` is not its default, None for none, and the other triangle is stored.
    """
    wanted: Uplo = "lower" if lower else "upper"
    stored = a.uplo if isinstance(a, TiledMatrix) else None
    if stored is None or stored == wanted:
        return wanted
    if default is None or bool(lower) != default:
        raise ValueError(f"lower is {lower!r} and {name} stores its {stored} triangle only")
    return stored


def read(a: Given, nb: int, dtype: np.dtype[Any], uplo: Uplo | None = None) -> TiledMatrix:
    """Return a matrix that is only read: `a` itself where it can be."""
    if isinstance(a, TiledMatrix):
        return a if a.dtype == dtype else _copied(a, dtype)
    return tiled(operand(a, dtype, False), nb, uplo)


def writable(
    a: Given,
    nb: int,
    dtype: np.dtype[Any],
    overwrite: bool,
    precision: Precision | None = None,
) -> TiledMatrix:
    """Return a matrix that may be overwritten: a copy, or `a` itself if that may be.

    With a precision it is a copy whose tiles have the formats asked for.
    """
    if precision is not None and isinstance(a, TiledMatrix):
        return a.with_precision(precision)
    if not isinstance(a, TiledMatrix):
        return tiled(scratch(a, dtype, False, overwrite="FC" if overwrite else ""), nb)
    if overwrite and a.writeable and a.dtype == dtype:
        return a
    return _copied(a, dtype)


def result(X: TiledMatrix, b: Any) -> Any:
    """Return X as the right-hand side was given: tiled, or an array on all ranks."""
    if isinstance(b, TiledMatrix):
        return X
    x = X.to_array(copy=None if X.distribution is None else True)
    return x if np.ndim(b) == 2 else x[:, 0]


def _copied(A: TiledMatrix, dtype: np.dtype[Any]) -> TiledMatrix:
    """Return what `TiledMatrix.astype` does, made by all workers."""
    if A.mixed is not None and A.dtype == dtype:
        return A.copy()
    copy = A.like(dtype)

    def put(i: int, j: int) -> None:
        copy.tile(i, j).array[...] = A.tile(i, j).array

    each_tile(A.own_tiles(), put)
    return copy


# Entries ------------------------------------------------------------------------------------------


def finite(check: bool, *matrices: Given, uplo: Uplo | None = None) -> None:
    """Raise ValueError, on all ranks, if a check is asked for and an entry is infinite or NaN.

    Of a TiledMatrix with `uplo`, its own or the one that is used of it, the other triangle is not
    looked at.
    """
    if check and not all(_is_finite(a, uplo) for a in matrices):
        raise ValueError("array must not contain infs or NaNs")


def _is_finite(a: Given, uplo: Uplo | None) -> bool:
    if not isinstance(a, TiledMatrix):
        return a.dtype.kind not in "fc" or bool(np.isfinite(a).all())
    used = a.uplo or uplo
    layout = replace(a.layout, uplo=used)

    def tile_is_finite(i: int, j: int) -> bool:
        tile = a.tile(i, j).array
        return bool(np.isfinite(triangle(tile, used) if i == j else tile).all())

    own = [tile for tile in a.own_tiles() if layout.stores(*tile)]
    here = all(engines.current().map(tile_is_finite, own))
    return bool(_of_all_ranks(a, here).all())


def _of_all_ranks(A: TiledMatrix, value: float) -> NDArray[np.float64]:
    """Return one value of each of the ranks that share a matrix, on all of them."""
    if A.distribution is None:
        return np.array([value], np.float64)
    ranks = A.distribution.ranks
    return TiledMatrix.from_function(
        lambda _i, _j: [[value]], (ranks, 1), 1, distribution=distributions.row_cyclic(ranks)
    ).to_array()[:, 0]


def clear(A: TiledMatrix, uplo: Uplo) -> None:
    """Put zeros into the triangle of a full matrix that is not `uplo`."""

    def put(i: int, j: int) -> None:
        tile = A.tile(i, j).array
        if i == j:
            A.put(i, j, triangle(tile, uplo))
        elif (i > j) != (uplo == "lower"):
            A.put(i, j, np.zeros_like(tile))

    if A.uplo is None:
        each_tile(A.own_tiles(), put)


def mirror(A: TiledMatrix, uplo: Uplo) -> None:
    """Fill the triangle of a full matrix that is not `uplo`: conjugate transpose of the other."""

    def put(i: int, j: int) -> None:
        if i == j:
            tile = A.tile(i, j).array
            A.put(i, j, merge_triangles(tile, tile.T.conj(), uplo))

    if A.uplo is None:
        each_tile(A.own_tiles(), put)
        run(_mirrored, [A], layouts(("A",), A=A), (uplo,))


def _mirrored(flow: TaskFlow, A: Tiles, uplo: str) -> None:
    """A_ji := A_ij^H for the tiles below or above the diagonal."""
    stored = A if uplo == "lower" else A.H
    flow.lacpy(stored.below_diagonal, stored.H.below_diagonal)
