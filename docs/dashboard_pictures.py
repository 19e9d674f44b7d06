"""Draw the pictures of the page that taskla adds to Dask's dashboard, from a run on this machine.

    python docs/dashboard_pictures.py [-n 12000] [--nb 600] [--workers 6]

Cholesky factorisations run on a cluster of this machine, one in double and one in mixed precision;
Chromium takes the pictures while they do. Needs the extras dask and dev (Selenium), and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster, wait
from numpy.typing import NDArray
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

import taskla as tla
from taskla.engines.dask_dashboard import ADDRESS, add_page, register

PICTURES = Path(__file__).resolve().parent / "pictures"

#: Share of the tasks that are done when the pictures are taken.
SHARE = 0.35

#: Of each precision the pictures: their names, what tiles are coloured by, words of the legend.
SHOTS = {
    None: [("dask-tiles", "state", "done"), ("dask-tiles-owner", "owner", "rank 0")],
    "adaptive:1e-6": [("dask-tiles-formats", "format", "fp16")],
}

# Waits until an expression is true, and is drawn; gives up by the script timeout.
WAIT = """
const done = arguments[arguments.length - 1];
const named = (name) => Bokeh.documents[0].get_model_by_name(name);
const wanted = () => { try { return %s } catch (error) { return false } };
const look = () => wanted() ? setTimeout(done, 300) : setTimeout(look, 50);
look();
"""
RAN = """(() => {
  if (!named("taskla heading").text.includes("#%d ")) return false;
  const bar = document.createElement("div");
  bar.innerHTML = named("taskla bar").text;
  const {ariaValueNow, ariaValueMax} = bar.firstChild;
  return ariaValueNow / ariaValueMax >= %f;
})()"""
COLOURED = """(() => {
  const colours = named("taskla colours");
  colours.active = colours.labels.indexOf("%s");
  return named("taskla legend").text.includes("%s");
})()"""


def covariance(rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return covariances of points of the plane, in Morton order."""
    distance = abs(places(rows)[:, None] - places(cols))
    return np.exp(-0.25 * distance) + (distance == 0)


def places(points: NDArray[np.int64]) -> NDArray[np.complex128]:
    """Return where points are, whose numbers are the bits of y and x in turn."""
    bits = np.arange(16)
    x, y = (((points[:, None] >> (2 * bits + odd) & 1) << bits).sum(1) for odd in (0, 1))
    return x + 1j * y


@contextmanager
def browser(size: str) -> Iterator[webdriver.Chrome]:
    """Have a window of Chromium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        sys.exit("the pictures need chromium and chromedriver: tests/system-packages installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.add_argument("--hide-scrollbars")
    options.add_argument(f"--window-size={size}")
    window = webdriver.Chrome(options, Service(driver))
    window.set_page_load_timeout(60)
    window.set_script_timeout(300)
    try:
        yield window
    finally:
        window.quit()


def pictures(n: int, nb: int, workers: int) -> None:
    """Factor a matrix, and take pictures of the page."""
    register()
    owners = tla.distributions.get("sbc", ranks=workers)
    options = {"n_workers": workers, "threads_per_worker": 1, "host": "127.0.0.1"}
    with (
        LocalCluster(**options, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
        tla.engine("dask", client=client, distribution=owners),
        browser("1180,860") as window,
    ):
        client.run_on_scheduler(lambda dask_scheduler: add_page(dask_scheduler))
        window.get(cluster.dashboard_link.replace("/status", f"/{ADDRESS}"))
        window.execute_async_script(WAIT % "named('taskla heading').text.includes('No program')")
        for number, (precision, shots) in enumerate(SHOTS.items(), 1):
            A = tla.TiledMatrix.from_function(
                covariance, (n, n), nb=nb, uplo="lower", precision=precision
            )
            tla.potrf(A)
            result = A.persist()
            window.execute_async_script(WAIT % RAN % (number, SHARE))
            for name, by, legend in shots:
                window.execute_async_script(WAIT % COLOURED % (by, legend))
                window.save_screenshot(str(PICTURES / f"{name}.png"))
            wait(result)
            del result, A


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", type=int, default=12000, help="rows")
    parser.add_argument("--nb", type=int, default=600, help="rows of a tile")
    parser.add_argument("--workers", type=int, default=6, help="processes, a rank each")
    given = parser.parse_args()
    pictures(given.n, given.nb, given.workers)


if __name__ == "__main__":
    main()
