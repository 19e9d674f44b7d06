"""What a routine costs on many ranks, by counting on its task graph. Nothing runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypeAlias

import numpy as np

from taskla import distributions
from taskla.distributions import Distribution
from taskla.engines.base import Engine, TileSource
from taskla.engines.threads import FUSE
from taskla.flow import TaskFlow
from taskla.formats import format_of
from taskla.fusion import fuse
from taskla.graph import TaskGraph
from taskla.matrix import TiledMatrix
from taskla.matrix_layout import Layout
from taskla.precision import NAMES, Codes, Precision, PrecisionMap, codes_of, precision_map
from taskla.routines import (
    FACTORED,
    PRODUCTS,
    ROUTINES,
    Operand,
    Problem,
    keeps_formats,
    problem,
    refuse_too_many_tasks,
)
from taskla.tile import Tile
from taskla.volume import Volumes

__all__ = ["PLANNED", "Row", "chosen_maps", "graphs", "operand_maps", "plan"]

#: The routines that can be planned: a norm is summed outside of its graph, and how often hpl-mxp
#: solves depends on the numbers.
PLANNED = tuple(name for name in ROUTINES if name[:3] != "lan" and name != "hpl-mxp")


_Chosen: TypeAlias = PrecisionMap | Codes


@dataclass(frozen=True)
class Row:
    """The cost of one routine under one distribution.

    Attributes
    ----------
    op, type : str
        The routine, and LAPACK's letter of the data type.
    n, nb, ranks : int
    grid : str or None
        "PxQ", for a distribution that has a grid.
    dist : str
        The distribution.
    pivot : str or None
        For LU.
    stationary : str or None
        For gemm, symm and hemm: the matrix that stays where it is.
    slices : int
        Groups of ranks that do the updates of steps in turn: 1 but for 2.5D distributions.
    tasks, tasks_run : int
        Tile tasks, and tasks after the fusion that the threads engine does on one rank, or those
        that Dask's scheduler gets.
    flops : float
        Of all tasks.
    messages, pivot_messages : int
        By the convention of `taskla.volume`; and those that pivoting takes at most, apart.
    bytes : int
        In all messages: whole tiles.
    max_messages : int
        The largest number that one rank sends.
    imbalance : float
        The largest number of flops of a rank over the mean.
    bytes_per_rank : int
        The largest number of bytes that one rank owns, all matrices together, of tiles in use.
    critical_path : int
        Tasks on the longest chain of dependencies.
    precision : str
        The format of the tiles, or the rule that gives those of A theirs.
    conversions : int
        Tasks that round tiles to another format.
    bytes_by_format : dict of str to int
        Bytes in messages by the format of the tiles.
    """

    op: str
    type: str
    n: int
    nb: int
    ranks: int
    grid: str | None
    dist: str
    pivot: str | None
    stationary: str | None
    slices: int
    tasks: int
    tasks_run: int
    flops: float
    messages: int
    pivot_messages: int
    bytes: int
    max_messages: int
    imbalance: float
    bytes_per_rank: int
    critical_path: int
    precision: str
    conversions: int
    bytes_by_format: dict[str, int]


def plan(
    op: str,
    n: int,
    *,
    ranks: int | None = None,
    dist: str | Distribution | Sequence[str | Distribution] = "2dbc",
    grid: tuple[int, int] | None = None,
    nb: int | None = None,
    dtype: str = "d",
    slices: int | None = None,
    engine: str = "threads",
    precision: Precision | None = None,
    **options: Any,
) -> list[Row]:
    """Count the cost of a routine under one or more distributions, best first.

    All matrices have the distribution, with two exceptions: one that is a single tile wide goes row
    by row, and B and C of an A-stationary symm or hemm are where A's diagonal tiles are.

    Parameters
    ----------
    op : str
        A name in `PLANNED`.
    n : int
        Columns, or the order of a square matrix.
    ranks : int, optional
        Number of ranks. Default: what `grid` has, else 1.
    dist : str, Distribution or sequence of these, default "2dbc"
        Distributions, by name or as objects; "all", anywhere, is all that `distributions.available`
        lists and that exist for so many ranks; the 2.5D ones for potrf only.
    grid : (int, int), optional
        For the distribution; of several, for "2dbc" only.
    nb : int, optional
        Tile size. Default: that of `taskla.matrix_layout.choose_nb` for a worker a rank.
    dtype : str, default "d"
        LAPACK's letter or NumPy's name of the data type.
    slices : int, optional
        Of the 2.5D distributions. Default: as many as cost least.
    engine : {"threads", "dask"}
        Whose tasks are counted as run: those of the threads of one rank, or those that Dask's
        scheduler gets, each of many tile tasks.
    precision : PrecisionMap, str or array of str, optional
        Of the tiles of A, see `taskla.PrecisionMap`, for Cholesky and LU; of products the format
        that they are made in. A format that `dtype` has anyway is as none. Not an adaptive one:
        there are no numbers to take norms of. A map that came from real ones is given as an array:
        ``A.format_map``.
    **options
        As for `taskla.routines.problem`.

    Returns
    -------
    list of Row
        By messages, then bytes, then imbalance.

    Raises
    ------
    ValueError
        When an argument is not allowed, or there are more tile tasks than
        `taskla.routines.MOST_TASKS`.

    Examples
    --------
    >>> best, *others = plan("potrf", 1200, nb=100, ranks=4, dist=["2dbc", "row"])
    >>> best.dist, best.grid, best.messages
    ('2dbc', '2x2', 132)
    """
    if op in ROUTINES and op not in PLANNED:
        raise ValueError(f"{op} cannot be planned; there are {', '.join(PLANNED)}")
    maps = chosen_maps(dist, ranks, grid, slices, sliced=op == "potrf")
    ranks = max(map_.ranks for map_ in maps)
    if engine not in ("threads", "dask"):
        raise ValueError(f"engine is {engine!r}; allowed: threads, dask")
    p = problem(op, n, nb, dtype, workers=ranks, **options)
    refuse_too_many_tasks(p)
    chosen = None if precision is None else _plannable(p, precision)
    counters: dict[bool, _Counter] = {}
    rows = []
    for map_ in maps:
        sums = map_.slices > 1
        if sums not in counters:
            counters[sums] = _Counter(p, ranks, map_.slices, engine, chosen)
        rows.append(counters[sums].row(map_))
    return sorted(rows, key=lambda row: (row.messages, row.bytes, row.imbalance))


class _Counter:
    """Counts one problem; its graph is the same under all distributions, or all with slices."""

    def __init__(
        self, p: Problem, ranks: int, slices: int, engine: str, precision: _Chosen | None
    ) -> None:
        self._problem = p
        parts = graphs(p, slices, precision)
        self._on_dask = parts if engine == "dask" else []
        run = parts if ranks > 1 else [fuse(part, FUSE) for part in parts]
        self._counts = [Volumes(part) for part in parts]
        options = p.routine.options
        self._fixed: dict[str, Any] = {
            "op": p.op,
            "type": p.type,
            "n": p.n,
            "nb": p.nb,
            "pivot": p.pivot if "pivot" in options else None,
            "stationary": p.stationary if "stationary" in options else None,
            "tasks": sum(part.n for part in parts),
            "tasks_run": sum(part.n for part in run),
            "flops": sum(float(part.flops().sum()) for part in parts),
            "critical_path": sum(int(part.critical_path()) for part in parts),
            "precision": p.precision if precision is None else _words(precision),
            "conversions": sum(
                part.counts().get(name, 0) for part in parts for name in ("round", "lag2")
            ),
        }

    def row(self, map_: Distribution) -> Row:
        """Count under one distribution."""
        others = operand_maps(self._problem, map_)
        volumes = [count.under(map_, others) for count in self._counts]
        # the parts of one routine work on the same matrices
        flops = np.sum([volume.flops for volume in volumes], axis=0)
        sent = np.sum([volume.sent for volume in volumes], axis=0)
        mean = self._fixed["flops"] / map_.ranks
        fixed = self._fixed
        if self._on_dask:
            joined = [_dask_tasks(part, self._problem, map_, others) for part in self._on_dask]
            fixed = fixed | {"tasks_run": sum(joined)}
        return Row(
            **fixed,
            slices=map_.slices,
            ranks=map_.ranks,
            grid=f"{map_.grid[0]}x{map_.grid[1]}" if map_.grid else None,
            dist=map_.name,
            messages=int(sent.sum()),
            pivot_messages=sum(volume.pivot_messages for volume in volumes),
            bytes=sum(volume.bytes for volume in volumes),
            max_messages=int(sent.max()),
            imbalance=float(flops.max() / mean) if mean else 1.0,
            bytes_per_rank=max(int(volume.memory.max()) for volume in volumes),
            bytes_by_format=_summed([volume.bytes_by_format for volume in volumes]),
        )


def _summed(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    found = {name for part in parts for name in part}
    names = [name for name in NAMES if name in found] + sorted(found.difference(NAMES))
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def _plannable(p: Problem, precision: Precision) -> _Chosen | None:
    """Return what ``precision=`` means, None for nothing, if a plan can tell the formats from it.

    Raises
    ------
    ValueError
        When it is adaptive, or the routine takes none.
    """
    chosen = precision_map(precision)
    if isinstance(chosen, PrecisionMap) and chosen.needs_norms:
        raise ValueError(
            f"precision is {str(chosen)!r}; a plan has no numbers to take norms of: give a band, "
            "or the format of each tile, an array or a file"
        )
    if p.op not in FACTORED + PRODUCTS:
        raise ValueError(f"{p.op} takes no precision; {', '.join(FACTORED + PRODUCTS)} do")
    if isinstance(chosen, PrecisionMap) and keeps_formats(chosen, p.dtype):
        return None
    if p.op in PRODUCTS:
        if isinstance(chosen, PrecisionMap) and chosen.uniform:
            return chosen
        raise ValueError(f"precision is {precision!r}; products take one format")
    codes_of(chosen, -(-p.m // p.nb), -(-p.n // p.nb))
    return chosen


def _words(precision: _Chosen) -> str:
    return str(precision) if isinstance(precision, PrecisionMap) else "array"


def _dask_tasks(
    graph: TaskGraph, p: Problem, map_: Distribution, others: Mapping[str, Distribution]
) -> int:
    """How many tasks of Dask's the program is."""
    from taskla.engines.dask import joined_tasks

    maps = [
        None if grid.scratch or grid.everywhere else others.get(grid.name, map_)
        for grid in graph.grids
    ]
    upper = {operand.name for operand in p.operands if operand.uplo == "upper"}
    rowwise = [grid.base for grid in graph.grids if grid.name in upper]
    return len(joined_tasks(graph, maps, rowwise))


