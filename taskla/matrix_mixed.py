"""The memory of a tiled matrix whose tiles have number formats of their own."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from taskla.distributions import Distribution
from taskla.formats import FORMATS, dtype_of, format_of
from taskla.matrix_layout import Layout, MapTiles, Uplo, each_tile
from taskla.matrix_place import Collectives
from taskla.matrix_store import OwnStore, allocate_own, set_block, triangle
from taskla.precision import NAMES, Codes, PrecisionMap, codes_of
from taskla.rounding import pack, unpack
from taskla.tile import Order, Tile

__all__ = [
    "MixedStore",
    "PackedTile",
    "Part",
    "codes_of_squares",
    "map_codes",
    "mixed_store",
    "refuse_overflow",
    "refuse_tolerance",
    "tile_square",
    "tile_squares",
]

Block = Callable[[int, int], ArrayLike]


@dataclass(frozen=True)
class PackedTile:
    """A tile as its format stores it; to NumPy an array of its numbers.

    Attributes
    ----------
    format : str
    numbers : ndarray
        Of the format's ``storage`` or ``complex_storage``.
    scale : float, default 1.0
        What they were multiplied by, a power of two.
    """

    format: str
    numbers: NDArray[Any]
    scale: float = 1.0

    @property
    def dtype(self) -> np.dtype[Any]:
        """In which the tile is computed with."""
        return dtype_of(self.format, self.numbers.dtype == FORMATS[self.format].complex_storage)

    def part(self, rows: slice, cols: slice) -> PackedTile:
        """Return a part of the tile: a view."""
        return replace(self, numbers=self.numbers[rows, cols])

    def read(self, out: NDArray[Any]) -> None:
        """Copy the numbers into an array."""
        if self.numbers.dtype == self.dtype:
            out[...] = self.numbers
        else:
            unpack(self.numbers, self.format, self.scale, out=out)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the numbers as they are computed with: a view if they are stored so."""
        array = self.numbers
        if array.dtype != self.dtype:
            array = unpack(array, self.format, self.scale)
        return np.array(array, dtype, copy=copy)


