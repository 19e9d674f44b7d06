"""The page of `taskla trace view` in a real browser: headless Chromium, without a network."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_traces import cholesky, lu, made
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from strange_traces import failed, nasty

import taskla as tla
from taskla.traces import Recorder, Run
from taskla.traces.analysis import ready_over_time
from taskla.traces.pictures.aggregation import shares, tile_maps
from taskla.traces.pictures.page import write_page
from taskla.traces.pictures.palette import colour_of

# One browser for all: it is slow to start.
pytestmark = pytest.mark.xdist_group("browser")

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--window-size=1400,1400",
    # no name is found, so nothing comes from a network
    "--host-resolver-rules=MAP * ~NOTFOUND",
)

# Runs `body` when `wanted` is true, as often as the browser draws; gives up by the script timeout.
WAIT = """
const done = arguments[arguments.length - 1];
const named = (name) => Bokeh.documents[0].get_model_by_name(name);
const nodes = (node) => [node, ...[...(node.shadowRoot ?? node).children].flatMap(nodes)];
const tooltip = () => nodes(document.body).filter((node) => node.classList.contains("bk-Tooltip"))
  .map((node) => node.shadowRoot.querySelector("div").parentNode.textContent).join(" ");
const look = () => {
  const found = (() => { try { return %s } catch (error) { return null } })();
  if (found) done(found); else requestAnimationFrame(look);
};
look();
"""


class Browser:
    """A page in Chromium, and what tests ask of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path) -> None:
        self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        self.driver.get(path.as_uri())
        self.wait("named('gantt').title.text.includes('in view')")

    def wait(self, wanted: str) -> Any:
        """Wait until an expression is true, and return its value."""
        return self.driver.execute_async_script(WAIT % wanted)

    def data(self, name: str) -> dict[str, list[Any]]:
        """The columns of a named renderer's source."""
        columns: dict[str, list[Any]] = self.driver.execute_script(
            "const {data} = Bokeh.documents[0].get_model_by_name(arguments[0]).data_source;"
            "return Object.fromEntries(Object.entries(data).map(([k, v]) => [k, Array.from(v)]))",
            name,
        )
        return columns

    def zoom(self, left: float, right: float) -> None:
        """Set the window, and wait until it is drawn."""
        self.driver.execute_async_script(
            "const [left, right, done] = arguments;"
            "Bokeh.documents[0].get_model_by_name('gantt').x_range.setv({start: left, end: right});"
            "requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done)))",
            left,
            right,
        )

    def point(self, chart: str, x: float, y: float) -> tuple[int, int]:
        """Pixels of a point of a chart."""
        place = self.driver.execute_script(
            "const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name(arguments[0]));"
            "view.el.scrollIntoView({block: 'center'});"
            "const {left, top} = view.el.getBoundingClientRect(), {x_scale, y_scale} = view.frame;"
            "return [left + x_scale.compute(arguments[1]), top + y_scale.compute(arguments[2])]",
            chart,
            x,
            y,
        )
        return round(place[0]), round(place[1])

    def move(self, chart: str, x: float, y: float) -> ActionChains:
        actions = ActionChains(self.driver, duration=0)
        actions.w3c_actions.pointer_action.move_to_location(*self.point(chart, x, y))
        actions.perform()
        return actions

    def click(self, chart: str, x: float, y: float) -> None:
        actions = ActionChains(self.driver, duration=0)
        actions.w3c_actions.pointer_action.move_to_location(*self.point(chart, x, y))
        actions.w3c_actions.pointer_action.click()
        actions.perform()

    def errors(self) -> list[str]:
        """What the browser complained about since the page was opened."""
        log = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] in ("WARNING", "SEVERE")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if MISSING:
        why = f"no {' and no '.join(MISSING)} on this machine"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # both paths are given: Selenium downloads nothing
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver") or ""))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(30)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def run() -> Run:
    return made(cholesky(8), ranks=3, workers=4).run()


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Run], Path]:
    """Write the page of a run, once."""
    folder = tmp_path_factory.mktemp("pages")
    known: dict[int, Path] = {}

    def page(run: Run) -> Path:
        if id(run) not in known:
            known[id(run)] = folder / f"{len(known)}.html"
            write_page(run, known[id(run)])
        return known[id(run)]

    return page


