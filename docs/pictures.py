"""Record the sample traces and draw the pictures that the documentation shows.

    python docs/pictures.py [--record]

Pictures are drawn from `traces/samples`. With --record these are recorded anew first, on this
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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="record the samples anew first")
    if parser.parse_args().record:
        for name, command in RECORDED.items():
            taskla(f"{command} --trace", SAMPLES / f"{name}.trace")
    for name in ("cholesky", "lu"):
        taskla("trace view", SAMPLES / f"{name}.trace", "-o", PICTURES / f"{name}.png")
    with tempfile.TemporaryDirectory() as folder:
        page, simulated = Path(folder) / "page.html", Path(folder) / "simulated.trace"
        taskla("trace view", SAMPLES / "cholesky.trace", "-o", page)
        screenshot(page, PICTURES / "page.png", "1300,1240")
        taskla("trace replay --policy prio --workers 8 -o", simulated, SAMPLES / "cholesky.trace")
        taskla("trace view", simulated, "-o", PICTURES / "replay.png")


if __name__ == "__main__":
    main()
