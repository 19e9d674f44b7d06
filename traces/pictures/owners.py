"""A picture of a distribution: the tiles of a matrix, coloured by the rank that owns them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.atomic import replacing
from taskla.traces.pictures.figure import FORMATS, STYLE, need_matplotlib
from taskla.traces.pictures.palette import qualitative

__all__ = ["write_owners"]

# Tiles from which on numbers in them would be too small to read, inches of a tile.
_NUMBERED, _TILE, _LARGEST = 24, 0.28, 6.0


def write_owners(
    owners: NDArray[np.integer[Any]], ranks: int, path: str | os.PathLike[str], title: str
) -> None:
    """Draw the owners of tiles, with their numbers where there is room.

    Parameters
    ----------
    owners : (mt, nt) integer array
    ranks : int
    path : path
        Ending in .png, .svg or .pdf.
    title : str

    Raises
    ------
    ImportError
        Without matplotlib.
    OSError
        When the file cannot be written.
    ValueError
        When the path ends in anything else.
    """
    kind = Path(path).suffix.lower()
    if kind not in FORMATS:
        raise ValueError(f"path is {os.fspath(path)!r}; a figure ends in {', '.join(FORMATS)}")
    need_matplotlib()
    from matplotlib import rc_context
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    mt, nt = owners.shape
    side = min(_TILE * max(mt, nt), _LARGEST)
    with rc_context(STYLE), replacing(path) as temporary:
        figure = Figure(figsize=(side + 0.6, side + 0.7), layout="constrained")
        axes = figure.add_subplot()
        colours = ListedColormap(qualitative(ranks))
        axes.imshow(owners, cmap=colours, vmin=-0.5, vmax=ranks - 0.5, interpolation="nearest")
        axes.set_title(title.replace("$", r"\$"), fontsize=9)
        axes.set_xlabel("tile column j")
        axes.set_ylabel("tile row i")
        if max(mt, nt) <= _NUMBERED:
            for (i, j), rank in np.ndenumerate(owners):
                bright = sum(colours(int(rank))[:3]) > 1.5
                ink = "black" if bright else "white"
                axes.text(j, i, str(rank), ha="center", va="center", color=ink, fontsize=7)
        figure.savefig(temporary, format=kind[1:], dpi=200)
