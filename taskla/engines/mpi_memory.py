"""Memory that the ranks of one machine share: a tile is read where it lies, and travels nowhere.

A rank's tiles of a matrix lie in one block of memory (`taskla.matrix_store.carve`), which the other
ranks of its machine can map. Who makes a tile still sends a message, without content, when it is
there; who reads it finds it where the owner has it. That serves tiles that no later task of the
program writes, or one much later, which waits until readers say that they are done; others, of
which a reader needs the version of the moment, are sent.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.exchange import Exchange
from taskla.graph import Grid
from taskla.matrix_store import OwnStore, carve
from taskla.matrix_tiles import StoredTiles, tiles_of
from taskla.tile import Tile

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["Neighbours", "SharedMemory"]

Bytes = NDArray[np.uint8]

#: Large pages, where the system has them, for what is read again and again.
_HUGE = getattr(mmap, "MADV_HUGEPAGE", None)


class _Block(NamedTuple):
    """What another process needs to find a block: numbers that it can send for."""

    process: int
    file: int
    inode: int
    size: int


#: A tile is read in place where as much of the program as its length over this lies between its
#: last reader and the task that writes it next: that task has to wait for word of the reader.
_FAR = 16

_NOTHING = _Block(-1, -1, -1, 0)


class SharedMemory:
    """Blocks of memory of this rank, and those of the other ranks of its machine.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        All of its ranks make one of these together.
    wait : callable
        Waits for a request of MPI.

    Attributes
    ----------
    machines : (ranks,) int64 array
        A number for each rank, the same for those that can read one another's blocks.
    """

    def __init__(self, comm: Intracomm, wait: Callable[[Any], None]) -> None:
        from mpi4py import MPI

        self._comm, self._wait = comm, wait
        self._blocks: list[tuple[weakref.ref[mmap.mmap], int, _Block]] = []
        # an Intracomm, which the stubs do not know
        machine: Any = comm.Split_type(MPI.COMM_TYPE_SHARED)
        shared = machine.allreduce(self._probe(machine), op=MPI.LAND)
        first = machine.bcast(comm.rank)
        machine.Free()
        self.machines = np.array(comm.allgather(first if shared else comm.rank))

    def _probe(self, machine: Intracomm) -> bool:
        """Whether this process can read a block of the others."""
        try:
            mine = self._make(mmap.PAGESIZE)
            mine[0] = machine.rank + 1
            block = self._of(mine)
        except (OSError, AttributeError):
            # no such files on this system
            mine, block = np.empty(0, np.uint8), _NOTHING
        found = mine.size > 0
        for rank, other in enumerate(machine.allgather(tuple(block))):
            try:
                found &= int(_mapped(_Block(*other))[0]) == rank + 1
            except OSError:
                found = False
        # nobody's goes away before all have looked
        machine.Barrier()
        return found

    @property
    def allocate(self) -> Callable[[int], Bytes] | None:
        """``allocate(size)`` returns a new block of bytes, all zero; None where none is shared."""
        together = self.machines == self.machines[self._comm.rank]
        return self._allocate if together.sum() > 1 else None

    def _allocate(self, size: int) -> Bytes:
        try:
            return self._make(size)
        except OSError:
            # too many files are open, say: tiles of this block travel
            return np.zeros(size, np.uint8)

    def _make(self, size: int) -> Bytes:
        file = os.memfd_create("taskla")
        try:
            length = max(size, 1)
            os.ftruncate(file, length)
            memory = mmap.mmap(file, length)
            if _HUGE is not None:
                memory.madvise(_HUGE)
        except BaseException:
            os.close(file)
            raise
        weakref.finalize(memory, os.close, file)
        block = _Block(os.getpid(), file, os.fstat(file).st_ino, length)
        array = np.frombuffer(memory, np.uint8)
        self._blocks = [entry for entry in self._blocks if entry[0]() is not None]
        self._blocks.append((weakref.ref(memory), _address(array), block))
        return array[:size]

    def _of(self, array: NDArray[Any]) -> _Block:
        """The block of this rank that an array lies in."""
        address = _address(array)
        for memory, start, block in self._blocks:
            if memory() is not None and start <= address < start + block.size:
                return block
        return _NOTHING

    def neighbours(self, exchange: Exchange, given: Mapping[Grid, Any]) -> Neighbours | None:
        """Return where this rank finds tiles of others; all ranks call it, for the same matrices.

        Parameters
        ----------
        exchange : Exchange
        given : mapping of Grid to matrix
        """
        if np.unique(self.machines).size == self._comm.size:
            return None
        mine = np.full((len(given), len(_NOTHING)), -1, dtype=np.int64)
        for number, matrix in enumerate(given.values()):
            if isinstance(matrix, StoredTiles):
                mine[number] = self._block_of(matrix)
        everyones = np.empty((self._comm.size, *mine.shape), np.int64)
        self._wait(self._comm.Iallgather(mine, everyones))
        blocks = {
            grid.base: [_Block(*row) for row in everyones[:, number].tolist()]
            for number, grid in enumerate(given)
        }
        matrices = {grid.base: matrix for grid, matrix in given.items()}
        return Neighbours(exchange, self.machines, blocks, matrices)

    def _block_of(self, matrix: StoredTiles) -> _Block:
        own = matrix.own_tiles()
        return self._of(matrix.tile(*own[0]).array) if own else _NOTHING


class Neighbours:
    """The tiles of other ranks that a program's messages are about, where they lie.

    Parameters
    ----------
    exchange : Exchange
    machines : (ranks,) int64 array
        A number for the machine of each rank.
    blocks : dict of int to list of tuple
        By the first tile number of a grid: the block of each rank.
    matrices : dict of int to matrix
        Likewise this rank's.

    Attributes
    ----------
    in_place : (m,) bool array
        The messages without content.
    """

    def __init__(
        self,
        exchange: Exchange,
        machines: NDArray[np.int64],
        blocks: dict[int, list[_Block]],
        matrices: dict[int, Any],
    ) -> None:
        self._exchange, self._blocks, self._matrices = exchange, blocks, matrices
        near = machines[exchange.source] == machines[exchange.target]
        away = exchange.overwriter - exchange.reader >= exchange.graph.n / _FAR
        self.in_place = (exchange.last | away) & near
        for grid in exchange.graph.grids:
            mine = (exchange.tile >= grid.base) & (exchange.tile < grid.end)
            known = [block.file >= 0 for block in blocks.get(grid.base, [])]
            if known:
                self.in_place[mine] &= np.array(known)[exchange.source[mine]]
            else:
                self.in_place[mine] = False
        self._stores: dict[tuple[int, int], OwnStore] = {}

    def tile(self, message: int) -> Tile:
        """Return the tile of a message in place, read-only, in the memory of its owner."""
        exchange = self._exchange
        number, rank = int(exchange.tile[message]), int(exchange.source[message])
        grid = exchange.graph.grid_of(number)
        key = grid.base, rank
        if key not in self._stores:
            self._stores[key] = self._store(*key)
        i, j = grid.coordinates(number)
        return self._stores[key].cut(int(i), int(j))

    def _store(self, base: int, rank: int) -> OwnStore:
        matrix = self._matrices[base]
        own = tiles_of(matrix.layout, matrix.distribution, rank)
        memory = _mapped(self._blocks[base][rank])
        return OwnStore(matrix.layout, own, carve(matrix.layout, own, matrix.dtype, memory))


def _mapped(block: _Block) -> Bytes:
    """Return the memory of another process, to be read."""
    file = os.open(f"/proc/{block.process}/fd/{block.file}", os.O_RDONLY)
    try:
        # a number may by now stand for another file
        if os.fstat(file).st_ino != block.inode:
            raise OSError(f"block {block.inode} of process {block.process} is not there any more")
        memory = mmap.mmap(file, block.size, prot=mmap.PROT_READ)
        if _HUGE is not None:
            memory.madvise(_HUGE)
    finally:
        os.close(file)
    return np.frombuffer(memory, np.uint8)


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
