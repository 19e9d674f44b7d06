"""What Dask tasks make of tiles beside programs: chunks of arrays, matrices, pivots, errors."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taskla.engines.dask_collection import joined, tokenize_tiles
from taskla.engines.dask_program import Where
from taskla.engines.dask_strips import Position, Strips, tile_of
from taskla.errors import SingularMatrixError
from taskla.matrix import TiledMatrix
from taskla.matrix_layout import Layout, Uplo, choose_nb
from taskla.matrix_mixed import MixedStore
from taskla.matrix_store import allocate, merge_triangles, triangle
from taskla.precision import Accuracy, Codes, PrecisionMap

if TYPE_CHECKING:
    import dask.array as da

__all__ = [
    "COLUMNS",
    "PIECE",
    "assembled",
    "chunk_of",
    "chunk_size",
    "guarded_diagonal",
    "in_chunk",
    "piece_of",
    "pivots_from",
    "pivots_of",
    "sizes_along",
    "sizes_of",
    "tile_size",
]

#: Tile columns that a rank has, about, if the tile size is not given.
COLUMNS = 8

#: Rows, about, of a chunk that is a piece of a strip.
PIECE = 2048


def chunk_of(
    value: Any, position: Position, part: str, mirror: str, fill: str, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return a tile as a chunk of an array, in C order as arrays are."""
    array = tile_of(value, position).astype(dtype, copy=False)
    if mirror:
        array = array.T.conj() if mirror == "hermitian" else array.T
    elif part:
        uplo: Uplo = "lower" if part == "lower" else "upper"
        if fill == "triangle":
            array = triangle(array, uplo)
        else:
            other = array.T.conj() if fill == "hermitian" else array.T
            array = merge_triangles(array, other, uplo)
            if fill == "hermitian" and dtype.kind == "c":
                np.einsum("ii->i", array).imag = 0
    return array


