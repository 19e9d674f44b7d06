"""How accurate a factorisation in several number formats has been, by a random vector.

The expected square of ``||E x||_2``, x with entries N(0, 1), is ``||E||_F**2``: products of the
matrix and of its factors with x, of n**2 flops each, tell the error without a second matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla import engines
from taskla.formats import FORMATS, format_of
from taskla.matrix import TiledMatrix
from taskla.matrix_layout import Part
from taskla.matrix_place import ALONE, place
from taskla.precision import NAMES, Accuracy
from taskla.refinement_tiled import settled

__all__ = ["Probe", "after_cholesky", "after_lu", "probe"]

Array: TypeAlias = NDArray[Any]

#: Vectors at once: the estimate scatters less.
_VECTORS = 8
#: Relative error of numbers rounded to nearest, in units of the roundoff: the root of the mean
#: square, 1 / sqrt(3), over that of a significand, sqrt(1.5 / log 2).
_TYPICAL = 0.39
#: Groups of tile columns: each sums up its own products, for the same bits on any workers.
_GROUPS = 16


class Probe(NamedTuple):
    """What a random x gave before a matrix was overwritten: x, A x, ``||A||_F``, its rounding.

    The matrix had been rounded to its formats when it met the vectors; by how much follows from the
    norms of its tiles.
    """

    x: Array
    y: Array
    norm: float
    rounded: float


def probe(A: TiledMatrix, wanted: bool) -> Probe | None:
    """Return the product of a matrix with random vectors; None unless that is wanted.

    All ranks that share the matrix call it. One on Dask is computed, and kept there.
    """
    A.accuracy = None
    if not wanted:
        return None
    settled(A)
    x = np.random.default_rng(A.n).normal(size=(A.n, _VECTORS))
    squares: list[tuple[float, float]] = []
    own = format_of(A.dtype).name

    def note(i: int, j: int, square: float) -> None:
        square *= 2 if A.uplo and i != j else 1
        name = own if A.mixed is None else NAMES[int(A.mixed.codes[i, j])]
        unit = 0.0 if name == own else _TYPICAL * FORMATS[name].unit_roundoff
        squares.append((square, unit**2 * square))

    y = _times(A, x, "hermitian" if A.uplo else "all", note=note)
    # in an order that does not depend on the workers
    sums = np.sum(np.array(sorted(squares)).reshape(-1, 2), axis=0).tolist()
    norm, rounded = np.sqrt(np.sum(_collectives(A).share(sums), axis=0)).tolist()
    return Probe(x, y, norm, rounded)


def after_cholesky(A: TiledMatrix, before: Probe | None, uplo: str) -> None:
    """Set ``A.accuracy`` from the factor that took the place of a matrix."""
    if before is None:
        return
    settled(A)
    part: Part = "lower" if uplo == "L" else "upper"
    inner = _times(A, before.x, part, adjoint=uplo == "L")
    _set(A, before, before.y - _times(A, inner, part, adjoint=uplo == "U"))


def after_lu(A: TiledMatrix, before: Probe | None, piv: Any) -> None:
    """Set ``A.accuracy`` from the factors and interchanges that took the place of a matrix."""
    if before is None:
        return
    settled(A, piv)
    order = np.arange(A.m)
    for i, k in enumerate(np.asarray(piv).tolist()):
        order[[i, k]] = order[[k, i]]
    k = min(A.shape)
    inner = _times(A, before.x, "upper")[:k]
    _set(A, before, before.y[order] - _times(A, inner, "unit lower"))


def _set(A: TiledMatrix, before: Probe, residual: Array) -> None:
    error = float(np.hypot(np.linalg.norm(residual) / np.sqrt(_VECTORS), before.rounded))
    tol = None if A.precision is None else A.precision.tol
    A.accuracy = Accuracy(error / before.norm if before.norm else 0.0, tol)


def _collectives(A: TiledMatrix) -> Any:
    return ALONE if A.distribution is None else place().collectives


def _times(
    A: TiledMatrix,
    x: Array,
    part: Part,
    adjoint: bool = False,
    note: Callable[[int, int, float], None] | None = None,
) -> Array:
    """Return A x or A^H x for a part of what the tiles hold, on all ranks.

    `note` gets the sum of squares of each tile (i, j) that is here.
    """
    if hasattr(A, "engine"):
        return _times_on_dask(A, x, part, adjoint, note)
    rows = A.n if adjoint else A.m
    columns: dict[int, list[int]] = {}
    for i, j in A.own_tiles():
        wanted = {"lower": i >= j, "unit lower": i >= j, "upper": i <= j}.get(part, True)
        if wanted:
            columns.setdefault(j, []).append(i)
    groups = [list(columns)[start::_GROUPS] for start in range(min(_GROUPS, len(columns)))]

    def product(group: list[int]) -> Array:
        y = np.zeros((rows, _VECTORS), np.result_type(A.dtype, np.float64))
        for j in group:
            for i in columns[j]:
                tile = _entries(A, i, j, part)
                if note is not None:
                    note(i, j, float(np.vdot(tile, tile).real))
                into, out = (A.cols(j), A.rows(i)) if adjoint else (A.rows(i), A.cols(j))
                one = tile.conj().T if adjoint else tile
                y[into] += one[:, : len(x[out])] @ x[out].astype(tile.dtype, copy=False)
                if part == "hermitian" and i != j:
                    y[out] += tile.conj().T @ x[into].astype(tile.dtype, copy=False)
        return y

    parts = engines.current().map(product, [(group,) for group in groups])
    y: Array = np.zeros((rows, _VECTORS), np.result_type(A.dtype, np.float64)) + sum(parts)
    if A.distribution is None:
        return y
    flat = y.view(np.float64)
    shares = _collectives(A).share(flat.ravel().tolist())
    total = np.sum([np.array(share) for share in shares], axis=0).reshape(flat.shape)
    return total.view(y.dtype)  # type: ignore[no-any-return]


def _times_on_dask(
    A: Any, x: Array, part: Part, adjoint: bool, note: Callable[[int, int, float], None] | None
) -> Array:
    if note is not None:
        for (i, j), square in np.ndenumerate(A.tile_squares()):
            note(i, j, float(square))
    product: Array = A.times(x, part, adjoint)
    return product


def _entries(A: TiledMatrix, i: int, j: int, part: Part) -> Array:
    """Return what counts of a tile, widened: sums in less would show as errors."""
    tile = A.tile(i, j).array.astype(np.result_type(A.dtype, np.float64), copy=False)
    if i != j or part == "all":
        return tile
    if part == "hermitian":
        one = np.tril(tile) if A.uplo == "lower" else np.triu(tile)
        whole: Array = one + one.conj().T - np.diag(np.diag(one).real)
        return whole
    if part == "upper":
        return np.triu(tile)
    lower = np.tril(tile)
    if part == "unit lower":
        np.fill_diagonal(lower, 1)
    return lower
