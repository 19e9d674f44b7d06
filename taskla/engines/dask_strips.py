"""What the tasks of the Dask engine give and get: tiles that lie together in strips.

Tiles of formats that no kernel computes in (16 and 8 bits) are packed when they are numbers of
theirs: they stay on workers and travel as bytes, with a scale each, and whoever reads one unpacks
it.

Nothing here imports Dask: workers run it, and so does any scheduler of Dask's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla.engines.dask_memory import pool, received, sendable
from taskla.formats import FORMATS, dtype_of
from taskla.rounding import pack, unpack

__all__ = ["Position", "Spot", "Strips", "is_packed", "stored", "tile_of"]

#: Where a tile is in the value of a key: its number among strips, -1 for all of an array, or the
#: rows and columns of a part of it: top, bottom, left, right.
Position: TypeAlias = int | tuple[int, int, int, int]


class Spot(NamedTuple):
    """Where a tile lies.

    Attributes
    ----------
    array : int
    begin, end : int
        Its range there.
    axis : int
        Along which that is.
    format : str
        Of a packed tile; "" for one that is there as it is computed with.
    scale : float
        What a packed tile was multiplied by.
    """

    array: int
    begin: int
    end: int
    axis: int
    format: str = ""
    scale: float = 1.0


class Strips:
    """Tiles, in a few arrays: the value of a task. Nobody changes it.

    Parameters
    ----------
    arrays : sequence of ndarray
        Each in Fortran order and contiguous.
    spots : sequence of Spot
        Of each tile.
    """

    __slots__ = ("arrays", "spots")

    def __init__(self, arrays: Sequence[NDArray[Any]], spots: Sequence[Spot]) -> None:
        self.arrays = tuple(arrays)
        self.spots = tuple(spots)

    def __len__(self) -> int:
        return len(self.spots)

    def array(self, position: int) -> NDArray[Any]:
        """Return a tile: a view, or of a packed one a copy."""
        spot = self.spots[position]
        part = _part(self.arrays[spot.array], spot)
        return _unpacked(part, spot.format, spot.scale) if spot.format else part

    @property
    def nbytes(self) -> int:
        """Bytes in all arrays."""
        return sum(array.nbytes for array in self.arrays)

    def __sizeof__(self) -> int:
        # what Dask counts a worker's memory by
        return object.__sizeof__(self) + self.nbytes

    def __reduce__(self) -> tuple[Any, ...]:
        # the arrays leave out of band, as buffers that are not copied
        return _received, (tuple(map(sendable, self.arrays)), self.spots)

    def __repr__(self) -> str:
        return f"Strips({len(self)} tiles, {self.nbytes} bytes)"


def tile_of(value: Any, position: Position) -> NDArray[Any]:
    """Return a tile from the value of its key."""
    if isinstance(position, int) and position >= 0:
        array: NDArray[Any] = value.array(position)
        return array
    array = np.asanyarray(value)
    if array.ndim == 1:
        array = array[:, None]
    if isinstance(position, tuple):
        top, bottom, left, right = position
        array = array[top:bottom, left:right]
    return array


def is_packed(format: str | None, dtype: np.dtype[Any]) -> bool:
    """Whether tiles of a format are stored otherwise than they are held, in a dtype."""
    return format is not None and _storage(format, dtype.kind == "c") != dtype


def stored(
    tiles: Sequence[NDArray[Any]], axis: int, format: str
) -> tuple[NDArray[Any], list[Spot]]:
    """Return tiles side by side in one array, as a format stores them, and where each is.

    Parameters
    ----------
    tiles : sequence of array
        Of any data type of LAPACK's.
    axis : int
        Along which they are neighbours.
    format : str
    """
    complex_type = tiles[0].dtype.kind == "c"
    storage = _storage(format, complex_type)
    packed = is_packed(format, dtype_of(format, complex_type))
    along, across = sum(tile.shape[axis] for tile in tiles), tiles[0].shape[1 - axis]
    # packed ones are bytes to everybody else: not every dtype has a name that arrives elsewhere
    dtype = np.dtype(f"V{storage.itemsize}") if packed else storage
    array = pool.empty((across, along) if axis else (along, across), dtype)
    spots: list[Spot] = []
    begin = 0
    for tile in tiles:
        spot = Spot(0, begin, begin + tile.shape[axis], axis, format if packed else "")
        _, scale = pack(tile, format, out=_part(array, spot).view(storage))
        spots.append(spot._replace(scale=scale))
        begin = spot.end
    return array, spots


def _unpacked(part: NDArray[Any], format: str, scale: float) -> NDArray[Any]:
    known = FORMATS[format]
    complex_type = part.itemsize != known.nbytes
    held = known.complex if complex_type else known.real
    array = np.empty(part.shape, held, order="F")
    return unpack(part.view(_storage(format, complex_type)), format, scale, out=array)


def _storage(format: str, complex_type: bool) -> np.dtype[Any]:
    known = FORMATS[format]
    return known.complex_storage if complex_type else known.storage


def _part(strip: NDArray[Any], spot: Spot) -> NDArray[Any]:
    return strip[:, spot.begin : spot.end] if spot.axis else strip[spot.begin : spot.end]


def _received(sent: Sequence[Any], spots: Sequence[Spot]) -> Strips:
    """Return strips that have come from elsewhere."""
    return Strips([received(strip) for strip in sent], spots)
