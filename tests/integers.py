"""A format in which the package computes nothing, for tests of engines: 64-bit integers.

The kernels below are NumPy expressions. Integer arithmetic is exact, so results are compared by
equality, and ``3 A + 2 B`` does not commute, so a wrong order shows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np

from taskla import kernels
from taskla.flow import TaskFlow
from taskla.graph import TaskGraph
from taskla.operations import OPERATIONS, register
from taskla.tile import Tile

# Barriers and events in kernels: long enough for any machine, short enough for a test that fails.
PATIENCE = 60.0
INT = np.dtype(np.int64)

calls: list[str] = []
"""Kernels called, in order; of use where one worker runs."""

hooks: dict[str, Callable[[Tile], object]] = {}
"""What the operations "t_hook" and "t_after" with that parameter do to the tile that they write."""

ran: list[str] = []
"""Hooks that were called, in order."""


def op(letter: str, array: np.ndarray) -> np.ndarray:
    return array if letter == "N" else array.T


def gemm(a: Tile, b: Tile, c: Tile, transa: str, transb: str, alpha: int, beta: int) -> None:
    product = op(transa, a.array) @ op(transb, b.array)
    c.array[...] = int(alpha) * product + int(beta) * c.array


def lacpy(a: Tile, b: Tile, uplo: str, trans: str) -> None:
    part = np.tri(*b.shape, dtype=bool) if uplo == "L" else np.ones(b.shape, dtype=bool)
    np.copyto(b.array, op(trans, a.array), where=part)


def geadd(a: Tile, b: Tile, trans: str, alpha: int, beta: int) -> None:
    b.array[...] = int(alpha) * op(trans, a.array) + int(beta) * b.array


def lascl(a: Tile, uplo: str, alpha: int) -> None:
    a.array[...] *= int(alpha)


def laset(a: Tile, uplo: str, offdiag: int, diag: int) -> None:
    a.array[...] = offdiag


def t_sum(a: Tile, b: Tile) -> None:
    b.array[...] += a.array


def t_panel(p: Tile, a: Tile) -> None:
    a.array[...] = np.cumsum(a.array, axis=0) + p.array.sum()


def t_hook(a: Tile, name: str) -> None:
    ran.append(name)
    hooks[name](a)


def t_after(a: Tile, b: Tile, name: str) -> None:
    t_hook(b, name)


KERNELS: dict[str, Callable[..., None]] = {
    kernel.__name__: kernel
    for kernel in (gemm, lacpy, geadd, lascl, laset, t_sum, t_panel, t_hook, t_after)
}


@contextmanager
def integer_kernels() -> Iterator[None]:
    """While this lasts, the kernels above serve matrices of 64-bit integers."""
    with patch.dict(OPERATIONS), patch.dict(kernels.TABLE):
        register("t_sum", "", "R REDUX")
        register("t_panel", "", "R RW", panel=True)
        register("t_hook", "name", "RW")
        register("t_after", "name", "R RW")
        for name in KERNELS:
            # Sums of floats, too, of which the order shows in the bits.
            formats = ["int64", "float32"] if name == "t_sum" else ["int64"]
            kernels.register(name, formats=formats)(_factory(name))
        yield


def _factory(name: str) -> Callable[..., Callable[..., None]]:
    def factory(format: str, *params: object) -> Callable[..., None]:
        def kernel(*tiles: Tile) -> None:
            calls.append(name)
            KERNELS[name](*tiles, *params)

        return kernel

    return factory


def clear() -> None:
    """Forget calls and hooks, but for "ok", which does nothing."""
    calls.clear()
    ran.clear()
    hooks.clear()
    hooks["ok"] = lambda tile: None


def worker_threads() -> list[str]:
    """Names of the engines' threads that there are."""
    return [t.name for t in threading.enumerate() if t.name.startswith("taskla")]


class Matrix:
    """Tiles of one array, or each in an array of its own."""

    def __init__(self, array: np.ndarray, nb: int, apart: bool = False) -> None:
        self.shape = array.shape
        self.nb = nb
        self._tiles = {
            (i, j): Tile(np.array(block, order="F") if apart else block)
            for j in range(-(-array.shape[1] // nb))
            for i in range(-(-array.shape[0] // nb))
            for block in [array[i * nb : (i + 1) * nb, j * nb : (j + 1) * nb]]
        }

    def tile(self, i: int, j: int) -> Tile:
        return self._tiles[i, j]

    @property
    def array(self) -> np.ndarray:
        result = np.empty(self.shape, self._tiles[0, 0].array.dtype)
        for (i, j), tile in self._tiles.items():
            result[i * self.nb :, j * self.nb :][: tile.rows, : tile.cols] = tile.array
        return result


def numbers(m: int, n: int, order: str = "F") -> np.ndarray:
    return np.arange(1, m * n + 1, dtype=INT).reshape((m, n), order=order)


def hook_graph(rounds: Sequence[Sequence[str]]) -> tuple[TaskGraph, list[Matrix]]:
    """Hooks of each round at the same time, after all those of the round before."""
    width = max(map(len, rounds))
    flow = TaskFlow()
    tiles = flow.matrix(width, 1, nb=1, dtype=INT)
    join = flow.matrix(1, 1, nb=1, dtype=INT)
    for names in rounds:
        for i, name in enumerate(names):
            flow.submit("lacpy", join, tiles[i, 0], params=("G", "N"))
            flow.submit("t_hook", tiles[i, 0], params=(name,))
        for i in range(len(names)):
            flow.submit("geadd", tiles[i, 0], join, params=("N", 1, 1))
    return flow.graph(), [Matrix(np.zeros((width, 1), INT), 1), Matrix(numbers(1, 1), 1)]


class Anywhere:
    """A matrix of zeros that nobody keeps."""

    def tile(self, i: int, j: int) -> Tile:
        return Tile(np.zeros((2, 2), INT))


def hook_tasks(*names: str, chain: bool = False) -> TaskGraph:
    """A hook on each diagonal tile of A; in a chain each waits for the one before."""
    flow = TaskFlow()
    A = flow.matrix(2 * len(names), 2 * len(names), nb=2, dtype=INT, name="A")
    for k, name in enumerate(names):
        if chain and k:
            flow.submit("t_after", A[k - 1, k - 1], A[k, k], params=(name,))
        else:
            flow.submit("t_hook", A[k, k], params=(name,))
    return flow.graph()


def sequential(graph: TaskGraph, matrices: Sequence[Matrix]) -> None:
    """The oracle: tile tasks one after the other in submission order."""
    grids = dict(zip([grid.base for grid in graph.grids], matrices, strict=True))
    for task in range(graph.n):
        kind = graph.kinds[graph.kind[task]]
        tiles = []
        for number in graph.tiles[graph.indptr[task] : graph.indptr[task + 1]]:
            grid = graph.grid_of(int(number))
            i, j = grid.coordinates(number)
            tiles.append(grids[grid.base].tile(int(i), int(j)))
        KERNELS[kind.operation](*tiles, *kind.params)
