"""What a Dask worker does in one task: the tile tasks of one strip, on its threads."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla import schedulers
from taskla.engines.crew import Each, Job, conduct
from taskla.engines.dask_memory import pool
from taskla.engines.dask_strips import Position, Spot, Strips, stored, tile_of
from taskla.engines.execution import Execution
from taskla.engines.graph_run import GraphRun
from taskla.fusion import fuse
from taskla.graph import Grid, TaskGraph
from taskla.matrix_layout import Uplo
from taskla.matrix_store import set_block, triangle
from taskla.schedulers import Policy
from taskla.tile import Tile

if TYPE_CHECKING:
    from taskla.engines.dask_notes import Note

__all__ = ["Found", "Made", "Share", "made", "packed", "run", "select", "threads"]


#: Rows that are copied at a time from C order to Fortran order.
SLAB = 8


class Found(NamedTuple):
    """A tile that a task is given.

    Attributes
    ----------
    number : int
        Of the tile.
    value : int
        The argument that has it.
    position : Position
        Where in that.
    check : {"", "G", "L", "U"}
        The part of it that must be finite.
    """

    number: int
    value: int
    position: Position
    check: str


class Made(NamedTuple):
    """A strip that a task makes: neighbouring tiles of which all are final, or none is.

    Attributes
    ----------
    tiles : tuple of int
    axis : int
        Along which they are neighbours.
    returned : bool
        Whether anybody wants them when the task is done.
    format : str
        In which they are packed then; "" for as they are.
    """

    tiles: tuple[int, ...]
    axis: int
    returned: bool
    format: str = ""


@dataclass(frozen=True)
class Share:
    """What a task is to do.

    Attributes
    ----------
    graph : TaskGraph
        Of tile tasks, with the tile numbers of the whole program.
    found : tuple of Found
    made : tuple of Made
    carried : tuple of (int, int)
        Argument and position of tiles that are handed on as they are.
    policy : str or Policy
        In which order the worker's threads take tile tasks.
    fuse : int
        Width of fusion.
    shapes : mapping of int to (int, int)
        Of tiles that have another shape than the grid says: shares of a norm.
    note : (str, str, int), optional
        The journal that it is to be noted for, the program's token, the task's number in it.
    """

    graph: TaskGraph
    found: tuple[Found, ...]
    made: tuple[Made, ...]
    carried: tuple[tuple[int, int], ...]
    policy: str | Policy
    fuse: int
    shapes: Mapping[int, tuple[int, int]]
    note: tuple[str, str, int] | None = None

    def shape(self, number: int) -> tuple[int, int]:
        """Return the shape of a tile."""
        return self.shapes.get(number) or tile_shape(self.graph.grid_of(number), number)


class _Elsewhere:
    """In place of a matrix: all of its tiles are given."""

    def tile(self, i: int, j: int) -> Tile:
        raise KeyError(f"tile ({i}, {j}) was not given")


def packed(share: Share) -> bytes:
    """Return a share as bytes: the scheduler, which passes it on, need not look inside."""
    return pickle.dumps(share, protocol=pickle.HIGHEST_PROTOCOL)


def run(share: bytes, *values: Any) -> Strips:
    """Do a task's share of a program.

    Parameters
    ----------
    share : bytes
        A `Share`, `packed`.
    *values : Strips or array
        What it is given; none of it is changed.

    Returns
    -------
    Strips
        The tiles that are wanted of it, strip by strip, then those carried.

    Raises
    ------
    ValueError
        When a tile that must be finite is not, or an array is not the tile that it should be.
    numpy.linalg.LinAlgError
        As the kernels raise it, with the index counted from the matrix's first row.
    """
    found: Share = pickle.loads(share)
    if found.note is not None:
        from taskla.engines.dask_notes import note

        with note(found.note) or nullcontext() as noted:
            return _run(found, values, noted)
    return _run(found, values)


def _run(share: Share, values: Sequence[Any], note: Note | None = None) -> Strips:
    graph = share.graph
    given = {f.number: _tile(share, f, values) for f in share.found}
    arrays, spots, places = _make(share.made, share.shape, graph.grid_of, given)
    graph = fuse(graph, share.fuse)
    grids = [grid for grid in graph.grids if not grid.scratch]
    execution = Execution(graph, [_Elsewhere()] * len(grids))
    known = given | places
    for number, array in (known | _absent(graph, known)).items():
        execution.put(number, Tile(array))
    _execute(graph, execution, share, note)
    arrays, spots = _returned(share, arrays, spots)
    for value, position in share.carried:
        spot = values[value].spots[position]
        strip = values[value].arrays[spot.array]
        # the strip goes along if all of it is carried, else the tile alone
        spots.append(spot._replace(array=_number(arrays, strip)))
    return Strips(arrays, spots)


def _absent(graph: TaskGraph, known: Mapping[int, Any]) -> dict[int, NDArray[Any]]:
    """Zeros for the other tiles of matrices: those that were never written are that."""
    zeros = {}
    for number in set(graph.tiles.tolist()) - known.keys():
        grid = graph.grid_of(number)
        if not grid.scratch:
            # no memory is touched before somebody reads it
            zeros[number] = np.zeros(tile_shape(grid, number), grid.dtype, order="F")
    return zeros


def _number(arrays: list[NDArray[Any]], strip: NDArray[Any]) -> int:
    """Return the place of an array in a list, at the end if it is not there yet."""
    for number, array in enumerate(arrays):
        if array is strip:
            return number
    arrays.append(strip)
    return len(arrays) - 1


def _tile(share: Share, found: Found, values: Sequence[Any]) -> NDArray[Any]:
    """Return a tile that was given, checked."""
    value = values[found.value]
    array = tile_of(value, found.position)
    if not isinstance(value, Strips):
        grid = share.graph.grid_of(found.number)
        array = chunk(array, grid, found.number, share.shape(found.number))
    if found.check:
        part = array
        if found.check != "G":
            part = triangle(array, "lower" if found.check == "L" else "upper")
        if not np.isfinite(part).all():
            raise ValueError("array must not contain infs or NaNs")
    return array


def tile_shape(grid: Grid, number: int) -> tuple[int, int]:
    """Return the rows and columns that a tile has by its grid."""
    rows, cols = grid.shapes(number)
    return int(rows), int(cols)


def chunk(value: Any, grid: Grid, number: int, shape: tuple[int, int]) -> NDArray[Any]:
    """Return a chunk of a Dask array as a tile of a matrix.

    Raises
    ------
    ValueError
        When it has another shape, or is masked.
    TypeError
        When it cannot be cast safely.
    """
    i, j = (int(index) for index in grid.coordinates(number))
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"chunk ({i}, {j}) of {grid.name} is a masked array; fill it first")
    array = np.asarray(value)
    if array.shape != shape:
        raise ValueError(f"chunk ({i}, {j}) of {grid.name} has shape {array.shape}, not {shape}")
    if array.dtype != grid.dtype:
        if not np.can_cast(array.dtype, grid.dtype, "same_kind"):
            raise TypeError(f"chunk ({i}, {j}) of {grid.name} is {array.dtype}, not {grid.dtype}")
        array = array.astype(grid.dtype)
    try:
        fits = array.flags.aligned and Tile(array) is not None
    except ValueError:
        fits = False
    return array if fits else array.copy(order="F")


def _make(
    strips: Sequence[Made],
    shape_of: Callable[[int], tuple[int, int]],
    grid_of: Callable[[int], Grid],
    given: Mapping[int, NDArray[Any]],
) -> tuple[list[NDArray[Any]], list[Spot], dict[int, NDArray[Any]]]:
    """Make the strips that tasks write, with what the tiles hold when they begin."""
    arrays: list[NDArray[Any]] = []
    spots: list[Spot] = []
    places: dict[int, NDArray[Any]] = {}
    for strip in strips:
        grid = grid_of(strip.tiles[0])
        shapes = [shape_of(number) for number in strip.tiles]
        along = [shape[strip.axis] for shape in shapes]
        across = shapes[0][1 - strip.axis]
        shape = (across, sum(along)) if strip.axis else (sum(along), across)
        array = pool.empty(shape, grid.dtype)
        begin = 0
        for number, length in zip(strip.tiles, along, strict=True):
            spot = Spot(len(arrays), begin, begin + length, strip.axis)
            place = array[:, begin : spot.end] if strip.axis else array[begin : spot.end]
            _fill(place, given.get(number))
            places[number] = place
            spots.append(spot)
            begin = spot.end
        arrays.append(array)
    return arrays, spots, places


def _fill(place: NDArray[Any], content: NDArray[Any] | None) -> None:
    """Copy a tile into its place in a strip, or zeros."""
    if content is None:
        place[...] = 0
    elif content.flags.f_contiguous or content.strides[0] <= content.strides[1]:
        place[...] = content
    else:
        # across the grain a few rows at a time stay in the cache: twice as fast
        for row in range(0, len(content), SLAB):
            place[row : row + SLAB] = content[row : row + SLAB]


def _returned(
    share: Share, arrays: list[NDArray[Any]], spots: list[Spot]
) -> tuple[list[NDArray[Any]], list[Spot]]:
    """Leave out the strips that nobody wants, and pack those of formats that take less room."""
    kept: list[NDArray[Any]] = []
    wanted: list[Spot] = []
    for number, strip in enumerate(share.made):
        if not strip.returned:
            continue
        array, mine = arrays[number], [spot for spot in spots if spot.array == number]
        if strip.format:
            tiles = [array[:, s.begin : s.end] if s.axis else array[s.begin : s.end] for s in mine]
            array, mine = stored(tiles, strip.axis, strip.format)
        wanted += [spot._replace(array=len(kept)) for spot in mine]
        kept.append(array)
    return kept, wanted


def _execute(graph: TaskGraph, execution: Execution, share: Share, note: Note | None) -> None:
    """Run tile tasks on the threads of this worker."""
    count, token = threads()
    workers = min(count, graph.n)
    run_task: Callable[[int], None] = execution
    if note is not None:
        run_task = note.observed(graph.n, execution, alone=count == 1)

    def execute(task: int) -> None:
        with token:
            run_task(task)

    job: Job
    if workers > 1:
        job = GraphRun(graph, execute, copy.copy(schedulers.get(share.policy)), workers)
    else:
        # on a worker of one thread nobody else computes
        job = Each(graph.n, run_task if count == 1 else execute)
    conduct(job, workers)


def select(positions: Sequence[int], strips: Strips) -> Strips:
    """Return some tiles of a task's, without the memory of the others."""
    arrays: list[NDArray[Any]] = []
    spots = []
    for position in positions:
        spot = strips.spots[position]
        spots.append(spot._replace(array=_number(arrays, strips.arrays[spot.array])))
    return Strips(arrays, spots)


