"""What the tasks of the Dask engine give and get: tiles that lie together in strips.

Nothing here imports Dask: workers run it, and so does any scheduler of Dask's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla.engines.dask_memory import received, sendable

__all__ = ["Position", "Spot", "Strips", "tile_of"]

#: Where a tile is in the value of a key: its number among strips, -1 for all of an array, or the
#: rows and columns of a part of it: top, bottom, left, right.
Position: TypeAlias = int | tuple[int, int, int, int]


class Spot(NamedTuple):
    """Where a tile lies: the array, its range there, and along which axis."""

    array: int
    begin: int
    end: int
    axis: int


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
        """Return a tile, as a view."""
        number, begin, end, axis = self.spots[position]
        strip = self.arrays[number]
        return strip[:, begin:end] if axis else strip[begin:end]

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


def _received(sent: Sequence[Any], spots: Sequence[Spot]) -> Strips:
    """Return strips that have come from elsewhere."""
    return Strips([received(strip) for strip in sent], spots)
