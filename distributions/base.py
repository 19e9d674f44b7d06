"""What a distribution is, and what its factories share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isqrt
from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Distribution", "Ranks", "fixed_grid", "no_grid", "rank_count", "squarest"]

Ranks = NDArray[np.intp]


@dataclass(frozen=True)
class Distribution:
    """A map from tiles to the ranks that own them: a pure function of tile row and column.

    Attributes
    ----------
    name : str
        The name that `taskla.distributions.get` knows it by.
    ranks : int
        Number of ranks, which are 0..ranks-1.
    grid : (int, int) or None
        Rows and columns of the grid that the ranks form, for a map that has one.
    owner : callable
        ``owner(i, j)`` with two integer arrays of one shape returns the array of their ranks.
    slices : int
        Groups of equally many ranks that take the steps of an algorithm in turn: 1 for all but the
        2.5D maps. Slice s has the ranks from s ranks / slices on.

    Examples
    --------
    >>> from taskla import distributions
    >>> owner = distributions.get("2dbc", grid=(2, 3))
    >>> owner([[0], [1]], [0, 1, 2, 3])
    array([[0, 1, 2, 0],
           [3, 4, 5, 3]])
    """

    name: str
    ranks: int
    grid: tuple[int, int] | None
    # functions compare by identity; name, ranks and grid tell maps apart
    owner: Callable[[Ranks, Ranks], NDArray[Any]] = field(repr=False, compare=False)
    slices: int = field(default=1, repr=False)

    def __call__(self, i: ArrayLike, j: ArrayLike) -> Ranks:
        """Return the ranks that own tiles (i, j); indices broadcast."""
        rows, columns = np.broadcast_arrays(np.asarray(i, np.intp), np.asarray(j, np.intp))
        return np.asarray(self.owner(rows, columns), dtype=np.intp)

    def slice(self, k: ArrayLike) -> Ranks:
        """Return the slices whose ranks do the updates of steps k."""
        return np.asarray(k, dtype=np.intp) % self.slices

    def contributor(self, i: ArrayLike, j: ArrayLike, k: ArrayLike) -> Ranks:
        """Return the ranks that update tiles (i, j) in steps k: those of the owners, on k's slice.

        A step of -1 belongs to no slice in particular; the owner does it.
        """
        owner, step = self(i, j), np.asarray(k, dtype=np.intp)
        each = self.ranks // self.slices
        return np.asarray(np.where(step < 0, owner, owner % each + each * self.slice(step)))


def rank_count(ranks: Any) -> int:
    """Return a number of ranks; ValueError unless it is an integer of at least 1."""
    try:
        count = index(ranks)
    except TypeError:
        count = 0
    if count < 1 or isinstance(ranks, bool):
        raise ValueError(f"ranks is {ranks!r}; it must be an integer of at least 1")
    return count


def squarest(ranks: int) -> tuple[int, int]:
    """Return the grid p x q with p q = ranks and p <= q that is nearest to a square."""
    p = next(p for p in range(isqrt(ranks), 0, -1) if ranks % p == 0)
    return p, ranks // p


def fixed_grid(
    name: str, ranks: int, grid: tuple[int, int] | None, only: tuple[int, int]
) -> tuple[int, int]:
    """Return the one grid that a map has; ValueError when another was asked for."""
    if grid is not None and tuple(grid) != only:
        raise ValueError(
            f"grid is {grid[0]}x{grid[1]}; {name} on {ranks} ranks has the grid "
            f"{only[0]}x{only[1]} (2dbc has others)"
        )
    return only


def no_grid(name: str, grid: tuple[int, int] | None) -> None:
    """Refuse a grid for a map that has none."""
    if grid is not None:
        raise ValueError(f"grid is {grid[0]}x{grid[1]}; {name} has no grid (2dbc has)")