def tile_size(n: int, dtype: np.dtype[Any], ranks: int) -> int:
    """Return the tile size of a matrix of order n for which none is given.

    A few tile columns a rank, of tiles for which a worker takes longer than the scheduler.
    """
    size = -(-n // (COLUMNS * ranks))
    smallest, largest = choose_nb(n, dtype, workers=1), 4096
    return max(min(-(-size // 64) * 64, largest), min(smallest, 512))


def chunk_size(chunks: tuple[tuple[int, ...], ...]) -> int | None:
    """Return the size of square chunks, all alike but for smaller ones at the end; else None."""
    sizes = {sizes[0] for sizes in chunks if len(sizes) > 1 or len(chunks) == 1}
    if len(sizes) != 1:
        return None
    (size,) = sizes
    regular = all(
        all(part == size for part in parts[:-1]) and 0 < parts[-1] <= size for parts in chunks
    )
    return size if regular and size > 0 else None


def sizes_of(n: int, size: int) -> tuple[int, ...]:
    """Return the sizes of n things in parts of a size."""
    return tuple(min(size, n - start) for start in range(0, n, size)) or (0,)


def sizes_along(chunks: tuple[int, ...], nb: int) -> tuple[int, ...]:
    """Return sizes of chunks along a strip: those given, if they end where tiles end."""
    if all(end % nb == 0 for end in accumulate(chunks[:-1])):
        return chunks
    return sizes_of(sum(chunks), max(1, PIECE // nb) * nb)


def in_chunk(x: da.Array, layout: Layout, i: int, j: int) -> Where:
    """Where a tile is among chunks that may hold several."""
    at: list[int] = []
    part: list[int] = []
    whole = True
    for chunks, tile in zip(x.chunks, (layout.rows(i), layout.cols(j)), strict=True):
        ends = list(accumulate(chunks))
        number = bisect_right(ends, tile.start)
        begin = ends[number] - chunks[number]
        at.append(number)
        part += [tile.start - begin, tile.stop - begin]
        whole &= chunks[number] == tile.stop - tile.start
    top, bottom, left, right = part
    return Where((x.name, *at), -1 if whole else (top, bottom, left, right))


def piece_of(
    along: int,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    parts: Sequence[tuple[int, int, Position, Uplo | None]],
    *values: Any,
) -> NDArray[Any]:
    """Return a piece of a strip: a view where its tiles are neighbours, all of them there."""
    if len(values) == 1 and isinstance(values[0], Strips):
        spots = [values[0].spots[position] for _, _, position, _ in parts]  # type: ignore[index]
        first, last = spots[0], spots[-1]
        neighbours = all(
            one.array == other.array and one.end == other.begin for one, other in pairwise(spots)
        )
        whole = last.end - first.begin == shape[0] and not any(part for *_, part in parts)
        strip: NDArray[Any] = values[0].arrays[first.array]
        if neighbours and whole and strip.dtype == dtype:
            return strip[:, first.begin : last.end] if along else strip[first.begin : last.end]
    piece = np.zeros(shape[::-1] if along else shape, dtype, order="F")
    for begin, number, position, uplo in parts:
        tile = triangle(tile_of(values[number], position), uplo)
        end = begin + tile.shape[along]
        if along:
            piece[:, begin:end] = tile
        else:
            piece[begin:end] = tile
    return piece


def pivots_of(value: Any, position: Position) -> NDArray[Any]:
    """Return the pivots of a panel, counted from 0."""
    return tile_of(value, position)[:, 0].astype(np.int32) - np.int32(1)


def guarded_diagonal(A: Any, what: str) -> tuple[dict[tuple[int, int], Where], Any]:
    """Have tasks look for zeros on the diagonal of a matrix before anything uses it.

    Parameters
    ----------
    A : DaskMatrix
    what : {"pivot", "matrix", "triangle"}
        What the error says of it.

    Returns
    -------
    dict
        Where the tiles of A are then.
    HighLevelGraph
    """
    from dask.task_spec import TaskRef

    from taskla.engines.dask_task import About, StripTask

    diagonal: dict[Hashable, list[tuple[Position, int]]] = {}
    rank: dict[Hashable, int] = {}
    for k in range(min(A.mt, A.nt)):
        if (k, k) in A.where:
            key, position = A.where[k, k]
            diagonal.setdefault(key, []).append((position, k * A.nb))
            rank[key] = int(A.distribution(k, k)) if A.distribution else 0
        else:
            diagonal.setdefault(None, []).append((-1, k * A.nb))
    name = f"nonzero-{tokenize_tiles(A, what)}"
    tasks: dict[Hashable, Any] = {}
    new: dict[Hashable, Hashable] = {}
    for number, (key, places) in enumerate(diagonal.items()):
        new[key] = (name, number)
        about = About(None, rank.get(key, 0), 0, "nonzero", (), 0.0)
        source = None if key is None else TaskRef(key)
        tasks[new[key]] = StripTask(new[key], _guarded, source, tuple(places), what, about=about)
    where = {
        tile: Where(new.get(where.key, where.key), where.position)
        for tile, where in A.where.items()
    }
    return where, joined([A.graph], name, tasks)


def _guarded(value: Any, places: Sequence[tuple[Position, int]], what: str) -> Any:
    """Return a value whose diagonal has no zeros in some places."""
    for position, offset in places:
        if value is None:
            raise _zero(what, offset)
        zeros = np.flatnonzero(tile_of(value, position).diagonal() == 0)
        if zeros.size:
            raise _zero(what, offset + int(zeros[0]))
    return value


def _zero(what: str, index: int) -> np.linalg.LinAlgError:
    if what == "pivot":
        return SingularMatrixError(index + 1)
    if what == "triangle":
        return np.linalg.LinAlgError(f"singular matrix: resolution failed at diagonal {index}")
    return np.linalg.LinAlgError(f"A singular matrix detected: its diagonal element {index} is 0.")


def assembled(
    values: Any,
    layout: Layout,
    dtype: np.dtype[Any],
    keys: list[Hashable],
    where: dict[tuple[int, int], Where],
    formats: tuple[Codes, PrecisionMap | None] | None = None,
    accuracy: Accuracy | None = None,
) -> TiledMatrix:
    """Return a matrix in this process's memory, of tiles in several formats if these are given."""
    by_key = dict(zip(keys, values, strict=True))
    if formats is None:
        result = TiledMatrix(layout, dtype, allocate(layout, dtype, np.zeros))
    else:
        codes, precision = formats
        store = MixedStore(layout, dtype, codes, list(layout.tiles()), precision)
        result = TiledMatrix(layout, dtype, store)
    for (i, j), (key, position) in where.items():
        result.put(i, j, tile_of(by_key[key], position))
    result.accuracy = accuracy
    return result


def pivots_from(values: Any, keys: list[Hashable], tiles: list[Where]) -> NDArray[np.int32]:
    """Return all pivots, counted from 0, of the values of some keys."""
    by_key = dict(zip(keys, values, strict=True))
    parts = [pivots_of(by_key[key], position) for key, position in tiles]
    return np.concatenate(parts or [np.zeros(0, np.int32)])
