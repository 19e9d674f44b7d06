"""The tiles of a matrix in memory: what they are, how they are reached, what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from taskla import matrix_saving
from taskla.distributions import Distribution
from taskla.formats import format_of
from taskla.matrix_layout import Layout, each_tile
from taskla.matrix_mixed import MixedStore, PackedTile
from taskla.matrix_place import ALONE, Collectives, place
from taskla.matrix_store import OwnStore, Store, merge_triangles, set_block, triangle
from taskla.precision import NAMES, Accuracy, PrecisionMap
from taskla.tile import Order, Tile

__all__ = ["StoredTiles", "tiles_of"]


class StoredTiles:
    """What a `taskla.matrix.TiledMatrix` is once it has been made."""

    def __init__(
        self,
        layout: Layout,
        dtype: np.dtype[Any],
        arrays: Sequence[NDArray[Any]] | MixedStore,
        distribution: Distribution | None = None,
        rank: int = 0,
    ) -> None:
        """Take arrays as `taskla.matrix_store` describes; the class methods prepare them."""
        self.layout = layout
        self.m, self.n, self.nb, self.uplo = layout.m, layout.n, layout.nb, layout.uplo
        self.shape = layout.m, layout.n
        self.mt, self.nt = layout.mt, layout.nt
        self.dtype = dtype
        self.distribution = distribution
        self._rank = rank
        self._store: Store | OwnStore | MixedStore
        #: How accurate a factorisation in place has been: see `taskla.precision.Accuracy`.
        self.accuracy: Accuracy | None = None
        if isinstance(arrays, MixedStore):
            self._store = arrays
            self.nbytes = arrays.nbytes
        elif distribution is None:
            self._store = Store(layout, arrays)
            self.nbytes = layout.entries * dtype.itemsize
        else:
            self._store = OwnStore(layout, tiles_of(layout, distribution, rank), arrays)
            self.nbytes = sum(array.nbytes for array in arrays)
        self.order: Order = self._store.order
        self.writeable = self._store.writeable
        self._tiles: dict[tuple[int, int], Tile] = {}

    # What it is ---------------------------------------------------------------------------------

    @property
    def format_map(self) -> NDArray[np.str_]:
        """Names of the tiles' formats, shape (mt, nt); a new array."""
        if isinstance(self._store, MixedStore):
            return np.array(NAMES)[self._store.codes]
        return np.full((self.mt, self.nt), format_of(self.dtype).name)

    @property
    def mixed(self) -> MixedStore | None:
        """The memory of a matrix whose tiles have formats of their own; None for others."""
        return self._store if isinstance(self._store, MixedStore) else None

    @property
    def precision(self) -> PrecisionMap | None:
        """The map that its tiles have their formats from, if they have one."""
        return self._store.precision if isinstance(self._store, MixedStore) else None

    @property
    def owner_map(self) -> NDArray[np.intp]:
        """The process that owns each tile, shape (mt, nt); a new array."""
        if self.distribution is None:
            return np.zeros((self.mt, self.nt), np.intp)
        return self.distribution(*np.indices((self.mt, self.nt)))

    @property
    def slices(self) -> int:
        """Groups of ranks that take the steps of an algorithm in turn: the distribution's."""
        return 1 if self.distribution is None else self.distribution.slices

    @property
    def lr_rank_map(self) -> NDArray[np.intp]:
        """The tiles' numerical ranks, shape (mt, nt): -1, as all tiles are dense; a new array."""
        return np.full((self.mt, self.nt), -1, np.intp)

    def __repr__(self) -> str:
        formats = "" if self.precision is None else f", precision={str(self.precision)!r}"
        return (
            f"{type(self).__name__}({self.m} x {self.n} {self.dtype}, nb={self.nb}, "
            f"{self.mt} x {self.nt} tiles, uplo={self.uplo!r}, order={self.order!r}"
            f"{formats}, {self.nbytes} bytes)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Tiles hold addresses, which mean nothing in another process.
        store = self._store
        arrays = store if isinstance(store, MixedStore) else store.arrays
        return type(self), (self.layout, self.dtype, arrays, self.distribution, self._rank)

    # Its tiles ----------------------------------------------------------------------------------

    def rows(self, i: int) -> slice:
        """Return the matrix rows of tile row i; IndexError unless 0 <= i < mt."""
        return self.layout.rows(i)

    def cols(self, j: int) -> slice:
        """Return the matrix columns of tile column j; IndexError unless 0 <= j < nt."""
        return self.layout.cols(j)

    def tile(self, i: int, j: int) -> Tile:
        """Return tile (i, j), a view; IndexError for one that does not exist."""
        found = self._tiles.get((i, j))
        if found is None:
            if not (0 <= i < self.mt and 0 <= j < self.nt and self.layout.stores(i, j)):
                limit = {None: "", "lower": ", i >= j", "upper": ", i <= j"}[self.uplo]
                raise IndexError(
                    f"tile ({i}, {j}) does not exist; "
                    f"allowed: 0 <= i < {self.mt}, 0 <= j < {self.nt}{limit}"
                )
            if not isinstance(self._store, Store) and (i, j) not in self._store:
                owner = self.owner_map[i, j]
                raise IndexError(f"tile ({i}, {j}) belongs to rank {owner}, not {self._rank}")
            if isinstance(self._store, MixedStore):
                # not kept: it may be a copy
                return self._store.cut(i, j)
            # Two threads may cut the same tile at once; either one serves.
            found = self._tiles[i, j] = self._store.cut(i, j)
        return found

    def own_tiles(self) -> list[tuple[int, int]]:
        """Return the indices of the tiles that are here: all, or those of this rank."""
        if self.distribution is None:
            return list(self.layout.tiles())
        return tiles_of(self.layout, self.distribution, self._rank)

    def put(self, i: int, j: int, block: NDArray[Any]) -> None:
        """Copy a block into tile (i, j), the triangle that counts if it is on the diagonal.

        Raises
        ------
        IndexError
            When the tile does not exist, or belongs to another rank.
        ValueError
            When the block has another shape.
        TypeError
            When it cannot be cast safely: complex into real.
        """
        if isinstance(self._store, MixedStore):
            self.tile(i, j)
            self._store.put(i, j, block)
        else:
            set_block(self.tile(i, j).array, block, i, j, self.uplo)

    # Turned into something ----------------------------------------------------------------------

    def nbytes_by_format(self) -> dict[str, int]:
        """Return the bytes of the tiles that are here, by the names of their formats."""
        if self.mixed is None:
            return {format_of(self.dtype).name: self.nbytes}
        return self.mixed.nbytes_by_format()

    def to_array(
        self,
        order: Literal["K", "F", "C"] = "K",
        fill: Literal["triangle", "symmetric", "hermitian"] | None = None,
        copy: bool | None = True,
    ) -> NDArray[Any]:
        """Return the matrix as an array; a distributed one on all ranks, which all call this.

        Parameters
        ----------
        order : {"K", "F", "C"}, default "K"
            The array's order; "K" keeps that of the matrix.
        fill : {None, "triangle", "symmetric", "hermitian"}
            What to put into the triangle that is not stored: zeros ("triangle", and None), the
            mirror image, or the conjugate one, which also drops imaginary parts on the diagonal.
            For a full matrix only None is allowed.
        copy : bool, optional
            True gives a new array. None gives the array that a full matrix lies in, if `order`
            allows. False does, or raises.

        Returns
        -------
        ndarray, shape (m, n)

        Raises
        ------
        ValueError
            When an argument is not allowed, or `copy` is False and a copy is needed; when the
            matrix is distributed and its engine not in force.
        """
        if order not in ("K", "F", "C"):
            raise ValueError(f"order is {order!r}; allowed: 'K', 'F', 'C'")
        if self.uplo is None:
            if fill is not None:
                raise ValueError(f"fill is {fill!r}; a matrix without uplo has nothing to fill")
            if isinstance(self._store, Store):
                return np.array(self._store.arrays[0], order=order, copy=copy)
            if copy is False:
                raise ValueError(
                    "copy is False; tiles that are distributed or of several formats are copied"
                )
        elif fill not in (None, "triangle", "symmetric", "hermitian"):
            raise ValueError(f"fill is {fill!r}; allowed: None, triangle, symmetric, hermitian")
        elif copy is False:
            raise ValueError(f"copy is False; a matrix with uplo {self.uplo!r} must be copied")
        with self._collectives.agreed():
            make = np.empty if self.uplo is None else np.zeros
            array = make(self.shape, self.dtype, order=self.order if order == "K" else order)

        def put(i: int, j: int, block: NDArray[Any]) -> None:
            rows, cols = self.rows(i), self.cols(j)
            if self.uplo is not None:
                if i == j:
                    block = triangle(block, self.uplo)
                if fill in ("symmetric", "hermitian"):
                    mirrored = block.T.conj() if fill == "hermitian" else block.T
                    array[cols, rows] = mirrored
                    if i == j:
                        block = merge_triangles(block, mirrored, self.uplo)
            array[rows, cols] = block

        if self.distribution is None:
            store = self._store

            def copy_tile(i: int, j: int) -> None:
                # into place at once, where it is a copy either way
                if isinstance(store, MixedStore) and (self.uplo is None or (i != j and not fill)):
                    store.read(i, j, array[self.rows(i), self.cols(j)])
                else:
                    put(i, j, self.tile(i, j).array)

            each_tile(self.own_tiles(), copy_tile)
        else:
            self._collectives.gather(self, put)
        if fill == "hermitian" and self.dtype.kind == "c":
            np.einsum("ii->i", array).imag = 0
        return array

    def to_dask(self, fill: Literal["triangle", "symmetric", "hermitian"] | None = None) -> Any:
        """Return the matrix as a Dask array with tiles for chunks.

        Parameters
        ----------
        fill : {None, "triangle", "symmetric", "hermitian"}
            As of `to_array`.

        Returns
        -------
        dask.array.Array
            Of a matrix on Dask with its keys: nothing is gathered. Of one in this process's memory
            with views of it, or copies where `fill` needs them.
        """
        import dask.array as da

        array = self.to_array(fill=fill, copy=None)
        return da.from_array(array, chunks=(self.nb, self.nb))

    @property
    def _collectives(self) -> Collectives:
        """What the ranks that share this matrix do together."""
        if self.distribution is None:
            return ALONE
        here = place()
        if here.ranks != self.distribution.ranks:
            raise ValueError(
                f"the matrix is distributed over {self.distribution.ranks} ranks, and here is "
                f"{here.ranks}: do this inside of `with tla.engine('mpi')`"
            )
        return here.collectives

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Be an array to NumPy: `to_array`, with zeros for the triangle that is not stored."""
        # True has made its copy before the dtype is changed.
        return np.array(self.to_array(copy=copy), dtype, copy=None if copy else copy)

    def block(self, i: int, j: int) -> NDArray[Any]:
        """Return what tile (i, j) holds, as it counts: zeros where `uplo` has no entries."""
        array = self.tile(i, j).array.astype(self.dtype, copy=False)
        return triangle(array, self.uplo) if i == j else array

    def packed(self, i: int, j: int) -> PackedTile:
        """Return what `block` does as the format of the tile stores it."""
        if not isinstance(self._store, MixedStore):
            return PackedTile(format_of(self.dtype).name, self.block(i, j))
        tile = self._store.packed(i, j)
        return replace(tile, numbers=triangle(tile.numbers, self.uplo)) if i == j else tile

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the matrix: ``.npy`` or ``.mtx`` by the extension, or a folder of tiles.

        A file holds the whole matrix, with zeros for the triangle that is not stored; a folder
        holds the tiles as they are, in their formats. Both appear whole or not at all, and replace
        what `save` wrote before. A ``.npy`` or ``.mtx`` file has no formats: all is written in the
        dtype of the matrix. Text knows no precision: ``.mtx`` gives single precision back as
        double.

        All ranks that share a matrix call this, and write their own tiles to one folder or
        ``.npy`` file; ``.mtx``, and ``.npy`` when there are several machines, is written by rank 0.
        When it fails on one rank, all raise.

        Parameters
        ----------
        path : path-like
            A folder has no extension, or ``.tiles``.

        Raises
        ------
        ValueError
            When the extension is another one; when the matrix is distributed and its engine not in
            force.
        FileNotFoundError
            When the parent folder does not exist.
        FileExistsError
            When `path` exists and is not of the kind that is to be written.
        """
        matrix_saving.write(path, self, self._collectives)


def tiles_of(layout: Layout, distribution: Distribution, rank: int) -> list[tuple[int, int]]:
    """Return the tiles of a rank, column after column."""
    owner = distribution(*np.indices((layout.mt, layout.nt)))
    return [(i, j) for i, j in layout.tiles() if owner[i, j] == rank]
