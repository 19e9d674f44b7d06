"""Matrices on Dask whose tiles have number formats of their own.

Such a matrix is one `taskla.engines.dask_matrix.DaskMatrix`, which imports this module: tiles lie
in the values of its keys as their formats store them. A program sees a part of it for each format,
and what becomes of the part becomes of the matrix.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from taskla.distributions import Distribution
from taskla.engines.dask_collection import Collection, joined, tokenize_tiles
from taskla.engines.dask_program import Where
from taskla.engines.dask_strips import Position, Spot, Strips, stored, tile_of
from taskla.engines.dask_work import chunk, tile_shape
from taskla.formats import FORMATS, dtype_of
from taskla.graph import Grid
from taskla.matrix_layout import Layout, MapTiles, Uplo, each_tile
from taskla.matrix_mixed import Block, map_codes, refuse_overflow, tile_square, tile_squares
from taskla.matrix_place import ALONE
from taskla.matrix_store import set_block, triangle
from taskla.precision import NAMES, Codes, Precision, PrecisionMap, precision_map

__all__ = [
    "DaskPart",
    "Formats",
    "Given",
    "converted",
    "of_blocks",
    "squares_of",
    "strips",
    "tile_squares_of",
    "with_precision",
]


class Formats(NamedTuple):
    """The formats of a matrix's tiles.

    Attributes
    ----------
    codes : (mt, nt) int8 array
        Indices into `taskla.precision.NAMES`. Nobody changes it.
    precision : PrecisionMap or None
        What they came from.
    """

    codes: Codes
    precision: PrecisionMap | None

    def part(self, matrix: Any, name: str) -> DaskPart:
        """Return the tiles of a matrix that have a format."""
        return DaskPart(matrix, dtype_of(name, matrix.dtype.kind == "c"))

    def working(self, written: bool) -> AbstractContextManager[None]:
        """Do nothing: each task unpacks and packs tiles for itself."""
        return nullcontext()

    def nbytes_by_format(self, layout: Layout, dtype: np.dtype[Any]) -> dict[str, int]:
        """Return the bytes of all tiles, by the names of their formats."""
        entries = [0] * len(NAMES)
        for i, j in layout.tiles():
            rows, cols = layout.rows(i), layout.cols(j)
            entries[self.codes[i, j]] += (rows.stop - rows.start) * (cols.stop - cols.start)
        parts = 2 if dtype.kind == "c" else 1
        found = zip(NAMES, entries, strict=True)
        return {name: count * FORMATS[name].nbytes * parts for name, count in found if count}


class DaskPart(Collection):
    """The tiles of one format of a matrix on Dask, as programs want a matrix.

    Parameters
    ----------
    matrix : DaskMatrix
        Whose tiles they are: what is set here is set there.
    dtype : numpy.dtype
        In which tasks hold the tiles.
    """

    writeable = True

    def __init__(self, matrix: Any, dtype: np.dtype[Any]) -> None:
        self._matrix = matrix
        self.layout = matrix.layout
        self.m, self.n, self.nb, self.uplo = matrix.m, matrix.n, matrix.nb, matrix.uplo
        self.dtype = dtype
        self.distribution = matrix.distribution
        self.engine = matrix.engine
        # those of other formats as well: nobody asks the part for them
        self.where = matrix.where

    @property
    def graph(self) -> Any:
        """That of the matrix."""
        return self._matrix.graph

    @graph.setter
    def graph(self, graph: Any) -> None:
        self._matrix.graph = graph

    @property
    def unchecked(self) -> bool:
        """Whether the next program is to check that the matrix is finite."""
        found: bool = self._matrix.unchecked
        return found

    @unchecked.setter
    def unchecked(self, unchecked: bool) -> None:
        self._matrix.unchecked = unchecked

    def tile(self, i: int, j: int) -> NoReturn:
        """Raise TypeError: tiles are on workers, and are not changed."""
        raise TypeError(f"tile ({i}, {j}) is a part of a Dask graph")

    def _rebuilt(self, graph: Any) -> DaskPart:
        copy = self._matrix.copy()
        copy.graph = graph
        return DaskPart(copy, self.dtype)


# -- made of other matrices ------------------------------------------------------------------------


class Given(NamedTuple):
    """A tile that a task is given.

    Attributes
    ----------
    i, j : int
    value : int
        The argument that has it.
    position : Position
        Where in that.
    """

    i: int
    j: int
    value: int
    position: Position


def with_precision(A: Any, precision: Precision) -> Any:
    """Return a matrix of the same tiles in other formats: see `TiledMatrix.with_precision`."""
    chosen = precision_map(precision)
    by = chosen if isinstance(chosen, PrecisionMap) else None
    codes = map_codes(chosen, A.layout, A.dtype, lambda: tile_squares_of(A))
    # who has summed up squares has looked already
    check = A.unchecked and not (by is not None and by.needs_norms)

    def names(tiles: list[tuple[int, int]]) -> tuple[str, ...]:
        return tuple(NAMES[codes[tile]] for tile in tiles)

    of_key, graph = _on_strips(
        A, "convert", converted, lambda tiles: (names(tiles), check), codes.tobytes()
    )
    where = {
        tile: Where(key, position)
        for key, tiles in of_key.items()
        for position, tile in enumerate(tiles)
    }
    return type(A)(
        A.layout, A.dtype, A.engine, where, graph, A.distribution, formats=Formats(codes, by)
    )


def tile_squares_of(A: Any) -> NDArray[np.float64]:
    """Return what `taskla.matrix_mixed.tile_squares` does, summed up by workers: it is computed.

    Raises
    ------
    ValueError
        When a tile has infs or NaNs.
    """
    of_key, graph = _on_strips(A, "squares", squares_of, lambda _: ())
    squares = np.zeros((A.mt, A.nt))
    found = A.engine.fetch(graph, [Where(key, -1) for key in of_key])
    for tiles, values in zip(of_key.values(), found, strict=True):
        for tile, value in zip(tiles, values[:, 0], strict=True):
            squares[tile] = value
    if not np.isfinite(squares).all():
        raise ValueError("array must not contain infs or NaNs")
    return squares


def _on_strips(
    A: Any,
    kernel: str,
    function: Callable[..., Any],
    about: Callable[[list[tuple[int, int]]], tuple[Any, ...]],
    *token: Any,
) -> tuple[dict[Hashable, list[tuple[int, int]]], Any]:
    """Have a task work on each strip of a matrix.

    ``function(given, grid, uplo, *about(tiles), *values)`` gets tiles that are there; those that
    are zero are left out.

    Returns
    -------
    dict
        From keys to tiles.
    HighLevelGraph
    """
    from dask.task_spec import TaskRef

    from taskla.engines.dask_task import About, StripTask

    name = f"{kernel}-{tokenize_tiles(A, kernel, *token)}"
    grid = Grid("A", A.m, A.n, A.nb, A.dtype)
    tasks: dict[Hashable, Any] = {}
    of_key: dict[Hashable, list[tuple[int, int]]] = {}
    owners = A.distribution or A.engine.distribution
    for (strip, rank), tiles in strips(A.layout, owners).items():
        present = [tile for tile in tiles if tile in A.where]
        if not present:
            continue
        sources: dict[Hashable, int] = {}
        given = []
        for tile in present:
            key, position = A.where[tile]
            given.append(Given(*tile, sources.setdefault(key, len(sources)), position))
        new = (name, strip, rank)
        refs = [TaskRef(key) for key in sources]
        what = About(None, rank, 0, kernel, (), 0.0)
        tasks[new] = StripTask(
            new, function, tuple(given), grid, A.uplo, *about(present), *refs, about=what
        )
        of_key[new] = present
    return of_key, joined([A.graph], name, tasks)


def strips(layout: Layout, owners: Distribution) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Tiles in strips of one rank: tile columns, or rows of an upper triangle."""
    owner = owners(*np.indices((layout.mt, layout.nt)))
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, j in layout.tiles():
        along = i if layout.uplo == "upper" else j
        found.setdefault((along, int(owner[i, j])), []).append((i, j))
    return found


