"""Dependencies from accesses, in vectorised passes.

The accesses of a program, grouped by tile and in submission order, fall into phases: one write, or
a run of reads, or a run of commutative contributions. Each access waits for the phase before its
own on the same tile; earlier ones are implied. Read after write, write after read and write after
write are the three ways in which neighbouring phases can differ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.operations import Access

__all__ = ["Phases", "Successors", "data_edges", "derive", "phases", "segments", "versions"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_LOW = np.int64(0xFFFFFFFF)


class Successors(NamedTuple):
    """Compressed rows: the successors of t are ``target[pointer[t]:pointer[t + 1]]``."""

    pointer: Int64
    target: Int32


class Phases(NamedTuple):
    """Accesses sorted by (tile, submission), cut into phases.

    ``access`` holds the positions in the program's access arrays, ``start`` where each phase begins
    (and, last, the number of accesses), ``first`` whether a phase is the first of its tile,
    ``reads`` whether it is a run of reads.
    """

    access: Int32
    start: Int32
    first: NDArray[np.bool_]
    reads: NDArray[np.bool_]


def phases(tiles: Int32, modes: NDArray[np.uint8]) -> Phases:
    """Sort the accesses by tile and cut them into phases."""
    # one sort of packed 64-bit keys is several times faster than a stable argsort
    key = tiles.astype(np.int64)
    key <<= 32
    key |= np.arange(tiles.size, dtype=np.int64)
    key.sort()
    access = key.astype(np.int32)
    key >>= 32
    mode = modes[access]
    writes = (mode == Access.W) | (mode == Access.RW)
    new_tile = np.empty(tiles.size, dtype=np.bool_)
    new_tile[:1] = True
    np.not_equal(key[1:], key[:-1], out=new_tile[1:])
    new_phase = writes | new_tile
    new_phase[1:] |= mode[1:] != mode[:-1]
    start = np.flatnonzero(new_phase).astype(np.int32)
    return Phases(
        access=access,
        start=np.append(start, np.int32(tiles.size)),
        first=new_tile[start],
        reads=mode[start] == Access.R,
    )


def _product(before: Int32, after: Int32, found: Phases, task: Int32) -> Int64:
    """Edges from every access of phase ``before[e]`` to every access of ``after[e]``.

    Returned as sorted keys ``source << 32 | target``, once each, without edges of a task to itself.
    """
    size = np.diff(found.start)
    fan = np.repeat(size[before], size[after])
    source = _ranges(np.repeat(found.start[before], size[after]), fan)
    key = task[found.access[source]].astype(np.int64)
    del source
    key <<= 32
    target = _ranges(found.start[after], size[after])
    key |= np.repeat(task[found.access[target]], fan)
    del target, fan
    itself = (key >> 32) == (key & _LOW)
    if itself.any():
        key = key[~itself]
    del itself
    key.sort()
    distinct = np.empty(key.size, dtype=np.bool_)
    distinct[:1] = True
    np.not_equal(key[1:], key[:-1], out=distinct[1:])
    return key if distinct.all() else key[distinct]


def _ranges(start: Int32, length: Int32) -> Int32:
    """Concatenate ``arange(start[i], start[i] + length[i])``, every length at least 1."""
    ends = np.cumsum(length)
    steps = np.ones(int(ends[-1]) if ends.size else 0, dtype=np.int32)
    steps[:1] = start[:1]
    steps[ends[:-1]] = start[1:] - start[:-1] - length[:-1] + 1
    return np.cumsum(steps, out=steps)


def derive(n: int, task: Int32, tiles: Int32, modes: NDArray[np.uint8]) -> Successors:
    """Successors of each task under sequential consistency.

    Parameters
    ----------
    n : int
        Number of tasks.
    task, tiles, modes : (a,) arrays
        The accesses in submission order: whose, to which tile, how.

    Returns
    -------
    Successors
        Without duplicates, each task's successors in increasing order.
    """
    found = phases(tiles, modes)
    after = np.flatnonzero(~found.first).astype(np.int32)
    key = _product(after - 1, after, found, task)
    del found, after
    target = (key & _LOW).astype(np.int32)
    key >>= 32
    pointer = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(key, minlength=n), out=pointer[1:])
    return Successors(pointer, target)


def data_edges(task: Int32, tiles: Int32, modes: NDArray[np.uint8]) -> tuple[Int32, Int32]:
    """Edges from each tile's last writer to the tasks that use its value: read after write only."""
    found = phases(tiles, modes)
    written = _last_write(found)
    mode = modes[found.access[found.start[:-1]]]
    after = np.flatnonzero((written >= 0) & (mode != Access.W)).astype(np.int32)
    key = _product(written[after], after, found, task)
    return (key >> 32).astype(np.int32), (key & _LOW).astype(np.int32)


def _last_write(found: Phases) -> Int32:
    """Per phase the latest phase before it that changed the same tile, or -1."""
    count = found.reads.size
    number = np.arange(count, dtype=np.int32)
    changed = np.maximum.accumulate(np.where(found.reads, -1, number)) if count else number
    before = np.concatenate([[np.int32(-1)], changed[:-1]]) if count else number
    tile_start = np.maximum.accumulate(np.where(found.first, number, 0)) if count else number
    return np.where(before >= tile_start, before, -1)


def versions(tiles: Int32, modes: NDArray[np.uint8]) -> Int64:
    """Number the version of the tile that each access finds.

    Two accesses get the same number exactly if they find the same version of the same tile.
    """
    found = phases(tiles, modes)
    written = _last_write(found)
    number = np.arange(written.size, dtype=np.int32)
    tile_start = np.maximum.accumulate(np.where(found.first, number, 0)) if number.size else number
    # 2 p: as phase p left it; 2 p + 1: as it was before the first phase p of the tile
    version = np.where(written >= 0, 2 * written, 2 * tile_start + 1)
    result = np.empty(tiles.size, dtype=np.int64)
    result[found.access] = np.repeat(version, np.diff(found.start))
    return result


def segments(successors: Successors) -> list[int]:
    """Bounds of runs of consecutive tasks that do not depend on one another.

    Submission order is a topological order, so a pass over the runs replaces one over the tasks.
    """
    n = successors.pointer.size - 1
    latest = np.full(n, -1, dtype=np.int64)
    # sources increase along the edges: of several assignments to one task the largest stays
    latest[successors.target] = np.repeat(np.arange(n), np.diff(successors.pointer))
    bounds = [0]
    start = 0
    for task, source in enumerate(latest.tolist()):
        if source >= start:
            start = task
            bounds.append(task)
    bounds.append(n)
    return bounds