@pytest.fixture
def page(browser: Browser, paged: Callable[[Run], Path], run: Run) -> Iterator[Browser]:
    """The page of `run`, opened anew; no test may leave a complaint of the browser."""
    browser.open(paged(run))
    yield browser
    assert browser.errors() == []


def middle(run: Run, row: int) -> tuple[float, float]:
    """The middle of a task in the Gantt chart."""
    task = run.tasks[row]
    return float(task["start"] + task["end"]) / 2 - run.begin, float(run.lanes[row])


def test_every_task_is_drawn_where_and_when_it_ran(page: Browser, run: Run) -> None:
    bars = page.data("bars")
    drawn = sorted(zip(*(bars[name] for name in ("task", "left", "right", "colour")), strict=True))
    expected = [
        (
            int(task["task"]),
            task["start"] - run.begin,
            task["end"] - run.begin,
            colour_of(run.kernels[task["kernel"]]),
        )
        for task in run.tasks
    ]
    assert [row[0] for row in drawn] == [row[0] for row in expected]
    assert [row[3] for row in drawn] == [row[3] for row in expected]
    for at in (1, 2):
        assert [row[at] for row in drawn] == pytest.approx([row[at] for row in expected])
    lanes = {
        task: (top + bottom) / 2
        for task, top, bottom in zip(bars["task"], bars["top"], bars["bottom"], strict=True)
    }
    assert [lanes[task] for task in range(120)] == pytest.approx(run.lanes.tolist())
    assert page.data("bins")["left"] == []


def test_hovering_tells_about_a_task(page: Browser, run: Run) -> None:
    row = 49
    page.move("gantt", *middle(run, row))
    text = " ".join(page.wait("tooltip().includes('number') && tooltip()").split())
    assert run.label(row) == "gemm A(3, 2)"
    task = run.tasks[row]
    worker = run.workers[run.lanes[row]]
    for words in (
        "gemm A(3, 2)",
        f"step k: {task['k']}",
        f"worker: rank {worker.rank} · {worker.name}",
        f"start: {task['start'] - run.begin:g} s",
        "duration: 2 s",
        "format: fp64",
        "energy: 3 J",
        f"Gflop/s: {task['flops'] / 2e9:.4g}".replace("e-0", "e-"),
        f"number: {row}",
    ):
        assert words in text


@pytest.mark.parametrize("row", [0, 49, 119])
def test_a_click_marks_what_a_task_waited_for_and_what_waited_for_it(
    page: Browser, run: Run, row: int
) -> None:
    page.click("gantt", *middle(run, row))
    page.wait("named('marks').data_source.data.role.length")
    marks = page.data("marks")
    source, target = run.edges
    marked: dict[str, set[int]] = {"chosen": set(), "before": set(), "after": set()}
    for role, task in zip(marks["role"], marks["task"], strict=True):
        marked[role].add(task)
    before, after = source[target == row], target[source == row]
    assert marked == {
        "chosen": {row},
        "before": set(run.tasks["task"][before].tolist()),
        "after": set(run.tasks["task"][after].tolist()),
    }
    # the others are dimmed, and lines lead to these
    page.wait("Array.from(named('bars').data_source.data.alpha).includes(0.2)")
    bars = page.data("bars")
    bright = {task for task, alpha in zip(bars["task"], bars["alpha"], strict=True) if alpha == 1}
    assert bright == set(marks["task"])
    assert len(page.data("links")["x0"]) == before.size + after.size
    assert run.label(row) in page.wait("named('picked').text")


def test_a_click_beside_the_tasks_lets_go(page: Browser, run: Run) -> None:
    page.click("gantt", *middle(run, 0))
    page.wait("named('marks').data_source.data.role.length")
    page.click("gantt", run.makespan / 2, -1.0)
    page.wait("named('marks').data_source.data.role.length == 0")
    page.wait("Array.from(named('bars').data_source.data.alpha).every((alpha) => alpha == 1)")
    assert page.data("links")["x0"] == []