def operand_maps(p: Problem, map_: Distribution) -> dict[str, Distribution]:
    """Return the distributions of operands, by name, that have another one than A.

    Parameters
    ----------
    p : Problem
    map_ : Distribution
        Of A.
    """
    diagonal = "stationary" in p.routine.options and p.op != "gemm" and p.stationary == "A"
    found = {}
    for operand in p.operands[1:]:
        if diagonal:
            # a tile row (column) k is where A's row and column k meet
            along = 0 if p.side == "L" else 1
            found[operand.name] = distributions.from_function(
                partial(_on_diagonal, map_, along), map_.ranks
            )
        elif operand.n <= p.nb < operand.m:
            found[operand.name] = distributions.row_cyclic(map_.ranks)
    return found


def _on_diagonal(map_: Distribution, along: int, *indices: Any) -> Any:
    return map_(indices[along], indices[along])


def chosen_maps(
    dist: str | Distribution | Sequence[str | Distribution],
    ranks: int | None,
    grid: tuple[int, int] | None,
    slices: int | None,
    sliced: bool,
) -> list[Distribution]:
    """Return the distributions that `plan` counts under.

    Parameters
    ----------
    dist, ranks, grid, slices
        As for `plan`.
    sliced : bool
        Whether 2.5D distributions serve.

    Raises
    ------
    ValueError
        As for `plan`.
    """
    chosen = [dist] if isinstance(dist, str | Distribution) else list(dist)
    if not chosen:
        raise ValueError("dist is empty; it must name at least one distribution")
    if ranks is None:
        ranks = grid[0] * grid[1] if grid else 1
    alone = len(chosen) == 1 and chosen != ["all"]
    maps: dict[str, Distribution] = {}
    for name in chosen:
        for one in distributions.available() if name == "all" else [name]:
            asked: tuple[Any, ...] = ()
            if isinstance(one, str):
                shape = grid if alone or one == "2dbc" else None
                cut = slices if alone or one.startswith("2.5d") else None
                asked = ranks, shape, cut
            try:
                map_ = distributions.get(one, *asked)
            except ValueError:
                # of all that there are, some exist for certain numbers of ranks only
                if name == "all":
                    continue
                raise
            if map_.slices == 1 or sliced:
                maps.setdefault(str(one), map_)
            elif name != "all":
                raise ValueError(f"dist is {map_.name!r}; a 2.5D distribution is for potrf")
    return list(maps.values())