def made(
    grid: Grid,
    strip: Made,
    uplo: Uplo | None,
    function: Callable[[NDArray[np.intp], NDArray[np.intp]], Any],
) -> Strips:
    """Assemble a strip of a matrix: ``function(rows, cols)`` gives the block there.

    Parameters
    ----------
    grid : Grid
    strip : Made
    uplo : {None, "lower", "upper"}
        The triangle that is stored.
    function : callable
        See `taskla.TiledMatrix.from_function`.

    Raises
    ------
    ValueError, TypeError
        As `taskla.TiledMatrix.from_function`.
    """
    arrays, spots, places = _make([strip], partial(tile_shape, grid), lambda _: grid, {})
    workers, token = threads()

    def fill(at: int) -> None:
        number = strip.tiles[at]
        i, j = (int(index) for index in grid.coordinates(number))
        rows, cols = places[number].shape
        top, left = i * grid.nb, j * grid.nb
        with token:
            block = function(np.arange(top, top + rows), np.arange(left, left + cols))
            set_block(places[number], np.asarray(block), i, j, uplo)

    conduct(Each(len(strip.tiles), fill), workers)
    return Strips(arrays, spots)


# -- threads ---------------------------------------------------------------------------------------


def threads() -> tuple[int, threading.BoundedSemaphore]:
    """Return how many threads a task may use, and what each takes while it computes.

    A worker runs several tasks at once, each on as many threads as the worker has: the token keeps
    those that compute at any time to that number. Outside of a distributed worker, where Dask's own
    threads are as many as there are cores, a task has one.
    """
    try:
        from distributed import get_worker

        worker = get_worker()
    except (ImportError, ValueError):
        return 1, _token("", _MANY)
    count = int(worker.state.nthreads)
    return count, _token(str(worker.address), count)


#: more threads than compute in one process
_MANY = 2**20


@lru_cache(maxsize=256)
def _token(worker: str, count: int) -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(count)
