"""Sums over many tasks: kernels' shares of a stretch of time, and tiles of a matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.operations import Access
from taskla.traces.trace import Run

__all__ = ["TileMap", "shares", "tile_maps"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def shares(run: Run, bins: int) -> Floats:
    """Return how much of each stretch of time each worker spent in each kernel.

    Parameters
    ----------
    run : Run
    bins : int
        Equal stretches from the run's begin to its end.

    Returns
    -------
    (workers, bins, kernels) float64 array
        Shares from 0 to 1; the rest of a stretch is idle.
    """
    found = np.zeros((len(run.workers), bins, len(run.kernels)))
    edges = np.linspace(0, run.makespan, bins + 1)
    kind = run.lanes * len(run.kernels) + run.tasks["kernel"]
    order = np.argsort(kind, kind="stable")
    codes, first = np.unique(kind[order], return_index=True)
    for code, rows in zip(codes.tolist(), np.split(order, first[1:]), strict=True):
        worker, kernel = divmod(code, len(run.kernels))
        busy = _before(run.tasks["start"][rows] - run.begin, edges)
        busy -= _before(run.tasks["end"][rows] - run.begin, edges)
        found[worker, :, kernel] = np.diff(busy)
    return np.clip(found / max(run.makespan / bins, np.finfo(float).tiny), 0, 1)


def _before(times: Floats, edges: Floats) -> Floats:
    """Return the sum over `times` of max(edge - time, 0), for each edge."""
    times = np.sort(times)
    count = np.searchsorted(times, edges)
    return np.asarray(edges * count - np.concatenate([[0.0], np.cumsum(times)])[count])


class TileMap(NamedTuple):
    """The tiles of a matrix that tasks wrote.

    Attributes
    ----------
    name : str
    mt, nt : int
        Tile rows and columns of the matrix.
    i, j : (t,) int64 arrays
    rank, lane : (t,) int64 arrays
        Where the last task ran that wrote the tile; the lane is an index into the run's workers.
    format : (t,) int64 array
        Code of the number format of the last write.
    seconds : (t,) float64 array
        Sum of the durations of the tasks that wrote the tile, each shared evenly by the tiles that
        it wrote.
    tasks : (t,) int64 array
        Their count.
    """

    name: str
    mt: int
    nt: int
    i: Integers
    j: Integers
    rank: Integers
    lane: Integers
    format: Integers
    seconds: Floats
    tasks: Integers


def tile_maps(run: Run) -> list[TileMap]:
    """Return a map of each matrix that tasks wrote, scratch space left out."""
    accesses = run.accesses[run.accesses["mode"] != Access.R]
    rows = np.searchsorted(run.tasks["task"], accesses["task"])
    written = np.bincount(rows, minlength=run.tasks.size)
    # a fused task or a panel writes many tiles, and each of them took its part of the time
    seconds = run.durations[rows] / written[rows]
    found = []
    for matrix in run.matrices:
        mine = accesses["matrix"] == matrix["code"]
        if mine.any() and not matrix["scratch"]:
            found.append(_tile_map(run, matrix, accesses[mine], rows[mine], seconds[mine]))
    return found


def _tile_map(
    run: Run, matrix: dict[str, Any], writes: NDArray[Any], rows: Integers, seconds: Floats
) -> TileMap:
    mt, nt = (-(-matrix[size] // matrix["nb"]) for size in ("m", "n"))
    tile = writes["i"].astype(np.int64) + writes["j"].astype(np.int64) * mt
    # by tile, and of a tile by the end of the task: the last of each is the last write
    order = np.lexsort((run.tasks["end"][rows], tile))
    tile, rows, writes, seconds = tile[order], rows[order], writes[order], seconds[order]
    tiles, which = np.unique(tile, return_inverse=True)
    last = np.append(np.flatnonzero(np.diff(tile)), tile.size - 1)
    return TileMap(
        name=matrix["name"],
        mt=mt,
        nt=nt,
        i=tiles % mt,
        j=tiles // mt,
        rank=run.tasks["rank"][rows[last]].astype(np.int64),
        lane=run.lanes[rows[last]],
        format=writes["format"][last].astype(np.int64),
        seconds=np.bincount(which, weights=seconds).astype(np.float64),
        tasks=np.bincount(which),
    )
