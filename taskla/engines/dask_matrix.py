"""Tiled matrices whose tiles are keys of a Dask graph: lazy, or on the workers of a cluster."""

from __future__ import annotations

import os
import uuid
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from taskla.distributions import Distribution
from taskla.engines.dask_chunks import (
    PIECE,
    assembled,
    chunk_of,
    guarded_diagonal,
    in_chunk,
    piece_of,
    sizes_along,
    sizes_of,
)
from taskla.engines.dask_collection import Collection, Gathering, Home, joined, tokenize_tiles
from taskla.engines.dask_formats import Formats, of_blocks, strips, tile_squares_of, with_precision
from taskla.engines.dask_program import Where
from taskla.engines.dask_settling import placed, product, settle
from taskla.engines.dask_vector import DaskVector
from taskla.engines.dask_work import Made, made
from taskla.formats import format_of, working_dtype
from taskla.graph import Grid
from taskla.matrix import BlockFunction, TiledMatrix
from taskla.matrix_files import check_target
from taskla.matrix_layout import Layout, MapTiles, Part, Uplo
from taskla.matrix_mixed import Block, PackedTile
from taskla.matrix_place import Collectives
from taskla.matrix_store import triangle
from taskla.precision import NAMES, Codes, Precision, PrecisionMap
from taskla.rounding import pack
from taskla.tile import Tile

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["DaskMatrix", "Fill"]

Fill = Literal["triangle", "symmetric", "hermitian"] | None


