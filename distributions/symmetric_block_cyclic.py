"""sbc, sbc-basic: symmetric block-cyclic."""

from __future__ import annotations

from math import isqrt

import numpy as np

from taskla.distributions.base import Distribution, Ranks, no_grid, rank_count
from taskla.distributions.pattern import SymmetricPattern

__all__ = ["sbc", "sbc_basic"]


def sbc(ranks: int | None = None, grid: tuple[int, int] | None = None) -> Distribution:
    """Symmetric block-cyclic, extended: r (r - 1) / 2 ranks, each has a pair of rows and columns.

    A rank owns the tiles (i, j) with {i mod r, j mod r} its pair, so a tile of a symmetric matrix
    is wanted by r - 1 ranks where 2D block-cyclic has p + q - 1. Tiles with i = j mod r are dealt
    to the pairs that have that row.

    Parameters
    ----------
    ranks : int
        r (r - 1) / 2 for an r of at least 3: 3, 6, 10, 15, 21, 28, ...
    grid : None
        There is none.

    Raises
    ------
    ValueError
        For another number of ranks; the message names the nearest ones.

    References
    ----------
    Beaumont, Duchon, Eyraud-Dubois, Langou, Verite, "Symmetric block-cyclic distribution: fewer
    communications leads to faster dense Cholesky factorization", SC'22.
    """
    no_grid("sbc", grid)
    count = rank_count(ranks)
    r = (1 + isqrt(1 + 8 * count)) // 2
    if r < 3 or r * (r - 1) // 2 != count:
        lower, upper = max(r, 3), max(r, 3) + 1
        near = [s * (s - 1) // 2 for s in (lower, upper)] if r >= 3 else [3]
        raise ValueError(
            f"ranks is {count}; sbc has r (r - 1) / 2 ranks: use {' or '.join(map(str, near))}, "
            "or gcrm, which takes any number"
        )
    return Distribution("sbc", count, None, SymmetricPattern(_table(r), diagonals(r)))


def sbc_basic(ranks: int | None = None, grid: tuple[int, int] | None = None) -> Distribution:
    """Symmetric block-cyclic, basic: r^2 / 2 ranks, r even, r / 2 of them for diagonal cells.

    Parameters
    ----------
    ranks : int
        r^2 / 2 for an even r: 2, 8, 18, 32, 50, ...
    grid : None
        There is none.

    Raises
    ------
    ValueError
        For another number of ranks; the message names the nearest ones.

    References
    ----------
    As `sbc`.
    """
    no_grid("sbc-basic", grid)
    count = rank_count(ranks)
    half = isqrt(count // 2)
    if 2 * half * half != count:
        near = [2 * h * h for h in (half, half + 1) if h]
        raise ValueError(
            f"ranks is {count}; sbc-basic has r^2 / 2 ranks with r even: use "
            f"{' or '.join(map(str, near))}, or gcrm, which takes any number"
        )
    r = 2 * half
    diagonal = r * (r - 1) // 2 + np.arange(r) % half
    return Distribution("sbc-basic", count, None, SymmetricPattern(_table(r), [diagonal]))


def pair(a: Ranks, b: Ranks) -> Ranks:
    """Number the pairs a != b: (1, 0), (2, 0), (2, 1), (3, 0), ..."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    return np.asarray(high * (high - 1) // 2 + low)


def _table(r: int) -> Ranks:
    a, b = np.indices((r, r))
    return pair(a, b)


def diagonals(r: int) -> list[list[int]]:
    """Return the diagonals that copies of the extended pattern of r rows take in turn.

    Parameters
    ----------
    r : int
        At least 3.

    Returns
    -------
    list of list of int
        Each has one rank of each row; together they have every rank equally often.
    """
    x = np.arange(r)
    found = [pair(x, (x + shift) % r) for shift in range(1, (r - 1) // 2 + 1)]
    if r % 2 == 0:
        h = r // 2
        bonus = pair(x[:h], x[:h] + h)
        left = [bonus, *(diagonal[:h] for diagonal in found)]
        right = [*(diagonal[h:] for diagonal in found), bonus]
        found += [np.concatenate(halves) for halves in zip(left, right, strict=True)]
    return [diagonal.tolist() for diagonal in found]
