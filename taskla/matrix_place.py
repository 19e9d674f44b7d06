"""Which tiles of a new matrix are here: all, or those of this rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from numpy.typing import NDArray

from taskla.distributions import Distribution

__all__ = ["HERE", "Place", "place", "set_place"]

Blocks = Iterator[tuple[int, int, NDArray[Any]]]


class Place(NamedTuple):
    """Where this process stands among those that share matrices.

    Attributes
    ----------
    rank, ranks : int
    distribution : Distribution or None
        Of new matrices for which none is given; None where there is one rank.
    gather : callable or None
        ``gather(matrix)`` gives (i, j, block) of all tiles, column after column, to all ranks,
        which all call it.
    """

    rank: int
    ranks: int
    distribution: Distribution | None
    gather: Callable[[Any], Blocks] | None


#: One process that has everything.
HERE = Place(0, 1, None, None)

_place: Callable[[], Place] = lambda: HERE  # noqa: E731


def place() -> Place:
    """Return where this process stands now."""
    return _place()


def set_place(get: Callable[[], Place]) -> None:
    """Set who says where this process stands."""
    global _place
    _place = get
