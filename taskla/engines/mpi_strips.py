"""Memory for tiles that are received, and how a tile goes through MPI."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.exchange import Part
from taskla.formats import FORMATS
from taskla.graph import Grid
from taskla.rounding import pack, unpack
from taskla.tile import Tile

__all__ = ["Strips", "flat", "packed", "packing", "room_for", "unpack_to"]

#: Bytes before a packed tile: its scale.
_SCALE = 8


class Strips:
    """Memory for received tiles: those of one tile column (or row) are one block to a kernel."""

    def __init__(self, part: Part, rowwise: set[str], slots: list[int]) -> None:
        graph = part.graph
        self._sizes: dict[tuple[Any, ...], tuple[int, int]] = {}
        self._arrays: dict[tuple[Any, ...], tuple[NDArray[Any], int]] = {}
        self._left: dict[tuple[Any, ...], int] = {}
        found = {}
        for slot in slots:
            number = int(part.number[slot])
            grid = graph.grid_of(number)
            i, j = (int(index) for index in grid.coordinates(number))
            rows, cols = (int(size) for size in grid.shapes(number))
            # of the second version of a tile on, grids are named after the first
            beside = grid.name.partition("'")[0] in rowwise
            key = (grid.base, beside, i if beside else j, grid.dtype)
            found[slot] = key, j if beside else i, rows, cols
        offsets: dict[tuple[Any, ...], int] = {}
        places: dict[int, int] = {}
        for slot in sorted(found, key=lambda slot: found[slot][1]):
            key, _, rows, cols = found[slot]
            length = cols if key[1] else rows
            places[slot] = offsets.get(key, 0)
            offsets[key] = places[slot] + length
            across = rows if key[1] else cols
            self._sizes[key] = offsets[key], across
            self._left[key] = self._left.get(key, 0) + 1
        self._where = {
            slot: (key, places[slot], rows, cols) for slot, (key, _, rows, cols) in found.items()
        }

    def tile(self, slot: int) -> Tile:
        """Return the tile for a message; asked for once each."""
        key, place, rows, cols = self._where[slot]
        strip = self._arrays.get(key)
        if strip is None:
            along, across = self._sizes[key]
            shape = (across, along) if key[1] else (along, across)
            array = np.empty(shape, key[3], order="F")
            strip = self._arrays[key] = array, self._left[key]
        array, left = strip
        if left == 1:
            # the tiles keep it alive, as long as any is in use
            del self._arrays[key]
        else:
            self._arrays[key] = array, left - 1
        return Tile(array[:, place : place + cols] if key[1] else array[place : place + rows])


def flat(array: NDArray[Any], copy: bool) -> NDArray[Any]:
    """Return the columns of a tile one after the other, in one block of memory."""
    return np.array(array.T, order="C", copy=True if copy else None)


def room(array: NDArray[Any]) -> NDArray[Any]:
    """Return where a tile can be received to: itself, if its columns follow one another."""
    whole = array.T
    return whole if whole.flags.c_contiguous else np.empty(whole.shape, whole.dtype)


def packing(grid: Grid) -> str | None:
    """Return the format in which tiles travel, None for those that travel as they are held."""
    if grid.format is None or FORMATS[grid.format].storage == FORMATS[grid.format].real:
        return None
    return grid.format


def packed(array: NDArray[Any], format: str) -> NDArray[np.uint8]:
    """Return a tile as its format stores it, in one block of memory."""
    block = _block(array, format)
    _, block[:_SCALE].view(np.float64)[0] = pack(array, format, out=_stored(block, array, format))
    return block


def room_for(array: NDArray[Any], format: str | None) -> NDArray[Any]:
    """Return where a tile can be received to, packed or not."""
    return room(array) if format is None else _block(array, format)


def unpack_to(array: NDArray[Any], block: NDArray[Any], format: str | None) -> None:
    """Copy what was received to a tile, where it is not there already."""
    if format is not None:
        scale = float(block[:_SCALE].view(np.float64)[0])
        unpack(_stored(block, array, format), format, scale, out=array)
    elif not np.may_share_memory(block, array):
        array.T[...] = block


def _block(array: NDArray[Any], format: str) -> NDArray[np.uint8]:
    return np.empty(_SCALE + array.size * _storage(array, format).itemsize, np.uint8)


def _stored(block: NDArray[Any], array: NDArray[Any], format: str) -> NDArray[Any]:
    return block[_SCALE:].view(_storage(array, format)).reshape(array.shape, order="F")


def _storage(array: NDArray[Any], format: str) -> np.dtype[Any]:
    found = FORMATS[format]
    return found.complex_storage if array.dtype.kind == "c" else found.storage
