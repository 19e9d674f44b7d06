"""Record the sample traces and draw the pictures that the documentation shows.

Those of traces are drawn from `traces/samples`, those of distributions from counts.

    python docs/pictures.py [--record]

With --record the samples are recorded anew first, on this
machine: Cholesky factorisations by two policies and an LU factorisation, several repeats each.
Needs the extra viz, and Chromium for the picture of a page.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
SAMPLES = REPO / "traces" / "samples"
PICTURES = REPO / "docs" / "pictures"

#: Name of a sample -> what records it.
RECORDED = {
    "cholesky": "bench potrf -n 4096 --nb 256 --workers 2 --policy lws --repeat 5",
    "cholesky-eager": "bench potrf -n 4096 --nb 256 --workers 2 --policy eager --repeat 5",
    "lu": "bench getrf -n 3072 --nb 256 --workers 2 --policy lws --repeat 3",
}


def taskla(command: str, *files: str | Path) -> None:
    """Run a command of taskla."""
    subprocess.run(
        [sys.executable, "-m", "taskla", *command.split(), *map(str, files)],
        cwd=REPO,
        check=True,
        timeout=600,
    )


def screenshot(page: Path, picture: Path, size: str) -> None:
    """Have Chromium draw a page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit(f"{picture} needs Chromium")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += [f"--window-size={size}", "--virtual-time-budget=10000"]
    subprocess.run(
        [chromium, *options, f"--screenshot={picture}", page.as_uri()],
        check=True,
        timeout=120,
        capture_output=True,
    )


def volumes(picture: Path, tiles: int = 114, most: int = 57) -> None:
    """Draw the messages of a Cholesky factorisation for numbers of ranks up to `most`."""
    from matplotlib.figure import Figure

    from taskla.plan import plan

    counted: dict[str, list[tuple[int, float]]] = {}
    for ranks in range(2, most + 1):
        for row in plan("potrf", tiles, nb=1, ranks=ranks, dist="all"):
            if row.slices == 1 and row.dist not in ("row", "col"):
                scale = tiles * (tiles + 1) / 2 * ranks**0.5
                counted.setdefault(row.dist, []).append((ranks, row.messages / scale))
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, colour, mark in (
        ("2dbc", "#999999", "-"),
        ("g2dbc", "#0072b2", "-"),
        ("gcrm", "#009e73", "-"),
        ("sbc", "#d55e00", "o"),
        ("sbc-basic", "#e69f00", "s"),
        ("tbc", "#cc79a7", "D"),
    ):
        points = sorted(counted[name])
        axes.plot(*zip(*points, strict=True), mark, color=colour, label=name, markersize=5)
    for height, name in ((2, "2"), (2**0.5, r"$\sqrt{2}$"), (1, "1")):
        axes.axhline(height, color="#333333", linewidth=0.6, linestyle=":")
        axes.annotate(name, (most + 0.7, height), va="center", fontsize=9)
    axes.set_ylim(0, 3.2)
    axes.set_xlim(1, most + 3)
    axes.set_xlabel("ranks P")
    axes.set_ylabel(r"messages / ($\frac{1}{2}N(N+1)\,\sqrt{P}$)")
    axes.set_title(f"Cholesky factorisation of N x N tiles, N = {tiles}", fontsize=10)
    axes.legend(ncols=3, fontsize=9)
    figure.savefig(picture, dpi=150)


def ratios(picture: Path, ranks: int = 36) -> None:
    """Draw how many times the messages of symmetric maps 2dbc sends, for more and more tiles.

    36 is a square, 6 x 6, and r (r - 1) / 2 with r = 9: both maps are at their best.
    """
    from matplotlib.figure import Figure

    from taskla.plan import plan

    sizes = (12, 18, 24, 36, 48, 72, 96, 144, 192)
    figure = Figure(figsize=(6.4, 3), layout="constrained")
    axes = figure.add_subplot()
    for name, colour, mark in (("gcrm", "#009e73", "-"), ("sbc", "#d55e00", "o-")):
        found = []
        for tiles in sizes:
            sent = [plan("potrf", tiles, nb=1, ranks=ranks, dist=d) for d in ("2dbc", name)]
            found.append(sent[0][0].messages / sent[1][0].messages)
        axes.plot(sizes, found, mark, color=colour, label=f"2dbc / {name}", markersize=4)
    axes.axhline(2**0.5, color="#333333", linewidth=0.6, linestyle=":")
    axes.annotate(r"$\sqrt{2}$", (sizes[-1] + 3, 2**0.5), va="center", fontsize=9)
    axes.set_xlim(0, sizes[-1] + 15)
    axes.set_ylim(1, 1.6)
    axes.set_xlabel("tile columns N")
    axes.set_ylabel("ratio of messages")
    axes.set_title(f"Cholesky factorisation on P = {ranks} ranks", fontsize=10)
    axes.legend(fontsize=9, loc="lower right")
    figure.savefig(picture, dpi=150)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="record the samples anew first")
    if parser.parse_args().record:
        for name, command in RECORDED.items():
            # a trace tells the command that made it: no path of this machine
            taskla(f"{command} --trace", SAMPLES.relative_to(REPO) / f"{name}.trace")
    for name in ("cholesky", "lu"):
        taskla("trace view", SAMPLES / f"{name}.trace", "-o", PICTURES / f"{name}.png")
    taskla("distributions show sbc --ranks 10 --tiles 15 -o", PICTURES / "sbc.png")
    volumes(PICTURES / "volumes.png")
    ratios(PICTURES / "ratios.png")
    with tempfile.TemporaryDirectory() as folder:
        page, simulated = Path(folder) / "page.html", Path(folder) / "simulated.trace"
        taskla("trace view", SAMPLES / "cholesky.trace", "-o", page)
        screenshot(page, PICTURES / "page.png", "1300,1240")
        taskla("trace replay --policy prio --workers 8 -o", simulated, SAMPLES / "cholesky.trace")
        taskla("trace view", simulated, "-o", PICTURES / "replay.png")


if __name__ == "__main__":
    main()
