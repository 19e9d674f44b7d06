"""g2dbc: generalised two-dimensional block-cyclic, for any number of ranks."""

from __future__ import annotations

from math import isqrt

import numpy as np

from taskla.distributions.base import Distribution, Ranks, no_grid, rank_count
from taskla.distributions.pattern import RectangularPattern

__all__ = ["generalized_block_cyclic"]


def generalized_block_cyclic(
    ranks: int | None = None, grid: tuple[int, int] | None = None
) -> Distribution:
    """Generalised 2D block-cyclic: a nearly square grid for any number of ranks, balanced.

    Ranks fill a grid of b rows and a = ceil(sqrt(ranks)) columns row by row; the cells that are
    left over in the last row are lent to the ranks above them, to each row in turn. With no
    cell left over this is 2D block-cyclic.

    Parameters
    ----------
    ranks : int
        Any.
    grid : None
        It is the map's own.

    Raises
    ------
    ValueError
        When `ranks` is not positive or a grid is given.

    References
    ----------
    Beaumont, Collin, Eyraud-Dubois, Verite, "Data distribution schemes for dense linear algebra
    factorizations on any number of nodes", IPDPS'23.
    """
    no_grid("g2dbc", grid)
    count = rank_count(ranks)
    return Distribution("g2dbc", count, None, RectangularPattern(_table(count)))


def _table(ranks: int) -> Ranks:
    a = isqrt(ranks - 1) + 1
    b = -(-ranks // a)
    empty = a * b - ranks
    incomplete = np.arange(a * b).reshape(b, a)
    if not empty:
        return incomplete
    stripes = []
    for lender in range(b - 1):
        complete = incomplete.copy()
        complete[-1, a - empty :] = incomplete[lender, a - empty :]
        last = incomplete[:, : a - empty]
        stripes.append(np.hstack([*([complete] * (b - 1)), last]))
    return np.vstack(stripes)
