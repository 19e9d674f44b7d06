"""What a program on Dask is given: its matrices, where their tiles are, and a name for all that."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np

from taskla.coarsening import INITIAL, Coarse
from taskla.engines.dask_collection import Collection
from taskla.engines.dask_program import Where
from taskla.graph import Grid, TaskGraph

__all__ = [
    "check_stored",
    "initial_tiles",
    "odd_shapes",
    "signature",
    "tiles_of",
    "to_be_checked",
    "token_of",
]


def check_stored(graph: TaskGraph, grid: Grid, matrix: Any) -> None:
    """Refuse tasks on tiles that a triangle does not store.

    Raises
    ------
    ValueError
    """
    uplo = getattr(matrix, "uplo", None)
    if uplo is None:
        return
    tiles = np.unique(graph.tiles[(graph.tiles >= grid.base) & (graph.tiles < grid.end)])
    i, j = grid.coordinates(tiles)
    missing = np.flatnonzero(i < j if uplo == "lower" else i > j)
    if missing.size:
        at = int(i[missing[0]]), int(j[missing[0]])
        raise ValueError(f"{grid.name} stores its {uplo} triangle only, and tile {at} is asked for")


def initial_tiles(
    coarse: Coarse, given: Mapping[Grid, Any]
) -> tuple[dict[int, Where], dict[Hashable, Any], list[Any]]:
    """Where tiles are at first, those of this process's memory as parts of the graph."""
    from dask.task_spec import DataNode

    found = {
        tile for task in coarse.joined for tile, maker in task.inputs.items() if maker == INITIAL
    }
    initial: dict[int, Where] = {}
    local: dict[Hashable, Any] = {}
    graphs = []
    for grid, matrix in given.items():
        if isinstance(matrix, Collection):
            graphs.append(matrix.graph)
            for (i, j), where in matrix.where.items():
                initial[grid.base + i + j * grid.mt] = where
            continue
        for tile in found:
            if grid.base <= tile < grid.end:
                j, i = divmod(tile - grid.base, grid.mt)
                array = np.array(matrix.tile(i, j).array, order="F")
                key = (f"array-{token_of(array)}", grid.name, i, j)
                local[key] = DataNode(key, array)
                initial[tile] = Where(key, -1)
    return {tile: initial[tile] for tile in found if tile in initial}, local, graphs


def tiles_of(home: Mapping[int, Where], grid: Grid) -> dict[tuple[int, int], Where]:
    """Those of some tile numbers that are in a grid, by row and column."""
    found = {}
    for tile, where in home.items():
        if grid.base <= tile < grid.end:
            j, i = divmod(tile - grid.base, grid.mt)
            found[i, j] = where
    return found


def to_be_checked(given: Mapping[Grid, Any]) -> dict[int, str]:
    """The tiles to be checked, and which part of each."""
    checked: dict[int, str] = {}
    for grid, matrix in given.items():
        if isinstance(matrix, Collection) and matrix.unchecked:
            uplo = getattr(matrix, "uplo", None)
            triangle = "G" if uplo is None else uplo[0].upper()
            for i, j in matrix.where:
                checked[grid.base + i + j * grid.mt] = triangle if i == j else "G"
    return checked


def odd_shapes(graph: TaskGraph, given: Mapping[Grid, Any]) -> dict[int, tuple[int, int]]:
    """The shapes of tiles in this process's memory: columns beside a matrix have their own."""
    found: dict[int, tuple[int, int]] = {}
    used = np.unique(graph.tiles)
    for grid, matrix in given.items():
        if isinstance(matrix, Collection):
            continue
        for tile in used[(used >= grid.base) & (used < grid.end)].tolist():
            j, i = divmod(tile - grid.base, grid.mt)
            found[tile] = matrix.tile(i, j).shape
    return found


def signature(graph: TaskGraph) -> bytes:
    """Return what is the same for two graphs only if they are of the same."""
    digest = blake2b(repr((graph.grids, graph.kinds, graph.name)).encode(), digest_size=16)
    for array in (graph.kind, graph.indptr, graph.tiles, graph.operand, graph.modes, graph.calls):
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def token_of(*parts: Any) -> str:
    """Return a name for some things that only the same things have."""
    digest = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.shape, part.dtype.str)).encode())
            digest.update(np.ascontiguousarray(part.T).data)
        elif isinstance(part, Coarse):
            digest.update(part.program.rank.tobytes())
            digest.update(repr([task.tasks for task in part.joined]).encode())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()
