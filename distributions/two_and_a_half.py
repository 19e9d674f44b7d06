"""2.5d-2dbc, 2.5d-sbc: several copies of a map, which take the steps of Cholesky in turn."""

from __future__ import annotations

from functools import partial

import numpy as np

from taskla.distributions.base import Distribution, Ranks, no_grid, rank_count, squarest
from taskla.distributions.block_cyclic import block_cyclic
from taskla.distributions.symmetric_block_cyclic import sbc_basic

__all__ = ["sliced_block_cyclic", "sliced_sbc"]


def sliced_block_cyclic(
    ranks: int | None = None, grid: tuple[int, int] | None = None, slices: int | None = None
) -> Distribution:
    """2.5D block-cyclic: slices of p x q ranks do the updates of the steps k in turn.

    The updates of step k accumulate on slice k mod c; before column k is factored its partial sums
    are added up on that slice. More memory, c copies, for fewer messages.

    Parameters
    ----------
    ranks : int, optional
        c p q. Default: what `grid` and `slices` have.
    grid : (int, int), optional
        p and q, of one slice. Default: the squarest.
    slices : int, optional
        c, at least 2. Default: that of the fewest messages for large matrices.

    Raises
    ------
    ValueError
        When there is no such map; the message names the nearest ones.

    References
    ----------
    Solomonik, Demmel, "Communication-optimal parallel 2.5D matrix multiplication and LU
    factorization algorithms", Euro-Par 2011; Beaumont et al., SC'22, for Cholesky.
    """
    if grid is not None:
        size = block_cyclic(grid=grid).ranks
        count = size * (slices or 2) if ranks is None else rank_count(ranks)
        c = count // size if slices is None else slices
        if c < 2 or c * size != count:
            raise ValueError(
                f"ranks is {count}, grid {grid[0]}x{grid[1]} and slices {slices}; 2.5d-2dbc has "
                f"slices x p x q ranks and at least 2 slices: use ranks {size * max(c, 2)}"
            )
        return _sliced("2.5d-2dbc", block_cyclic(grid=grid), c)
    count = rank_count(ranks)
    possible = {c: sum(squarest(count // c)) - 2 for c in range(2, count + 1) if count % c == 0}
    c = _choose("2.5d-2dbc", count, slices, possible, [count + 1 if count % 2 else count + 2])
    return _sliced("2.5d-2dbc", block_cyclic(count // c), c)


def sliced_sbc(
    ranks: int | None = None, grid: tuple[int, int] | None = None, slices: int | None = None
) -> Distribution:
    """2.5D symmetric block-cyclic: slices of r^2 / 2 ranks do the updates of the steps k in turn.

    As `sliced_block_cyclic`, of basic symmetric block-cyclic maps.

    Parameters
    ----------
    ranks : int
        c r^2 / 2 with r even: 4, 6, 8, 10, 16, ...
    grid : None
        There is none.
    slices : int, optional
        c, at least 2. Default: that of the fewest messages for large matrices.

    Raises
    ------
    ValueError
        When there is no such map; the message names the nearest ones.

    References
    ----------
    Beaumont, Duchon, Eyraud-Dubois, Langou, Verite, SC'22.
    """
    no_grid("2.5d-sbc", grid)
    count = rank_count(ranks)
    halves = range(1, count + 1)
    possible = {
        count // (2 * h * h): 2 * h - 1
        for h in halves
        if 2 * h * h <= count // 2 and count % (2 * h * h) == 0
    }
    near = [n for n in (count - count % 2, count + count % 2) if n >= 4 and n != count] or [4]
    c = _choose("2.5d-sbc", count, slices, possible, near)
    return _sliced("2.5d-sbc", sbc_basic(count // c), c)


def _choose(
    name: str, ranks: int, slices: int | None, possible: dict[int, int], near: list[int]
) -> int:
    """Return the number of slices: the one asked for, or the one with the fewest messages."""
    if slices is not None:
        if slices in possible:
            return slices
        if possible:
            allowed = ", ".join(map(str, sorted(possible)))
            raise ValueError(f"slices is {slices}; {name} on {ranks} ranks has: {allowed}")
    if not possible:
        raise ValueError(
            f"ranks is {ranks}, which {name} cannot cut into at least 2 equal slices: use "
            f"{' or '.join(map(str, near))}"
        )
    # messages for a tile: to the ranks of a slice that want it, and its partial sums
    return min(possible, key=lambda c: (possible[c] + c - 1, c))


def _sliced(name: str, base: Distribution, slices: int) -> Distribution:
    ranks = base.ranks * slices
    return Distribution(name, ranks, base.grid, partial(_owner, base, slices), slices)


def _owner(base: Distribution, slices: int, i: Ranks, j: Ranks) -> Ranks:
    # the step that factors a tile of the lower triangle is that of its column
    return np.asarray(base(i, j) + base.ranks * (np.minimum(i, j) % slices))
