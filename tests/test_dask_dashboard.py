"""Our page in the dashboard of a real scheduler, in a real browser: headless Chromium."""

import asyncio
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from distributed import LocalCluster, Scheduler, wait
from distributed.diagnostics.plugin import SchedulerPlugin
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from test_trace_view_browser import MISSING, OPTIONS, Browser

import taskla as tla
from taskla.engines import dask_dashboard
from taskla.engines.dask_dashboard_tiles import DONE, FAILED, RUNNING, WAITING
from taskla.engines.dask_progress import Fused, Program, Progress, TileGrid
from taskla.traces.pictures.palette import QUALITATIVE

# One browser for all: it is slow to start.
pytestmark = pytest.mark.xdist_group("browser")

TIMEOUT = 30


class Plugin(SchedulerPlugin):  # type: ignore[misc]
    """Stands for that of the engine: all that the page asks for."""

    name = "taskla"

    def __init__(self) -> None:
        self.progress = Progress()


class Page(Browser):
    """The page in a browser, and what it shows."""

    cluster: Any

    def on_scheduler(self, call: Callable[[Any], Any]) -> Any:
        """Call a function of the scheduler in its event loop."""

        async def called() -> Any:
            return call(self.cluster.scheduler)

        return self.cluster.sync(called, callback_timeout=TIMEOUT)

    def address(self, page: str) -> str:
        return str(self.cluster.dashboard_link).replace("/status", f"/{page}")

    def visit(self, page: str = dask_dashboard.ADDRESS) -> None:
        self.errors()
        self.driver.get(self.address(page))
        self.wait("named('taskla heading').text")

    def colours(self) -> list[list[str | None]]:
        """The colours of the tiles of the matrix that is shown; None where there is none."""
        data = self.data("taskla tiles")
        palette = self.wait("named('taskla tiles').glyph.fill_color.transform.palette")
        shape = self.wait("named('taskla chart').tags")
        shown: list[list[str | None]] = [[None] * shape[1] for _ in range(shape[0])]
        for i, j, shade in zip(data["i"], data["j"], data["shade"], strict=True):
            shown[i][j] = palette[shade]
        return shown

    def show(self, matrix: str) -> None:
        self.driver.execute_script(
            "Bokeh.documents[0].get_model_by_name('taskla matrix').value = arguments[0]", matrix
        )

    def choose(self, by: str) -> None:
        self.driver.execute_script(
            "const model = Bokeh.documents[0].get_model_by_name('taskla colours');"
            "model.active = model.labels.indexOf(arguments[0])",
            by,
        )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    dask_dashboard.register()
    with LocalCluster(
        n_workers=0,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def window(cluster: Any) -> Iterator[Page]:
    if MISSING:
        pytest.skip(f"no {' and no '.join(MISSING)} on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for option in OPTIONS:
        # of all names and addresses that one is found
        options.add_argument(option.replace("~NOTFOUND", "~NOTFOUND, EXCLUDE 127.0.0.1"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver") or ""))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(TIMEOUT)
    page = Page(driver)
    page.cluster = cluster
    try:
        page.on_scheduler(dask_dashboard.add_page)
        yield page
    finally:
        driver.quit()


@pytest.fixture
def page(window: Page) -> Iterator[Page]:
    """A scheduler that has seen no program yet; no test may leave a complaint of the browser."""
    plugin = Plugin()
    window.on_scheduler(lambda scheduler: scheduler.add_plugin(plugin, name="taskla"))
    yield window
    window.on_scheduler(lambda scheduler: scheduler.remove_plugin("taskla"))
    assert window.errors() == []
    window.driver.get("about:blank")


def progress(scheduler: Any) -> Progress:
    found = scheduler.plugins["taskla"].progress
    assert isinstance(found, Progress)
    return found


def triangle(page: Page, n: int, token: str = "one") -> None:
    """A program of a task a tile of a lower triangle, whose keys are the tiles."""

    def begin(scheduler: Any) -> None:
        program = progress(scheduler).begin(token, "potrf", [TileGrid("A", n, n, "fp64")])
        for i in range(n):
            for j in range(i + 1):
                program.add((token, i, j), Fused("gemm", (i + j) % 3, ((0, i, j),), 1e9))

    page.on_scheduler(begin)


def note(page: Page, i: int, j: int, state: Any, token: str = "one", **told: Any) -> None:
    page.on_scheduler(lambda scheduler: progress(scheduler).note((token, i, j), state, **told))


# -- where it is -----------------------------------------------------------------------------------


def test_the_menu_leads_to_the_page(page: Page) -> None:
    page.driver.get(page.address("status"))
    links = page.driver.execute_script(
        "return [...document.querySelectorAll('.navbar a')].map((a) => [a.innerText.trim(), a.href,"
        " a.closest('.dropdown') != null])"
    )
    assert ["Taskla", page.address("taskla"), False] in links
    alone = page.address("individual-taskla-tiles")
    assert [link[1:] for link in links].count([alone, True]) == 1
    page.driver.find_element("link text", "Taskla").click()
    page.wait("named('taskla heading').text.includes('No program')")
    assert page.driver.title == "Dask: taskla"
    # and on from there
    page.driver.find_element("link text", "Workers").click()
    page.wait("location.pathname == '/workers'")
    # Dask's pages were met as well, and what theirs says is not ours to judge: a chart of the
    # status page that never saw its ranges complains of that
    page.driver.get("about:blank")
    page.errors()


def test_the_page_stands_alone_as_well(page: Page) -> None:
    triangle(page, 2)
    page.visit(dask_dashboard.ALONE)
    page.wait("named('taskla tiles').data_source.data.i.length == 3")
    with urlopen(page.address("individual-plots.json"), timeout=TIMEOUT) as answer:
        assert "/individual-taskla-tiles" in json.load(answer).values()


def test_to_add_the_page_again_changes_nothing(page: Page) -> None:
    def add(scheduler: Any) -> tuple[int, int]:
        counts = []
        for _ in range(2):
            counts.append(len(scheduler.http_application.applications))
            dask_dashboard.add_page(scheduler)
        return counts[0], len(scheduler.http_application.applications)

    before, after = page.on_scheduler(add)
    assert before == after
    with urlopen(page.address("taskla"), timeout=TIMEOUT) as answer:
        assert answer.read().count(b'href="taskla"') == 1


def test_a_scheduler_that_runs_already_gets_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed.dashboard.scheduler import applications

    for path in [path for path in applications if "taskla" in path]:
        monkeypatch.delitem(applications, path)

    def fetch(port: int) -> bytes:
        with urlopen(f"http://127.0.0.1:{port}/there/taskla", timeout=TIMEOUT) as answer:
            return bytes(answer.read())

    async def late() -> bytes:
        async with Scheduler(
            host="127.0.0.1", dashboard_address="127.0.0.1:0", http_prefix="there"
        ) as scheduler:
            assert not [path for path in applications if "taskla" in path]
            dask_dashboard.add_page(scheduler)
            return await asyncio.to_thread(fetch, scheduler.http_server.port)

    text = asyncio.run(asyncio.wait_for(late(), TIMEOUT))
    assert b'href="taskla"' in text
    assert b'href="individual-taskla-tiles"' in text


def test_a_scheduler_without_a_dashboard_is_left_alone() -> None:
    async def without() -> int:
        async with Scheduler(
            host="127.0.0.1", dashboard=False, dashboard_address="127.0.0.1:0"
        ) as scheduler:
            dask_dashboard.add_page(scheduler)
            return len(scheduler.http_application.applications)

    assert asyncio.run(asyncio.wait_for(without(), TIMEOUT)) == 0


def test_preload_adds_the_page() -> None:
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    command += ["--port", "0", "--dashboard-address", "127.0.0.1:0"]
    command += ["--preload", "taskla.engines.dask_dashboard"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(2 * TIMEOUT, process.kill)
        watchdog.start()
        try:
            assert process.stderr is not None
            address = ""
            # the scheduler answers nothing between that line and the end of the setup
            for line in process.stderr:
                if "dashboard at:" in line:
                    address = line.split()[-1]
                if "Run preload setup" in line:
                    break
            with urlopen(address.replace("/status", "/taskla"), timeout=TIMEOUT) as answer:
                assert b'href="taskla"' in answer.read()
        finally:
            watchdog.cancel()
            process.terminate()
            process.communicate(timeout=TIMEOUT)


# -- what it shows ---------------------------------------------------------------------------------


def test_tiles_change_as_tasks_do(page: Page) -> None:
    page.visit()
    page.wait("named('taskla heading').text.includes('No program of taskla')")
    triangle(page, 3)
    page.wait("named('taskla tiles').data_source.data.i.length == 6")
    grey = WAITING
    assert page.colours() == [[grey, None, None], [grey, grey, None], [grey, grey, grey]]
    assert "0 of 6" in page.wait("named('taskla heading').text")
    note(page, 0, 0, "running", worker="w")
    page.wait("named('taskla legend').text.includes('next on its worker: 1')")
    note(page, 0, 0, "done", worker="w", start=10.0, stop=11.0)
    note(page, 1, 0, "running", worker="w")
    note(page, 2, 0, "failed")
    page.wait("named('taskla heading').text.includes('1 task failed')")
    assert page.colours() == [[DONE, None, None], [RUNNING, grey, None], [FAILED, grey, grey]]
    note(page, 1, 0, "done", worker="w", start=11.0, stop=12.0)
    page.wait("named('taskla heading').text.includes('2 of 6')")
    # 2 Gflop in 2 s
    assert "Gflop/s <b>1</b>" in page.wait("named('taskla heading').text")
    note(page, 0, 0, "waiting")
    page.wait("named('taskla heading').text.includes('1 of 6')")
    assert page.colours()[0][0] == grey
    note(page, 0, 0, "done", start=12.0, stop=13.0)
    page.wait("named('taskla heading').text.includes('recomputed <b>1</b>')")
    bar = page.wait("nodes(document.body).find((node) => node.role == 'progressbar')")
    assert bar.get_attribute("aria-valuenow") == "2"
    done = page.wait("nodes(document.body).find((node) => node.role == 'progressbar').firstChild")
    assert done.size["width"] / bar.size["width"] == pytest.approx(2 / 6, abs=0.01)


def test_tiles_are_squares_and_row_0_is_at_the_top(page: Page) -> None:
    triangle(page, 4)
    page.visit()
    page.wait("named('taskla chart').x_range.end > 3")
    (left, top), (right, bottom) = (page.point("taskla chart", k, k) for k in (0, 3))
    assert right - left == pytest.approx(bottom - top, abs=2)
    assert bottom - top > 90


def test_tiles_that_are_done_in_part_have_a_shade_of_their_own(page: Page) -> None:
    def begin(scheduler: Any) -> None:
        program = progress(scheduler).begin("one", "gemm", [TileGrid("C", 1, 2, "fp64")])
        for k in range(4):
            program.add(k, Fused("gemm", 0, ((0, 0, 0), (0, 0, 1)) if k else ((0, 0, 0),), 1.0))
        for k in range(3):
            program.note(k, "done")

    page.on_scheduler(begin)
    page.visit()
    page.wait("named('taskla legend').text.includes('not yet done: 2')")
    ((left, right),) = page.colours()
    assert left != right
    assert not {left, right} & {WAITING, RUNNING, DONE, FAILED}


def test_every_choice_of_colours(page: Page) -> None:
    triangle(page, 3)
    page.visit()
    for number, (i, j) in enumerate([(0, 0), (1, 0), (1, 1)]):
        note(page, i, j, "done", worker=f"w{number % 2}", start=0.0, stop=float(number + 1))
    page.wait("named('taskla heading').text.includes('3 of 6')")
    page.choose("owner")
    page.wait("named('taskla legend').text.includes('rank 2')")
    first, second, third = QUALITATIVE[:3]
    expected = [[first, None, None], [second, third, None], [third, first, second]]
    assert page.colours() == expected
    page.choose("worker")
    page.wait("named('taskla legend').text.includes('w1')")
    colours = page.colours()
    assert colours[0][0] == colours[1][1] == first
    assert (colours[1][0], colours[2][2]) == (second, WAITING)
    page.choose("format")
    page.wait("named('taskla legend').text.includes('fp64')")
    assert {colour for row in page.colours() for colour in row} == {first, None}
    page.choose("time")
    page.wait("named('taskla legend').text.includes('3 s')")
    colours = page.colours()
    assert len({colours[0][0], colours[1][0], colours[1][1], colours[2][0]}) == 4
    assert colours[2][0] == colours[2][1] == WAITING
    page.choose("state")
    page.wait("named('taskla legend').text.includes('done: 3')")


def test_hovering_tells_about_a_tile(page: Page) -> None:
    triangle(page, 3)
    note(page, 2, 1, "done", worker="tcp://127.0.0.1:1234", start=0.0, stop=0.25)
    page.visit()
    page.wait("named('taskla chart').x_range.end > 2")
    page.move("taskla chart", 1, 2)
    text = " ".join(page.wait("tooltip().includes('owner') && tooltip()").split())
    for words in (
        "tile: A(2, 1)",
        "state: done",
        "tasks done: 1 of 1",
        "owner: rank 0",
        "worker: tcp://127.0.0.1:1234",
        "format: fp64",
        "time: 250 ms",
    ):
        assert words in text


def test_a_matrix_may_be_chosen_and_else_it_is_the_newest(page: Page) -> None:
    def begin(scheduler: Any) -> None:
        grids = [TileGrid("A", 2, 2, "fp64"), TileGrid("B<b>", 2, 1, "fp32")]
        program = progress(scheduler).begin("both", "posv", grids)
        program.add("a", Fused("potrf", 0, ((0, 0, 0), (0, 1, 0), (0, 1, 1)), 1.0))
        program.add("b", Fused("trsm", 0, ((1, 0, 0),), 1.0))

    triangle(page, 3)
    page.on_scheduler(begin)
    page.visit()
    page.wait("named('taskla tiles').data_source.data.i.length == 3")
    options = page.wait("named('taskla matrix').options.map((option) => option[1])")
    assert options == [
        "the newest",
        "#2 posv: A, 2 x 2 tiles",
        "#2 posv: B<b>, 2 x 1 tiles",
        "#1 potrf: A, 3 x 3 tiles",
    ]
    page.show("1.1")
    page.wait("named('taskla tiles').data_source.data.i.length == 1")
    assert "B&lt;b&gt; <b>2 x 1 tiles of fp32</b>" in page.wait("named('taskla heading').text")
    triangle(page, 4, token="three")
    page.wait("named('taskla matrix').options.length == 5")
    assert len(page.data("taskla tiles")["i"]) == 1
    page.show("")
    page.wait("named('taskla tiles').data_source.data.i.length == 10")


def test_a_matrix_in_several_formats_is_one(
    window: Page, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "cluster", client.cluster)
    with tla.engine("dask", client=client):
        A = tla.TiledMatrix.random((96, 96), 16, uplo="lower", kind="spd").with_precision(
            "fp64:1,fp32:2,bf16:rest"
        )
        B = tla.TiledMatrix.random((96, 5), 16)
        tla.posv(A, B)
        wait([A.persist(), B.persist()], timeout=TIMEOUT)
    window.visit()
    options = window.wait("named('taskla matrix').options.map((option) => option[1])")
    assert options == ["the newest", "#1 posv: A, 6 x 6 tiles", "#1 posv: B, 6 x 1 tiles"]
    window.show("0.0")
    window.wait("named('taskla heading').text.includes('6 x 6 tiles of fp64, fp32, bf16')")
    window.wait("named('taskla legend').text.includes('done: 21')")
    window.choose("format")
    window.wait("named('taskla legend').text.includes('bf16')")
    tints = dict(zip(("fp64", "fp32", "bf16"), QUALITATIVE, strict=False))
    assert window.colours() == [
        [tints[A.format_map[i, j]] if i >= j else None for j in range(6)] for i in range(6)
    ]
    for (i, j), name in {(1, 1): "fp64", (2, 1): "fp32", (5, 0): "bf16"}.items():
        window.move("taskla chart", j, i)
        window.wait(f"tooltip().includes('A({i}, {j})')")
        text = " ".join(window.wait("tooltip()").split())
        assert f"format: {name}" in text
    assert window.errors() == []
    window.driver.get("about:blank")


@pytest.mark.parametrize(
    "grids", [[], [TileGrid("E", 0, 0, "fp64")], [TileGrid("E", 0, 3, "fp64")]]
)
def test_a_program_without_tiles(page: Page, grids: list[TileGrid]) -> None:
    page.on_scheduler(lambda scheduler: progress(scheduler).begin("none", "potrf", grids))
    page.visit()
    page.wait("named('taskla heading').text.includes('0 of 0')")
    page.wait("!named('taskla chart').visible")
    # and on to one that has some
    triangle(page, 2)
    page.wait("named('taskla chart').visible && named('taskla chart').x_range.end > 1")
    assert len(page.data("taskla tiles")["i"]) == 3


def test_without_the_plugin_the_page_says_so(page: Page) -> None:
    page.on_scheduler(lambda scheduler: scheduler.remove_plugin("taskla"))
    page.visit()
    page.wait("named('taskla heading').text.includes('No program of taskla')")
    page.on_scheduler(lambda scheduler: scheduler.add_plugin(Plugin(), name="taskla"))
    triangle(page, 2)
    page.wait("named('taskla tiles').data_source.data.i.length == 3")


def test_what_has_not_changed_is_not_drawn_again(page: Page) -> None:
    triangle(page, 3)
    note(page, 0, 0, "running", worker="w", start=0.0)
    page.visit()
    page.wait("named('taskla legend').text.includes('next on its worker: 1')")
    # its time goes on, so the heading changes with every look
    page.driver.execute_script(
        "window.heard = {heading: 0, tiles: 0};"
        "const named = (name) => Bokeh.documents[0].get_model_by_name(name);"
        "named('taskla heading').properties.text.change.connect(() => window.heard.heading++);"
        "const {data_source} = named('taskla tiles');"
        "data_source.change.connect(() => window.heard.tiles++);"
        "data_source.patching.connect(() => window.heard.tiles++);"
    )
    page.wait("window.heard.heading >= 3")
    assert page.wait("[window.heard.tiles]") == [0]
    note(page, 1, 0, "done")
    page.wait("window.heard.tiles > 0")


def test_two_hundred_by_two_hundred_tiles(page: Page) -> None:
    n = 200

    def begin(scheduler: Any) -> Program:
        grids = [TileGrid("A", n, n, "fp64")]
        program = progress(scheduler).begin("large", "getrf", grids)
        for j in range(n):
            program.add(j, Fused("gemm", j % 7, tuple((0, i, j) for i in range(n)), 1e9))
        return program

    program = page.on_scheduler(begin)
    page.visit()
    page.wait(f"named('taskla tiles').data_source.data.i.length == {n * n}")
    page.on_scheduler(lambda _: program.note(150, "done", worker="w", start=0.0, stop=1.0))
    page.wait(f"named('taskla legend').text.includes('done: {n}')")
    page.on_scheduler(lambda _: program.note(3, "running", worker="w"))
    page.wait(f"named('taskla legend').text.includes('next on its worker: {n}')")
    colours = np.array(page.colours())
    assert (colours[:, 150] == DONE).all()
    assert (colours[:, 3] == RUNNING).all()
    assert (np.delete(colours, [3, 150], axis=1) == WAITING).all()