def test_the_wheel_zooms_into_the_time_of_all_charts(page: Browser, run: Run) -> None:
    at = page.point("gantt", 10, 5)
    origin = ScrollOrigin.from_viewport(*at)
    ActionChains(page.driver, duration=0).scroll_from_origin(origin, 0, -400).perform()
    page.wait("named('gantt').x_range.end < 30")
    left, right = page.wait("(({start, end}) => [start, end])(named('gantt').x_range)")
    # what is under the pointer stays there
    assert left < 10 < right
    assert page.point("gantt", 10, 5) == pytest.approx(at, abs=2)
    page.wait("named('gantt').title.text.split(' ')[0] < 120")
    begin = run.begin
    inside = (run.tasks["end"] - begin >= left) & (run.tasks["start"] - begin <= right)
    assert sorted(page.data("bars")["task"]) == run.tasks["task"][inside].tolist()
    assert page.point("power", 10, 0)[0] == pytest.approx(at[0], abs=2)


def test_curves_and_bars_have_the_axis_of_the_tasks(page: Browser, run: Run) -> None:
    charts = ("gantt", "ready tasks", "power", "progress")
    assert len({page.wait(f"named('{name}').x_range.id") for name in charts}) == 1
    # and the same margins, so that a moment is at one place in all of them
    places = {page.point(name, 10, 0)[0] for name in charts}
    assert len(places) == 1
    curve = page.data("ready tasks: ready")
    assert max(curve["value"]) == 24
    assert page.data("power: package-0")["value"][0] == 50


def test_nothing_comes_from_a_network(page: Browser) -> None:
    loaded = page.driver.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []


# -- many tasks ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many() -> Run:
    return made(cholesky(84), ranks=2, workers=8).run()


@pytest.fixture
def crowd(browser: Browser, paged: Callable[[Run], Path], many: Run) -> Iterator[Browser]:
    browser.open(paged(many))
    yield browser
    assert browser.errors() == []


def test_many_tasks_are_shares_until_zoomed_in(crowd: Browser, many: Run) -> None:
    assert crowd.data("bars")["left"] == []
    assert "zoom in" in crowd.wait("named('gantt').title.text")
    bins = crowd.data("bins")
    # far less to draw than there is
    assert 1000 < len(bins["left"]) < 50_000
    crowd.zoom(1000, 1100)
    crowd.wait("named('bars').data_source.data.left.length")
    assert crowd.data("bins")["left"] == []
    begin = many.begin
    inside = (many.tasks["end"] - begin >= 1000) & (many.tasks["start"] - begin <= 1100)
    assert sorted(crowd.data("bars")["task"]) == many.tasks["task"][inside].tolist()
    crowd.zoom(0, many.makespan)
    crowd.wait("named('bins').data_source.data.left.length")
    assert crowd.data("bars")["left"] == []


def test_the_shares_in_the_browser_are_those_of_the_tasks(crowd: Browser, many: Run) -> None:
    crowd.zoom(0, many.makespan)
    bins = crowd.data("bins")
    expected = shares(many, 600)
    found = np.zeros_like(expected)
    lane = np.round((np.array(bins["top"]) + np.array(bins["bottom"])) / 2).astype(int)
    stretch = np.round(np.array(bins["left"]) / many.makespan * 600).astype(int)
    kernel = [many.kernels.index(name) for name in bins["kernel"]]
    found[lane, stretch, kernel] = (np.array(bins["bottom"]) - np.array(bins["top"])) / 0.84
    # what is less than a thousandth is not drawn
    np.testing.assert_allclose(found, expected, atol=1.1e-3)
    colours = {colour_of(name) for name in many.kernels}
    assert set(bins["colour"]) == colours


def test_a_task_among_many_can_be_clicked(crowd: Browser, many: Run) -> None:
    row = 50_000
    at, lane = middle(many, row)
    crowd.zoom(at - 20, at + 20)
    crowd.click("gantt", at, lane)
    crowd.wait("named('marks').data_source.data.role.length")
    source, target = many.edges
    related = {row, *source[target == row].tolist(), *target[source == row].tolist()}
    assert set(crowd.data("marks")["task"]) == set(many.tasks["task"][sorted(related)].tolist())


def test_curves_of_many_tasks_keep_their_peaks(crowd: Browser, many: Run) -> None:
    _, counts = ready_over_time(many)
    assert counts.size > 20_000
    most = crowd.wait("Math.max(...named('ready tasks: ready').data_source.data.value)")
    shown = crowd.wait("named('ready tasks: ready').data_source.data.time.length")
    assert most == counts.max()
    assert shown <= 4100


# -- maps of matrices ------------------------------------------------------------------------------


