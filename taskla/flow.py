"""The sequential task flow: tasks submitted in program order, by broadcasting over tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from taskla.flow_blas import BlasCalls
from taskla.graph import Grid, Kind, TaskGraph
from taskla.operations import OPERATIONS, Access, Operation
from taskla.tiles import Tiles, flip

__all__ = ["TaskFlow", "Tiles", "flip"]


class TaskFlow(BlasCalls):
    """A program over tiles: what it does is what its tasks do one after the other.

    Matrices are declared, tasks submitted, and `graph` derives what may run at the same time. The
    methods named after BLAS and LAPACK routines submit their operation on every tile of a selection
    (`Tiles`); `submit` does it for any operation of `taskla.operations`.

    Examples
    --------
    >>> flow = TaskFlow()
    >>> A = flow.matrix(8, 8, nb=4, dtype="float64", name="A")
    >>> flow.potrf(A[0, 0])
    >>> flow.trsm(A[0, 0].H, A[1:, 0], side="R", uplo="U")
    >>> flow.graph().counts()
    {'potrf': 1, 'trsm': 1}
    """

    def __init__(self) -> None:
        self._grids: list[Grid] = []
        self._kinds: dict[Kind, int] = {}
        self._tasks = 0
        self._calls: list[_Call] = []
        self._iteration = -1

    def matrix(
        self,
        m: int,
        n: int,
        nb: int,
        dtype: DTypeLike = np.float64,
        name: str | None = None,
        *,
        scratch: bool = False,
        everywhere: bool = False,
    ) -> Tiles:
        """Declare a matrix.

        Parameters
        ----------
        m, n : int
            Rows and columns, at least 0.
        nb : int
            Tile size, at least 1.
        dtype : data type, default float64
        name : str, optional
            For messages and pictures; default "A", "B", ...
        scratch : bool, default False
            The engine provides the tiles (zero at first) and drops them at the end.
        everywhere : bool, default False
            Every rank has all of its tiles, as with pivots: what one writes reaches all of them.

        Returns
        -------
        Tiles
            All of its tiles.

        Raises
        ------
        ValueError
            If a size is out of range.
        """
        if m < 0 or n < 0:
            raise ValueError(f"a matrix has at least 0 rows and columns, not {m} x {n}")
        if nb < 1:
            raise ValueError(f"nb must be at least 1, not {nb}")
        name = name or chr(ord("A") + len(self._grids) % 26)
        base = self._grids[-1].end if self._grids else 0
        grid = Grid(name, m, n, nb, np.dtype(dtype), base, scratch, everywhere)
        self._grids.append(grid)
        return Tiles(grid)

    def iterate(self, steps: Iterable[int]) -> Iterator[int]:
        """Iterate over the steps of an algorithm's loop, noting which one a task belongs to.

        Traces tell the progress of a run by it; of nested loops the innermost counts.

        Parameters
        ----------
        steps : iterable of int
            ``range(A.nt)``, say.
        """
        around = self._iteration
        try:
            for k in steps:
                self._iteration = k
                yield k
        finally:
            self._iteration = around

    def submit(
        self,
        operation: str,
        *operands: Tiles,
        params: tuple[Any, ...] = (),
        priority: float | None = None,
        precision: str | None = None,
        compression: str | None = None,
        accumulate: bool = False,
        distinct: bool = False,
        at: Tiles | None = None,
    ) -> None:
        """Submit an operation on every tile of the operands, broadcast against one another.

        Parameters
        ----------
        operation : str
            A name in `taskla.operations.OPERATIONS`.
        *operands : Tiles
            As many as the operation has. Their `T` and `H` are not looked at: give what they mean
            in `params`, or use the methods named after the routines.
        params : tuple
            Values of the operation's parameters.
        priority : float, optional
            Larger first. Default: the bottom level, from the graph.
        precision, compression : str, optional
            Tags: the format to compute in and the compression of the result.
        accumulate : bool, default False
            Access what the operation adds to (``beta`` is 1) as `Access.REDUX` rather than RW:
            contributions commute, and do not wait for one another.
        distinct : bool, default False
            Refuse a task in which a tile that is written is another operand as well. The methods
            named after the routines do: BLAS forbids it.
        at : Tiles, optional
            Run each task on the rank that owns this tile, broadcast like an operand. Default: on
            the one that owns what it writes.

        Raises
        ------
        ValueError
            If there is no such operation, the operands or params are not as many as it has, their
            shapes do not broadcast, their data types differ where the operation has one, operands
            that must be `distinct` are not, or `accumulate` is asked of an operation that does not
            add.
        """
        definition = OPERATIONS.get(operation)
        if definition is None:
            raise ValueError(f"no operation {operation!r}; there are {', '.join(OPERATIONS)}")
        if len(operands) != len(definition.modes) or len(params) != len(definition.params):
            raise ValueError(
                f"{operation} takes {len(definition.modes)} operands and the parameters "
                f"({', '.join(definition.params)}), not {len(operands)} and {params}"
            )
        if operation in _ONE_TYPE and len({o.dtype for o in operands}) > 1:
            raise ValueError(
                f"{operation} takes operands of one data type, not "
                + ", ".join(f"{o!r} of {o.dtype}" for o in operands)
            )
        placed = operands if at is None else (*operands, at)
        shape = np.broadcast_shapes(*(o.shape for o in placed))
        if 0 in shape:
            return
        tiles, operand = _rows(placed, shape)
        if not tiles.size:
            return
        where = None
        if at is not None:
            where, tiles, operand = tiles[:, -1], tiles[:, :-1], operand[:-1]
        if distinct:
            _require_distinct(definition, operands, tiles, operand)
        writes = [o for o, mode in zip(operands, definition.modes, strict=True) if mode != Access.R]
        dtype = (writes or operands)[0].dtype
        kind = Kind(operation, params, dtype, precision, compression)
        number = self._kinds.setdefault(kind, len(self._kinds))
        modes = _adding(definition, params) if accumulate else definition.modes
        self._calls.append(_Call(number, tiles, operand, modes, priority, self._iteration, where))
        self._tasks += len(tiles)

    def __len__(self) -> int:
        return self._tasks

    def graph(self, name: str = "") -> TaskGraph:
        """The task graph of what was submitted so far; `name` is the algorithm's, for traces."""
        calls = self._calls
        count = np.array([len(call.tiles) for call in calls], dtype=np.int64)
        width = np.array([call.tiles.shape[1] for call in calls], dtype=np.int64)
        number = np.array([call.kind for call in calls], dtype=np.int32)
        indptr = np.zeros(self._tasks + 1, dtype=np.int64)
        np.cumsum(np.repeat(width, count), out=indptr[1:])
        rows = [np.array(call.modes, dtype=np.uint8)[call.operand] for call in calls]
        priority = None
        if any(call.priority is not None for call in calls):
            per_call = np.array([call.priority or 0.0 for call in calls])
            priority = np.repeat(per_call, count)
        return TaskGraph(
            grids=self._grids,
            kinds=list(self._kinds),
            kind=np.repeat(number, count),
            indptr=indptr,
            tiles=_concatenate([call.tiles.ravel() for call in calls], np.int32),
            operand=_concatenate([np.tile(c.operand, len(c.tiles)) for c in calls], np.uint8),
            modes=_concatenate(
                [np.tile(row, len(c.tiles)) for row, c in zip(rows, calls, strict=True)], np.uint8
            ),
            calls=np.concatenate([[0], np.cumsum(count)]),
            priority=priority,
            iterations=np.array([call.iteration for call in calls], dtype=np.int32),
            name=name,
            at=self._places(),
        )

    def _places(self) -> NDArray[np.int32] | None:
        """The tile at whose owner each task runs, -1 by default; None if no call says so."""
        if all(call.at is None for call in self._calls):
            return None
        places = [
            np.full(len(call.tiles), -1, np.int32) if call.at is None else call.at
            for call in self._calls
        ]
        return np.concatenate(places)


