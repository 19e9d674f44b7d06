"""Draw the pictures of the page that taskla adds to Dask's dashboard, from a run on this machine.

    python docs/dashboard_pictures.py [-n 12000] [--nb 600] [--workers 6]

A Cholesky factorisation runs on a cluster of this machine; Chromium takes the pictures while it
does. Needs the extras dask and dev (Selenium), and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PICTURES = Path(__file__).resolve().parent / "pictures"

#: Share of the tasks that are done when the pictures are taken.
SHARE = 0.35

# Waits until an expression is true, and is drawn; gives up by the script timeout.
WAIT = """
const done = arguments[arguments.length - 1];
const named = (name) => Bokeh.documents[0].get_model_by_name(name);
const wanted = () => { try { return %s } catch (error) { return false } };
const look = () => wanted() ? setTimeout(done, 300) : setTimeout(look, 50);
look();
"""
RAN = """(() => {
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
    """Return entries of a positive definite matrix."""
    distance = abs(rows[:, None] - cols)
    return np.exp(-0.01 * distance) + (distance == 0)


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
    from distributed import Client, LocalCluster

    import taskla as tla
    from taskla.engines.dask_dashboard import ADDRESS, add_page, register

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
        A = tla.TiledMatrix.from_function(covariance, (n, n), nb=nb, uplo="lower")
        tla.potrf(A)
        window.get(cluster.dashboard_link.replace("/status", f"/{ADDRESS}"))
        window.execute_async_script(WAIT % "named('taskla heading').text.includes('No program')")
        result = A.persist()
        window.execute_async_script(WAIT % RAN % SHARE)
        window.save_screenshot(str(PICTURES / "dask-tiles.png"))
        window.execute_async_script(WAIT % COLOURED % ("owner", "rank 0"))
        window.save_screenshot(str(PICTURES / "dask-tiles-owner.png"))
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
