"""Memory of strips: used again, and fit to travel.

Fresh pages cost a task a fifth of its time. A strip lives as long as anything refers to it, which
Dask decides; then its memory waits here for the next strip of about its size.

What arrives in a message begins at any byte, and BLAS wants numbers where numbers may be. So a
strip has some room in front of it that travels along, and is moved into that when it has come.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pool", "pool", "received", "sendable"]

Bytes = NDArray[np.uint8]

#: Bytes that wait at most: beyond that the oldest go back to the system.
LIMIT = 16 * 2**20

#: Less than this is left to the C library, which keeps it at hand anyway.
SMALL = 2**20

#: A strip takes memory that is at most so many times too large.
SLACK = 1.25

#: Bytes: strips begin at cache lines, and that much is in front of each.
_LINE = 64


#: What follows a strip says whether it has been moved since it came.
_NOT_MOVED, _MOVED = 0, 1


class _Lease:
    """What an array of lent memory refers to; when it goes, nothing refers to the memory."""

    __slots__ = ("__array_interface__", "__weakref__", "memory")

    def __init__(self, memory: Bytes) -> None:
        #: with the room in front
        self.memory = memory
        self.__array_interface__ = memory[_LINE:].__array_interface__


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
            memory = _aligned(size + _LINE + 1)
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
            if size + _LINE < memory.size <= SLACK * size + _LINE:
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


def sendable(array: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, ...], str] | NDArray[Any]:
    """Return what to send of a strip: its memory with the room in front, its shape and type."""
    base: Any = array
    while base is not None and not isinstance(base, _Lease):
        base = getattr(base, "base", None)
    if base is None:
        return array
    end = _LINE + array.nbytes
    base.memory[end] = _NOT_MOVED
    return base.memory[: end + 1], array.shape, array.dtype.str


def received(sent: tuple[NDArray[Any], tuple[int, ...], str] | NDArray[Any]) -> NDArray[Any]:
    """Return a strip from what has come, where BLAS can use it."""
    if isinstance(sent, np.ndarray):
        return sent if sent.flags.aligned else sent.copy(order="F")
    memory, shape, dtype = sent
    size = memory.size - _LINE - 1
    address = memory.__array_interface__["data"][0]
    shift = -address % _LINE
    if memory.flags.writeable:
        if memory[-1] == _NOT_MOVED:
            # without the GIL, and without the copy that NumPy would make of what overlaps
            _memmove()(address + shift, address + _LINE, size)
            # who looks at the same message again finds it so
            memory[-1] = _MOVED
        begin = shift
    else:
        # from a file, say
        memory, begin = memory[_LINE:].copy(), 0
    return memory[begin : begin + size].view(dtype).reshape(shape, order="F")


@cache
def _memmove() -> Any:
    function = ctypes.CDLL(None).memmove
    function.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
    function.restype = ctypes.c_void_p
    return function
