"""From a task of a graph to calls of a kernel on tiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np

from taskla.engines.base import TileSource
from taskla.engines.binding import Workspaces, bind, parts
from taskla.engines.merging import acts_as_one, merged
from taskla.errors import NotPositiveDefiniteError, SingularMatrixError
from taskla.graph import Grid, TaskGraph
from taskla.operations import Access
from taskla.tile import Tile

__all__ = ["Execution", "by_grid"]

Kernel: TypeAlias = Callable[..., None]
# The numbers of the tiles that a call is on, one an operand, and what it is given.
Call: TypeAlias = tuple[Sequence[int], Sequence[Tile]]


class Execution:
    """Runs single tasks: ``execution(task)``, in any thread, in any order that the graph allows.

    A kernel is bound once a kind and a tile is asked for once, both kept for the run. Scratch tiles
    are made, filled with zeros, when a task first touches them, and dropped after the last one.

    Parameters
    ----------
    graph : TaskGraph
    matrices : sequence of TileSource
        One for each grid that is not scratch.
    held : iterable of int, optional
        Numbers of scratch tiles that are kept, once for each time that they are named here, until
        `release` names them.

    Raises
    ------
    ValueError
        When the number of matrices is another, a matrix is not as it was declared, or no kernel
        serves a kind of tasks.
    TypeError
        When something is given that has no tiles.
    """

    def __init__(
        self, graph: TaskGraph, matrices: Sequence[TileSource], held: Iterable[int] = ()
    ) -> None:
        self._graph = graph
        self._workspaces = Workspaces()
        self._kernels = [bind(graph, kind, self._workspaces) for kind in graph.kinds]
        # operands of several formats go the longer way
        self._arity = [
            0 if kind.precision and kind.definition.panel else len(kind.definition.modes)
            for kind in graph.kinds
        ]
        self._kind = graph.kind.data
        self._begin = graph.indptr.data
        self._numbers = graph.tiles.data
        self._tiles = _Tiles(graph, matrices)
        self._tile = self._tiles.__getitem__
        self._uses = _scratch_uses(graph)
        for number in held:
            self._uses[number] += 1
        self._uses_lock = threading.Lock()

    def __call__(self, task: int) -> None:
        """Run a task; an error gets a note that names the tile."""
        begin, end = self._begin[task], self._begin[task + 1]
        kind = self._kind[task]
        kernel = self._kernels[kind]
        numbers: Sequence[int] = self._numbers[begin:end]
        try:
            if end - begin == self._arity[kind]:
                kernel(*map(self._tile, numbers))
            else:
                for numbers, tiles in self._calls(task):  # noqa: B007 (the handlers name them)
                    kernel(*tiles)
        except (NotPositiveDefiniteError, SingularMatrixError) as error:
            raise self._from_top(error, kind, numbers) from None
        except BaseException as error:
            error.add_note(self._note(kind, numbers))
            raise
        if self._uses:
            self.release(self._numbers[begin:end])

    def put(self, number: int, tile: Tile) -> None:
        """Let a tile number stand for a tile, in place of what the matrix has."""
        self._tiles[number] = tile

    def drop(self, number: int) -> None:
        """Forget the tile of a number."""
        self._tiles.pop(number, None)

    def tile(self, number: int) -> Tile:
        """Return the tile of a number."""
        return self._tile(number)

    # -- tasks with several tiles in an operand ----------------------------------------------------

    def _calls(self, task: int) -> Iterator[Call]:
        """Iterate over the calls that a task consists of; each is to be made before the next."""
        begin, end = self._begin[task], self._begin[task + 1]
        definition = self._graph.kinds[self._kind[task]].definition
        operands: list[list[int]] = [[] for _ in definition.modes]
        for number, operand in zip(
            self._numbers[begin:end], self._graph.operand[begin:end].tolist(), strict=True
        ):
            operands[operand].append(number)
        return self._panel(task, operands) if definition.panel else self._batch(task, operands)

    def _batch(self, task: int, operands: list[list[int]]) -> Iterator[Call]:
        """Yield the tile tasks that a fused task stands for, as one call where that is the same."""
        kind = self._graph.kinds[self._kind[task]]
        wholes = [merged([self._tile(number) for number in numbers]) for numbers in operands]
        found = [whole for whole in wholes if whole is not None]
        shared = [len(numbers) == 1 for numbers in operands]
        if len(found) == len(wholes) and acts_as_one(kind.definition, kind.params, found, shared):
            yield [numbers[0] for numbers in operands], found
            return
        columns = [
            repeat(*numbers) if alone else numbers
            for numbers, alone in zip(operands, shared, strict=True)
        ]
        for at in zip(*columns, strict=False):
            yield at, [self._tile(number) for number in at]

    def _panel(self, task: int, operands: list[list[int]]) -> Iterator[Call]:
        """Yield the one call of a task whose operands are matrices of one or several tiles."""
        kind = self._graph.kinds[self._kind[task]]
        modes = kind.definition.modes
        arguments, copies = [], []
        for numbers, mode in zip(operands, modes, strict=True):
            tiles = [self._tile(number) for number in numbers]
            dtype = tiles[0].array.dtype
            if kind.precision and dtype.kind in "fc":
                # the tiles of a column may be of several formats
                dtype = kind.dtype
            whole = Tile.merge(tiles, (len(tiles), 1)) if tiles[0].array.dtype == dtype else None
            if whole is None:
                whole, workspace = self._workspaces.gather(tiles, dtype)
                copies.append((whole, workspace, tiles, mode))
            arguments.append(whole)
        yield [numbers[0] for numbers in operands], arguments
        for whole, workspace, tiles, mode in copies:
            if mode != Access.R:
                for tile, part in zip(tiles, parts(whole, tiles), strict=True):
                    tile.array[...] = part
            self._workspaces.give_back(workspace)

    # -- errors, scratch ---------------------------------------------------------------------------

    def _from_top(
        self,
        error: NotPositiveDefiniteError | SingularMatrixError,
        kind: int,
        numbers: Sequence[int],
    ) -> NotPositiveDefiniteError | SingularMatrixError:
        """Return an error of a kernel with its index counted from the top of the matrix."""
        number = self._written(kind, numbers)
        grid = self._graph.grid_of(number)
        shifted = error.shifted(int(grid.coordinates(number)[0]) * grid.nb)
        shifted.add_note(self._note(kind, numbers))
        return shifted

    def _note(self, kind: int, numbers: Sequence[int]) -> str:
        number = self._written(kind, numbers)
        grid = self._graph.grid_of(number)
        i, j = grid.coordinates(number)
        return f"in task {self._graph.kinds[kind].operation} on tile {grid.matrix}({i}, {j})"

    def _written(self, kind: int, numbers: Sequence[int]) -> int:
        """Return the number of the tile that a call writes first."""
        modes = self._graph.kinds[kind].definition.modes
        return next(
            (n for n, mode in zip(numbers, modes, strict=False) if mode != Access.R), numbers[0]
        )

    def release(self, numbers: Sequence[int]) -> None:
        """Count the uses of scratch tiles down, and drop tiles that have none left."""
        for number in numbers:
            if number in self._uses:
                with self._uses_lock:
                    self._uses[number] -= 1
                    if not self._uses[number]:
                        self._tiles.pop(number, None)


class _Tiles(dict[int, Tile]):
    """Tiles by number, each made or asked for when it is first looked up."""

    def __init__(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> None:
        self._graph = graph
        self._matrix_at = {grid.base: m for grid, m in by_grid(graph, matrices).items()}

    def __missing__(self, number: int) -> Tile:
        grid = self._graph.grid_of(number)
        if grid.scratch:
            rows, cols = grid.shapes(number)
            tile = Tile(np.zeros((int(rows), int(cols)), grid.dtype, order="F"))
        else:
            # Grid.coordinates is for arrays: on one number it would take as long as all the rest.
            j, i = divmod(number - grid.base, grid.mt)
            tile = _ask(grid, self._matrix_at[grid.base], i, j)
        # Of two workers that come at once, both get the tile of the one that is here first.
        return self.setdefault(number, tile)


def by_grid(graph: TaskGraph, matrices: Sequence[TileSource]) -> dict[Grid, TileSource]:
    """Return the matrices of the grids that are not scratch, in that order.

    Raises
    ------
    TypeError
        When a matrix has no tiles.
    ValueError
        When there are more or fewer; when one is not as it was declared, or read-only and a task
        writes one of its tiles.
    """
    grids = [grid for grid in graph.grids if not grid.scratch]
    if len(matrices) != len(grids):
        raise ValueError(
            f"matrices has length {len(matrices)}; the graph has {len(grids)} "
            f"({', '.join(grid.name for grid in grids)})"
        )
    given = dict(zip(grids, matrices, strict=True))
    for grid, matrix in given.items():
        _check(grid, matrix)
        _check_writeable(graph, grid, matrix)
    return given


def _check(grid: Grid, matrix: Any) -> None:
    """Refuse what has no tiles, and a matrix that is not as it was declared."""
    if not hasattr(matrix, "tile"):
        raise TypeError(f"{grid.name} must be a TiledMatrix, not {type(matrix).__name__}")
    try:
        given = matrix.m, matrix.n, matrix.nb, matrix.dtype
    except AttributeError:
        # A source of tiles that does not tell: these are looked at one by one.
        return
    declared = grid.m, grid.n, grid.nb, grid.dtype
    if given != declared:
        raise ValueError(
            "{} was declared {} x {}, nb={}, {}; the matrix given is {} x {}, nb={}, {}".format(
                grid.name, *declared, *given
            )
        )


def _check_writeable(graph: TaskGraph, grid: Grid, matrix: Any) -> None:
    """Refuse a read-only matrix of which a task writes a tile: it may be a mapped file."""
    if getattr(matrix, "writeable", True):
        return
    mine = (graph.tiles >= grid.base) & (graph.tiles < grid.end)
    if (graph.modes[mine] != Access.R).any():
        raise ValueError(f"{grid.name} is read-only and is worked on in place: pass a copy()")


def _ask(grid: Grid, matrix: TileSource, i: int, j: int) -> Tile:
    """Return a tile of a matrix, if it is one that the tasks can work on."""
    try:
        tile = matrix.tile(i, j)
    except IndexError:
        uplo = getattr(matrix, "uplo", None)
        if uplo is None:
            raise
        raise ValueError(
            f"{grid.name} stores its {uplo} triangle only, and tile ({i}, {j}) is asked for"
        ) from None
    if tile.array.dtype != grid.dtype:
        raise ValueError(
            f"{grid.name} was declared {grid.dtype}; "
            f"tile ({i}, {j}) of the matrix given is {tile.array.dtype}"
        )
    return tile


def _scratch_uses(graph: TaskGraph) -> dict[int, int]:
    """Return how many accesses there are to each scratch tile."""
    uses: dict[int, int] = {}
    for grid in graph.grids:
        if grid.scratch:
            mine = (graph.tiles >= grid.base) & (graph.tiles < grid.end)
            numbers, counts = np.unique(graph.tiles[mine], return_counts=True)
            uses.update(zip(numbers.tolist(), counts.tolist(), strict=True))
    return uses
