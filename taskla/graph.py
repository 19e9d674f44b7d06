"""The task graph: a struct of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from taskla import dependencies
from taskla.formats import FORMATS, format_of
from taskla.operations import OPERATIONS, Access, Operation

if TYPE_CHECKING:
    import networkx

__all__ = ["Grid", "Kind", "TaskGraph"]

Weights = Mapping[str, float] | NDArray[np.float64] | Literal["flops"] | None


@dataclass(frozen=True)
class Grid:
    """The tiles of one matrix, numbered column by column from `base`.

    Attributes
    ----------
    name : str
    m, n : int
        Rows and columns of the matrix.
    nb : int
        Tile size; the last tile row and column hold the remainder.
    dtype : numpy.dtype
    base : int
        Number of tile (0, 0).
    scratch : bool
        Whether the engine provides the tiles, zero at first, rather than the caller.
    everywhere : bool
        Whether every rank has all of it, before and after: pivots, shares of a norm.
    format : str, optional
        The number format of the tiles, where `dtype` only holds its numbers: "fp16" in float32.
        Default: that of `dtype`.
    """

    name: str
    m: int
    n: int
    nb: int
    dtype: np.dtype[Any]
    base: int = 0
    scratch: bool = False
    everywhere: bool = False
    format: str | None = None

    @property
    def matrix(self) -> str:
        """Name of the matrix that the tiles belong to, of which this grid may be one format."""
        return self.name if self.format is None else self.name.partition(":")[0]

    @property
    def format_name(self) -> str:
        """Name of the number format of the tiles; where they hold integers, of the data type."""
        if self.format is not None:
            return self.format
        return format_of(self.dtype).name if self.dtype.kind in "fc" else self.dtype.name

    @property
    def itemsize(self) -> int:
        """Bytes of a number where it is stored or sent."""
        if self.format is None:
            return self.dtype.itemsize
        return FORMATS[self.format].storage.itemsize * (2 if self.dtype.kind == "c" else 1)

    @property
    def mt(self) -> int:
        """Number of tile rows."""
        return -(-self.m // self.nb)

    @property
    def nt(self) -> int:
        """Number of tile columns."""
        return -(-self.n // self.nb)

    @property
    def end(self) -> int:
        """Number after the last tile's."""
        return self.base + self.mt * self.nt

    def coordinates(self, tiles: Any) -> tuple[Any, Any]:
        """Tile row and column of tile numbers."""
        column, row = np.divmod(np.asarray(tiles) - self.base, max(self.mt, 1))
        return row, column

    def shapes(self, tiles: Any) -> tuple[Any, Any]:
        """Rows and columns that tiles have."""
        i, j = self.coordinates(tiles)
        return np.minimum(self.nb, self.m - i * self.nb), np.minimum(self.nb, self.n - j * self.nb)


@dataclass(frozen=True)
class Kind:
    """What tasks of one kind have in common.

    Attributes
    ----------
    operation : str
        A name in `taskla.operations.OPERATIONS`.
    params : tuple
        Values of the operation's parameters.
    dtype : numpy.dtype
        Of the tile that it writes.
    precision, compression : str, optional
        Tags: the format that it computes in (default: that of the tile it writes) and the
        compression of its result.
    """

    operation: str
    params: tuple[Any, ...]
    dtype: np.dtype[Any]
    precision: str | None = None
    compression: str | None = None

    @property
    def definition(self) -> Operation:
        """The operation's entry in the table."""
        return OPERATIONS[self.operation]


