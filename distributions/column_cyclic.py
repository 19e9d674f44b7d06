"""col: tile columns dealt out in turn."""

from __future__ import annotations

from functools import partial

from taskla.distributions.base import Distribution, Ranks, fixed_grid, rank_count

__all__ = ["column_cyclic"]


def column_cyclic(ranks: int | None = None, grid: tuple[int, int] | None = None) -> Distribution:
    """Column-cyclic: tile column j belongs to rank j mod ranks.

    Parameters
    ----------
    ranks : int, optional
        Default: the columns of `grid`.
    grid : (int, int), optional
        (1, ranks), the only one possible.

    Raises
    ------
    ValueError
        When neither is given, `ranks` is not positive, or `grid` is another.
    """
    count = rank_count(ranks if ranks is not None or grid is None else grid[1])
    only = fixed_grid("col", count, grid, (1, count))
    return Distribution("col", count, only, partial(_owner, count))


def _owner(ranks: int, i: Ranks, j: Ranks) -> Ranks:
    return j % ranks
