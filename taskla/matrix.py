"""TiledMatrix: a matrix whose tiles are views into memory, from and to NumPy, files, functions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from taskla import matrix_files
from taskla.distributions import Distribution
from taskla.formats import dtype_of, format_of, working_dtype
from taskla.matrix_layout import Layout, MapTiles, each_tile
from taskla.matrix_place import place
from taskla.matrix_random import Kind, random_block
from taskla.matrix_store import (
    OwnStore,
    Store,
    allocate,
    allocate_own,
    layout_asked_for,
    merge_triangles,
    obstacle,
    triangle,
    triangle_name,
)
from taskla.tile import Order, Tile

__all__ = ["BlockFunction", "TiledMatrix", "generate"]

BlockFunction: TypeAlias = Callable[[NDArray[np.intp], NDArray[np.intp]], ArrayLike]
"""``f(rows, cols)``: the block in these rows and columns, shape (len(rows), len(cols))."""


class TiledMatrix:
    """A dense matrix of nb x nb tiles, with smaller ones in the last tile row and column.

    Made by `from_array`, `from_function`, `load`, `empty`, `zeros` or `random`. A full matrix lies
    in one array, often the user's own. A symmetric, Hermitian or triangular matrix (`uplo`) has the
    tiles of one triangle; those on the diagonal are square in memory, and what they hold in the
    other triangle is never used. A triangle with memory of its own takes half the space.

    Attributes
    ----------
    m, n, nb : int
        Rows, columns, tile size.
    shape : (int, int)
        (m, n).
    mt, nt : int
        Tile rows and tile columns.
    uplo : {None, "lower", "upper"}
        The triangle that exists; None for a full matrix.
    layout : Layout
        All of these, and what follows from them.
    dtype : numpy.dtype
        float32, float64, complex64 or complex128.
    order : {"F", "C"}
        The order of the memory.
    writeable : bool
        Whether tiles may be written; False over a read-only array or file.
    nbytes : int
        Bytes in the tiles that exist; of a distributed matrix, in those of this rank.
    distribution : Distribution or None
        The owners of its tiles; None for a matrix that one process has all of.

    Examples
    --------
    >>> A = TiledMatrix.random((5, 5), nb=2, uplo="lower", kind="spd")
    >>> A
    TiledMatrix(5 x 5 float64, nb=2, 3 x 3 tiles, uplo='lower', order='F', 136 bytes)
    >>> A.tile(2, 0).shape
    (1, 2)
    """

    def __init__(
        self,
        layout: Layout,
        dtype: np.dtype[Any],
        arrays: Sequence[NDArray[Any]],
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
        self._store: Store | OwnStore
        if distribution is None:
            self._store = Store(layout, arrays)
            self.nbytes = layout.entries * dtype.itemsize
        else:
            self._store = OwnStore(layout, _own(layout, distribution, rank), arrays)
            self.nbytes = sum(array.nbytes for array in arrays)
        self.order: Order = self._store.order
        self.writeable = self._store.writeable
        self._tiles: dict[tuple[int, int], Tile] = {}

    # Made from something ------------------------------------------------------------------------

    @classmethod
    def from_array(
        cls,
        a: ArrayLike,
        nb: int | None = None,
        uplo: str | None = None,
        copy: bool | None = None,
        *,
        map_tiles: MapTiles | None = None,
    ) -> TiledMatrix:
        """Cut an array into tiles: views where possible, otherwise a copy in Fortran order.

        Parameters
        ----------
        a : array_like, shape (m, n)
            Integers and booleans become float64, float16 becomes float32.
        nb : int, optional
            The tile size; by default that of `choose_nb`.
        uplo : {None, "lower", "upper", "L", "U"}
            Use this triangle of a square `a` only, in either case. A copy stores nothing else.
        copy : bool, optional
            None copies when it must: when `a` is not writeable, has another dtype, or has no unit
            stride in either direction. True copies always. False never does; a read-only `a` then
            gives tiles that cannot be written.
        map_tiles : callable, optional
            Who copies the tiles, see `taskla.matrix_layout`.

        Raises
        ------
        ValueError
            When `a` is not 2-D, is masked or has an unsupported dtype; when `uplo` is given and `a`
            is not square; when `copy` is False and a copy is needed.
        """
        if not (copy is None or isinstance(copy, bool)):
            raise ValueError(f"copy is {copy!r}; allowed: None, True, False")
        if isinstance(a, np.ma.MaskedArray):
            raise ValueError("a is a masked array; fill it first")
        array = np.asarray(a, copy=False if copy is False else None)
        dtype = working_dtype(array.dtype)
        if array.ndim != 2:
            raise ValueError(f"a has {array.ndim} dimensions; a matrix has 2")
        layout = layout_asked_for(array.shape, nb, dtype, uplo)
        why = obstacle(array, dtype)
        if copy is False and why:
            raise ValueError(f"copy is False and a copy of a is needed: {why}")
        if place().ranks > 1:
            if copy is False:
                raise ValueError("copy is False; a rank copies its tiles of an array")
            matrix = cls._make((layout.m, layout.n), layout.nb, dtype, layout.uplo, "F", np.empty)
            matrix._fill(lambda rows, cols: array[rows, cols], map_tiles)
            return matrix
        if copy is False or (copy is None and not why and array.flags.writeable):
            return cls(layout, dtype, [array])
        matrix = cls(layout, dtype, allocate(layout, dtype, np.empty))
        matrix._fill(lambda rows, cols: array[rows, cols], map_tiles)
        return matrix

    @classmethod
    def from_function(
        cls,
        f: BlockFunction,
        shape: tuple[int, int],
        nb: int | None = None,
        dtype: DTypeLike = "float64",
        uplo: str | None = None,
        *,
        distribution: Distribution | None = None,
        map_tiles: MapTiles | None = None,
    ) -> TiledMatrix:
        """Assemble a matrix tile by tile; each rank makes its own tiles.

        Parameters
        ----------
        f : callable
            ``f(rows, cols)`` gets two 1-D integer arrays (consecutive indices) and returns the
            block there, an array_like of shape (len(rows), len(cols)). It is called once per stored
            tile, possibly from several threads.
        shape : (int, int)
        nb, uplo
            As for `from_array`.
        dtype : dtype-like
            float32, float64, complex64 or complex128.
        distribution : Distribution, optional
            Of the tiles over the ranks. Default: that of the engine.
        map_tiles : callable, optional
            Who calls `f`, see `taskla.matrix_layout`.

        Raises
        ------
        ValueError
            When a block has the wrong shape; when an argument is not allowed.
        TypeError
            When a block cannot be cast safely: complex into real.

        Examples
        --------
        >>> hilbert = TiledMatrix.from_function(lambda i, j: 1 / (1 + i[:, None] + j), (4, 4), nb=3)
        >>> float(hilbert.to_array()[3, 1])
        0.2
        """
        matrix = cls._make(shape, nb, dtype, uplo, "F", np.empty, distribution)
        each_tile(matrix.own_tiles(), lambda i, j: generate(matrix, i, j, f), map_tiles)
        return matrix

    @classmethod
    def random(
        cls,
        shape: tuple[int, int],
        nb: int | None = None,
        dtype: DTypeLike = "float64",
        uplo: str | None = None,
        *,
        seed: int = 0,
        kind: Kind = "general",
        distribution: Distribution | None = None,
        map_tiles: MapTiles | None = None,
    ) -> TiledMatrix:
        """Make a random test matrix, the same for every tile size and storage.

        Parameters
        ----------
        shape, nb, dtype, uplo, distribution, map_tiles
            As for `from_function`.
        seed : int, default 0
            0 <= seed < 2**64.
        kind : {"general", "dominant", "symmetric", "hermitian", "spd"}
            See `taskla.matrix_random.random_block`. The last three need a square matrix.

        Raises
        ------
        ValueError
            When an argument is not allowed.
        """
        # Refuses what is not allowed even if there is no tile to make.
        random_block(seed, [], [], dtype, kind, 0)
        layout = layout_asked_for(shape, nb, np.dtype(dtype), uplo)
        if kind in ("symmetric", "hermitian", "spd") and layout.m != layout.n:
            raise ValueError(f"kind is {kind!r} and shape {shape}; it must be square")
        n = max(layout.m, layout.n)

        def block(rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[Any]:
            return random_block(seed, rows, cols, dtype, kind, n)

        how = {"distribution": distribution, "map_tiles": map_tiles}
        return cls.from_function(block, shape, layout.nb, dtype, uplo, **how)  # type: ignore[arg-type]

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        nb: int | None = None,
        mmap: bool | matrix_files.MmapMode = True,
        uplo: str | None = None,
        *,
        map_tiles: MapTiles | None = None,
    ) -> TiledMatrix:
        """Read a matrix from a ``.npy`` or ``.mtx`` file or a folder of tiles.

        Parameters
        ----------
        path : path-like
            A 1-D array in a ``.npy`` file is one column; a sparse ``.mtx`` becomes dense.
        nb : int, optional
            The tile size; by default that of the folder, or of `choose_nb`.
        mmap : bool or {"r", "c", "r+"}, default True
            Whether a ``.npy`` file is mapped into memory, not read. "c" is copy on write: tiles
            may be written and the file stays as it is. With "r" tiles cannot be written, with "r+"
            writing a tile writes the file. True is "c" where the dtype allows it; other kinds of
            files are read. A mode given by name is an error where the file cannot be mapped.
        uplo : {None, "lower", "upper", "L", "U"}
            Use this triangle only. A folder that holds one triangle gives that.
        map_tiles : callable, optional
            Who reads the tiles, see `taskla.matrix_layout`.

        Raises
        ------
        FileNotFoundError
            When nothing is there.
        ValueError
            When the file is damaged or of another kind (the message begins with the path); when an
            argument is not allowed.
        """
        stored = matrix_files.read(path, mmap)
        own = stored.layout
        uplo = triangle_name(uplo) or own.uplo
        if own.uplo not in (None, uplo):
            raise ValueError(f"{path}: holds the {own.uplo} triangle; uplo is {uplo!r}")
        if stored.array is not None:
            copy = False if isinstance(mmap, str) else None
            return cls.from_array(stored.array, nb, uplo, copy, map_tiles=map_tiles)
        if stored.tiled and nb is None:
            nb = own.nb
        order = "F" if uplo else stored.order
        matrix = cls.empty((own.m, own.n), nb, stored.dtype, uplo, order)
        matrix._fill(stored.block, map_tiles)
        return matrix

    # Made of nothing ----------------------------------------------------------------------------

    @classmethod
    def empty(
        cls,
        shape: tuple[int, int],
        nb: int | None = None,
        dtype: DTypeLike = "float64",
        uplo: str | None = None,
        order: Order = "F",
    ) -> TiledMatrix:
        """Return a matrix whose entries are not set (where `uplo` has none, they are zero).

        Parameters
        ----------
        shape : (int, int)
        nb, uplo
            As for `from_array`.
        dtype : dtype-like
            float32, float64, complex64 or complex128.
        order : {"F", "C"}, default "F"
            The order of a full matrix; a triangle is always "F".

        Raises
        ------
        TypeError
            When a size is not an integer.
        ValueError
            When an argument is not allowed.
        """
        return cls._make(shape, nb, dtype, uplo, order, np.empty)

    @classmethod
    def zeros(
        cls,
        shape: tuple[int, int],
        nb: int | None = None,
        dtype: DTypeLike = "float64",
        uplo: str | None = None,
        order: Order = "F",
    ) -> TiledMatrix:
        """Return a matrix of zeros; otherwise as `empty`."""
        return cls._make(shape, nb, dtype, uplo, order, np.zeros)

    def like(self, dtype: DTypeLike | None = None) -> TiledMatrix:
        """Return an `empty` matrix with the same shape, tile size, uplo and order."""
        dtype = self.dtype if dtype is None else dtype
        order: Order = "F" if self.uplo or self.distribution else self.order
        return self._make(self.shape, self.nb, dtype, self.uplo, order, np.empty, self.distribution)

    @classmethod
    def _make(
        cls,
        shape: tuple[int, int],
        nb: int | None,
        dtype: DTypeLike,
        uplo: str | None,
        order: Order,
        how: Callable[..., NDArray[Any]],
        distribution: Distribution | None = None,
    ) -> TiledMatrix:
        checked = dtype_of(format_of(dtype).name, np.dtype(dtype).kind == "c")
        layout = layout_asked_for(shape, nb, checked, uplo)
        if order not in (("F",) if layout.uplo else ("F", "C")):
            raise ValueError(f"order is {order!r}; allowed: 'F' and, without uplo, 'C'")
        here = place()
        if here.ranks == 1:
            if distribution is not None and distribution.ranks > 1:
                raise ValueError(f"distribution is {distribution}; there is one rank")
            return cls(layout, checked, allocate(layout, checked, how, order))
        distribution = distribution or here.distribution
        if distribution is None or distribution.ranks != here.ranks:
            raise ValueError(f"distribution is {distribution}; there are {here.ranks} ranks")
        own = _own(layout, distribution, here.rank)
        arrays = allocate_own(layout, own, checked, how)
        return cls(layout, checked, arrays, distribution, here.rank)

    # What it is ---------------------------------------------------------------------------------

    @property
    def format_map(self) -> NDArray[np.str_]:
        """Names of the tiles' formats, shape (mt, nt); a new array."""
        return np.full((self.mt, self.nt), format_of(self.dtype).name)

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
        return (
            f"TiledMatrix({self.m} x {self.n} {self.dtype}, nb={self.nb}, "
            f"{self.mt} x {self.nt} tiles, uplo={self.uplo!r}, order={self.order!r}, "
            f"{self.nbytes} bytes)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Tiles hold addresses, which mean nothing in another process.
        arrays = self._store.arrays
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
            if isinstance(self._store, OwnStore) and (i, j) not in self._store:
                owner = self.owner_map[i, j]
                raise IndexError(f"tile ({i}, {j}) belongs to rank {owner}, not {self._rank}")
            # Two threads may cut the same tile at once; either one serves.
            found = self._tiles[i, j] = self._store.cut(i, j)
        return found

    def own_tiles(self) -> list[tuple[int, int]]:
        """Return the indices of the tiles that are here: all, or those of this rank."""
        if self.distribution is None:
            return list(self.layout.tiles())
        return _own(self.layout, self.distribution, self._rank)

    def _put(self, i: int, j: int, block: NDArray[Any]) -> None:
        """Copy a block into tile (i, j), the triangle that counts if it is on the diagonal."""
        target = self.tile(i, j).array
        if block.shape != target.shape:
            hint = "; use rows[:, None] to make it two-dimensional" if block.ndim == 1 else ""
            raise ValueError(f"block ({i}, {j}) has shape {block.shape}, not {target.shape}{hint}")
        if not np.can_cast(block.dtype, self.dtype, "same_kind"):
            raise TypeError(f"block ({i}, {j}) has dtype {block.dtype}, not {self.dtype}")
        target[...] = triangle(block, self.uplo) if i == j else block

    def _fill(
        self, block: Callable[[slice, slice], NDArray[Any]], map_tiles: MapTiles | None
    ) -> None:
        """Set all tiles to the blocks of an array or file, given by index ranges."""

        def fill(i: int, j: int) -> None:
            self._put(i, j, block(self.rows(i), self.cols(j)))

        each_tile(self.own_tiles(), fill, map_tiles)

    # Turned into something ----------------------------------------------------------------------

    def to_array(
        self,
        order: Literal["K", "F", "C"] = "K",
        fill: Literal["triangle", "symmetric", "hermitian"] | None = None,
        copy: bool | None = True,
    ) -> NDArray[Any]:
        """Return the matrix as an array.

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
            When an argument is not allowed, or `copy` is False and a copy is needed.
        """
        if order not in ("K", "F", "C"):
            raise ValueError(f"order is {order!r}; allowed: 'K', 'F', 'C'")
        if self.uplo is None:
            if fill is not None:
                raise ValueError(f"fill is {fill!r}; a matrix without uplo has nothing to fill")
            if self.distribution is not None:
                return self._gathered(order)
            return np.array(self._store.arrays[0], order=order, copy=copy)
        if fill not in (None, "triangle", "symmetric", "hermitian"):
            raise ValueError(f"fill is {fill!r}; allowed: None, triangle, symmetric, hermitian")
        if copy is False:
            raise ValueError(f"copy is False; a matrix with uplo {self.uplo!r} must be copied")
        array = np.zeros(self.shape, self.dtype, order=self.order if order == "K" else order)
        for i, j, block in self._blocks():
            rows, cols = self.rows(i), self.cols(j)
            if i == j:
                block = triangle(block, self.uplo)
            if fill in ("symmetric", "hermitian"):
                mirrored = block.T.conj() if fill == "hermitian" else block.T
                array[cols, rows] = mirrored
                if i == j:
                    block = merge_triangles(block, mirrored, self.uplo)
            array[rows, cols] = block
        if fill == "hermitian" and self.dtype.kind == "c":
            np.einsum("ii->i", array).imag = 0
        return array

    def _blocks(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Iterate over all tiles; of a distributed matrix on all ranks."""
        if self.distribution is None:
            return ((i, j, self.tile(i, j).array) for i, j in self.layout.tiles())
        gather = place().gather
        if gather is None:
            raise ValueError("the matrix is distributed, and its tiles are gathered by the engine")
        blocks: Iterator[tuple[int, int, NDArray[Any]]] = gather(self)
        return blocks

    def _gathered(self, order: Literal["K", "F", "C"]) -> NDArray[Any]:
        array = np.empty(self.shape, self.dtype, order="F" if order == "K" else order)
        for i, j, block in self._blocks():
            array[self.rows(i), self.cols(j)] = block
        return array

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Be an array to NumPy: `to_array`, with zeros for the triangle that is not stored."""
        # True has made its copy before the dtype is changed.
        return np.array(self.to_array(copy=copy), dtype, copy=None if copy else copy)

    def _block(self, rows: slice, cols: slice) -> NDArray[Any]:
        """Return what a tile holds, as it counts."""
        i, j = rows.start // self.nb, cols.start // self.nb
        array = self.tile(i, j).array
        return triangle(array, self.uplo) if i == j else array

    def astype(self, dtype: DTypeLike) -> TiledMatrix:
        """Return a copy in another dtype, as `like` lays it out; TypeError for complex to real."""
        result = self.like(dtype)
        for i, j in self.own_tiles():
            result._put(i, j, self.tile(i, j).array)
        return result

    def copy(self) -> TiledMatrix:
        """Return a copy, as `like` lays it out."""
        return self.astype(self.dtype)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the matrix: ``.npy`` or ``.mtx`` by the extension, or a folder of tiles.

        A file holds the whole matrix, with zeros for the triangle that is not stored; a folder
        holds the tiles as they are. Both appear whole or not at all, and replace what `save` wrote
        before. Text knows no precision: ``.mtx`` gives single precision back as double.

        Parameters
        ----------
        path : path-like
            A folder has no extension, or ``.tiles``.

        Raises
        ------
        ValueError
            When the extension is another one.
        FileNotFoundError
            When the parent folder does not exist.
        FileExistsError
            When `path` exists and is not of the kind that is to be written.
        """
        if self.distribution is not None:
            raise ValueError("a distributed matrix cannot be saved yet: save its to_array()")
        whole = self._store.arrays[0] if self.uplo is None else None
        stored = matrix_files.Stored(self.layout, self.dtype, self.order, self._block, whole)
        matrix_files.write(path, stored)


def _own(layout: Layout, distribution: Distribution, rank: int) -> list[tuple[int, int]]:
    """Return the tiles of a rank, column after column."""
    owner = distribution(*np.indices((layout.mt, layout.nt)))
    return [(i, j) for i, j in layout.tiles() if owner[i, j] == rank]


def generate(matrix: TiledMatrix, i: int, j: int, f: BlockFunction) -> None:
    """Set tile (i, j) of a matrix to ``f(rows, cols)``; checks and raises as `from_function`."""
    rows, cols = matrix.rows(i), matrix.cols(j)
    block = f(np.arange(rows.start, rows.stop), np.arange(cols.start, cols.stop))
    matrix._put(i, j, np.asarray(block))