def test_the_map_is_coloured_by_what_is_selected(
    browser: Browser, paged: Callable[[Run], Path]
) -> None:
    trace = made(lu(5), ranks=2, workers=2)
    accesses = trace.tables["accesses"]
    accesses["format"] = (accesses["i"] + accesses["j"]) % 2
    run = trace.run()
    browser.open(paged(run))
    maps = tile_maps(run)
    assert [map_.name for map_ in maps] == ["A", "P"]
    seen = []
    for choice in ("time", "owner", "worker", "format"):
        browser.driver.execute_script(
            "Bokeh.documents[0].get_model_by_name('by').value = arguments[0]", choice
        )
        wanted = {"time": "div", "owner": "rank 1", "worker": "cpu 1", "format": "int32"}[choice]
        browser.wait(f"named('map legend').text.includes('{wanted}')")
        tiles = browser.data("tiles")
        assert (tiles["i"], tiles["j"]) == (maps[0].i.tolist(), maps[0].j.tolist())
        seen.append(tiles["colour"])
        codes = getattr(
            maps[0], {"time": "seconds", "owner": "rank", "worker": "lane"}.get(choice, choice)
        )
        # times are differences of clock readings, whose last bits differ
        codes = np.round(codes, 6)
        pairs = set(zip(codes.tolist(), tiles["colour"], strict=True))
        assert len(pairs) == len(set(codes.tolist())), "one colour a value"
        assert len(set(tiles["colour"])) == len(set(codes.tolist())), "one value a colour"
    assert all(a != b for number, a in enumerate(seen) for b in seen[:number])
    browser.driver.execute_script("Bokeh.documents[0].get_model_by_name('matrix').value = '1'")
    browser.wait("named('tiles').data_source.data.name[0].startsWith('P(')")
    assert browser.data("tiles")["i"] == maps[1].i.tolist()
    # row 0 on top
    assert browser.point("map", 0, 0)[1] < browser.point("map", 0, 4)[1]
    assert browser.errors() == []


def test_the_formats_of_a_real_run_are_seen(browser: Browser, paged: Callable[[Run], Path]) -> None:
    recorder = Recorder()
    A = tla.TiledMatrix.random((96, 96), 16, uplo="lower", kind="spd").with_precision(
        "fp64:1,fp32:2,bf16:rest"
    )
    with tla.engine("threads", workers=2, trace=recorder):
        tla.potrf(A)
    run = recorder.trace().run()
    # the parts of a matrix are one, and its copies are not shown
    assert [map_.name for map_ in tile_maps(run)] == ["A"]
    browser.open(paged(run))
    browser.driver.execute_script("Bokeh.documents[0].get_model_by_name('by').value = 'format'")
    browser.wait("named('map legend').text.includes('bf16')")
    tiles = browser.data("tiles")
    where = zip(tiles["i"], tiles["j"], tiles["format"], strict=True)
    assert {(i, j): name for i, j, name in where} == {
        (i, j): str(A.format_map[i, j]) for i, j in A.layout.tiles()
    }
    # every task has the tag that it computed in
    names = np.array(run.trace.names("formats"))[run.tasks["format"]]
    assert set(names) == {"fp64", "fp32", "bf16"}
    assert browser.errors() == []


# -- what traces may be ----------------------------------------------------------------------------


def test_names_do_nothing_but_show(browser: Browser, paged: Callable[[Run], Path]) -> None:
    run = nasty().run()
    browser.open(paged(run))
    # however long the names of workers are
    places = {browser.point(name, 3, 0)[0] for name in ("gantt", "ready tasks", "progress")}
    assert len(places) == 1
    browser.move("gantt", *middle(run, 0))
    browser.wait("tooltip().includes('onerror')")
    browser.click("gantt", *middle(run, 0))
    browser.wait("named('picked').text.includes('Task 0')")
    browser.driver.execute_script("Bokeh.documents[0].get_model_by_name('by').value = 'format'")
    browser.wait("named('map legend').text.includes('0&lt;')")
    images = browser.wait(
        "[nodes(document.documentElement).filter((node) => node.localName == 'img')]"
    )
    assert images == [[]]
    assert browser.driver.execute_script("return window.hit ?? 0") == 0
    assert browser.errors() == []


def test_a_failed_run_can_be_looked_at(browser: Browser, paged: Callable[[Run], Path]) -> None:
    run = failed().run()
    browser.open(paged(run))
    assert sorted(browser.data("bars")["task"]) == [0, 1]
    assert browser.errors() == []
