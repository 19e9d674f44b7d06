"""Programs: an algorithm applied to matrices of given layouts, as a task graph.

Everything that runs or counts an algorithm (the LAPACK-named functions, `taskla plan`) asks here,
so that a graph of moderate size is built once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from taskla.flow import TaskFlow
from taskla.graph import TaskGraph

__all__ = ["Layout", "forget", "program"]

#: graphs of more tile steps than this are built anew each time rather than kept
_KEEP = 20_000


class Layout(NamedTuple):
    """What a program knows of a matrix, as `taskla.graph.Grid` describes it."""

    m: int
    n: int
    nb: int
    dtype: np.dtype[Any]
    name: str
    scratch: bool = False
    everywhere: bool = False

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return -(-self.m // self.nb) * -(-self.n // self.nb)


def program(
    algorithm: Callable[..., None], layouts: tuple[Layout, ...], params: tuple[Any, ...] = ()
) -> TaskGraph:
    """The task graph of ``algorithm(flow, *matrices, *params)``.

    Parameters
    ----------
    algorithm : callable
        One of `taskla.algorithms` or a function that calls them.
    layouts : tuple of Layout
        One a matrix, in the order in which `algorithm` takes them.
    params : tuple
        What follows the matrices.

    Returns
    -------
    TaskGraph
        Shared between callers: do not modify it.
    """
    steps = max((layout.tiles for layout in layouts), default=0) ** 1.5
    return (_kept if steps <= _KEEP else _build)(algorithm, layouts, params)


def forget() -> None:
    """Drop the graphs that are kept, so that the next call of each program builds it anew."""
    _kept.cache_clear()


def _build(
    algorithm: Callable[..., None], layouts: tuple[Layout, ...], params: tuple[Any, ...]
) -> TaskGraph:
    flow = TaskFlow()
    matrices = [flow.matrix(*a[:5], scratch=a.scratch, everywhere=a.everywhere) for a in layouts]
    algorithm(flow, *matrices, *params)
    # what adapts an algorithm's arguments is private, and called after it
    return flow.graph(algorithm.__name__.removeprefix("_").removesuffix("_program"))


_kept = lru_cache(maxsize=64)(_build)
