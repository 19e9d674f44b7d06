"""row: tile rows dealt out in turn."""

from __future__ import annotations

from functools import partial

from taskla.distributions.base import Distribution, Ranks, fixed_grid, rank_count

__all__ = ["row_cyclic"]


def row_cyclic(ranks: int | None = None, grid: tuple[int, int] | None = None) -> Distribution:
    """Row-cyclic: tile row i belongs to rank i mod ranks.

    Parameters
    ----------
    ranks : int, optional
        Default: the rows of `grid`.
    grid : (int, int), optional
        (ranks, 1), the only one possible.

    Raises
    ------
    ValueError
        When neither is given, `ranks` is not positive, or `grid` is another.
    """
    count = rank_count(ranks if ranks is not None or grid is None else grid[0])
    only = fixed_grid("row", count, grid, (count, 1))
    return Distribution("row", count, only, partial(_owner, count))


def _owner(ranks: int, i: Ranks, j: Ranks) -> Ranks:
    return i % ranks
