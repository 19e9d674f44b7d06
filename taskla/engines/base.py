"""What an engine is, and which one is in force."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

from taskla.matrix_place import HERE, Place

if TYPE_CHECKING:
    from taskla.graph import TaskGraph
    from taskla.tile import Tile

__all__ = ["Engine", "TileSource", "at_least_one", "entered", "process_default"]

Result = TypeVar("Result")

# The engines of the `with` statements around the running code, the innermost last. A tuple, so that
# one engine may be entered again, and from several threads at once.
_entered: ContextVar[tuple[Engine, ...]] = ContextVar("taskla engines", default=())
_process_default: Engine | None = None


class TileSource(Protocol):
    """What an engine asks of a matrix."""

    def tile(self, i: int, j: int, /) -> Tile:
        """Return tile (i, j)."""


class Engine(ABC):
    """Runs task graphs, and functions, on what it has: threads, processes, devices.

    An engine is in force for the code inside its ``with`` statement, in this thread or asynchronous
    task and in the workers that this code employs::

        with tla.engine("threads", workers=2, policy="prio"):
            tla.potrf(A)

    or, by `set_default`, for all code of the process that is inside no such statement.
    """

    name: ClassVar[str]
    """The name that `taskla.engine` knows it by."""

    rank: int = 0
    """The number of this process among those that run the program together, from 0 on."""

    ranks: int = 1
    """How many there are."""

    @property
    def place(self) -> Place:
        """Where this process stands among those that share new matrices."""
        return HERE

    def share(self, value: Any) -> list[Any]:
        """Return what each rank gave, in the order of ranks; all of them call it.

        Parameters
        ----------
        value : object
            Numbers, text, or lists and dictionaries of them: what JSON can say. Floating-point
            numbers arrive exactly.

        Returns
        -------
        list
            Of `ranks` values: ``[value]`` where there is one rank.
        """
        return self.place.collectives.share(value)

    @abstractmethod
    def run(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> None:
        """Run all tasks of a graph; the result is that of submission order.

        Parameters
        ----------
        graph : TaskGraph
            The tasks.
        matrices : sequence of TiledMatrix
            One for each grid of the graph that is not scratch, in the order of the grids; changed
            in place.

        Raises
        ------
        ValueError
            When the number of matrices is not that of the grids, a matrix has another shape, tile
            size or data type than was declared, a task is on a tile that a triangle does not
            store, or no kernel serves a task.
        TypeError
            When something is given that has no tiles: an array.
        Exception
            What a task raised; when several failed, the error of the one submitted first. No task
            starts after a failure. A note names the tile, and the index in a `LinAlgError` counts
            from the matrix's first row.
        KeyboardInterrupt
            After Ctrl-C, when the kernels in flight have ended.
        """

    @abstractmethod
    def map(
        self, function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]
    ) -> list[Result]:
        """Return ``[function(*a) for a in arguments]``, computed on the workers.

        Parameters
        ----------
        function : callable
            It runs with one BLAS thread, as kernels do, and in the caller's context variables
            (NumPy's error state is one).
        arguments : iterable of tuple
            The arguments of each call.

        Raises
        ------
        Exception
            What a call raised, by the rules of `run`. A note tells which call it was.
        """

    def set_default(self) -> None:
        """Put this engine in force wherever no ``with`` statement names another."""
        global _process_default
        _process_default = self

    def __enter__(self) -> Self:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(self, *_: object) -> None:
        _entered.set(_entered.get()[:-1])


def entered() -> Engine | None:
    """Return the engine of the innermost ``with`` statement around the running code."""
    stack = _entered.get()
    return stack[-1] if stack else None


def process_default() -> Engine | None:
    """Return the engine that `Engine.set_default` was last called on."""
    return _process_default


def at_least_one(name: str, value: Any) -> int:
    """Return the value of an option that is a positive integer."""
    try:
        number = index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1")
    return number
