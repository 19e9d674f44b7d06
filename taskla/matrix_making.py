"""Where the tiles of a new matrix lie: in this process, those of its rank, or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from taskla.distributions import Distribution
from taskla.formats import dtype_of, format_of
from taskla.matrix_layout import Layout, MapTiles, each_tile
from taskla.matrix_mixed import Block, mixed_store
from taskla.matrix_place import ALONE, owners_of_new, place
from taskla.matrix_store import allocate, allocate_own, layout_asked_for
from taskla.matrix_tiles import StoredTiles, tiles_of
from taskla.precision import Precision, precision_map
from taskla.tile import Order

__all__ = ["BlockFunction", "MadeTiles", "asked", "generate", "ranges_of_new"]

BlockFunction: TypeAlias = Callable[[NDArray[np.intp], NDArray[np.intp]], ArrayLike]
"""``f(rows, cols)``: the block in these rows and columns, shape (len(rows), len(cols))."""


class MadeTiles(StoredTiles):
    """What all ways to make a `taskla.matrix.TiledMatrix` come to."""

    @classmethod
    def _make(
        cls,
        shape: tuple[int, int],
        nb: int | None,
        dtype: DTypeLike,
        uplo: str | None,
        order: Order,
        how: Callable[..., NDArray[Any]],
        distribution: str | Distribution | None = None,
    ) -> Self:
        """Return a matrix in memory that `how` gives, elsewhere one of zeros."""
        checked, layout = asked(shape, nb, dtype, uplo)
        if order not in (("F",) if layout.uplo else ("F", "C")):
            raise ValueError(f"order is {order!r}; allowed: 'F' and, without uplo, 'C'")
        here = place()
        if here.maker is not None:
            made: Self = here.maker.from_function(_zeros, layout, checked, distribution)
            return made
        owners = owners_of_new(distribution)
        if owners is None:
            return cls(layout, checked, allocate(layout, checked, how, order))
        own = tiles_of(layout, owners, here.rank)
        arrays = allocate_own(layout, own, checked, how, here.memory)
        return cls(layout, checked, arrays, owners, here.rank)

    @classmethod
    def _of_function(
        cls,
        f: BlockFunction,
        layout: Layout,
        dtype: np.dtype[Any],
        precision: Precision | None,
        distribution: str | Distribution | None,
        map_tiles: MapTiles | None,
    ) -> Self:
        """Return the matrix of a function of rows and columns."""
        if (maker := place().maker) is not None:
            made = maker.from_function(f, layout, dtype, distribution)
            assembled: Self = made if precision is None else made.with_precision(precision)
            return assembled
        if precision is not None:

            def block(i: int, j: int) -> NDArray[Any]:
                return _block_of(f, layout, i, j)

            return cls._mixed(block, layout, dtype, precision, distribution, map_tiles)
        shape = layout.m, layout.n
        matrix = cls._make(shape, layout.nb, dtype, layout.uplo, "F", np.empty, distribution)
        each_tile(matrix.own_tiles(), lambda i, j: generate(matrix, i, j, f), map_tiles)
        return matrix

    @classmethod
    def _of_blocks(
        cls,
        block: Callable[[slice, slice], NDArray[Any]],
        layout: Layout,
        dtype: np.dtype[Any],
        order: Order,
        distribution: str | Distribution | None,
        map_tiles: MapTiles | None,
    ) -> Self:
        """Return a copy of the blocks of an array or file, given by index ranges."""
        maker = place().maker
        if maker is None:
            shape = layout.m, layout.n
            matrix = cls._make(shape, layout.nb, dtype, layout.uplo, order, np.empty, distribution)
        else:
            matrix = cls(layout, dtype, allocate(layout, dtype, np.empty))

        def fill(i: int, j: int) -> None:
            matrix.put(i, j, block(layout.rows(i), layout.cols(j)))

        each_tile(matrix.own_tiles(), fill, map_tiles)
        if maker is None:
            return matrix
        made: Self = maker.from_array(matrix.to_array(copy=None), layout, dtype, distribution)
        return made

    @classmethod
    def _mixed(
        cls,
        block: Block,
        layout: Layout,
        dtype: np.dtype[Any],
        precision: Precision,
        distribution: str | Distribution | None,
        map_tiles: MapTiles | None,
    ) -> Self:
        """Return a matrix whose tiles have formats of their own."""
        here = place()
        chosen = precision_map(precision)
        if here.maker is not None:
            made: Self = here.maker.from_tiles(
                block, layout, dtype, chosen, distribution, map_tiles
            )
            return made
        owners = owners_of_new(distribution)
        own = list(layout.tiles()) if owners is None else tiles_of(layout, owners, here.rank)
        ranks = ALONE if owners is None else here.collectives
        store = mixed_store(chosen, layout, dtype, own, block, ranks, map_tiles)
        return cls(layout, dtype, store, owners, 0 if owners is None else here.rank)


def asked(
    shape: tuple[int, int], nb: int | None, dtype: DTypeLike, uplo: str | None
) -> tuple[np.dtype[Any], Layout]:
    """Return the data type and layout of a new matrix that a user asked for."""
    checked = dtype_of(format_of(dtype).name, np.dtype(dtype).kind == "c")
    maker = place().maker
    if nb is None and maker is not None:
        # refuses what is no shape
        layout = layout_asked_for(shape, nb, checked, uplo)
        nb = maker.tile_size(max(layout.m, layout.n, 1), checked)
    return checked, layout_asked_for(shape, nb, checked, uplo)


def ranges_of_new(
    layout: Layout, distribution: str | Distribution | None
) -> list[tuple[slice, slice]] | None:
    """Return the rows and columns of the tiles that this rank will have; None for all."""
    here = place()
    owners = None if here.maker is not None else owners_of_new(distribution)
    if owners is None:
        return None
    return [(layout.rows(i), layout.cols(j)) for i, j in tiles_of(layout, owners, here.rank)]


def generate(matrix: StoredTiles, i: int, j: int, f: BlockFunction) -> None:
    """Set tile (i, j) of a matrix to ``f(rows, cols)``; checks and raises as `from_function`."""
    matrix.put(i, j, _block_of(f, matrix.layout, i, j))


def _block_of(f: BlockFunction, layout: Layout, i: int, j: int) -> NDArray[Any]:
    rows, cols = layout.rows(i), layout.cols(j)
    return np.asarray(f(np.arange(rows.start, rows.stop), np.arange(cols.start, cols.stop)))


def _zeros(rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[Any]:
    return np.zeros((len(rows), len(cols)), np.float32)