# -- made here -------------------------------------------------------------------------------------


def of_blocks(
    block: Block,
    layout: Layout,
    dtype: np.dtype[Any],
    precision: PrecisionMap | Codes,
    map_tiles: MapTiles | None = None,
) -> tuple[dict[tuple[int, int], Where], Any, Formats]:
    """Make the tiles of a matrix in this process: parameters as `taskla.matrix_mixed.mixed_store`.

    Returns
    -------
    dict
        Where each tile is.
    HighLevelGraph
        With the tiles in it, as their formats store them.
    Formats
    """
    from dask.task_spec import DataNode

    own = list(layout.tiles())
    codes = map_codes(
        precision, layout, dtype, lambda: tile_squares(layout, own, block, ALONE, map_tiles)
    )
    name = f"array-{uuid.uuid4().hex}"
    nodes: dict[Hashable, Any] = {}

    def put(i: int, j: int) -> None:
        rows, cols = layout.rows(i), layout.cols(j)
        tile = np.empty((rows.stop - rows.start, cols.stop - cols.start), dtype, order="F")
        set_block(tile, np.asarray(block(i, j)), i, j, layout.uplo)
        refuse_overflow(tile, NAMES[codes[i, j]], i, j)
        array, spots = stored([tile], 0, NAMES[codes[i, j]])
        nodes[name, i, j] = DataNode((name, i, j), Strips([array], spots))

    each_tile(own, put, map_tiles)
    where = {(i, j): Where((name, i, j), 0) for i, j in own}
    by = precision if isinstance(precision, PrecisionMap) else None
    return where, joined([], name, nodes), Formats(codes, by)