# Kernels are bound for the type of what they write, and take all operands to have it.
_ONE_TYPE = frozenset(("gemm", "symm", "hemm", "syrk", "herk", "trsm", "trmm", "lacpy", "geadd"))


class _Call(NamedTuple):
    """One submission: (count, width) tile numbers, and the operand of each of their columns."""

    kind: int
    tiles: NDArray[np.int32]
    operand: NDArray[np.uint8]
    modes: tuple[Access, ...]
    priority: float | None
    iteration: int
    at: NDArray[np.int32] | None


def _adding(operation: Operation, params: tuple[Any, ...]) -> tuple[Access, ...]:
    """The access modes of an operation whose result is a contribution."""
    if dict(zip(operation.params, params, strict=True)).get("beta") != 1:
        raise ValueError(f"accumulate=True asks for an operation with beta=1, not {operation.name}")
    return tuple(Access.REDUX if mode == Access.RW else mode for mode in operation.modes)


def _require_distinct(
    operation: Operation,
    operands: Sequence[Tiles],
    tiles: NDArray[np.int32],
    operand: NDArray[np.uint8],
) -> None:
    """Refuse tasks in which a tile that is written is another operand as well."""
    for first, second in combinations(range(len(operands)), 2):
        grid = operands[first].grid
        if operands[second].grid is not grid:
            continue
        if operation.modes[first] == operation.modes[second] == Access.R:
            continue
        one, two = tiles[:, operand == first], tiles[:, operand == second]
        same = one[:, :, None] == two[:, None, :]
        if same.any():
            task, position, _ = np.unravel_index(same.argmax(), same.shape)
            i, j = grid.coordinates(one[task, position])
            raise ValueError(
                f"{operation.name} writes tile {grid.name}({i}, {j}) and has it as another operand "
                "as well: a tile that is written must be no other operand of the task"
            )


def _concatenate(arrays: list[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=dtype)


def _rows(
    operands: Sequence[Tiles], shape: tuple[int, ...]
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """One row of tile numbers a task, column by column, and the operand of each position."""
    masks = [np.broadcast_to(o.mask, shape) for o in operands if o.mask is not None]
    if masks:
        columns, rows = np.nonzero(np.logical_and.reduce(masks).T)
    else:
        columns, rows = (index.ravel() for index in np.indices(shape[::-1]))
    widths = [o.mt if o.stacked else 1 for o in operands]
    result = np.empty((rows.size, sum(widths)), dtype=np.int32)
    at = 0
    for o, width in zip(operands, widths, strict=True):
        column = columns if o.shape[1] > 1 else 0
        if o.stacked:
            result[:, at : at + width] = o.ids.T[column]
        else:
            result[:, at] = o.ids[rows if o.shape[0] > 1 else 0, column]
        at += width
    return result, np.repeat(np.arange(len(operands), dtype=np.uint8), widths)
