"""Tiles of 16 bits that several threads read at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest

import taskla as tla
from taskla import matrix_mixed
from taskla.rounding import unpack


def test_a_tile_is_unpacked_once_and_nobody_sees_it_half_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a = np.random.default_rng(0).normal(size=(40, 40))
    store = tla.TiledMatrix.from_array(a, 20, precision="fp16").mixed
    assert store is not None
    calls, begin = [], Barrier(4)

    def slowly(stored: Any, *rest: Any, out: Any) -> Any:
        calls.append(rest)
        # as it does in pieces: numbers first, their scale afterwards
        out[...] = stored
        time.sleep(0.05)
        return unpack(stored, *rest, out=out)

    monkeypatch.setattr(matrix_mixed, "unpack", slowly)

    def read(_: int) -> Any:
        begin.wait(10)
        return store.held(1, 0).array.copy()

    with store.working(False), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(4)))
    assert len(calls) == 1
    for tile in found:
        np.testing.assert_allclose(tile, a[20:, :20], rtol=1e-3, atol=1e-3)
