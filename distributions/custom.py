"""file:PATH: a pattern of one's own; any function of tile row and column."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from taskla.distributions.base import Distribution, Ranks, no_grid, rank_count
from taskla.distributions.pattern import RectangularPattern

__all__ = ["from_file", "from_function"]

# A pattern is small; a file that says otherwise is no pattern.
_MOST_CELLS = 10**7
_MOST_BYTES = 10**8


def from_file(
    path: str | os.PathLike[str],
    ranks: int | None = None,
    grid: tuple[int, int] | None = None,
) -> Distribution:
    """A pattern from a text file, repeated over the matrix: Chameleon's format.

    The file has the numbers of rows and columns of the pattern, then the ranks of its cells row by
    row, all separated by white space.

    Parameters
    ----------
    path : path
    ranks : int, optional
        Number of ranks. Default: one more than the largest in the file.
    grid : None
        There is none.

    Raises
    ------
    OSError
        When the file cannot be read.
    ValueError
        When it has not the format, or a rank that is not below `ranks`.
    """
    name = f"file:{path}"
    no_grid(name, grid)
    if Path(path).stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path}: more than {_MOST_BYTES} bytes are no pattern")
    numbers = _numbers(path)
    if len(numbers) < 2 or min(numbers[:2]) < 1 or numbers[0] * numbers[1] > _MOST_CELLS:
        raise ValueError(f"{path}: does not begin with the pattern's numbers of rows and columns")
    rows, columns, *cells = numbers
    if len(cells) != rows * columns:
        raise ValueError(
            f"{path}: has {len(cells)} ranks after {rows} x {columns}; {rows * columns} are wanted"
        )
    largest = max(cells)
    count = largest + 1 if ranks is None else rank_count(ranks)
    if min(cells) < 0 or largest >= count:
        wrong = min(cells) if min(cells) < 0 else largest
        raise ValueError(f"{path}: has rank {wrong}; allowed: 0 to {count - 1}")
    return Distribution(
        name, count, None, RectangularPattern(np.reshape(np.array(cells), (rows, columns)))
    )


def from_function(
    owner: Callable[[Ranks, Ranks], Any], ranks: int, name: str = "function"
) -> Distribution:
    """Make a distribution of any function.

    Parameters
    ----------
    owner : callable
        ``owner(i, j)`` with two integer arrays of one shape returns an array of ranks.
    ranks : int
        Number of ranks: those returned are below it.
    name : str, default "function"

    Raises
    ------
    TypeError
        When `owner` cannot be called.
    ValueError
        When `ranks` is not positive.
    """
    if not callable(owner):
        raise TypeError(f"owner is {owner!r}; it must be a function of tile rows and columns")
    return Distribution(name, rank_count(ranks), None, owner)


def _numbers(path: str | os.PathLike[str]) -> list[int]:
    try:
        return [int(word) for word in Path(path).read_text(encoding="ascii").split()]
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: is not a list of integers ({error})") from None
