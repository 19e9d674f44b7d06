"""A program whose tiles have several number formats: what each task computes in, what is converted.

A matrix becomes one grid a format, with the tile numbers that have it, so that engines see grids of
one data type each. Tiles of 16 and 8 bits are held in fp32 while they are worked on, and rounded
when the last of a run of writes is done. The tag of a task follows from the tile that it writes:

==========================  =======================================================
gemm, symm, syrk, ...       the format of the tile: operands are rounded to it, sums
                            are made in fp32
trsm and all others         that, but never less than fp32
panels with pivoting        the widest of their tiles, fp64 where one is
==========================  =======================================================

An operand that the tag has no room for is converted, by a task of its own on the rank that has it,
once for each format that somebody wants; a narrower one is widened where it is read. Products may
have tags of their own (`taskla.product_formats`): what is less than their result's is summed up
apart.
[The rules of HiCMA-X and of Chameleon's gered; Higham, Mary, Acta Numerica 31 (2022)]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.formats import FORMATS, dtype_of
from taskla.graph import Grid, Kind, TaskGraph
from taskla.operations import Access
from taskla.precision import NAMES

__all__ = ["PRODUCTS", "Mixed", "mixed"]

Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]

#: Products, which may be in less than fp32.
PRODUCTS = frozenset(("gemm", "symm", "hemm", "syrk", "herk", "trmm"))

#: Where a task goes, seen from a call: what it reads, the call, and what becomes of its results.
_BEFORE, _CALL, _ROUND, _AFTER = range(4)

#: Accesses by which calls are told apart; those of panels with more are one call each anyway.
_WIDTH = 6

_UNIT = FORMATS["fp64"]
_HELD_WIDE = np.array([FORMATS[name].real == _UNIT.real for name in NAMES])
#: (from, to): whether all numbers of a format are numbers of another
_FITS = np.array(
    [
        [
            a.t <= b.t and a.max <= b.max and a.min_subnormal >= b.min_subnormal
            for b in FORMATS.values()
        ]
        for a in FORMATS.values()
    ]
)
_FP64, _FP32 = NAMES.index("fp64"), NAMES.index("fp32")


class Mixed(NamedTuple):
    """A program on tiles of several formats.

    Attributes
    ----------
    graph : TaskGraph
    parts : list of (int, str or None)
        Of each of its grids that is not scratch: which of the matrices it is a part of, and the
        format of that part, None for one that is whole.
    """

    graph: TaskGraph
    parts: list[tuple[int, str | None]]


def mixed(
    graph: TaskGraph,
    codes: Mapping[int, Int8],
    tags: Int8 | None = None,
    packed: Collection[str] = (),
) -> Mixed:
    """Return a program as it runs on matrices of several formats.

    Parameters
    ----------
    graph : TaskGraph
        Of tile tasks, on matrices of one data type, as algorithms make it.
    codes : mapping of int to (mt, nt) int8 array
        By the first tile number of a grid: its tiles' formats, indices into
        `taskla.precision.NAMES`. Other grids have one format.
    tags : (n,) int8 array, optional
        The format to compute each task in, -1 for the one that follows from what it writes.
    packed : collection of str
        The formats whose products (gemm, of real numbers) take operands as they are stored.

    Returns
    -------
    Mixed
    """
    return _Mixing(graph, codes, tags, packed).made()


class _Tasks(NamedTuple):
    """Tasks that are put in: (k,) arrays, and for each which tiles it accesses and how."""

    kind: Int64
    tiles: NDArray[np.int32]
    modes: tuple[Access, ...]
    at: NDArray[np.int32]
    anchor: Int64
    phase: Int64


class _Mixing:
    """The steps from a program to one of several formats."""

    def __init__(
        self,
        graph: TaskGraph,
        codes: Mapping[int, Int8],
        tags: Int8 | None,
        packed: Collection[str],
    ) -> None:
        self._graph = graph
        self._packed = [NAMES.index(name) for name in packed]
        self._calls = _independent(graph)
        self._kinds: dict[Kind, int] = {}
        self._grids: list[Grid] = []
        self._parts: list[tuple[int, str | None]] = []
        # of each tile number: its format, -1 for integers, and its number now
        self._code = np.full(graph.tile_count, -1, np.int8)
        self._number = np.zeros(graph.tile_count, np.int32)
        self._renumber(codes)
        self._scratch: dict[tuple[int, str], Grid] = {}
        self._place = np.full(graph.n, -1, np.int32)
        if graph.at is not None:
            self._place = np.where(graph.at < 0, self._place, self._number[graph.at])
        self._tag = self._tags()
        if tags is not None:
            self._tag = np.where(tags >= 0, tags, self._tag)

    def _renumber(self, codes: Mapping[int, Int8]) -> None:
        """Give every format of a matrix a grid of its own."""
        matrix = -1
        for grid in self._graph.grids:
            matrix += not grid.scratch
            tiles = np.arange(grid.base, grid.end)
            if grid.base not in codes:
                self._add(grid, tiles)
                if grid.dtype.kind in "fc":
                    self._code[tiles] = NAMES.index(grid.format_name)
                if not grid.scratch:
                    self._parts.append((matrix, None))
                continue
            found = codes[grid.base].ravel(order="F")
            self._code[tiles] = found
            for code in np.unique(found):
                name = NAMES[code]
                dtype = dtype_of(name, grid.dtype.kind == "c")
                part = replace(grid, name=f"{grid.name}:{name}", dtype=dtype, format=name)
                self._add(part, tiles, found == code)
                self._parts.append((matrix, name))

    def _add(
        self, grid: Grid, tiles: Int64, which: NDArray[np.bool_] | slice = slice(None)
    ) -> None:
        base = self._grids[-1].end if self._grids else 0
        self._number[tiles[which]] = (tiles - grid.base + base)[which]
        self._grids.append(replace(grid, base=base))

    # -- tags --------------------------------------------------------------------------------------

    def _tags(self) -> Int8:
        """(n,) The format that each task computes in; -1 where it has to do with integers only."""
        graph = self._graph
        code = self._code[graph.tiles]
        tag = self._code[graph.first_written].copy()
        names = np.array([name in PRODUCTS for name in graph.operations], dtype=np.bool_)
        low = (tag > _FP32) & ~names[graph.kind]
        tag[low] = _FP32
        panels = np.array([kind.definition.panel for kind in graph.kinds], dtype=np.bool_)
        if panels[graph.kind].any():
            # of the tiles of a panel the widest counts
            written = np.where((graph.modes != Access.R) & (code >= 0), code, len(NAMES))
            widest = np.minimum.reduceat(written, graph.indptr[:-1])
            mine = panels[graph.kind] & (widest < len(NAMES))
            tag[mine] = np.where(_HELD_WIDE[widest[mine]], _FP64, _FP32)
            pivots = [
                name.startswith("getrf") and name != "getrf_nopiv" for name in graph.operations
            ]
            tag[np.array(pivots, dtype=np.bool_)[graph.kind] & mine] = _FP64
        return tag

    def _kind(self, kind: Kind) -> int:
        return self._kinds.setdefault(kind, len(self._kinds))

    def _kinds_of_tasks(self) -> Int64:
        graph = self._graph
        pairs, which = np.unique(
            graph.kind.astype(np.int64) * (len(NAMES) + 1) + self._tag + 1, return_inverse=True
        )
        numbers = []
        for number, tag in zip(*np.divmod(pairs, len(NAMES) + 1), strict=True):
            kind = graph.kinds[number]
            if tag:
                name = NAMES[tag - 1]
                dtype = dtype_of(name, kind.dtype.kind == "c")
                if kind.dtype.kind in "fc":
                    kind = replace(kind, dtype=dtype, precision=name)
            numbers.append(self._kind(kind))
        return np.array(numbers, dtype=np.int64)[which] if graph.n else which

    # -- what is put in ----------------------------------------------------------------------------

    def _rounds(self) -> list[_Tasks]:
        """Roundings of tiles of less than fp32, after the last of a run of writes."""
        graph = self._graph
        code = self._code[graph.tiles]
        found = np.flatnonzero(code > _FP32)
        order = found[np.argsort(graph.tiles[found], kind="stable")]
        tile, writes = graph.tiles[order], graph.modes[order] != Access.R
        last = np.ones(order.size, dtype=np.bool_)
        last[:-1] = (tile[1:] != tile[:-1]) | ~writes[1:]
        order = order[writes & last]
        tasks = []
        for value in np.unique(code[order]):
            mine = order[code[order] == value]
            number = self._number[graph.tiles[mine]]
            for complex_type in (False, True):
                which = self._is_complex(graph.tiles[mine]) == complex_type
                if not which.any():
                    continue
                dtype = dtype_of(NAMES[value], complex_type)
                kind = self._kind(Kind("round", (NAMES[value],), dtype, NAMES[value]))
                anchor = graph.task_of_access[mine[which]].astype(np.int64)
                tiles = number[which][:, np.newaxis]
                tasks.append(_new(kind, tiles, (Access.RW,), tiles[:, 0], anchor, _ROUND))
        return tasks

    def _is_complex(self, tiles: NDArray[np.int32]) -> NDArray[np.bool_]:
        result = np.zeros(tiles.size, dtype=np.bool_)
        for grid in self._graph.grids:
            if grid.dtype.kind == "c":
                result |= (tiles >= grid.base) & (tiles < grid.end)
        return result

    def _copies(self, number: NDArray[np.int32]) -> list[_Tasks]:
        """Conversions of operands to the formats that tasks want; `number` is changed to them."""
        graph = self._graph
        task = graph.task_of_access
        code, want = self._code[graph.tiles], self._tag[task]
        panels = np.array([kind.definition.panel for kind in graph.kinds], dtype=np.bool_)
        needed = (graph.modes == Access.R) & (code >= 0) & (want >= 0) & ~panels[graph.kind[task]]
        gemm = np.array([kind.operation == "gemm" for kind in graph.kinds], dtype=np.bool_)
        packed = gemm[graph.kind[task]] & np.isin(want, self._packed)
        packed &= ~self._is_complex(graph.tiles)
        needed &= ~_HELD_WIDE[want] & (packed | ~_FITS[code, want])
        found = np.flatnonzero(needed)
        if not found.size:
            return []
        version = graph.versions()[found]
        # of one format there may be two copies, packed and not
        key = (version * len(NAMES) + want[found]) * 2 + packed[found]
        _, first, copy = np.unique(key, return_index=True, return_inverse=True)
        writer = self._writers()[found[first]]
        source = graph.tiles[found[first]]
        target = want[found[first]].astype(np.int64) * 2 + packed[found[first]]
        scratch = np.empty(first.size, np.int32)
        kinds = np.empty(first.size, np.int64)
        for grid in graph.grids:
            mine = (source >= grid.base) & (source < grid.end)
            for value in np.unique(target[mine]):
                these = mine & (target == value)
                name, suffix = NAMES[value // 2], " packed" if value % 2 else ""
                dtype = FORMATS[name].storage if suffix else None
                held = self._held(grid, name, f">{name}{suffix}", dtype)
                scratch[these] = source[these] - grid.base + held.base
                kinds[these] = self._kind(Kind("lag2", (name,), held.dtype, name))
        number[found] = scratch[copy]
        tiles = np.stack([self._number[source], scratch], axis=1)
        anchor = np.where(writer >= 0, writer, task[found[first]]).astype(np.int64)
        phase = np.where(writer >= 0, _AFTER, _BEFORE)
        return [_Tasks(kinds, tiles, (Access.R, Access.W), tiles[:, 0], anchor, phase)]

    def _writers(self) -> Int64:
        """(a,) The task that wrote the version that each access finds, -1 for the first content."""
        graph = self._graph
        order = np.argsort(graph.tiles, kind="stable")
        tile, writes = graph.tiles[order], graph.modes[order] != Access.R
        at = np.arange(order.size)
        begins = np.ones(order.size, dtype=np.bool_)
        begins[1:] = tile[1:] != tile[:-1]
        start = np.maximum.accumulate(np.where(begins, at, 0))
        written = np.full(order.size, -1)
        written[1:] = np.maximum.accumulate(np.where(writes, at, -1))[:-1]
        result = np.empty(order.size, dtype=np.int64)
        task = graph.task_of_access[order]
        result[order] = np.where(written >= start, task[np.maximum(written, 0)], -1)
        return result

    def _apart(self, number: NDArray[np.int32]) -> list[_Tasks]:
        """Sums of products in less than fp64 of fp64 tiles; `number` is changed to these sums."""
        graph = self._graph
        task = graph.task_of_access
        out = (graph.modes != Access.R) & (self._code[graph.tiles] >= 0)
        products = np.array([name in PRODUCTS for name in graph.operations], dtype=np.bool_)
        out &= products[graph.kind[task]]
        out &= _HELD_WIDE[self._code[graph.tiles]] & ~_HELD_WIDE[self._tag[task]]
        found = np.flatnonzero(out)
        tasks = []
        for grid in graph.grids:
            mine = found[(graph.tiles[found] >= grid.base) & (graph.tiles[found] < grid.end)]
            if not mine.size:
                continue
            part = self._grids[np.searchsorted(self._bases(), number[mine[0]], side="right") - 1]
            sums = self._held(grid, "fp32", "+fp32")
            tiles = graph.tiles[mine]
            number[mine] = tiles - grid.base + sums.base
            # on the rank that has the tile, unless the program says where
            elsewhere = task[mine]
            elsewhere = elsewhere[self._place[elsewhere] < 0]
            self._place[elsewhere] = self._number[graph.first_written[elsewhere]]
            # C_ij += what was summed up, after the last product of the tile
            last, at = np.unique(tiles[::-1], return_index=True)
            own = self._number[last]
            pairs = np.stack([last - grid.base + sums.base, own], axis=1).astype(np.int32)
            add = self._kind(Kind("geadd", ("N", 1.0, 1.0), part.dtype, part.format_name))
            anchor = task[mine[::-1][at]].astype(np.int64)
            tasks.append(_new(add, pairs, (Access.R, Access.RW), own, anchor, _ROUND))
            tasks += self._scalings(mine, part)
        return tasks

    def _scalings(self, accesses: Int64, part: Grid) -> list[_Tasks]:
        """C_ij := beta C_ij, where the product that was to do it is summed up apart."""
        graph = self._graph
        tasks = []
        of = graph.task_of_access[accesses]
        for number in np.unique(graph.kind[of]):
            kind = graph.kinds[number]
            beta = dict(zip(kind.definition.params, kind.params, strict=True)).get("beta", 1.0)
            if beta == 1.0:
                continue
            mine = accesses[graph.kind[of] == number]
            tiles = self._number[graph.tiles[mine]][:, np.newaxis]
            scale = self._kind(Kind("lascl", ("G", beta), part.dtype, part.format_name))
            anchor = graph.task_of_access[mine].astype(np.int64)
            tasks.append(_new(scale, tiles, (Access.RW,), tiles[:, 0], anchor, _BEFORE))
        return tasks

    def _bases(self) -> Int64:
        return np.array([grid.base for grid in self._grids])

    def _held(self, grid: Grid, name: str, suffix: str, dtype: np.dtype[Any] | None = None) -> Grid:
        """The scratch grid of a matrix's tiles in another format."""
        key = grid.base, suffix
        if key not in self._scratch:
            dtype = dtype or dtype_of(name, grid.dtype.kind == "c")
            self._scratch[key] = replace(
                grid,
                name=f"{grid.name}{suffix}",
                base=self._grids[-1].end,
                dtype=dtype,
                format=name,
                scratch=True,
                everywhere=False,
            )
            self._grids.append(self._scratch[key])
        return self._scratch[key]

    # -- the program -------------------------------------------------------------------------------

    def made(self) -> Mixed:
        """Return the program."""
        graph = self._graph
        number = self._number[graph.tiles]
        kind = self._kinds_of_tasks()
        added = [*self._copies(number), *self._rounds(), *self._apart(number)]
        anchor = np.concatenate([np.arange(graph.n), *(a.anchor for a in added)])
        width = np.concatenate(
            [np.diff(graph.indptr), *(np.full(len(a.tiles), a.tiles.shape[1]) for a in added)]
        )
        begin = np.concatenate([[0], np.cumsum(width)])
        tiles = np.concatenate([number, *(a.tiles.ravel() for a in added)]).astype(np.int32)
        kind = np.concatenate([kind, *(a.kind for a in added)])
        phase = np.concatenate([np.full(graph.n, _CALL), *(a.phase for a in added)])
        call = (np.searchsorted(self._calls, anchor, side="right") - 1).astype(np.int64)
        group = self._groups(kind, begin, tiles)
        order = np.lexsort((np.arange(anchor.size), group, phase, call))
        access = _spread(begin[:-1][order], width[order])
        new = np.ones(order.size, dtype=np.bool_)
        together = np.stack([call, phase, group])[:, order]
        new[1:] = (together[:, 1:] != together[:, :-1]).any(axis=0)
        calls = np.flatnonzero(new)
        iteration = graph.iteration[anchor[order]]
        at = np.concatenate([self._place, *(a.at for a in added)]).astype(np.int32)

        def column(old: NDArray[np.uint8], values: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
            more = [
                np.tile(np.array(row, np.uint8), len(a.tiles))
                for row, a in zip(values, added, strict=True)
            ]
            return np.concatenate([old, *more])[access]

        made = TaskGraph(
            grids=self._grids,
            kinds=list(self._kinds),
            kind=kind[order].astype(np.int32),
            indptr=np.concatenate([[0], np.cumsum(width[order])]).astype(np.int64),
            tiles=tiles[access],
            operand=column(graph.operand, [range(a.tiles.shape[1]) for a in added]),
            modes=column(graph.modes, [a.modes for a in added]),
            calls=np.append(calls, order.size).astype(np.int64),
            priority=None if graph.priority is None else graph.priority[anchor[order]],
            iterations=iteration[calls].astype(np.int32),
            name=graph.name,
            at=at[order],
        )
        return Mixed(made, self._parts)

    def _groups(self, kind: Int64, begin: Int64, tiles: NDArray[np.int32]) -> Int64:
        """(n,) What the tasks of one call have in common: their kind and their operands' grids."""
        bases = self._bases()
        task = np.repeat(np.arange(kind.size), np.diff(begin))
        position = np.minimum(np.arange(tiles.size) - begin[task], _WIDTH - 1)
        grid = np.searchsorted(bases, tiles, side="right").astype(np.int64)
        key = np.zeros(kind.size, dtype=np.int64)
        np.add.at(key, task, grid * (len(bases) + 1) ** position)
        found: Int64 = kind * (len(bases) + 1) ** _WIDTH + key
        return found


def _new(
    kind: int,
    tiles: NDArray[np.int32],
    modes: tuple[Access, ...],
    at: NDArray[np.int32],
    anchor: Int64,
    phase: int,
) -> _Tasks:
    count = len(tiles)
    return _Tasks(np.full(count, kind), tiles, modes, at, anchor, np.full(count, phase))


def _spread(begin: Int64, width: Int64) -> Int64:
    """Concatenate ``arange(begin[i], begin[i] + width[i])``."""
    ends = np.cumsum(width)
    total = int(ends[-1]) if ends.size else 0
    return np.arange(total) + np.repeat(begin - ends + width, width)


def _independent(graph: TaskGraph) -> Int64:
    """First tasks of calls whose tasks do not depend on one another: of others, every task."""
    starts: list[NDArray[np.int64]] = []
    for first, last in zip(graph.calls.tolist(), graph.calls[1:].tolist(), strict=False):
        begin, end = graph.indptr[first], graph.indptr[last]
        tiles, writes = graph.tiles[begin:end], graph.modes[begin:end] != Access.R
        written = np.unique(tiles[writes])
        alone = written.size < writes.sum() or np.isin(tiles[~writes], written).any()
        starts.append(np.arange(first, last) if alone and last - first > 1 else np.array([first]))
    return np.concatenate(starts) if starts else np.zeros(0, np.int64)
