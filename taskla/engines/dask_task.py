"""The task of a Dask graph that stands for joined tile tasks.

Dask is imported when the class is first asked for; by its name here it is found again by pickle.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["About", "Described", "StripTask"]  # noqa: F822 (made by __getattr__)


class Described(NamedTuple):
    """A program as the scheduler knows it.

    Attributes
    ----------
    token : str
    name : str
        Of the algorithm.
    grids : tuple of (str, int, int, str, bool)
        Those that are not scratch: the matrix's name, tile rows, tile columns, format, and whether
        it is the matrix of the one before, of which this one has the tiles of another format.
    """

    token: str
    name: str
    grids: tuple[tuple[str, int, int, str, bool], ...]


class About(NamedTuple):
    """What the scheduler is to know of a task.

    Attributes
    ----------
    program : Described or None
        None for what is no part of one: assembling, looking for zeros.
    rank : int
        By the distribution: the scheduler's plugin has a worker for each.
    priority : int
        Place in the order of importance, the first is the most important.
    kernel : str
        The name on the dashboard.
    writes : tuple of (int, int, int)
        Grid of the program, tile row and tile column of tiles that it writes.
    flops : float
    """

    program: Described | None
    rank: int
    priority: int
    kernel: str
    writes: tuple[tuple[int, int, int], ...]
    flops: float


def _make() -> Any:
    from dask.task_spec import Task

    class StripTask(Task):  # type: ignore[misc]
        """A task that says where it is to run, and that Dask joins with no other."""

        __slots__ = ("about",)

        def __init__(
            self,
            key: Any,
            func: Any,
            /,
            *args: Any,
            about: About,
            _data_producer: bool = False,
            **kwargs: Any,
        ) -> None:
            super().__init__(key, func, *args, _data_producer=_data_producer, **kwargs)
            self.about = about

        @property
        def block_fusion(self) -> bool:
            return True

        def copy(self) -> Any:
            return type(self)(self.key, self.func, *self.args, about=self.about, **self.kwargs)

    StripTask.__module__ = __name__
    StripTask.__qualname__ = "StripTask"
    return StripTask


def __getattr__(name: str) -> Any:
    if name != "StripTask":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made = _make()
    return made