class TaskGraph:
    """Tasks, their accesses and what follows from them.

    Tasks are numbered 0..n-1 in submission order. The accesses of task t are
    ``tiles[indptr[t]:indptr[t + 1]]`` with ``operand`` and ``modes`` alongside.

    Parameters
    ----------
    grids : sequence of Grid
    kinds : sequence of Kind
    kind : (n,) int32 array
        Indices into `kinds`.
    indptr : (n + 1,) int64 array
    tiles : (a,) int32 array
        Tile numbers; each grid has its own range.
    operand, modes : (a,) uint8 arrays
        Which operand of the operation an access belongs to, and its `Access`.
    calls : (c + 1,) int64 array
        First task of each submission call and, last, n.
    priority : (n,) float64 array, optional
        Explicit priorities, larger first.
    multiplicity : (n,) int32 array, optional
        Tile tasks in each task; default 1.
    flops : (n,) float64 array, optional
        Default: by the table of operations. A fused task has the sum of its tile tasks'.
    iterations : (c,) int32 array, optional
        Step of the algorithm's loop that each call belongs to; -1, the default, for none.
    name : str, default ""
        The algorithm, for traces.
    at : (n,) int32 array, optional
        Tile at whose owner each task runs; -1, the default, for the one that it writes first.
    successors : Successors, optional
        Default: what the accesses imply. Of others' traces the edges may be all that is known.
    """

    def __init__(
        self,
        grids: Sequence[Grid],
        kinds: Sequence[Kind],
        kind: NDArray[np.int32],
        indptr: NDArray[np.int64],
        tiles: NDArray[np.int32],
        operand: NDArray[np.uint8],
        modes: NDArray[np.uint8],
        calls: NDArray[np.int64],
        priority: NDArray[np.float64] | None = None,
        multiplicity: NDArray[np.int32] | None = None,
        flops: NDArray[np.float64] | None = None,
        iterations: NDArray[np.int32] | None = None,
        name: str = "",
        at: NDArray[np.int32] | None = None,
        successors: dependencies.Successors | None = None,
    ) -> None:
        self.grids = tuple(grids)
        self.kinds = tuple(kinds)
        self.kind = kind
        self.indptr = indptr
        self.tiles = tiles
        self.operand = operand
        self.modes = modes
        self.calls = calls
        self.priority = priority
        self._multiplicity = multiplicity
        self._flops = flops
        self.iterations = (
            np.full(len(calls) - 1, -1, np.int32) if iterations is None else iterations
        )
        self.name = name
        self.at = at
        self._successors = successors

    @property
    def n(self) -> int:
        """Number of tasks."""
        return self.kind.size

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {count}" for name, count in self.counts().items())
        return f"TaskGraph({self.n} tasks{'; ' if counts else ''}{counts})"

    @property
    def multiplicity(self) -> NDArray[np.int32]:
        """(n,) Tile tasks in each task: more than 1 where tasks were fused."""
        if self._multiplicity is None:
            self._multiplicity = np.ones(self.n, dtype=np.int32)
        return self._multiplicity

    @property
    def iteration(self) -> NDArray[np.int32]:
        """(n,) Step of the algorithm's loop that each task belongs to, -1 for none."""
        return np.repeat(self.iterations, np.diff(self.calls))

    @property
    def tile_count(self) -> int:
        """One more than the largest tile number."""
        return max((grid.end for grid in self.grids), default=0)

    @property
    def task_of_access(self) -> NDArray[np.int32]:
        """(a,) The task that each access belongs to."""
        return np.repeat(np.arange(self.n, dtype=np.int32), np.diff(self.indptr))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held, derived ones included once they are there."""
        held: list[NDArray[Any]] = [self.kind, self.indptr, self.calls]
        held += [self.tiles, self.operand, self.modes]
        held += [a for a in (self.priority, self._multiplicity, self.at) if a is not None]
        if "successors" in self.__dict__:
            held += [self.succ_ptr, self.succ, self.indegree]
        return sum(array.nbytes for array in held)

    # -- dependencies ------------------------------------------------------------------------------

    @cached_property
    def successors(self) -> dependencies.Successors:
        """Compressed rows of successors, without duplicates (RAW, WAR, WAW)."""
        if self._successors is not None:
            return self._successors
        return dependencies.derive(self.n, self.task_of_access, self.tiles, self.modes)

    @property
    def succ_ptr(self) -> NDArray[np.int64]:
        """(n + 1,) Where each task's successors begin in `succ`."""
        return self.successors.pointer

    @property
    def succ(self) -> NDArray[np.int32]:
        """(e,) Successors, task by task."""
        return self.successors.target

    @cached_property
    def indegree(self) -> NDArray[np.int32]:
        """(n,) Number of predecessors."""
        return np.bincount(self.succ, minlength=self.n).astype(np.int32)

    def edges(self, kind: Literal["all", "raw"] = "all") -> tuple[Any, Any]:
        """Sources and targets of the edges.

        Parameters
        ----------
        kind : {"all", "raw"}
            Every dependency, or those from the last writer to a reader only.

        Returns
        -------
        source, target : (e,) int32 arrays

        Raises
        ------
        ValueError
            If `kind` is another word.
        """
        if kind == "raw":
            return dependencies.data_edges(self.task_of_access, self.tiles, self.modes)
        if kind != "all":
            raise ValueError(f"kind must be 'all' or 'raw', not {kind!r}")
        source = np.repeat(np.arange(self.n, dtype=np.int32), np.diff(self.succ_ptr))
        return source, self.succ

    def versions(self) -> NDArray[np.int64]:
        """(a,) Number of the tile version that each access finds."""
        return dependencies.versions(self.tiles, self.modes)

    @cached_property
    def first_written(self) -> NDArray[np.int32]:
        """(n,) The tile that each task writes first, or reads first if it writes none."""
        result = self.tiles[self.indptr[:-1]]
        writing = np.flatnonzero(self.modes != Access.R)[::-1]
        # of several assignments to one task the last stays: its first write
        result[self.task_of_access[writing]] = self.tiles[writing]
        return result

    @property
    def place(self) -> NDArray[np.int32]:
        """(n,) The tile at whose owner each task runs."""
        if self.at is None:
            return self.first_written
        return np.where(self.at < 0, self.first_written, self.at)

    # -- what tasks are ----------------------------------------------------------------------------

    @cached_property
    def operations(self) -> tuple[str, ...]:
        """Name of the operation of each kind."""
        return tuple(kind.operation for kind in self.kinds)

    def counts(self) -> dict[str, int]:
        """Tile tasks per operation, in order of first use."""
        per_kind = np.bincount(self.kind, weights=self.multiplicity, minlength=len(self.kinds))
        result: dict[str, int] = {}
        for name, count in zip(self.operations, per_kind, strict=True):
            result[name] = result.get(name, 0) + int(count)
        return {name: count for name, count in result.items() if count}

    def grid_of(self, tile: int) -> Grid:
        """The grid that a tile number belongs to."""
        for grid in self.grids:
            if grid.base <= tile < grid.end:
                return grid
        raise IndexError(f"tile number {tile} is in none of the graph's grids")

    def locate(self, task: int) -> tuple[Grid, int, int]:
        """Grid, tile row and tile column of the first tile that a task writes."""
        first, last = int(self.indptr[task]), int(self.indptr[task + 1])
        writing = np.flatnonzero(self.modes[first:last] != Access.R)
        tile = int(self.tiles[first + (int(writing[0]) if writing.size else 0)])
        grid = self.grid_of(tile)
        i, j = grid.coordinates(tile)
        return grid, int(i), int(j)

    def label(self, task: int) -> str:
        """A task in words: ``potrf on A(3, 3)``."""
        grid, i, j = self.locate(task)
        return f"{self.operations[self.kind[task]]} on {grid.name}({i}, {j})"

    def access_shapes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(a,) and (a,) Rows and columns of the tile of each access."""
        rows = np.zeros(self.tiles.size, dtype=np.int64)
        columns = np.zeros(self.tiles.size, dtype=np.int64)
        for grid in self.grids:
            mine = (self.tiles >= grid.base) & (self.tiles < grid.end)
            rows[mine], columns[mine] = grid.shapes(self.tiles[mine])
        return rows, columns

    def flops(self) -> NDArray[np.float64]:
        """(n,) Floating-point operations of each task (LAPACK working note 41)."""
        if self._flops is None:
            self._flops = self._flops_by_table()
        return self._flops

    def _flops_by_table(self) -> NDArray[np.float64]:
        rows, columns = self.access_shapes()
        result = np.zeros(self.n, dtype=np.float64)
        for number, kind in enumerate(self.kinds):
            tasks = np.flatnonzero(self.kind == number)
            if tasks.size == 0:
                continue
            operation = kind.definition
            width = np.diff(self.indptr)[tasks]
            complex_type = kind.dtype.kind == "c"
            for w in np.unique(width):
                mine = tasks[width == w]
                at = self.indptr[mine][:, None] + np.arange(w)
                shapes = _operand_shapes(operation, self.operand[at], rows[at], columns[at])
                result[mine] = operation.flops(shapes, complex_type)
        return result

    def nbytes_read(self) -> NDArray[np.int64]:
        """(n,) Bytes of the tiles that each task reads; what it adds to it reads as well."""
        return self._nbytes(self.modes != Access.W)

    def nbytes_written(self) -> NDArray[np.int64]:
        """(n,) Bytes of the tiles that each task writes."""
        return self._nbytes(self.modes != Access.R)

    def nbytes_accessed(self) -> NDArray[np.int64]:
        """(n,) Bytes that each task reads plus bytes that it writes."""
        return self.nbytes_read() + self.nbytes_written()

    @property
    def rounds(self) -> NDArray[np.bool_]:
        """(n,) Whether what a task writes are numbers of the tiles' format.

        Others leave tiles of a format that their data type only holds as they come.
        """
        per_kind = [name in ("round", "lag2") for name in self.operations]
        return np.array(per_kind, dtype=np.bool_)[self.kind]

    def _nbytes(self, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
        rows, columns = self.access_shapes()
        size = rows * columns * counted
        for grid in self.grids:
            size[(self.tiles >= grid.base) & (self.tiles < grid.end)] *= grid.dtype.itemsize
        total = np.concatenate([[0], np.cumsum(size)])
        return np.asarray(total[self.indptr[1:]] - total[self.indptr[:-1]], dtype=np.int64)

    # -- paths -------------------------------------------------------------------------------------

    def weights(self, weights: Weights) -> NDArray[np.float64]:
        """(n,) A weight a task: 1, flops, by operation name, or the array given."""
        if weights is None:
            return np.ones(self.n)
        if isinstance(weights, str):
            if weights != "flops":
                raise ValueError(
                    f"weights must be None, 'flops', a mapping or an array, not {weights!r}"
                )
            return self.flops()
        if isinstance(weights, Mapping):
            missing = sorted(set(self.counts()) - set(weights))
            if missing:
                raise ValueError(f"weights has no entry for {', '.join(missing)}")
            table = np.array([weights.get(name, 0.0) for name in self.operations], dtype=np.float64)
            return np.asarray(table[self.kind] * self.multiplicity)
        given = np.asarray(weights, dtype=np.float64)
        if given.shape != (self.n,):
            raise ValueError(f"weights must have shape ({self.n},), not {given.shape}")
        return given

    def bottom_levels(self, weights: Weights = "flops") -> NDArray[np.float64]:
        """(n,) Weight of the heaviest path from each task to an end, its own weight included."""
        level = self.weights(weights).copy()
        pointer, succ = self.successors
        bounds = dependencies.segments(self.successors)
        for start, end in zip(bounds[-2::-1], bounds[:0:-1], strict=True):
            first, last = pointer[start], pointer[end]
            if first == last:
                continue
            begin = pointer[start:end]
            inner = begin < pointer[start + 1 : end + 1]
            level[start:end][inner] += np.maximum.reduceat(
                level[succ[first:last]], begin[inner] - first
            )
        return level

    def critical_path(self, weights: Weights = None) -> float:
        """Weight of the heaviest path; by default its number of tasks."""
        return float(self.bottom_levels(weights).max(initial=0.0))

    def priorities(self) -> NDArray[np.float64]:
        """(n,) Explicit priorities where the program gave any, else bottom levels in flops."""
        return self._flop_levels if self.priority is None else self.priority

    @cached_property
    def _flop_levels(self) -> NDArray[np.float64]:
        return self.bottom_levels("flops")

    # -- export ------------------------------------------------------------------------------------

    def to_dot(self) -> str:
        """The graph in Graphviz's language."""
        lines = ["digraph taskla {", "  node [shape=box];"]
        lines += [f'  {task} [label="{self.label(task)}"];' for task in range(self.n)]
        source, target = self.edges()
        lines += [f"  {a} -> {b};" for a, b in zip(source.tolist(), target.tolist(), strict=True)]
        return "\n".join([*lines, "}", ""])

    def to_networkx(self) -> networkx.DiGraph[int]:
        """The graph as a `networkx.DiGraph`; nodes have ``operation``, ``label`` and ``flops``.

        Raises
        ------
        ImportError
            If NetworkX is not installed.
        """
        try:
            import networkx
        except ImportError as error:
            raise ImportError("to_networkx needs NetworkX: pip install networkx") from error
        flops = self.flops()
        result: networkx.DiGraph[int] = networkx.DiGraph()
        for task in range(self.n):
            result.add_node(
                task,
                operation=self.operations[self.kind[task]],
                label=self.label(task),
                flops=float(flops[task]),
            )
        source, target = self.edges()
        result.add_edges_from(zip(source.tolist(), target.tolist(), strict=True))
        return result


def _operand_shapes(
    operation: Operation, operand: Any, rows: Any, columns: Any
) -> list[tuple[Any, Any]]:
    """(rows, columns) of each operand of tasks of equal width; a panel's tiles are stacked."""
    shapes = []
    for number in range(len(operation.modes)):
        # tasks of one kind and width spell their operands alike
        at = np.flatnonzero(operand[0] == number)
        height = rows[:, at].sum(axis=1)
        shapes.append((height.astype(np.float64), columns[:, at[0]].astype(np.float64)))
    return shapes
