"""2dbc: two-dimensional block-cyclic."""

from __future__ import annotations

from functools import partial

from taskla.distributions.base import Distribution, Ranks, rank_count, squarest

__all__ = ["block_cyclic"]


def block_cyclic(ranks: int | None = None, grid: tuple[int, int] | None = None) -> Distribution:
    """2D block-cyclic: tile (i, j) belongs to the rank at (i mod p, j mod q) of a p x q grid.

    Ranks are numbered along the grid's rows, as in ScaLAPACK.

    Parameters
    ----------
    ranks : int, optional
        Default: p q.
    grid : (int, int), optional
        p and q. Default: the squarest with p q = ranks and p <= q.

    Raises
    ------
    ValueError
        When neither is given, one is not positive, or p q is not `ranks`.

    References
    ----------
    Dongarra, van de Geijn, Walker, "Scalability issues affecting the design of a dense linear
    algebra library", J. Parallel Distrib. Comput. 22 (1994).
    """
    if grid is None:
        p, q = squarest(rank_count(ranks))
    else:
        p, q = _checked(grid, ranks)
    return Distribution("2dbc", p * q, (p, q), partial(_owner, p, q))


def _owner(p: int, q: int, i: Ranks, j: Ranks) -> Ranks:
    return i % p * q + j % q


def _checked(grid: tuple[int, int], ranks: int | None) -> tuple[int, int]:
    p, q = grid
    if min(p, q) < 1:
        raise ValueError(f"grid is {p}x{q}; both must be at least 1")
    if ranks is not None and p * q != rank_count(ranks):
        # of the grids that have so many ranks, that with the nearest number of rows
        rows = min((d for d in range(1, ranks + 1) if ranks % d == 0), key=lambda d: abs(d - p))
        raise ValueError(
            f"grid is {p}x{q}, which has {p * q} ranks, and ranks is {ranks}; "
            f"nearest: ranks {p * q}, or grid {rows}x{ranks // rows}"
        )
    return p, q
