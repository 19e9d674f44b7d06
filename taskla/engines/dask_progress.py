"""What is known of programs that run on a Dask cluster: told by events, asked for by tile.

Knows neither Dask nor the page that shows it. An event is noted in constant time, however many
tiles its task writes: tiles catch up when somebody asks for them.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from taskla.engines.dask_progress_tiles import STATES, State, Sums, Tiles

__all__ = ["Fused", "Matrix", "Program", "Progress", "State", "TileGrid", "Tiles", "Totals"]


class TileGrid(NamedTuple):
    """The tiles of a matrix that have one number format.

    Attributes
    ----------
    name : str
        Of the matrix.
    mt, nt : int
        Tile rows and tile columns of the matrix.
    format : str
    more : bool
        Whether they are of the matrix of the grid before.
    """

    name: str
    mt: int
    nt: int
    format: str
    more: bool = False


class Matrix(NamedTuple):
    """One matrix of a program: its name, tile rows, tile columns and number formats."""

    name: str
    mt: int
    nt: int
    formats: tuple[str, ...]


class Fused(NamedTuple):
    """One Dask task: several tile tasks on one worker.

    Attributes
    ----------
    kernel : str
        The name on the dashboard.
    rank : int
        Owner by the distribution.
    writes : tuple of (int, int, int)
        Grid number, tile row and tile column of the tiles that it writes.
    flops : float
    """

    kernel: str
    rank: int
    writes: tuple[tuple[int, int, int], ...]
    flops: float


class Totals(NamedTuple):
    """A program in numbers.

    Attributes
    ----------
    tasks, waiting, running, done, failed : int
    recomputed : int
        How many times a task was done that had been done before.
    flops, flops_done : float
        Of all tasks, and of those that are done.
    began : float or None
        When the first task started, in seconds of ``time.time()``; None as long as it is unknown.
    elapsed : float
        Seconds from then to now if a task is running, else to the last stop.
    gflops : float
        Gflop/s over that time; 0 as long as nothing is known of it.
    """

    tasks: int
    waiting: int
    running: int
    done: int
    failed: int
    recomputed: int
    flops: float
    flops_done: float
    began: float | None
    elapsed: float
    gflops: float


_CODES = {"waiting": 0, "running": 1, "done": 2, "failed": 3}


class Program:
    """One graph of fused tasks.

    Parameters
    ----------
    token : str
        Different for different programs.
    name : str
        What people call it.
    grids : sequence of TileGrid
        Those of one matrix are next to each other.
    number : int, optional
        How many programs there were before it.

    Attributes
    ----------
    matrices : tuple of Matrix
        Each in all the formats that it has.
    formats : tuple of str
        Names of the number formats in it.
    workers : list of str
        Those that had a task, the first one first.
    writes : list of int
        Of each matrix, how many times a task writes a tile of it.
    version : int
        Another one after every change.
    """

    def __init__(
        self, token: str, name: str, grids: Sequence[TileGrid], *, number: int = 0
    ) -> None:
        self.token, self.name, self.number = token, name, number
        self.matrices, self._matrix = _matrices(grids)
        # of each grid
        names = [grid.format for grid in grids]
        self.formats = tuple(dict.fromkeys(names))
        self._format = [self.formats.index(name) for name in names]
        self.workers: list[str] = []
        self.writes = [0] * len(self.matrices)
        self.version = 0
        sizes = [matrix.mt * matrix.nt for matrix in self.matrices]
        self._bases = np.cumsum([0, *sizes]).tolist()
        # tasks
        self._numbers: dict[Hashable, int] = {}
        self._state, self._ever = bytearray(), bytearray()
        self._flops, self._spent = array("d"), array("d")
        self._rank, self._worker = array("i"), array("i")
        # tiles that tasks write, those of one task side by side
        self._first, self._written = array("q", [0]), array("i")
        # totals
        self._counts = [0] * STATES
        self._recomputed = 0
        self._flops_all = self._flops_done = self._flops_before = 0.0
        self._began: float | None = None
        self._last: float | None = None
        self._places: dict[str, int] = {}
        self._tiles = Sums(self._bases[-1])
        self._formats_of_tiles = array("i", [-1]) * self._bases[-1]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._numbers

    @property
    def finished(self) -> bool:
        """Whether every task is done or failed, and there is one."""
        done, failed = self._counts[State.DONE], self._counts[State.FAILED]
        return 0 < done + failed == len(self._state)

    def add(self, key: Hashable, fused: Fused) -> None:
        """Take note of a task, which waits.

        One that is there already is to be done anew: this is not counted as recomputed. With the
        first task that is added to a finished program its clock starts anew.

        Raises
        ------
        ValueError
            When it writes a tile that is in none of the grids.
        """
        known = self._numbers.get(key)
        if known is None:
            tiles = [self._tile(*place) for place in fused.writes]
        if self.finished:
            self._began = self._last = None
            self._recomputed, self._flops_before = 0, self._flops_done
        self.version += 1
        if known is not None:
            if self._state[known] == State.DONE:
                self._flops_before = max(self._flops_before - self._flops[known], 0.0)
            self._move(known, State.WAITING)
            self._ever[known] = 0
            return
        self._tiles.touch(len(self._numbers))
        self._numbers[key] = len(self._numbers)
        self._state.append(State.WAITING)
        self._ever.append(0)
        self._flops.append(fused.flops)
        self._spent.append(0.0)
        self._rank.append(fused.rank)
        self._worker.append(-1)
        self._written.extend(tiles)
        for (grid, _, _), tile in zip(fused.writes, tiles, strict=True):
            self.writes[self._matrix[grid]] += 1
            self._formats_of_tiles[tile] = self._format[grid]
        self._first.append(len(self._written))
        self._counts[State.WAITING] += 1
        self._flops_all += fused.flops

    def note(
        self,
        key: Hashable,
        state: Literal["waiting", "running", "done", "failed"],
        *,
        worker: str | None = None,
        start: float | None = None,
        stop: float | None = None,
    ) -> None:
        """Take note of what became of a task; to be told again changes nothing.

        Parameters
        ----------
        key : hashable
            One that is not known is ignored.
        state : {"waiting", "running", "done", "failed"}
            A task that was done waits again when its result is lost with a worker.
        worker : str, optional
            Where it runs or ran.
        start, stop : float, optional
            In seconds of ``time.time()``.

        Raises
        ------
        ValueError
            When `state` is another word.
        """
        if state not in _CODES:
            raise ValueError(f"state is {state!r}; allowed: {', '.join(_CODES)}")
        number, code = self._numbers.get(key), _CODES[state]
        if number is None:
            return
        place = -1 if worker is None else self._places.get(worker, len(self._places))
        moved = place not in (-1, self._worker[number])
        if self._state[number] == code and not moved:
            return
        if self._state[number] != code and code == State.DONE:
            self._recomputed += self._ever[number]
            self._ever[number] = 1
            if start is not None and stop is not None:
                self._spent[number] += max(stop - start, 0.0)
        if moved and worker is not None:
            if place == len(self.workers):
                self._places[worker] = place
                self.workers.append(worker)
            self._worker[number] = place
        if start is not None:
            self._began = start if self._began is None else min(self._began, start)
        if stop is not None:
            self._last = stop if self._last is None else max(self._last, stop)
        self.version += 1
        self._move(number, code)

    def _move(self, number: int, code: int) -> None:
        before = self._state[number]
        self._counts[before] -= 1
        self._counts[code] += 1
        self._flops_done += self._flops[number] * ((code == State.DONE) - (before == State.DONE))
        self._state[number] = code
        self._tiles.touch(number)

    def _tile(self, grid: int, i: int, j: int) -> int:
        if 0 <= grid < len(self._matrix):
            matrix = self._matrix[grid]
            _, mt, nt, _ = self.matrices[matrix]
            if 0 <= i < mt and 0 <= j < nt:
                return int(self._bases[matrix]) + i * nt + j
        shapes = ", ".join(f"{name} of {mt} x {nt}" for name, mt, nt, _ in self.matrices)
        raise ValueError(
            f"writes has the tile {(grid, i, j)}; allowed: tiles of {shapes or 'none'}"
        )

    def totals(self, now: float | None = None) -> Totals:
        """Return the program in numbers.

        Parameters
        ----------
        now : float, optional
            In seconds of ``time.time()``, which is also the default.
        """
        waiting, running, done, failed = self._counts
        elapsed = 0.0
        if self._began is not None:
            last = self._last if self._last is not None else self._began
            if running:
                last = max(last, time.time() if now is None else now)
            elapsed = max(last - self._began, 0.0)
        # sums of floats that were added and taken away need not be 0 again
        flops = max(self._flops_done - self._flops_before, 0.0) if done else 0.0
        return Totals(
            len(self._state),
            waiting,
            running,
            done,
            failed,
            self._recomputed,
            self._flops_all,
            self._flops_done if done else 0.0,
            self._began,
            elapsed,
            flops / elapsed / 1e9 if elapsed > 0 else 0.0,
        )

    def tiles(self, matrix: int) -> Tiles:
        """Return what is known of the tiles of a matrix: arrays of their own, free to be changed.

        Parameters
        ----------
        matrix : int
            Its number in `matrices`.
        """
        self._tiles.catch_up(
            np.array(self._state, dtype=np.int64),
            np.array(self._spent),
            np.array(self._worker),
            np.array(self._rank),
            np.array(self._first),
            np.array(self._written),
        )
        _, mt, nt, _ = self.matrices[matrix]
        part = slice(self._bases[matrix], self._bases[matrix + 1])
        return self._tiles.of(part, (mt, nt), np.array(self._formats_of_tiles[part]))


def _matrices(grids: Sequence[TileGrid]) -> tuple[tuple[Matrix, ...], list[int]]:
    """Return the matrices that grids have the tiles of, and of each grid the number of its own."""
    matrices: list[Matrix] = []
    of_grids = []
    for name, mt, nt, format_, more in grids:
        formats = matrices.pop().formats if more else ()
        matrices.append(Matrix(name, mt, nt, (*formats, format_)))
        of_grids.append(len(matrices) - 1)
    return tuple(matrices), of_grids


class Progress:
    """The newest programs.

    Parameters
    ----------
    most : int, optional
        So many are kept: for a new one that of the least work goes of those that have finished, so
        that of a solution the factorisation stays, not its corrections; else the oldest.

    Attributes
    ----------
    programs : mapping of str to Program
        By token, the newest last.
    """

    def __init__(self, most: int = 16) -> None:
        if most < 1:
            raise ValueError(f"most is {most}; allowed: integers from 1")
        self._most, self._begun = most, 0
        self._programs: dict[str, Program] = {}
        self.programs: Mapping[str, Program] = MappingProxyType(self._programs)

    def begin(self, token: str, name: str, grids: Sequence[TileGrid]) -> Program:
        """Return a new program, or the one of that token; one that has finished is the newest."""
        program = self._programs.get(token)
        if program is not None:
            if program.finished:
                self._programs[token] = self._programs.pop(token)
            return program
        if len(self._programs) >= self._most:
            finished = (old for old, other in self._programs.items() if other.finished)
            # the first of those that are alike: the oldest
            least = min(finished, key=lambda old: self._programs[old].totals().flops, default=None)
            del self._programs[next(iter(self._programs)) if least is None else least]
        self._programs[token] = program = Program(token, name, grids, number=self._begun)
        self._begun += 1
        return program

    def note(
        self,
        key: Hashable,
        state: Literal["waiting", "running", "done", "failed"],
        *,
        worker: str | None = None,
        start: float | None = None,
        stop: float | None = None,
    ) -> None:
        """Take note of what became of a task: `Program.note` of the one that it is in, if any."""
        # there are few, and most tasks are those of the newest
        for program in reversed(self._programs.values()):
            if key in program:
                program.note(key, state, worker=worker, start=start, stop=stop)
                return
