"""tbc: triangle blocks from finite planes."""

from __future__ import annotations

from math import isqrt

import numpy as np

from taskla.distributions.base import Distribution, no_grid, rank_count
from taskla.distributions.pattern import SymmetricPattern

__all__ = ["triangle_block"]

#: Perfect difference sets: every number but 0 modulo the key is one difference of two elements.
_DIFFERENCES = {
    7: (0, 1, 3),
    13: (0, 1, 3, 9),
    21: (0, 1, 4, 14, 16),
    31: (0, 1, 3, 8, 12, 18),
    57: (0, 1, 3, 13, 32, 36, 43, 52),
}


def triangle_block(ranks: int | None = None, grid: tuple[int, int] | None = None) -> Distribution:
    """Triangle blocks: a rank is a line of a finite plane and owns the pairs of points on it.

    Rows and columns of tiles are the points; two points lie on one line. A tile of a symmetric
    matrix is wanted by the c or c + 1 lines through a point: about sqrt(ranks), where 2D
    block-cyclic has 2 sqrt(ranks) and symmetric block-cyclic sqrt(2 ranks).

    Parameters
    ----------
    ranks : int
        c^2 + c + 1, a projective plane, for c = 2, 3, 4, 5, 7 (7, 13, 21, 31, 57); or c (c + 1), an
        affine plane, for a prime c (6, 12, 30, 56, 132, ...).
    grid : None
        There is none.

    Raises
    ------
    ValueError
        For another number of ranks; the message names the nearest ones.

    References
    ----------
    Singer, "A theorem in finite projective geometry and some applications to number theory",
    Trans. Amer. Math. Soc. 43 (1938), for the difference sets.
    """
    no_grid("tbc", grid)
    count = rank_count(ranks)
    if count in _DIFFERENCES:
        return Distribution("tbc", count, None, _projective(count))
    c = isqrt(count)
    if c * (c + 1) == count and _is_prime(c):
        return Distribution("tbc", count, None, _affine(c))
    planes = sorted([*_DIFFERENCES, *(c * (c + 1) for c in range(2, c + 4) if _is_prime(c))])
    lower = [p for p in planes if p < count][-1:]
    upper = [p for p in planes if p > count][:1] or [_next_affine(c)]
    raise ValueError(
        f"ranks is {count}; tbc has a plane's number of lines: use "
        f"{' or '.join(map(str, lower + upper))}, or gcrm, which takes any number"
    )


def _projective(n: int) -> SymmetricPattern:
    line = np.array(_DIFFERENCES[n])
    a, b = (index.ravel() for index in np.meshgrid(line, line))
    first = np.zeros(n, dtype=np.intp)
    first[(a - b) % n] = a
    i, j = np.indices((n, n))
    return SymmetricPattern((i - first[(i - j) % n]) % n, [np.arange(n)])


def _affine(c: int) -> SymmetricPattern:
    x, y = np.divmod(np.arange(c * c), c)
    inverse = np.array([pow(d, -1, c) if d else 0 for d in range(c)])
    slope = (y[:, None] - y) * inverse[(x[:, None] - x) % c] % c
    through = slope * c + (y[:, None] - slope * x[:, None]) % c
    table = np.where(x[:, None] == x, c * c + x[:, None], through)
    lines = [m * c + (y - m * x) % c for m in range(c)]
    return SymmetricPattern(table, np.array([*lines, c * c + x]))


def _is_prime(c: int) -> bool:
    return c > 1 and all(c % d for d in range(2, isqrt(c) + 1))


def _next_affine(c: int) -> int:
    while not _is_prime(c := c + 1):
        pass
    return c * (c + 1)
