"""From a kind of tasks to a kernel on tiles, which may be of other formats than it computes in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla import kernels
from taskla.formats import FORMATS, dtype_of
from taskla.graph import Kind, TaskGraph
from taskla.operations import Access
from taskla.tile import Tile

__all__ = ["Kernel", "Workspaces", "bind", "parts"]

Kernel: TypeAlias = Callable[..., None]
Memory: TypeAlias = NDArray[np.uint8]


class Workspaces:
    """Blocks of memory for tiles that are copied for one call; each serves many."""

    def __init__(self) -> None:
        self._free: list[Memory] = []

    def gather(self, tiles: Sequence[Tile], dtype: np.dtype[Any]) -> tuple[Tile, Memory]:
        """Copy tiles that lie apart in memory into one column; return it and its memory."""
        rows, cols = sum(tile.rows for tile in tiles), tiles[0].cols
        size = rows * cols * dtype.itemsize
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(0, np.uint8)
        if memory.size < size:
            memory = np.empty(size, np.uint8)
        whole = Tile(memory[:size].view(dtype).reshape((rows, cols), order="F"))
        for tile, part in zip(tiles, parts(whole, tiles), strict=True):
            part[...] = tile.array
        return whole, memory

    def give_back(self, *memory: Memory) -> None:
        """Take memory that is not used any more."""
        self._free += memory


def parts(whole: Tile, tiles: Sequence[Tile]) -> Iterator[NDArray[Any]]:
    """Iterate over the parts of a column that belong to the tiles it is made of."""
    top = 0
    for tile in tiles:
        yield whole.array[top : top + tile.rows]
        top += tile.rows


def bind(graph: TaskGraph, kind: Kind, workspaces: Workspaces) -> Kernel:
    """Return the kernel of a kind of tasks.

    Where tasks have formats of their own, what a kernel reads may be narrower: it is widened.

    Parameters
    ----------
    graph : TaskGraph
    kind : Kind
        One of its kinds.
    workspaces : Workspaces
        For copies.

    Raises
    ------
    ValueError
        When no kernel computes in the format that the kind asks for.
    """
    precision, compression = kind.precision, kind.compression
    known = precision is None or (
        precision in FORMATS
        and kind.dtype in (dtype_of(precision, kind.dtype.kind == "c"), FORMATS[precision].storage)
    )
    if compression or not known:
        raise ValueError(
            f"there is no {kind.operation} on {kind.dtype} tiles with precision {precision!r} "
            f"and compression {compression!r}; tiles are not compressed, and computed with in "
            "the data type that holds their format"
        )
    if precision is None:
        return kernels.bind(kind.operation, kind.dtype, kind.params)
    if _is_packed(graph, kind):
        return kernels.bind(kind.operation, FORMATS[precision].storage, kind.params)
    kernel = kernels.bind(kind.operation, kind.dtype, kind.params)
    reads = [mode == Access.R for mode in kind.definition.modes]
    if kind.definition.panel or kind.operation == "lag2" or not any(reads):
        return kernel
    return _widening(kernel, precision, reads, workspaces)


def _is_packed(graph: TaskGraph, kind: Kind) -> bool:
    """Whether these are products of tiles as they are stored."""
    storage = FORMATS[str(kind.precision)].storage
    if kind.operation != "gemm" or storage == kind.dtype:
        return False
    tasks = np.flatnonzero(graph.kind == graph.kinds.index(kind))
    return bool(tasks.size) and (
        graph.grid_of(int(graph.tiles[graph.indptr[tasks[0]]])).dtype == storage
    )


def _widening(kernel: Kernel, precision: str, reads: list[bool], workspaces: Workspaces) -> Kernel:
    """Return a kernel that takes operands of other formats, copied to a workspace first."""
    wanted = {kind: dtype_of(precision, kind == "c") for kind in "fc"}

    def widening(*tiles: Tile) -> None:
        arguments, used = list(tiles), []
        for at, tile in enumerate(tiles):
            held = tile.array.dtype
            if held == (dtype := wanted.get(held.kind, held)):
                continue
            if not reads[at]:
                # the kernel would write past it
                raise ValueError(f"a task in {precision} writes a tile of {held}, not {dtype}")
            arguments[at], memory = workspaces.gather([tile], dtype)
            used.append(memory)
        kernel(*arguments)
        workspaces.give_back(*used)

    return widening
