"""gcrm: greedy colrow and matching, symmetric patterns for any number of ranks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from math import ceil, floor, isqrt

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from taskla.distributions.base import Distribution, Ranks, no_grid, rank_count
from taskla.distributions.pattern import SymmetricPattern

__all__ = ["greedy_colrow", "search"]

#: Where the patterns that were found once are kept; `search` made them.
STORED = "gcrm_patterns.json"

# A pattern's diagonal is balanced over the copies in so many block rows, then repeats.
_BLOCK_ROWS = 8

# The largest load over the mean that a pattern may have.
_IMBALANCE = 1.10


def greedy_colrow(ranks: int | None = None, grid: tuple[int, int] | None = None) -> Distribution:
    """Greedy colrow and matching: a symmetric pattern for any number of ranks, found by a search.

    A rank has a few colrows (a row and the column of the same number) and owns tiles where two of
    them cross, so each colrow belongs to few ranks: as few as in a symmetric block-cyclic map or
    fewer, for any number of ranks. Patterns for up to 64 ranks are stored; others are searched for
    when asked for, which takes seconds.

    Parameters
    ----------
    ranks : int
        Any.
    grid : None
        There is none.

    Raises
    ------
    ValueError
        When `ranks` is not positive or a grid is given.

    References
    ----------
    Beaumont, Collin, Eyraud-Dubois, Verite, "Data distribution schemes for dense linear algebra
    factorizations on any number of nodes", IPDPS'23.
    """
    no_grid("gcrm", grid)
    count = rank_count(ranks)
    return Distribution("gcrm", count, None, _pattern(count))


@lru_cache(maxsize=32)
def _pattern(ranks: int) -> SymmetricPattern:
    stored = json.loads(files(__package__).joinpath(STORED).read_text(encoding="ascii"))
    if str(ranks) in stored:
        return _from_pairs(np.array(stored[str(ranks)], dtype=np.intp), ranks)
    return search(ranks)


def search(ranks: int, tries: int = 20, seed: int = 0) -> SymmetricPattern:
    """Search for a pattern of low cost.

    Parameters
    ----------
    ranks : int
    tries : int, default 20
        Attempts for each size of the pattern.
    seed : int, default 0

    Returns
    -------
    SymmetricPattern
        The one of lowest `cost` among those whose largest load is at most 1.10 of the mean; of
        lowest load if there is none.

    Raises
    ------
    ValueError
        When `ranks` is not positive.
    """
    count = rank_count(ranks)
    chance = np.random.default_rng(seed)
    best: tuple[float, float, NDArray[np.intp]] | None = None
    for r in _sizes(count):
        for _ in range(tries):
            table = _match(_cover(count, r, chance), r)
            pairs = table[np.tril_indices(r, -1)]
            load = np.bincount(pairs, minlength=count).max() * count / max(pairs.size, 1)
            found = (max(load, _IMBALANCE), _from_pairs(pairs, count).cost, pairs)
            if best is None or found[:2] < best[:2]:
                best = found
    if best is None:
        raise AssertionError(f"no size of a pattern for {count} ranks")
    return _from_pairs(best[2], count)


def _sizes(ranks: int) -> Iterator[int]:
    """Iterate over the rows that a pattern for so many ranks may have."""
    for r in range(2, max(4, floor(6 * ranks**0.5)) + 1):
        pairs = r * (r - 1) // 2
        if pairs >= ranks and ceil(pairs / ranks) <= 1.06 * pairs / ranks:
            yield r


def _cover(ranks: int, r: int, chance: np.random.Generator) -> NDArray[np.bool_]:
    """Give colrows to ranks until each pair of colrows meets at one: (ranks, r)."""
    has = np.zeros((ranks, r), dtype=np.bool_)
    has[chance.permutation(ranks), np.arange(ranks) % r] = True
    uncovered = ~np.eye(r, dtype=np.bool_)
    used = has.sum(axis=0)
    gained = np.zeros(ranks)
    while uncovered.any():
        # the rank that covers fewest pairs by itself gets the colrow that helps most
        p = int(np.argmin(gained + chance.random(ranks) / 2))
        gain = np.where(has[p], 0, uncovered[:, has[p]].sum(axis=1))
        if gain.max():
            most = np.flatnonzero(gain == gain.max())
            taken = [int(min(most, key=lambda i: (used[i], chance.random())))]
        else:
            taken = chance.choice(np.argwhere(uncovered)).tolist()
        for i in taken:
            if not has[p, i]:
                gained[p] += uncovered[i, has[p]].sum()
                uncovered[i, has[p]] = uncovered[has[p], i] = False
                has[p, i] = True
                used[i] += 1
    return has


def _match(has: NDArray[np.bool_], r: int) -> Ranks:
    """Give each pair of colrows to one of the ranks that have both, evenly: (r, r)."""
    ranks = len(has)
    a, b = np.tril_indices(r, -1)
    feasible = has[:, a] & has[:, b]
    owner = np.full(a.size, -1, dtype=np.intp)
    for capacity in (a.size // ranks, 1):
        left = np.flatnonzero(owner < 0)
        if capacity and left.size:
            owner[left] = _assign(feasible[:, left], capacity)
    loads = np.bincount(owner[owner >= 0], minlength=ranks)
    for at in np.flatnonzero(owner < 0):
        able = np.flatnonzero(feasible[:, at])
        owner[at] = able[np.argmin(loads[able])]
        loads[owner[at]] += 1
    table = np.zeros((r, r), dtype=np.intp)
    table[a, b] = table[b, a] = owner
    return table


def _assign(feasible: NDArray[np.bool_], capacity: int) -> Ranks:
    """Return a rank for as many pairs as possible, -1 for the others, at most `capacity` a rank."""
    ranks, pairs = feasible.shape
    rank, at = np.nonzero(feasible)
    # a flow from the source over pairs and ranks to the sink
    source, sink = pairs + ranks, pairs + ranks + 1
    begin = np.concatenate([np.full(pairs, source), at, pairs + np.arange(ranks)])
    end = np.concatenate([np.arange(pairs), pairs + rank, np.full(ranks, sink)])
    width = np.ones(begin.size, dtype=np.int32)
    width[-ranks:] = capacity
    graph = csr_array((width, (begin, end)), shape=(sink + 1, sink + 1))
    flow = maximum_flow(graph, source, sink).flow[:pairs, pairs : pairs + ranks].tocoo()
    owner = np.full(pairs, -1, dtype=np.intp)
    chosen = flow.data > 0
    owner[flow.coords[0][chosen]] = flow.coords[1][chosen]
    return owner


def _from_pairs(pairs: NDArray[np.intp], ranks: int) -> SymmetricPattern:
    """Return the pattern whose cells below the diagonal, row by row, are given."""
    r = (1 + isqrt(1 + 8 * pairs.size)) // 2
    table = np.zeros((r, r), dtype=np.intp)
    a, b = np.tril_indices(r, -1)
    table[a, b] = table[b, a] = pairs
    return SymmetricPattern(table, _diagonals(table, ranks))


def _diagonals(table: Ranks, ranks: int) -> Ranks:
    """Give each copy of a diagonal cell to the rank of its colrow that has least to do so far."""
    r = len(table)
    members = [np.unique(np.delete(row, a)) for a, row in enumerate(table)]
    below = np.bincount(table[np.tril_indices(r, -1)], minlength=ranks)
    loads = np.zeros(ranks, dtype=np.int64)
    found = []
    for block_row in range(_BLOCK_ROWS):
        for block_column in range(block_row + 1):
            loads += below if block_column == block_row else 2 * below
            row = []
            for able in members:
                chosen = int(able[np.argmin(loads[able])]) if able.size else 0
                loads[chosen] += 1
                row.append(chosen)
            found.append(row)
    return np.array(found, dtype=np.intp)
