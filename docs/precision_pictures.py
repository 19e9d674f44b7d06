"""Draw the pictures of the page on accuracy: formats of tiles, and errors against tolerances.

    python docs/precision_pictures.py

Both are of covariances of 4096 points, as `examples/accuracy.py` makes them; the factorisations
take a minute or two. Needs the extra viz.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

REPO = Path(__file__).resolve().parents[1]
PICTURES = REPO / "docs" / "pictures"

sys.path.insert(0, str(REPO / "examples"))
from accuracy import RANGES, Covariance, morton_grid, rows  # noqa: E402 (not installed)

N, NB = 4096, 256
COLOURS = {"fp64": "#d55e00", "fp32": "#56b4e9", "fp16": "#f0e442"}
#: Of the ranges of correlation.
LINES = {"0.03": "#0072b2", "0.1": "#009e73", "0.3": "#cc79a7"}


def formats(
    picture: Path, beta: float = 0.03, tolerances: tuple[float, ...] = (1e-4, 1e-8)
) -> None:
    """Draw the formats of the tiles of one triangle, for some tolerances."""
    A = Covariance(morton_grid(round(N**0.5)), beta)
    figure = Figure(figsize=(3.2 * len(tolerances), 3.7), layout="constrained")
    for axes, tol in zip(
        figure.subplots(1, len(tolerances), squeeze=False)[0], tolerances, strict=True
    ):
        M = A.assemble(NB, f"adaptive:{tol}")
        draw_map(axes, M.format_map)
        whole = 8 * sum(M.tile(i, j).array.size for i, j in M.own_tiles())
        power = f"1e{round(np.log10(tol))}"
        axes.set_title(f"tol = {power}: {M.nbytes / whole:.0%} of the bytes of fp64", fontsize=10)
    handles = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=handles, ncols=3, fontsize=9, loc="outside lower center", frameon=False)
    figure.savefig(picture, dpi=150)


def draw_map(axes: Axes, names: np.ndarray) -> None:
    """Draw one map, a square a tile."""
    codes = np.vectorize(list(COLOURS).index)(names)
    shown = np.ma.masked_where(np.triu(np.ones(names.shape, dtype=bool), 1), codes)
    colours = ListedColormap(list(COLOURS.values()))
    edges = np.arange(len(names) + 1) - 0.5
    axes.pcolormesh(
        edges, edges, shown, cmap=colours, vmin=0, vmax=2, edgecolors="w", linewidth=0.6
    )
    axes.invert_yaxis()
    ticks = np.arange(0, len(names), 3)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.set_aspect("equal")
    axes.set_xlabel("tile column j")
    axes.set_ylabel("tile row i")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def tolerance(picture: Path) -> None:
    """Draw the backward error of Cholesky factorisations against the tolerance."""
    tolerances = [10.0**-k for k in range(1, 16)]
    found = defaultdict(list)
    for row in rows(N, NB, RANGES, tolerances):
        if row["tol"] and "error" in row:
            found[f"{row['beta']:g}"].append((row["tol"], row["error"]))
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    for beta, points in found.items():
        axes.loglog(
            *zip(*points, strict=True),
            "o-",
            color=LINES[beta],
            label=f"beta = {beta}",
            markersize=4,
        )
    ends = np.array([tolerances[0], tolerances[-1]])
    axes.loglog(ends, 3 * ends, ":", color="#333333", linewidth=0.9, label="3 tol")
    axes.invert_xaxis()
    axes.set_xlabel("tolerance")
    axes.set_ylabel("error  |A - L L^T| / |A|")
    axes.set_title(f"Cholesky factorisation of covariances, n = {N}, nb = {NB}", fontsize=10)
    axes.legend(fontsize=9)
    figure.savefig(picture, dpi=150)


def main() -> None:
    """Draw both."""
    formats(PICTURES / "formats.png")
    tolerance(PICTURES / "tolerance.png")


if __name__ == "__main__":
    main()