# -- what workers do -------------------------------------------------------------------------------


def converted(
    given: tuple[Given, ...],
    grid: Grid,
    uplo: Uplo | None,
    names: tuple[str, ...],
    check: bool,
    *values: Any,
) -> Strips:
    """Return tiles as formats store them.

    Parameters
    ----------
    given : tuple of Given
        Along a strip.
    grid : Grid
        That they are of.
    uplo : {None, "lower", "upper"}
        The triangle that is stored.
    names : tuple of str
        The format of each.
    check : bool
        Whether they must be finite.
    *values : Strips or array
        What has them.

    Raises
    ------
    ValueError
        When a tile that must be finite is not, or an array is not the tile that it should be.
    OverflowError
        When a tile has entries that its format has not.
    """
    arrays: list[NDArray[Any]] = []
    spots: list[Spot] = []
    for name, alike in groupby(zip(names, given, strict=True), key=lambda pair: pair[0]):
        tiles = []
        for _, one in alike:
            tile = _tile(one, grid, uplo, values)
            if check and not np.isfinite(tile).all():
                raise ValueError("array must not contain infs or NaNs")
            refuse_overflow(tile, name, one.i, one.j)
            tiles.append(tile)
        array, found = stored(tiles, 1 if uplo == "upper" else 0, name)
        spots += [spot._replace(array=len(arrays)) for spot in found]
        arrays.append(array)
    return Strips(arrays, spots)


def squares_of(
    given: tuple[Given, ...], grid: Grid, uplo: Uplo | None, *values: Any
) -> NDArray[np.float64]:
    """Return the sums of squares of tiles: see `taskla.matrix_mixed.tile_squares`."""
    return np.array(
        [
            tile_square(_tile(one, grid, uplo, values), uplo if one.i == one.j else None)
            for one in given
        ]
    )


def _tile(given: Given, grid: Grid, uplo: Uplo | None, values: tuple[Any, ...]) -> NDArray[Any]:
    value = values[given.value]
    array = tile_of(value, given.position)
    if not isinstance(value, Strips):
        number = grid.base + given.i + given.j * grid.mt
        array = chunk(array, grid, number, tile_shape(grid, number))
    return triangle(array, uplo) if given.i == given.j else array
