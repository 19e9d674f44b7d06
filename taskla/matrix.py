"""TiledMatrix: a matrix whose tiles are views into memory, from and to NumPy, files, functions."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from taskla import matrix_files
from taskla.distributions import Distribution
from taskla.formats import working_dtype
from taskla.matrix_layout import MapTiles
from taskla.matrix_making import (
    BlockFunction,
    MadeTiles,
    asked,
    generate,
    ranges_of_new,
)
from taskla.matrix_place import dask_maker, owners_of_new, place
from taskla.matrix_random import Kind, random_block
from taskla.matrix_store import layout_asked_for, obstacle, triangle_name
from taskla.precision import Precision
from taskla.tile import Order

__all__ = ["BlockFunction", "TiledMatrix", "generate"]


class TiledMatrix(MadeTiles):
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

    # Made from something ------------------------------------------------------------------------

    @classmethod
    def from_array(
        cls,
        a: ArrayLike,
        nb: int | None = None,
        uplo: str | None = None,
        copy: bool | None = None,
        *,
        precision: Precision | None = None,
        distribution: str | Distribution | None = None,
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
        distribution : str or Distribution, optional
            As for `from_function`: each rank copies its own tiles of the array.
        map_tiles : callable, optional
            Who copies the tiles, see `taskla.matrix_layout`.

        Raises
        ------
        ValueError
            When `a` is not 2-D, is masked or has an unsupported dtype; when `uplo` is given and `a`
            is not square; when `copy` is False and a copy is needed; when `precision` is adaptive
            and `a` is not finite.
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
        if place().ranks > 1 and copy is False:
            raise ValueError("copy is False; a rank copies its tiles of an array")
        if precision is not None:
            if copy is False:
                raise ValueError("copy is False; tiles with a precision are copies")

            def part(i: int, j: int) -> NDArray[Any]:
                return array[layout.rows(i), layout.cols(j)]

            return cls._mixed(part, layout, dtype, precision, distribution, map_tiles)
        if (maker := place().maker) is not None:
            if copy is False:
                raise ValueError("copy is False; workers get copies of an array's tiles")
            made: TiledMatrix = maker.from_array(array, layout, dtype, distribution)
            return made
        owners = owners_of_new(distribution)
        if owners is None and (
            copy is False or (copy is None and not why and array.flags.writeable)
        ):
            return cls(layout, dtype, [array])

        def block(rows: slice, cols: slice) -> NDArray[Any]:
            return array[rows, cols]

        return cls._of_blocks(block, layout, dtype, "F", owners, map_tiles)

    @classmethod
    def from_function(
        cls,
        f: BlockFunction,
        shape: tuple[int, int],
        nb: int | None = None,
        dtype: DTypeLike = "float64",
        uplo: str | None = None,
        *,
        precision: Precision | None = None,
        distribution: str | Distribution | None = None,
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
        precision
            As for `from_array`. An adaptive map has `f` called twice a tile, for norms first; on
            Dask these are computed at once, and all else is lazy.
        distribution : str or Distribution, optional
            Of the tiles over the ranks, by name or as an object. Default: that of the engine.
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
        checked, layout = asked(shape, nb, dtype, uplo)
        return cls._of_function(f, layout, checked, precision, distribution, map_tiles)

    @classmethod
    def from_dask(
        cls,
        x: Any,
        nb: int | None = None,
        uplo: str | None = None,
        *,
        precision: Precision | None = None,
        distribution: str | Distribution | None = None,
    ) -> TiledMatrix:
        """Take the chunks of a Dask array for tiles; nothing is computed or moved.

        Parameters
        ----------
        x : dask.array.Array, shape (m, n) or (m,)
            With any chunks: it is rechunked to tiles, lazily. Integers and booleans become float64,
            float16 becomes float32. A vector is one column.
        nb : int, optional
            The tile size. Default: that of the chunks if these are square, neither very many nor
            too few for the workers, else one that gives each worker a few tile columns.
        uplo : {None, "lower", "upper", "L", "U"}
            Use this triangle of a square `x` only; the chunks of the other are not computed.
        precision
            As for `from_array`. For an adaptive map the norms of the tiles are computed at once,
            and the chunks once more later unless they are persisted.
        distribution : str or Distribution, optional
            Of the tiles over the workers. Default: that of the engine.

        Returns
        -------
        TiledMatrix
            Lazy, on the engine in force if that is "dask", else on the current client's cluster, or
            on what Dask computes on without one.

        Raises
        ------
        TypeError
            When `x` is no Dask array.
        ValueError
            When it has other than one or two dimensions, or chunks of unknown size; when an
            argument is not allowed.
        """
        made: TiledMatrix = dask_maker().matrix(x, nb, uplo, distribution)
        return made if precision is None else made.with_precision(precision)

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
        precision: Precision | None = None,
        distribution: str | Distribution | None = None,
        map_tiles: MapTiles | None = None,
    ) -> TiledMatrix:
        """Make a random test matrix, the same for every tile size and storage.

        Parameters
        ----------
        shape, nb, dtype, uplo, precision, distribution, map_tiles
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

        how = {"precision": precision, "distribution": distribution, "map_tiles": map_tiles}
        return cls.from_function(block, shape, layout.nb, dtype, uplo, **how)  # type: ignore[arg-type]

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        nb: int | None = None,
        mmap: bool | matrix_files.MmapMode = True,
        uplo: str | None = None,
        *,
        distribution: str | Distribution | None = None,
        map_tiles: MapTiles | None = None,
    ) -> TiledMatrix:
        """Read a matrix from a ``.npy`` or ``.mtx`` file or a folder of tiles.

        Tiles of a folder have the formats that they were saved in; cut to another tile size they
        are all of the dtype of the matrix.

        Of a distributed matrix each rank reads its own tiles: its files of a folder, its part of a
        mapped ``.npy`` file; a ``.mtx`` file is read by all. All ranks call this, and when it fails
        on one, all raise.

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
            files are read. A mode given by name is an error where the file cannot be mapped, and
            for a distributed matrix, whose tiles are copies.
        uplo : {None, "lower", "upper", "L", "U"}
            Use this triangle only. A folder that holds one triangle gives that.
        distribution
            As for `from_function`.
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
        here = place()
        if here.ranks > 1 and isinstance(mmap, str):
            raise ValueError(
                f"mmap is {mmap!r}; each rank copies its tiles of a file, so only True and False "
                "are allowed"
            )
        with here.collectives.agreed():
            stored = matrix_files.read(path, mmap)
            own = stored.layout
            uplo = triangle_name(uplo) or own.uplo
            if own.uplo not in (None, uplo):
                raise ValueError(f"{path}: holds the {own.uplo} triangle; uplo is {uplo!r}")
            if stored.array is not None:
                copy = False if isinstance(mmap, str) else None
                how = {"distribution": distribution, "map_tiles": map_tiles}
                return cls.from_array(stored.array, nb, uplo, copy, **how)  # type: ignore[arg-type]
            if stored.tiled and nb is None:
                nb = own.nb
            layout = layout_asked_for((own.m, own.n), nb, stored.dtype, uplo)
            packed = stored.packed if layout.nb == own.nb else None
            stored.check(ranges_of_new(layout, distribution))
            if packed is None:
                order = "F" if uplo else stored.order
                return cls._of_blocks(
                    stored.block, layout, stored.dtype, order, distribution, map_tiles
                )
        return cls._mixed(packed.tile, layout, stored.dtype, packed.codes, distribution, map_tiles)

    # Made of nothing ----------------------------------------------------------------------------

    @classmethod
    def empty(
        cls,
        shape: tuple[int, int],
        nb: int | None = None,
        dtype: DTypeLike = "float64",
        uplo: str | None = None,
        order: Order = "F",
        *,
        distribution: str | Distribution | None = None,
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
            The order of a full matrix; a triangle and a distributed matrix are always "F".
        distribution
            As for `from_function`.

        Raises
        ------
        TypeError
            When a size is not an integer.
        ValueError
            When an argument is not allowed.
        """
        return cls._make(shape, nb, dtype, uplo, order, np.empty, distribution)

    @classmethod
    def zeros(
        cls,
        shape: tuple[int, int],
        nb: int | None = None,
        dtype: DTypeLike = "float64",
        uplo: str | None = None,
        order: Order = "F",
        *,
        distribution: str | Distribution | None = None,
    ) -> TiledMatrix:
        """Return a matrix of zeros; otherwise as `empty`."""
        return cls._make(shape, nb, dtype, uplo, order, np.zeros, distribution)

    # Made of another ----------------------------------------------------------------------------

    def like(self, dtype: DTypeLike | None = None) -> TiledMatrix:
        """Return an `empty` matrix with the same shape, tile size, uplo and order."""
        dtype = self.dtype if dtype is None else dtype
        order: Order = "F" if self.uplo or self.distribution else self.order
        return self._make(self.shape, self.nb, dtype, self.uplo, order, np.empty, self.distribution)

    def astype(self, dtype: DTypeLike) -> TiledMatrix:
        """Return a copy in another dtype, as `like` lays it out; TypeError for complex to real.

        Tiles that have formats of their own are all of this dtype in the copy.
        """
        result = self.like(dtype)
        for i, j in self.own_tiles():
            result.put(i, j, self.tile(i, j).array)
        return result

    def copy(self) -> TiledMatrix:
        """Return a copy, as `like` lays it out; tiles keep their formats."""
        if self.mixed is not None:
            store = self.mixed.copy()
            other = type(self)(self.layout, self.dtype, store, self.distribution, self._rank)
            other.accuracy = self.accuracy
            return other
        return self.astype(self.dtype)

    def with_precision(
        self, precision: Precision, *, map_tiles: MapTiles | None = None
    ) -> TiledMatrix:
        """Return a copy whose tiles have the number formats that a map gives them.

        Parameters
        ----------
        precision, map_tiles
            As for `from_array`.

        Raises
        ------
        ValueError
            When an argument is not allowed, or `precision` is adaptive and there are infs or NaNs.

        Examples
        --------
        >>> A = TiledMatrix.random((6, 6), nb=2, kind="spd", uplo="lower")
        >>> A.with_precision("fp64:1,fp16:rest").nbytes, A.nbytes
        (120, 192)
        """
        return self._mixed(
            self.block, self.layout, self.dtype, precision, self.distribution, map_tiles
        )

    def redistribute(self, distribution: str | Distribution) -> TiledMatrix:
        """Return a copy with other owners; on one rank, a copy.

        All ranks call this. A tile whose owner changes travels once, from the one to the other; no
        rank holds more than the engine's window beside the two matrices. What each rank has whole
        is cut, and nothing travels. Tiles that have formats of their own are of `dtype` in the
        copy.

        Parameters
        ----------
        distribution : str or Distribution
            By name, or an object, for as many ranks as there are.

        Raises
        ------
        ValueError
            When there is no such map for this number of ranks; when the matrix is distributed and
            its engine not in force.

        Examples
        --------
        >>> A = TiledMatrix.random((6, 6), nb=2)
        >>> bool((A.redistribute("row").to_array() == A.to_array()).all())
        True
        """
        owners = owners_of_new(distribution)
        if owners is None and self.distribution is None:
            return self.copy()
        together = place().collectives if self.distribution is None else self._collectives
        with together.agreed():
            result = self._make(self.shape, self.nb, self.dtype, self.uplo, "F", np.empty, owners)
        together.redistribute(self, result)
        return result