class DaskMatrix(Collection, TiledMatrix):
    """A tiled matrix on Dask: each tile is a part of what a key of a graph stands for.

    Made inside ``with tla.engine("dask")`` by `TiledMatrix.from_function`, `zeros` and so on, or
    from a Dask array by `TiledMatrix.from_dask`. It is a Dask collection: ``dask.compute``,
    ``persist``, ``visualize`` and `futures_of` take it, and `compute` and `persist` use the client
    of the engine that it was made under. Functions that work in place give it new keys; nothing
    runs, and no tile that exists changes.

    Attributes
    ----------
    m, n, nb, shape, mt, nt, uplo, layout, dtype, distribution, format_map, precision
        As of `TiledMatrix`.
    order : {"F"}
    nbytes : int
        Bytes in all of its tiles, as they are stored.
    mixed : Formats or None
        The formats of tiles that have their own.
    engine : DaskEngine
    """

    engine: Home

    def __init__(
        self,
        layout: Layout,
        dtype: np.dtype[Any],
        engine: Home,
        where: Mapping[tuple[int, int], Where],
        graph: Any,
        distribution: Distribution | None = None,
        unchecked: bool = False,
        formats: Formats | None = None,
    ) -> None:
        self.layout = layout
        self.m, self.n, self.nb, self.uplo = layout.m, layout.n, layout.nb, layout.uplo
        self.shape = layout.m, layout.n
        self.mt, self.nt = layout.mt, layout.nt
        self.dtype = dtype
        self.distribution = engine.distribution if distribution is None else distribution
        self._formats = formats
        # nothing is in the memory of this process
        self._store = None  # type: ignore[assignment]
        self.nbytes = layout.entries * dtype.itemsize
        if formats is not None:
            self.nbytes = sum(formats.nbytes_by_format(layout, dtype).values())
        self.order = "F"
        self.writeable = True
        self.engine = engine
        self.where = dict(where)
        self.graph = graph
        self.unchecked = unchecked
        self.accuracy = None

    def __repr__(self) -> str:
        return (
            f"DaskMatrix({self.m} x {self.n} {self.dtype}, nb={self.nb}, "
            f"{self.mt} x {self.nt} tiles, uplo={self.uplo!r}, {self.nbytes} bytes, "
            f"{len(set(self.tile_keys()))} keys)"
        )

    @property
    def mixed(self) -> Formats | None:  # type: ignore[override]
        """The formats of tiles that have their own; None for a matrix of one data type."""
        return self._formats

    @property
    def precision(self) -> PrecisionMap | None:
        """The map that its tiles have their formats from, if they have one."""
        return None if self._formats is None else self._formats.precision

    @property
    def format_map(self) -> NDArray[np.str_]:
        """Names of the tiles' formats, shape (mt, nt); a new array."""
        if self._formats is None:
            return np.full((self.mt, self.nt), format_of(self.dtype).name)
        return np.array(NAMES)[self._formats.codes]

    def nbytes_by_format(self) -> dict[str, int]:
        """Return the bytes of all tiles, by the names of their formats."""
        if self._formats is None:
            return super().nbytes_by_format()
        return self._formats.nbytes_by_format(self.layout, self.dtype)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DaskMatrix cannot be pickled: pass its to_dask(), or to_array()")

    # -- made from something -----------------------------------------------------------------------

    @classmethod
    def of_function(
        cls,
        engine: Home,
        f: BlockFunction,
        layout: Layout,
        dtype: np.dtype[Any],
        distribution: Distribution | None = None,
    ) -> Self:
        """Return a matrix of which workers assemble the strips: see `TiledMatrix.from_function`."""
        from dask.base import tokenize
        from dask.task_spec import DataNode, Task, TaskRef

        from taskla.engines.dask_task import About, StripTask

        owners = engine.distribution if distribution is None else distribution
        token = tokenize(f, layout, dtype.str, owners.name, owners.ranks)
        grid = Grid("A", layout.m, layout.n, layout.nb, dtype)
        function = (f"function-{token}",)
        tasks: dict[Hashable, Task] = {function: DataNode(function, f)}
        where: dict[tuple[int, int], Where] = {}
        for (strip, rank), tiles in strips(layout, owners).items():
            key = (f"assemble-{token}", strip, rank)
            numbers = tuple(grid.base + i + j * grid.mt for i, j in tiles)
            shape = Made(numbers, 1 if layout.uplo == "upper" else 0, True)
            about = About(None, rank, 0, "assemble", (), 0.0)
            tasks[key] = StripTask(
                key, made, grid, shape, layout.uplo, TaskRef(function), about=about
            )
            where |= {tile: Where(key, position) for position, tile in enumerate(tiles)}
        graph = joined([], f"assemble-{token}", tasks)
        return cls(layout, dtype, engine, where, graph, owners)

    @classmethod
    def of_array(
        cls,
        engine: Home,
        array: NDArray[Any],
        layout: Layout,
        dtype: np.dtype[Any],
        distribution: Distribution | None = None,
    ) -> Self:
        """Return a matrix of copies of an array's tiles, which go to the workers when they run."""
        from dask.task_spec import DataNode

        token = uuid.uuid4().hex
        nodes: dict[Hashable, Any] = {}
        where = {}
        for i, j in layout.tiles():
            key = (f"array-{token}", i, j)
            block = array[layout.rows(i), layout.cols(j)]
            nodes[key] = DataNode(
                key, np.array(triangle(block, layout.uplo) if i == j else block, dtype, order="F")
            )
            where[i, j] = Where(key, -1)
        graph = joined([], f"array-{token}", nodes)
        return cls(layout, dtype, engine, where, graph, distribution)

    @classmethod
    def of_tiles(
        cls,
        engine: Home,
        block: Block,
        layout: Layout,
        dtype: np.dtype[Any],
        precision: PrecisionMap | Codes,
        distribution: Distribution | None = None,
        map_tiles: MapTiles | None = None,
    ) -> Self:
        """Return a matrix of tiles in formats of their own, which go to the workers as stored."""
        where, graph, formats = of_blocks(block, layout, dtype, precision, map_tiles)
        return cls(layout, dtype, engine, where, graph, distribution, formats=formats)

    @classmethod
    def of_dask(
        cls,
        engine: Home,
        x: da.Array,
        layout: Layout,
        distribution: Distribution | None = None,
        unchecked: bool = False,
    ) -> Self:
        """Return a matrix whose tiles are the chunks of an array, rechunked where they are not."""
        dtype = working_dtype(x.dtype)
        if x.ndim == 1:
            x = x[:, None]
        # along strips chunks may hold several tiles: these go to one worker together
        along = 1 if layout.uplo == "upper" else 0
        sizes = [sizes_of(layout.m, layout.nb), sizes_of(layout.n, layout.nb)]
        sizes[along] = sizes_along(x.chunks[along], layout.nb)
        if x.chunks != tuple(sizes):
            x = x.rechunk(tuple(sizes), method="tasks")
        where = {(i, j): in_chunk(x, layout, i, j) for i, j in layout.tiles()}
        return cls(layout, dtype, engine, where, x.dask, distribution, unchecked)

    def like(self, dtype: DTypeLike | None = None) -> DaskMatrix:
        """Return a matrix of zeros with the same shape, tile size, uplo and distribution."""
        kind = self.dtype if dtype is None else np.dtype(dtype)
        return type(self)(self.layout, kind, self.engine, {}, joined([]), self.distribution)

    def copy(self) -> DaskMatrix:
        """Return a matrix of the same tiles: what is worked on in place gets new ones."""
        return self._with(self.layout, self.where)

    def _with(self, layout: Layout, where: Mapping[tuple[int, int], Where]) -> DaskMatrix:
        rest = self.distribution, self.unchecked, self._formats
        result = type(self)(layout, self.dtype, self.engine, where, self.graph, *rest)
        result.accuracy = self.accuracy
        return result

    def with_precision(
        self, precision: Precision, *, map_tiles: MapTiles | None = None
    ) -> DaskMatrix:
        """Return a matrix of the same tiles in the formats of a map: see `TiledMatrix`.

        For an adaptive map the norms of the tiles are computed at once, by workers; all that comes
        after is lazy, and computes the tiles again unless they are persisted. `map_tiles` is not
        used.
        """
        found: DaskMatrix = with_precision(self, precision)
        return found

    def tile_squares(self) -> NDArray[np.float64]:
        """Return the sums of squares of the tiles, (mt, nt), computed by workers at once.

        Raises
        ------
        ValueError
            When there are infs or NaNs.
        """
        return tile_squares_of(self)

    def astype(self, dtype: DTypeLike) -> DaskMatrix:
        """Return a copy in another dtype, which all tiles have; TypeError for complex to real."""
        wanted = np.dtype(dtype)
        if wanted == self.dtype and self._formats is None:
            return self.copy()
        if not np.can_cast(self.dtype, wanted, "same_kind"):
            raise TypeError(f"dtype is {wanted}, and the matrix is {self.dtype}")
        return self.of_dask(
            self.engine, self.to_dask().astype(wanted), self.layout, self.distribution
        )

    def stored_as(self, uplo: Uplo | None) -> DaskMatrix:
        """Return the same tiles as a matrix that stores one triangle."""
        layout = replace(self.layout, uplo=uplo)
        where = {tile: self.where[tile] for tile in layout.tiles() if tile in self.where}
        return self._with(layout, where)

    def redistribute(self, distribution: str | Distribution) -> DaskMatrix:
        """Return a copy whose tiles tasks work on where `distribution` says."""
        result = self.copy()
        result.distribution = self.engine.owners(distribution)
        return result

    def vector(self, n: int, dtype: DTypeLike) -> DaskVector:
        """Return what a program may put beside the matrix: pivots, say."""
        return DaskVector(n, self.nb, np.dtype(dtype), self.engine, {}, joined([]))

    def interchanges(self, piv: Any, k: int) -> DaskVector | None:
        """Return what lazy pivots stand for; None for those that are here."""
        if isinstance(piv, DaskVector):
            found = piv
        elif hasattr(piv, "__dask_graph__"):
            found = DaskVector.of_dask(self.engine, piv, self.nb)
        else:
            return None
        if found.m != k:
            raise ValueError(f"piv has length {found.m}; it must be {k}")
        return found

    def like_function(self, f: BlockFunction) -> DaskMatrix:
        """Return the matrix of a function, laid out as this one."""
        return self.of_function(self.engine, f, self.layout, self.dtype, self.distribution)

    def guard_diagonal(self, what: Literal["pivot", "matrix", "triangle"]) -> None:
        """Have tasks look for zeros on the diagonal before anything uses it, and raise.

        Parameters
        ----------
        what : {"pivot", "matrix", "triangle"}
            What the error says of it.
        """
        self.where, self.graph = guarded_diagonal(self, what)

    # -- computed at once --------------------------------------------------------------------------

    def settle(self, *others: Collection) -> None:
        """Have workers compute this, and others, now, and keep it; errors of tasks are raised."""
        settle(self, *others)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the matrix, which is computed once and comes by tiles: see `TiledMatrix.save`."""
        # what is wrong with the path is said before anything is computed
        check_target(path)
        TiledMatrix.save(self.persist(), path)

    def scaled(self, dtype: np.dtype[Any], scale: float) -> DaskMatrix:
        """Return a multiple in another data type, lazily."""
        x = self.to_dask() if scale == 1 else self.to_dask() * scale
        return self.of_dask(self.engine, x.astype(dtype), self.layout, self.distribution)

    def times(self, x: NDArray[Any], part: Part, adjoint: bool) -> NDArray[Any]:
        """Return the product with an array, computed: see `taskla.accuracy`."""
        return product(self, x, part, adjoint)

    # -- its tiles ---------------------------------------------------------------------------------

    def tile(self, i: int, j: int) -> Tile:
        """Raise TypeError: tiles are on workers, and are not changed."""
        raise TypeError(
            f"tile ({i}, {j}) is a part of a Dask graph; block(i, j), to_array() and compute() "
            "bring what it holds, to_dask() makes an array of it"
        )

    def put(self, i: int, j: int, block: NDArray[Any]) -> None:
        """Let tile (i, j) be a copy of a block, which goes to a worker when it is needed.

        Raises
        ------
        IndexError
            When there is no such tile.
        TypeError
            Of a matrix whose tiles have formats of their own: see `tile`.
        """
        self._exists(i, j)
        if self._formats is not None:
            self.tile(i, j)
        self.where[i, j], self.graph = placed(block, self.dtype, self.graph)

    def own_tiles(self) -> list[tuple[int, int]]:
        """Return the indices of all tiles that exist."""
        return list(self.layout.tiles())

    def block(self, i: int, j: int) -> NDArray[Any]:
        """Return what tile (i, j) holds, computed if need be."""
        self._exists(i, j)
        if (i, j) not in self.where:
            shape = _length(self.layout.rows(i)), _length(self.layout.cols(j))
            return np.zeros(shape, self.dtype, order="F")
        (array,) = self.engine.fetch(self.graph, [self.where[i, j]])
        array = array.astype(self.dtype, copy=False)
        return triangle(array, self.uplo) if i == j else array

    def packed(self, i: int, j: int) -> PackedTile:
        """Return what `block` does as the format of the tile stores it."""
        if self._formats is None:
            return super().packed(i, j)
        name = NAMES[self._formats.codes[i, j]]
        return PackedTile(name, *pack(self.block(i, j), name))

    def _exists(self, i: int, j: int) -> None:
        if not (0 <= i < self.mt and 0 <= j < self.nt and self.layout.stores(i, j)):
            limit = {None: "", "lower": ", i >= j", "upper": ", i <= j"}[self.uplo]
            raise IndexError(
                f"tile ({i}, {j}) does not exist; "
                f"allowed: 0 <= i < {self.mt}, 0 <= j < {self.nt}{limit}"
            )

    @property
    def _collectives(self) -> Collectives:
        return Gathering()

    # -- Dask --------------------------------------------------------------------------------------

    def to_dask(self, fill: Fill = None) -> da.Array:
        """Return a Dask array with the tiles for chunks; nothing is moved or computed.

        Parameters
        ----------
        fill : {None, "triangle", "symmetric", "hermitian"}
            What to put into the triangle that is not stored: see `TiledMatrix.to_array`.

        Raises
        ------
        ValueError
            When `fill` is not allowed.
        """
        import dask.array as da

        if fill not in (None, "triangle", "symmetric", "hermitian") or (fill and not self.uplo):
            allowed = "None, triangle, symmetric, hermitian" if self.uplo else "None"
            raise ValueError(f"fill is {fill!r}; allowed: {allowed}")
        rows, cols = sizes_of(self.m, self.nb), sizes_of(self.n, self.nb)
        name, tasks = self._chunks(fill or "triangle", rows, cols)
        return da.Array(joined([self.graph], name, tasks), name, (rows, cols), dtype=self.dtype)

    def _chunks(
        self, fill: str, rows: Sequence[int], cols: Sequence[int]
    ) -> tuple[str, dict[Hashable, Any]]:
        from dask.task_spec import Task, TaskRef

        name = f"tile-{tokenize_tiles(self, fill)}"
        tasks: dict[Hashable, Any] = {}
        for i in range(max(self.mt, 1)):
            for j in range(max(self.nt, 1)):
                key = (name, i, j)
                if not (i < self.mt and j < self.nt):
                    shape = rows[i], cols[j]
                    tasks[key] = Task(key, np.zeros, shape, self.dtype)
                    continue
                stored = self.layout.stores(i, j)
                absent = ((i, j) if stored else (j, i)) not in self.where
                if absent or (not stored and fill == "triangle"):
                    shape = rows[i], cols[j]
                    tasks[key] = Task(key, np.zeros, shape, self.dtype)
                    continue
                source, position = self.where[(i, j) if stored else (j, i)]
                mirror = "" if stored else fill
                part = (self.uplo or "") if i == j else ""
                tasks[key] = Task(
                    key, chunk_of, TaskRef(source), position, part, mirror, fill, self.dtype
                )
        return name, tasks

    def in_pieces(self) -> da.Array:
        """Return a Dask array of few chunks: pieces of strips, of several tiles each.

        Where no tile is, it is zero. Dask's scheduler takes as long for a chunk as for a task.
        """
        import dask.array as da
        from dask.task_spec import Task, TaskRef

        along = 1 if self.uplo == "upper" else 0
        count = max(1, PIECE // self.nb)
        sizes = [sizes_of(self.m, self.nb), sizes_of(self.n, self.nb)]
        sizes[along] = sizes_of(self.shape[along], count * self.nb)
        name = f"tile-{tokenize_tiles(self, count)}"
        tasks: dict[Hashable, Any] = {}
        for piece, strip in np.ndindex(len(sizes[along]), len(sizes[1 - along])):
            first, shape = piece * count, (sizes[along][piece], sizes[1 - along][strip])
            keys: dict[Hashable, int] = {}
            parts = []
            for at in range(first, min(first + count, (self.mt, self.nt)[along])):
                tile = (strip, at) if along else (at, strip)
                if self.layout.stores(*tile) and tile in self.where:
                    source, position = self.where[tile]
                    triangular = self.uplo if at == strip else None
                    number = keys.setdefault(source, len(keys))
                    parts.append(((at - first) * self.nb, number, position, triangular))
            key = (name, strip, piece) if along else (name, piece, strip)
            refs = [TaskRef(source) for source in keys]
            tasks[key] = Task(key, piece_of, along, shape, self.dtype, tuple(parts), *refs)
        graph = joined([self.graph], name, tasks)
        return da.Array(graph, name, tuple(sizes), dtype=self.dtype)

    def __dask_postcompute__(self) -> tuple[Any, tuple[Any, ...]]:
        about = self.layout, self.dtype, self.tile_keys(), self.where, self._formats, self.accuracy
        return assembled, about

    def _rebuilt(self, graph: Any) -> DaskMatrix:
        result = self.copy()
        result.graph = graph
        return result


def _length(part: slice) -> int:
    return int(part.stop - part.start)
