"""Distributions: which rank owns which tile.

`get` finds a map by name and `available` lists them. A package of anyone's adds its own by an entry
point of the group ``taskla.distributions`` that names a function of ``ranks`` and ``grid`` (either
may be None) returning a `Distribution`::

    [project.entry-points."taskla.distributions"]
    my-map = "my_package.maps:my_map"
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from typing import Any

from taskla.distributions.base import Distribution
from taskla.distributions.block_cyclic import block_cyclic
from taskla.distributions.column_cyclic import column_cyclic
from taskla.distributions.custom import from_file, from_function
from taskla.distributions.generalized_block_cyclic import generalized_block_cyclic
from taskla.distributions.greedy_colrow import greedy_colrow
from taskla.distributions.row_cyclic import row_cyclic
from taskla.distributions.symmetric_block_cyclic import sbc, sbc_basic
from taskla.distributions.triangle_block import triangle_block
from taskla.distributions.two_and_a_half import sliced_block_cyclic, sliced_sbc

__all__ = [
    "Distribution",
    "available",
    "block_cyclic",
    "column_cyclic",
    "from_file",
    "from_function",
    "generalized_block_cyclic",
    "get",
    "greedy_colrow",
    "row_cyclic",
    "sbc",
    "sbc_basic",
    "sliced_block_cyclic",
    "sliced_sbc",
    "triangle_block",
]

GROUP = "taskla.distributions"

Factory = Callable[..., Distribution]

_OWN: dict[str, Factory] = {
    "2dbc": block_cyclic,
    "row": row_cyclic,
    "col": column_cyclic,
    "sbc": sbc,
    "sbc-basic": sbc_basic,
    "g2dbc": generalized_block_cyclic,
    "gcrm": greedy_colrow,
    "tbc": triangle_block,
    "2.5d-2dbc": sliced_block_cyclic,
    "2.5d-sbc": sliced_sbc,
}

#: A name that begins with this goes on with the path of a pattern.
FILE = "file:"


def get(
    distribution: str | Distribution,
    ranks: int | None = None,
    grid: tuple[int, int] | None = None,
    slices: int | None = None,
) -> Distribution:
    """Return the map of a name for so many ranks; an object is returned as it is.

    Parameters
    ----------
    distribution : str or Distribution
        A name that `available` lists, ``file:PATH`` (see `from_file`), or an object.
    ranks : int, optional
        Number of ranks. Default: what `grid` has.
    grid : (int, int), optional
        The grid that the ranks form. Default: the map's own choice.
    slices : int, optional
        For the 2.5D maps: groups of ranks that take steps in turn. Default: their own choice.

    Returns
    -------
    Distribution
        Called with tile rows and columns, it returns ranks.

    Raises
    ------
    ValueError
        When there is no map of that name (the message lists those that exist), or it does not
        exist for `ranks` and `grid` (the message names the nearest that do).
    TypeError
        When the entry point of that name gives no `Distribution`.

    Examples
    --------
    >>> get("2dbc", ranks=6)
    Distribution(name='2dbc', ranks=6, grid=(2, 3))
    """
    if isinstance(distribution, Distribution):
        if ranks not in (None, distribution.ranks) or grid not in (None, distribution.grid):
            raise ValueError(f"ranks is {ranks} and grid {grid}; the map given is {distribution}")
        return distribution
    if distribution.startswith(FILE):
        return from_file(distribution.removeprefix(FILE), ranks, grid)
    found = _entries()
    if distribution not in found:
        raise ValueError(
            f"distribution {distribution!r} does not exist; there are {_list(found)}, file:PATH"
        )
    if ranks is None and grid is None:
        raise ValueError(f"ranks is None; {distribution} needs a number of ranks")
    factory = _load(found[distribution])
    given: dict[str, Any] = {"ranks": ranks, "grid": grid}
    if slices is not None:
        if "slices" not in signature(factory).parameters:
            raise ValueError(f"slices is {slices}; {distribution} has none (2.5d-2dbc has)")
        given["slices"] = slices
    made: Any = factory(**given)
    if not isinstance(made, Distribution):
        raise TypeError(
            f"distribution {distribution!r}: its entry point made {made!r}, "
            "not a taskla.distributions.Distribution"
        )
    return made


def available() -> dict[str, str]:
    """Return the names of the maps that exist, each with one line on what it does.

    taskla's own come first, then those of other packages by name. One that cannot be loaded is
    listed with the reason.
    """
    lines = {}
    for name, entry in _entries().items():
        try:
            lines[name] = (_load(entry).__doc__ or "").strip().partition("\n")[0]
        except Exception as error:  # Whatever another package raises, the list is still wanted.
            lines[name] = f"cannot be loaded: {error}"
    return lines


def _entries() -> dict[str, Factory | EntryPoint]:
    """Return all factories by name; no other package replaces one of taskla's own."""
    others = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return {**_OWN, **{entry.name: entry for entry in others if entry.name not in _OWN}}


def _load(entry: Factory | EntryPoint) -> Factory:
    loaded: Factory = entry.load() if isinstance(entry, EntryPoint) else entry
    return loaded


def _list(names: dict[str, Any]) -> str:
    return ", ".join(names)
