"""Memory of strips that is used again: fresh pages cost a task a fifth of its time.

A strip lives as long as anything refers to it, which Dask decides; then its memory waits here for
the next strip of about its size.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pool", "pool"]

Bytes = NDArray[np.uint8]

#: Bytes that wait at most: beyond that the oldest go back to the system.
LIMIT = 128 * 2**20

#: Less than this is left to the C library, which keeps it at hand anyway.
SMALL = 2**20

#: A strip takes memory that is at most so many times too large.
SLACK = 1.25

_LINE = 64


class _Lease:
    """What an array of lent memory refers to; when it goes, nothing refers to the memory."""

    __slots__ = ("__array_interface__", "__weakref__", "memory")

    def __init__(self, memory: Bytes) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__


class Pool:
    """Blocks of memory, lent as arrays.

    Parameters
    ----------
    limit : int
        Bytes that wait at most.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        # appended to by whichever thread drops the last reference, also amid `empty`
        self._free: deque[Bytes] = deque()

    def empty(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array in Fortran order whose entries are not set."""
        size = shape[0] * shape[1] * dtype.itemsize
        if size < SMALL:
            return np.empty(shape, dtype, order="F")
        memory = self._found(size)
        if memory is None:
            memory = _aligned(size)
        lease = _Lease(memory)
        weakref.finalize(lease, self._back, memory).atexit = False
        return np.asarray(lease)[:size].view(dtype).reshape(shape, order="F")

    def _back(self, memory: Bytes) -> None:
        self._free.append(memory)
        while self.waiting > self.limit:
            try:
                self._free.popleft()
            except IndexError:
                break

    def _found(self, size: int) -> Bytes | None:
        """Return a block that fits, the one that has waited for the shortest time."""
        for _ in range(len(self._free)):
            try:
                memory = self._free.pop()
            except IndexError:
                return None
            if size <= memory.size <= SLACK * size:
                return memory
            self._free.appendleft(memory)
        return None

    @property
    def waiting(self) -> int:
        """Bytes that wait."""
        return sum(memory.size for memory in self._free.copy())


def _aligned(size: int) -> Bytes:
    raw = np.empty(size + _LINE, np.uint8)
    shift = -raw.__array_interface__["data"][0] % _LINE
    return raw[shift : shift + size]


#: That of this process.
pool = Pool()
