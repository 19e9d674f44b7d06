"""Energy: counters of the machine, a model where there are none, and what each task used."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Meter:
    name: str
    kind: str
    idle_power: float

    def read(self) -> float:
        raise NotImplementedError


class Source(NamedTuple):
    meters: tuple[Meter, ...]
    model: Any


class Tasks(NamedTuple):
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    kernel: NDArray[np.str_]
    format: NDArray[np.str_]
    flops: NDArray[np.float64]
    nbytes: NDArray[np.int64]


class Account(NamedTuple):
    tasks: NDArray[np.float64] | None
    report: dict[str, Any]


def find(spec: str = "auto") -> Source:
    return Source((), None)


def account(
    source: Source, *, begin: float, end: float, readings: Any, tasks: Tasks, workers: int
) -> Account:
    return Account(None, {"source": "unavailable"})
