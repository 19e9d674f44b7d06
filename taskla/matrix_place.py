"""Which tiles of a new matrix are here, all or those of this rank, and what ranks do together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla.distributions import Distribution, get

__all__ = [
    "ALONE",
    "HERE",
    "Alone",
    "Collectives",
    "Maker",
    "Place",
    "Put",
    "dask_maker",
    "owners_of_new",
    "place",
    "set_dask_maker",
    "set_place",
]

Put: TypeAlias = Callable[[int, int, NDArray[Any]], None]
"""``put(i, j, block)`` takes what tile (i, j) holds; it keeps no reference to it."""


class Collectives(Protocol):
    """What matrices ask of the ranks that share them: all call it, in the same order.

    No call returns on one rank and fails on another: when one of them fails, all raise. A matrix is
    a `taskla.matrix_tiles.StoredTiles`, which imports this module.
    """

    @property
    def rank(self) -> int:
        """The number of this one, from 0 on."""

    @property
    def one_machine(self) -> bool:
        """Whether all ranks see one another's writes to a mapped file."""

    def agreed(self) -> AbstractContextManager[None]:
        """Wait at the end of ``with`` for all ranks; an error inside is raised on all of them."""

    def share(self, value: Any) -> list[Any]:
        """Return what each rank gave, which JSON can say."""

    def gather(self, matrix: Any, put: Put, root: int | None = None) -> None:
        """Call `put` for all tiles of a matrix, column after column: on all ranks, or on one."""

    def redistribute(self, source: Any, target: Any) -> None:
        """Copy the tiles of a matrix to another of the same layout and dtype."""


class Maker(Protocol):
    """Makes matrices whose tiles are not in this process's memory.

    What it returns is a `taskla.matrix.TiledMatrix`, which imports this module.
    """

    def tile_size(self, n: int, dtype: Any) -> int:
        """Return the tile size of a matrix of order n for which none is given."""

    def from_function(self, f: Any, layout: Any, dtype: Any, distribution: Any) -> Any:
        """Return the matrix of a function of rows and columns."""

    def from_array(self, array: Any, layout: Any, dtype: Any, distribution: Any) -> Any:
        """Return a copy of an array."""

    def from_tiles(
        self,
        block: Any,
        layout: Any,
        dtype: Any,
        precision: Any,
        distribution: Any,
        map_tiles: Any,
    ) -> Any:
        """Return a matrix of tiles that are here, in formats of their own."""

    def from_dask(self, x: Any, layout: Any, distribution: Any) -> Any:
        """Return the matrix of a Dask array."""


class Alone:
    """One process, which has all tiles of its matrices."""

    rank = 0
    one_machine = True

    def agreed(self) -> AbstractContextManager[None]:
        """Have an error raised as it is."""
        return nullcontext()

    def share(self, value: Any) -> list[Any]:
        """Return what was given."""
        return [value]

    def gather(self, matrix: Any, put: Put, root: int | None = None) -> None:
        """Call `put` for all tiles, column after column."""
        for i, j in matrix.own_tiles():
            put(i, j, matrix.tile(i, j).array)

    def redistribute(self, source: Any, target: Any) -> None:
        """Copy the tiles that `target` has here."""
        for i, j in target.own_tiles():
            target.put(i, j, source.tile(i, j).array)


class Place(NamedTuple):
    """Where this process stands among those that share matrices.

    Attributes
    ----------
    rank, ranks : int
    distribution : Distribution or None
        Of new matrices for which none is given; None where there is one rank.
    collectives : Collectives
        What the ranks do together.
    memory : callable, optional
        Returns a block of so many bytes, all zero, that other ranks can read. Default: NumPy's.
    maker : Maker, optional
        Makes matrices that lie elsewhere than in this process's memory.
    """

    rank: int
    ranks: int
    distribution: Distribution | None
    collectives: Collectives
    memory: Callable[[int], NDArray[np.uint8]] | None = None
    maker: Maker | None = None


ALONE = Alone()

#: One process that has everything.
HERE = Place(0, 1, None, ALONE)

_place: Callable[[], Place] = lambda: HERE  # noqa: E731


def place() -> Place:
    """Return where this process stands now."""
    return _place()


def set_place(get: Callable[[], Place]) -> None:
    """Set who says where this process stands."""
    global _place
    _place = get


_dask_maker: Callable[[], Any] | None = None


def dask_maker() -> Any:
    """Return who makes matrices on Dask now."""
    if _dask_maker is None:
        raise RuntimeError("no engines are loaded")
    return _dask_maker()


def set_dask_maker(get: Callable[[], Any]) -> None:
    """Set who makes matrices on Dask."""
    global _dask_maker
    _dask_maker = get


def owners_of_new(distribution: str | Distribution | None) -> Distribution | None:
    """Return the owners of the tiles of a new matrix; None where there is one rank."""
    here = place()
    if isinstance(distribution, str):
        distribution = get(distribution, here.ranks)
    found = distribution or here.distribution
    if found is not None and found.ranks != here.ranks:
        there = "is one rank" if here.ranks == 1 else f"are {here.ranks} ranks"
        raise ValueError(f"distribution is {found}; there {there}")
    return found if here.ranks > 1 else None