# -- the graph of a call ---------------------------------------------------------------------------


class _Outline(TiledMatrix):
    """A matrix without memory: all that a graph is built from."""

    def __init__(
        self,
        operand: Operand,
        p: Problem,
        slices: int = 1,
        precision: _Chosen | None = None,
    ) -> None:
        layout = Layout(operand.m, operand.n, p.nb, operand.uplo)
        self.layout = layout
        self.m, self.n, self.nb, self.uplo = layout.m, layout.n, layout.nb, layout.uplo
        self.shape = layout.m, layout.n
        self.mt, self.nt = layout.mt, layout.nt
        self.dtype = p.dtype
        self.writeable = True
        self.distribution = None
        self._slices = slices
        self._formats = None if precision is None else _Formats(self, precision)

    @property
    def precision(self) -> None:
        """None: a plan knows no tolerance."""

    @property
    def mixed(self) -> Any:
        """The formats of its tiles, if they have their own."""
        return self._formats

    @property
    def slices(self) -> int:
        """Those of the distribution."""
        return self._slices

    def tile(self, i: int, j: int) -> Tile:
        """Return an identity: gesv looks for zeros on the diagonal of U."""
        rows, cols = self.rows(i), self.cols(j)
        return Tile(np.eye(rows.stop - rows.start, cols.stop - cols.start, dtype=self.dtype))