class MixedStore:
    """Tiles in several number formats, and what is needed to compute with them.

    At rest each format has its own memory, tiles of 16 and 8 bits packed with a scale. While a
    program runs (`working`) those are held in fp32, and packed again afterwards.

    Parameters
    ----------
    layout : Layout
    dtype : numpy.dtype
        What the matrix seems to be made of.
    codes : (mt, nt) int8 array
        The format of each tile, indices into `taskla.precision.NAMES`.
    own : sequence of (int, int)
        The tiles that are here.
    precision : PrecisionMap, optional
        What the codes came from.

    Attributes
    ----------
    codes, precision
    order : {"F"}
    writeable : bool
    scales : (mt, nt) float64 array
        What packed tiles were multiplied by.
    """

    def __init__(
        self,
        layout: Layout,
        dtype: np.dtype[Any],
        codes: Codes,
        own: Sequence[tuple[int, int]],
        precision: PrecisionMap | None = None,
    ) -> None:
        self._layout, self._dtype, self._own = layout, dtype, list(own)
        self.codes, self.precision = codes, precision
        self.order: Order = "F"
        self.writeable = True
        self.scales = np.ones(codes.shape)
        self._complex = dtype.kind == "c"
        self._rest = {name: self._new(name, self._stored(name)) for name in self.formats()}
        self._held: dict[str, OwnStore] = {}
        self._loaded: set[tuple[int, int]] = set()
        self._locks: dict[tuple[int, int], threading.Lock] = {}

    def formats(self) -> list[str]:
        """Return the names of the formats of all tiles of the matrix, the widest first."""
        mt, nt = self.codes.shape
        exist = [self.codes[i, j] for i in range(mt) for j in range(nt) if self._exists(i, j)]
        return [NAMES[code] for code in np.unique(exist)] if exist else []

    def _exists(self, i: int, j: int) -> bool:
        return self._layout.stores(i, j)

    def _tiles(self, name: str) -> list[tuple[int, int]]:
        code = NAMES.index(name)
        return [tile for tile in self._own if self.codes[tile] == code]

    def _stored(self, name: str) -> np.dtype[Any]:
        format = FORMATS[name]
        return format.complex_storage if self._complex else format.storage

    def _new(self, name: str, dtype: np.dtype[Any]) -> OwnStore:
        own = self._tiles(name)
        return OwnStore(self._layout, own, allocate_own(self._layout, own, dtype, np.zeros))

    @property
    def nbytes(self) -> int:
        """Bytes of the tiles that are here, at rest."""
        return sum(array.nbytes for store in self._rest.values() for array in store.arrays)

    def nbytes_by_format(self) -> dict[str, int]:
        """Return the bytes of the tiles that are here, by format."""
        return {
            name: sum(array.nbytes for array in store.arrays) for name, store in self._rest.items()
        }

    def _name(self, i: int, j: int) -> str:
        return NAMES[int(self.codes[i, j])]

    def __contains__(self, tile: tuple[int, int]) -> bool:
        return tile in self._rest[self._name(*tile)] if self._exists(*tile) else False

    def cut(self, i: int, j: int) -> Tile:
        """Return tile (i, j): a view where its format is a data type of NumPy's, else a copy."""
        name = self._name(i, j)
        if name in self._held and (i, j) in self._loaded:
            return self._held[name].cut(i, j)
        stored = self._rest[name].cut_array(i, j)
        held = dtype_of(name, self._complex)
        if stored.dtype == held:
            return Tile(stored)
        array = np.empty(stored.shape, held, order="F")
        unpack(stored, name, self.scales[i, j], out=array)
        array.flags.writeable = False
        return Tile(array)

    def read(self, i: int, j: int, out: NDArray[Any]) -> None:
        """Copy tile (i, j) into an array."""
        self.packed(i, j).read(out)

    def packed(self, i: int, j: int) -> PackedTile:
        """Return tile (i, j) as it is stored: a view."""
        name = self._name(i, j)
        return PackedTile(name, self._rest[name].cut_array(i, j), float(self.scales[i, j]))

    def put_packed(self, i: int, j: int, tile: PackedTile) -> None:
        """Copy a tile of the format of tile (i, j) into it, bit for bit."""
        numbers = triangle(tile.numbers, self._layout.uplo) if i == j else tile.numbers
        self._rest[tile.format].cut_array(i, j)[...] = numbers
        self.scales[i, j] = tile.scale

    def put(self, i: int, j: int, block: NDArray[Any]) -> None:
        """Copy a block into tile (i, j), rounded to its format."""
        name = self._name(i, j)
        rest = self._rest[name].cut_array(i, j)
        checked = block
        if (block.dtype, block.shape) != (self._dtype, rest.shape) or (
            i == j and self._layout.uplo
        ):
            checked = np.empty(rest.shape, self._dtype, order="F")
            set_block(checked, block, i, j, self._layout.uplo)
        refuse_overflow(checked, name, i, j)
        self._pack(i, j, name, checked)

    def _pack(self, i: int, j: int, name: str, array: NDArray[Any]) -> None:
        rest = self._rest[name].cut_array(i, j)
        _, self.scales[i, j] = pack(array, name, out=rest)

    def copy(self) -> MixedStore:
        """Return a copy."""
        other = MixedStore(self._layout, self._dtype, self.codes, self._own, self.precision)
        other.scales[...] = self.scales
        for name, store in self._rest.items():
            for array, target in zip(store.arrays, other._rest[name].arrays, strict=True):
                target[...] = array
        return other

    def part(self, matrix: Any, name: str) -> Part:
        """Return the tiles of a matrix, whose memory this is, that have a format."""
        return Part(self, self._layout, dtype_of(name, self._complex), matrix.distribution)

    # -- while a program runs ----------------------------------------------------------------------

    @contextmanager
    def working(self, written: bool) -> Iterator[None]:
        """Hold all tiles in formats that kernels compute in; pack them at the end.

        Parameters
        ----------
        written : bool
            Whether the tiles may have been changed.
        """
        for name in self._rest:
            dtype = dtype_of(name, self._complex)
            if self._stored(name) != dtype:
                own = self._tiles(name)
                arrays = allocate_own(self._layout, own, dtype, np.empty)
                self._held[name] = OwnStore(self._layout, own, arrays)
        self._loaded.clear()
        try:
            yield
        finally:
            if written:
                each_tile(sorted(self._loaded), self._settle)
            self._held.clear()
            self._loaded.clear()
            # matrices are pickled, locks are not
            self._locks.clear()

    def _settle(self, i: int, j: int) -> None:
        name = self._name(i, j)
        self._pack(i, j, name, self._held[name].cut(i, j).array)

    def held(self, i: int, j: int) -> Tile:
        """Return tile (i, j) to be computed with, inside of `working`."""
        name = self._name(i, j)
        store = self._held.get(name)
        if store is None:
            return self._rest[name].cut(i, j)
        tile = store.cut(i, j)
        if (i, j) not in self._loaded:
            # Tasks that only read may come at once, and unpacking takes more than one step: who is
            # second must neither see the tile half done nor do it again.
            with self._locks.setdefault((i, j), threading.Lock()):
                if (i, j) not in self._loaded:
                    rest = self._rest[name].cut_array(i, j)
                    unpack(rest, name, self.scales[i, j], out=tile.array)
                    self._loaded.add((i, j))
        return tile


