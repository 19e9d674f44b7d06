"""Memory of strips: lent again, never while anybody refers to it, and whole after a journey."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import numpy as np
import pytest

from taskla.engines.dask_memory import SMALL, Pool, pool, received, sendable
from taskla.engines.dask_strips import Spot, Strips

F8 = np.dtype("float64")
SHAPE = (1000, 200)
BYTES = 1_600_000


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_lent_again_when_the_last_view_is_gone() -> None:
    own = Pool()
    a = own.empty(SHAPE, F8)
    assert a.shape == SHAPE
    assert a.flags.f_contiguous
    assert address(a) % 64 == 0
    where, view = address(a), a[10:20, 5:]
    del a
    assert own.waiting == 0
    b = own.empty(SHAPE, F8)
    assert address(b) != where
    del view
    assert own.waiting > BYTES
    # a little smaller fits as well, much smaller does not
    assert address(own.empty((100, 200), F8)) != where
    c = own.empty((900, 200), F8)
    assert address(c) == where
    assert not np.shares_memory(b, c)


def test_what_waits_is_limited() -> None:
    own = Pool(limit=3 * BYTES)
    arrays = [own.empty(SHAPE, F8) for _ in range(6)]
    assert len({address(array) for array in arrays}) == 6
    arrays.clear()
    gc.collect()
    assert BYTES < own.waiting <= 3 * BYTES


def test_small_arrays_are_left_to_numpy() -> None:
    own = Pool()
    a = own.empty((10, 10), F8)
    assert a.nbytes < SMALL
    del a
    assert own.waiting == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("offset", [0, 1, 7, 8, 63, 64, 65])
def test_strips_arrive_whole_wherever_a_message_puts_them(dtype: str, offset: int) -> None:
    a = pool.empty((600, 500), np.dtype(dtype))
    a[...] = np.arange(a.size).reshape(a.shape)
    memory, shape, kind = sendable(a)  # type: ignore[misc]
    assert memory.size == a.nbytes + 65
    message = np.empty(offset + memory.size + 100, np.uint8)
    part = message[offset : offset + memory.size]
    part[...] = memory
    tail = message[offset + memory.size :].copy()
    b = received((part, shape, kind))
    assert address(b) % 64 == 0
    assert b.flags.aligned
    np.testing.assert_array_equal(a, b)
    # the same message once more
    np.testing.assert_array_equal(a, received((part, shape, kind)))
    np.testing.assert_array_equal(tail, message[offset + memory.size :])
    part[...] = memory
    part.flags.writeable = False
    np.testing.assert_array_equal(a, received((part, shape, kind)))


def test_strips_are_pickled_without_a_copy_of_their_arrays() -> None:
    a = pool.empty((600, 500), F8)
    a[...] = np.random.default_rng(0).normal(size=a.shape)
    small = np.asfortranarray(np.arange(6.0).reshape(3, 2).T)
    strips = Strips([a, small], [Spot(0, 0, 100, 0), Spot(0, 100, 600, 0), Spot(1, 1, 3, 1)])
    buffers: list[Any] = []
    head = pickle.dumps(strips, protocol=5, buffer_callback=buffers.append)
    assert len(head) < 2000
    assert [memoryview(buffer).nbytes for buffer in buffers] == [a.nbytes + 65, small.nbytes]
    copies = [bytearray(buffer.raw()) for buffer in buffers]
    found = pickle.loads(head, buffers=copies)
    for position in range(3):
        np.testing.assert_array_equal(found.array(position), strips.array(position))
    assert strips.nbytes == a.nbytes + small.nbytes
    assert pickle.loads(pickle.dumps(strips)).array(2).tolist() == [[2.0, 4.0], [3.0, 5.0]]