class _Formats:
    """What a program asks of a matrix whose tiles have formats of their own; no memory either."""

    def __init__(self, outline: _Outline, precision: _Chosen) -> None:
        codes = codes_of(precision, outline.mt, outline.nt)
        widest = NAMES.index(format_of(outline.dtype).name)
        self.codes = np.maximum(codes, np.int8(widest))
        self.precision = None

    def working(self, written: bool) -> AbstractContextManager[None]:
        """Do nothing: there are no tiles."""
        return nullcontext()

    def part(self, matrix: _Outline, name: str) -> _Outline:
        """Return the matrix: nobody looks at the tiles of a part."""
        return matrix


class _Notes(Engine):
    """An engine that keeps graphs and runs nothing, as if LU never interchanged rows."""

    name: ClassVar[str] = "plan"

    def __init__(self) -> None:
        self.graphs: list[TaskGraph] = []

    def run(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> None:
        self.graphs.append(graph)
        grids = [grid for grid in graph.grids if not grid.scratch]
        for grid, matrix in zip(grids, matrices, strict=True):
            for k in range(grid.mt if grid.everywhere else 0):
                column = matrix.tile(k, 0).array[:, 0]
                # pivots: each row, counted from 1, stays where it is; a diagonal: no zeros
                column[...] = k * grid.nb + 1 + np.arange(len(column))

    def map(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
        raise NotImplementedError("a plan computes nothing")


def graphs(
    p: Problem, slices: int = 1, precision: PrecisionMap | Codes | None = None
) -> list[TaskGraph]:
    """Return the task graphs that a routine runs, one after the other; usually one.

    Parameters
    ----------
    p : Problem
        From `taskla.routines.problem`.
    slices : int, default 1
        Of the distribution.
    precision : PrecisionMap or (mt, nt) int8 array, optional
        Of the tiles of A, or of products.
    """
    product = p.op in PRODUCTS
    outlines = [
        _Outline(operand, p, slices, None if product or number else precision)
        for number, operand in enumerate(p.operands)
    ]
    if product and precision is not None:
        with _Notes() as notes:
            p.routine.call(replace(p, formats=str(precision)), outlines, None)
        return notes.graphs or [TaskFlow().graph()]
    with _Notes():
        given = p.routine.prepare(p, outlines) if p.routine.prepare else None
    with _Notes() as notes:
        p.routine.call(p, outlines, given)
    # of an empty matrix there is nothing to run
    return notes.graphs or [TaskFlow().graph()]