def refuse_overflow(array: NDArray[Any], name: str, i: int, j: int) -> None:
    """Raise OverflowError when tile (i, j) has finite entries that are too large for its format."""
    format = FORMATS[name]
    # tiles of a narrow range are scaled, but held in fp32
    most = FORMATS["fp32"].max if format.scaled else format.max
    if most < FORMATS[format_of(array.dtype).name].max:
        largest = max(abs(float(part.max(initial=0.0))) for part in _extremes(array))
        if most < largest < np.inf:
            raise OverflowError(
                f"tile ({i}, {j}) has an entry of {largest:.3g}; {name} holds {most:.3g} at most"
            )


def _extremes(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Iterate over arrays whose maxima are the largest absolute values of the parts of another."""
    parts = (array.real, array.imag) if array.dtype.kind == "c" else (array,)
    for part in parts:
        yield part.max(axis=0, initial=0.0)
        yield -part.min(axis=0, initial=0.0)


class Part:
    """The tiles of one format, as engines want a matrix.

    Parameters
    ----------
    store : MixedStore
    layout : Layout
    dtype : numpy.dtype
        In which the tiles are held.
    distribution : Distribution or None
        Of the matrix.
    """

    writeable = True

    def __init__(
        self,
        store: MixedStore,
        layout: Layout,
        dtype: np.dtype[Any],
        distribution: Distribution | None,
    ) -> None:
        self._store = store
        self.layout = layout
        self.m, self.n, self.nb, self.uplo = layout.m, layout.n, layout.nb, layout.uplo
        self.dtype = dtype
        self.distribution = distribution

    def tile(self, i: int, j: int) -> Tile:
        """Return tile (i, j)."""
        if not self.layout.stores(i, j):
            raise IndexError(f"tile ({i}, {j}) does not exist")
        return self._store.held(i, j)


def mixed_store(
    precision: PrecisionMap | Codes,
    layout: Layout,
    dtype: np.dtype[Any],
    own: list[tuple[int, int]],
    block: Block,
    ranks: Collectives,
    map_tiles: MapTiles | None,
) -> MixedStore:
    """Return the tiles of a matrix in the formats that a map gives them.

    Parameters
    ----------
    precision : PrecisionMap or (mt, nt) int8 array
    layout, dtype
        Of the matrix. No tile has a format that is wider than `dtype`.
    own : list of (int, int)
        The tiles that are here.
    block : callable
        ``block(i, j)`` returns what a tile holds; with an adaptive map it is called twice. It may
        return a `PackedTile` of the format that the tile has.
    ranks : Collectives
        Of those that share the matrix; all of them call this.
    map_tiles : callable, optional
        Who calls `block`.

    Raises
    ------
    ValueError
        When a map does not fit the tiles, or an adaptive one meets infs or NaNs.
    OverflowError
        When a tile has entries that its format has not.
    """

    def squares() -> NDArray[np.float64]:
        return tile_squares(layout, own, block, ranks, map_tiles)

    codes = map_codes(precision, layout, dtype, squares)
    made_by = precision if isinstance(precision, PrecisionMap) else None
    store = MixedStore(layout, dtype, codes, own, made_by)

    def put(i: int, j: int) -> None:
        tile = block(i, j)
        if isinstance(tile, PackedTile):
            store.put_packed(i, j, tile)
        else:
            store.put(i, j, np.asarray(tile))

    with ranks.agreed():
        each_tile(own, put, map_tiles)
    return store


def map_codes(
    precision: PrecisionMap | Codes,
    layout: Layout,
    dtype: np.dtype[Any],
    squares: Callable[[], NDArray[np.float64]],
) -> Codes:
    """Return the formats of tiles, none wider than a dtype; `squares` is called if need be.

    Parameters and errors are those of `mixed_store` and `tile_squares`.
    """
    refuse_tolerance(precision, dtype)
    if isinstance(precision, PrecisionMap) and precision.needs_norms:
        codes = codes_of_squares(precision, layout, squares())
    else:
        codes = codes_of(precision, layout.mt, layout.nt)
    if layout.uplo:
        # tiles that are not stored are those of the other triangle
        lower = np.tri(layout.mt, dtype=np.bool_)
        codes = np.where(lower if layout.uplo == "lower" else lower.T, codes, codes.T)
    return np.maximum(codes, np.int8(NAMES.index(format_of(dtype).name)))


def refuse_tolerance(precision: PrecisionMap | Codes, dtype: np.dtype[Any]) -> None:
    """Raise ValueError for a tolerance that numbers of a dtype cannot keep."""
    tol = precision.tol if isinstance(precision, PrecisionMap) else None
    least = format_of(dtype).unit_roundoff
    if tol is not None and tol < least:
        raise ValueError(f"tol is {tol}; with {dtype} it must be at least {least:.2g}")


def codes_of_squares(
    precision: PrecisionMap, layout: Layout, squares: NDArray[np.float64]
) -> Codes:
    """Return the formats that follow from the sums of squares of tiles: see `tile_squares`."""
    total = math.sqrt(_total(squares, layout))
    if layout.uplo:
        # by columns both triangles count
        squares = np.maximum(squares, squares.T)
    return precision.of_norms(np.sqrt(squares), total, min(layout.m, layout.n))


def _total(squares: NDArray[np.float64], layout: Layout) -> float:
    """Return the sum of squares of a matrix, both triangles of a symmetric one."""
    total = float(squares.sum())
    return 2 * total - float(np.trace(squares)) if layout.uplo else total


def tile_squares(
    layout: Layout,
    own: list[tuple[int, int]],
    block: Block,
    ranks: Collectives,
    map_tiles: MapTiles | None,
) -> NDArray[np.float64]:
    """Return the sums of squares of tiles, the same on all ranks; 0 for those not stored.

    Of a diagonal tile of one triangle they are those of the symmetric tile.

    Raises
    ------
    ValueError
        When a tile has infs or NaNs, on any rank.
    """
    squares = np.zeros((layout.mt, layout.nt))

    def note(i: int, j: int) -> None:
        array = np.asarray(block(i, j))
        squares[i, j] = tile_square(array, layout.uplo if i == j else None)
        if not np.isfinite(squares[i, j]) and np.isfinite(array).all():
            raise OverflowError(
                f"tile ({i}, {j}) has entries whose squares are too large for a norm: scale the "
                "matrix"
            )

    with ranks.agreed():
        each_tile(own, note, map_tiles)
        if not np.isfinite(squares).all():
            raise ValueError("array must not contain infs or NaNs")
    for share in ranks.share([[i, j, squares[i, j]] for i, j in own]):
        for i, j, square in share:
            squares[i, j] = square
    return squares


def tile_square(array: NDArray[Any], uplo: Uplo | None) -> float:
    """Return the sum of squares of a tile, or of the symmetric one of which it has a triangle."""
    array = triangle(array, uplo)
    square = _square(array)
    return 2 * square - _square(np.diagonal(array)) if uplo else square


def _square(array: NDArray[Any]) -> float:
    """Return the sum of squares of an array, summed in double."""
    parts = (array.real, array.imag) if array.dtype.kind == "c" else (array,)
    # einsum takes a view of any strides as it is, where a dot product would copy it first
    return sum(
        float(np.einsum("ij,ij->", p, p, dtype=np.float64)) for p in map(np.atleast_2d, parts)
    )
