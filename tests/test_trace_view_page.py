"""What pictures of traces show, the page of a run, and `taskla trace view`.

What a browser does with the page is in `test_trace_view_browser.py`.
"""

import html as escaping
import json
import sys
from collections import defaultdict
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from bokeh.document import Document
from click.testing import CliRunner, Result
from made_traces import cholesky, lu, made
from numpy.typing import NDArray
from strange_traces import NASTY, failed, nasty

from taskla.cli import main
from taskla.cli.trace import view
from taskla.traces import Recorder, Run, read, write
from taskla.traces.pictures.aggregation import shares, tile_maps
from taskla.traces.pictures.content import failure, lane_names, panels, title
from taskla.traces.pictures.page import html
from taskla.traces.pictures.palette import IDLE, QUALITATIVE, colour_of, qualitative
from taskla.traces.pictures.units import ago, plain, quantity, time_unit


@pytest.fixture(scope="module")
def run() -> Run:
    """Three ranks of four workers, with messages, power and joules."""
    return made(cholesky(8), ranks=3, workers=4).run()


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return html(run)


def models(page: str) -> dict[str, Any]:
    """The named models of a page, as Bokeh reads them."""
    (text,) = [body for tag, body in parts(page) if tag == ("script", "application/json")]
    (document,) = json.loads(escaping.unescape(text)).values()
    return {model.name: model for model in Document.from_json(document).models if model.name}


def data(model: Any) -> dict[str, Any]:
    """The columns of a source, or of a renderer's source."""
    columns: dict[str, Any] = getattr(model, "data_source", model).data
    return columns


def parts(page: str) -> list[tuple[tuple[str, str], str]]:
    """(tag, type) and text of every script and style of a page."""
    found = []

    class Parser(HTMLParser):
        tag: tuple[str, str] | None = None

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tag = (tag, dict(attrs).get("type") or "") if tag in ("script", "style") else None

        def handle_data(self, data: str) -> None:
            if self.tag:
                found.append((self.tag, data))
                self.tag = None

    Parser().feed(page)
    return found


def tags(page: str) -> list[str]:
    found: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)

    Parser().feed(page)
    return found


# -- colours and words -----------------------------------------------------------------------------


# Kernels that meet in one program.
PROGRAMS = (
    ("potrf", "trsm", "syrk", "gemm"),
    ("potrf", "trsm", "herk", "gemm"),
    ("potrf", "trsm", "syrk", "gemm", "trtri", "trmm", "lauum"),
    ("getrf", "laswp", "trsm", "gemm", "lacpy", "laset"),
    (
        *("getrf_tnt_leaf", "getrf_tnt_merge", "getrf_tnt_pivots"),
        *("laswp", "getrf_nopiv", "trsm", "gemm"),
    ),
    ("symm", "gemm", "lascl", "geadd"),
)

# What dichromats see, in linear RGB: Machado, Oliveira, Fernandes: A physiologically-based model
# for simulation of color vision deficiency, IEEE TVCG 2009, severity 1.
EYES = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def lab(colour: str, eyes: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* of an sRGB colour as those eyes see it, white point D65."""
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(eyes @ linear, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("kernels", PROGRAMS, ids="-".join)
def test_kernels_of_a_program_are_told_apart_by_all_eyes(
    kernels: tuple[str, ...], eyes: str
) -> None:
    seen = {name: lab(colour_of(name), EYES[eyes]) for name in kernels}
    distances = {
        pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(kernels, 2)
    }
    # about 2.3 is just noticeable
    assert min(distances.values()) > 14, min(distances, key=lambda pair: distances[pair])


def test_a_kernel_has_one_colour_in_every_process() -> None:
    assert colour_of("gemm") == "#009e73"
    assert colour_of("syrk") == colour_of("herk")
    # as other programs call them
    assert colour_of("dgemm") == colour_of("zgemm") == colour_of("gemm")
    assert colour_of("dposv") != colour_of("zposv")
    # names that nobody has planned for: by a hash that does not differ from run to run
    assert [colour_of(name) for name in ("chol", "axpy", "", "\ud800")] == [
        "#aa4499",
        "#999933",
        "#cc6677",
        "#ddcc77",
    ]
    assert IDLE not in {colour_of(str(name)) for name in range(100)}


def test_more_things_than_colours_still_have_colours() -> None:
    assert qualitative(3) == list(QUALITATIVE[:3])
    many = qualitative(20)
    assert len(set(many)) == 20
    assert all(len(colour) == 7 for colour in qualitative(200))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (12412.3, "12412 s"),
        (1.5, "1.5 s"),
        (0.0123456, "12.35 ms"),
        (2e-6, "2 µs"),
        (3e-12, "0.003 ns"),
    ],
)
def test_lengths_of_time_are_readable(seconds: float, words: str) -> None:
    assert ago(seconds) == words


def test_units_of_an_axis() -> None:
    assert [time_unit(s)[0] for s in (0, 1e-9, 1e-6, 9.9e-4, 1e-3, 1, 5e3)] == [
        "s",
        "ns",
        "µs",
        "µs",
        "ms",
        "s",
        "s",
    ]
    assert [quantity(v, "J") for v in (0, 0.0032, 1.5, 12345, float("nan"))] == [
        "0 J",
        "3.2 mJ",
        "1.5 J",
        "12.35 kJ",
        "unavailable",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gemm", "gemm"),
        ("a\nb\t c\x00", "a b c"),
        ("x" * 50, "x" * 39 + "…"),
        # what Bokeh would take for formulas
        ("$$x$$", "$ $x$ $"),
        ("$$$", "$ $ $"),
        (r"\(x\)\[y", r"\ (x\)\ [y"),
    ],
)
def test_words_of_a_trace_stay_on_a_line_and_are_no_formula(text: str, shown: str) -> None:
    assert plain(text) == shown


# -- sums ------------------------------------------------------------------------------------------


def test_shares_are_what_tasks_spent_in_each_stretch(run: Run) -> None:
    bins = 37
    expected = np.zeros((12, bins, len(run.kernels)))
    edges = np.linspace(0, run.makespan, bins + 1)
    for row, task in enumerate(run.tasks):
        for at, (left, right) in enumerate(pairwise(edges)):
            start, end = task["start"] - run.begin, task["end"] - run.begin
            overlap = max(min(end, right) - max(start, left), 0)
            expected[run.lanes[row], at, task["kernel"]] += overlap / (right - left)
    np.testing.assert_allclose(shares(run, bins), expected, atol=1e-9)


@pytest.mark.parametrize("nt", [1, 5])
def test_maps_of_matrices_against_a_loop_over_the_accesses(nt: int) -> None:
    run = made(lu(nt), ranks=2, workers=2).run()
    seconds: dict[Any, float] = defaultdict(float)
    last: dict[Any, Any] = {}
    for access in run.accesses:
        if access["mode"] == 1:
            continue
        row = int(np.flatnonzero(run.tasks["task"] == access["task"])[0])
        tile = int(access["matrix"]), int(access["i"]), int(access["j"])
        of_task = run.accesses[run.accesses["task"] == access["task"]]
        seconds[tile] += run.durations[row] / np.count_nonzero(of_task["mode"] != 1)
        if tile not in last or run.tasks["end"][row] >= run.tasks["end"][last[tile]]:
            last[tile] = row
    found = {}
    for map_ in tile_maps(run):
        (code,) = [matrix["code"] for matrix in run.matrices if matrix["name"] == map_.name]
        assert (map_.mt, map_.nt) == ((nt, nt) if map_.name == "A" else (nt, 1))
        for at in range(map_.i.size):
            tile = code, int(map_.i[at]), int(map_.j[at])
            found[tile] = float(map_.seconds[at])
            row = last[tile]
            assert (map_.rank[at], map_.lane[at]) == (run.tasks["rank"][row], run.lanes[row])
    scratch = {matrix["code"] for matrix in run.matrices if matrix["scratch"]}
    expected = {tile: total for tile, total in seconds.items() if tile[0] not in scratch}
    assert found == pytest.approx(expected)


def test_ready_tasks_and_power_share_the_axis(run: Run) -> None:
    ready, power = panels(run)
    assert (ready.title, power.title) == ("ready tasks", "power (W)")
    (curve,) = power.curves
    assert (curve.name, set(curve.value)) == ("package-0", {50.0})
    assert curve.time[0] == 0
    assert curve.time[-1] == pytest.approx(run.makespan)
    assert np.all(np.diff(curve.time) >= 0)
    tasks = run.tasks
    (curve,) = ready.curves
    for at in np.linspace(0.1, run.makespan - 0.1, 50):
        waiting = (tasks["ready"] - run.begin <= at) & (tasks["start"] - run.begin > at)
        assert curve.value[np.searchsorted(curve.time, at, side="right") - 1] == waiting.sum()


def test_curves_of_a_page_are_steps(page: str) -> None:
    found = models(page)
    for name in ("ready tasks: ready", "power: package-0"):
        assert found[name].glyph.mode == "after"


def test_a_sample_of_power_holds_since_the_one_before() -> None:
    trace = made(cholesky(3), workers=1)
    run = trace.run()
    samples = trace.tables["samples"]
    power = [
        number for number, about in enumerate(trace.header["series"]) if about["kind"] == "power"
    ]
    mine = np.flatnonzero(np.isin(samples["series"], power))
    samples["value"][mine] = np.arange(mine.size) * 10
    (curve,) = panels(run)[1].curves
    # half a second before the sample of second 3 the power was the 30 W that it tells
    assert curve.value[np.searchsorted(curve.time, 2.5, side="right") - 1] == 30


# -- the page --------------------------------------------------------------------------------------


def test_a_page_needs_nothing_else(page: str) -> None:
    found = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("link", "iframe", "img", "object", "embed")
            for name, value in attrs:
                if name in ("src", "href", "data", "srcset"):
                    found.append(f"{tag} {name}={value}")

    Links().feed(page)
    assert found == []
    assert "@import" not in "".join(body for (tag, _), body in parts(page) if tag == "style")


def test_a_page_has_every_task_and_edge(run: Run, page: str) -> None:
    found = models(page)
    tasks, edges = data(found["tasks"]), data(found["edges"])
    order = np.lexsort((run.tasks["start"], run.lanes))
    for name in ("task", "kernel", "matrix", "i", "j", "k", "lr_rank", "tile_tasks", "format"):
        assert np.array_equal(tasks[name], run.tasks[name][order]), name
    assert np.array_equal(tasks["lane"], run.lanes[order])
    # the axis is in seconds, and the run begins at 0
    np.testing.assert_allclose(tasks["start"], run.tasks["start"][order] - run.begin)
    np.testing.assert_allclose(tasks["end"], run.tasks["end"][order] - run.begin)
    number = np.asarray(tasks["task"])
    shown = set(
        zip(number[edges["source"]].tolist(), number[edges["target"]].tolist(), strict=True)
    )
    source, target = (run.tasks["task"][end].tolist() for end in run.edges)
    assert shown == set(zip(source, target, strict=True))


def test_bounds_are_lines_and_labelled(run: Run, page: str) -> None:
    graph = nx.DiGraph()
    for source, target in zip(*run.edges, strict=True):
        graph.add_edge(source, target, weight=run.durations[source])
    last = max(graph.nodes, key=lambda node: run.tasks["end"][node])
    path = nx.dag_longest_path_length(graph) + run.durations[last]
    lines = data(models(page)["bounds"])
    expected = {
        "area bound": run.durations.sum() / 12,
        "critical path": path,
        "makespan": run.makespan,
    }
    words = [f"{name} {ago(seconds)}" for name, seconds in expected.items()]
    assert dict(zip(lines["words"], lines["x"], strict=True)) == pytest.approx(
        dict(zip(words, expected.values(), strict=True))
    )
    # each higher than the one to its left, so that no line crosses the words of another
    assert lines["x"] == sorted(lines["x"])
    assert all(below > above for below, above in pairwise(lines["top"]))


def test_heading_and_legend_tell_what_ran(run: Run, page: str) -> None:
    found = models(page)
    text = found["heading"].text
    assert title(run) == "potrf, n = 32, nb = 4"
    for words in (
        "potrf, n = 32, nb = 4",
        "engine <b>threads</b>",
        "policy <b>prio</b>",
        "workers <b>12 on 3 ranks</b>",
        "makespan <b>33 s</b>",
        "energy <b>367 J (measured)</b>",
        "Gflop/s <b>",
    ):
        assert words in text
    legend = found["legend"].text
    for kernel in ("potrf", "trsm", "syrk", "gemm"):
        assert f"background:{colour_of(kernel)}" in legend
        assert f">{kernel} " in legend


def test_energy_that_is_not_known_is_not_zero() -> None:
    run = made(cholesky(2), joules=None).run()
    assert "energy <b>unavailable</b>" in models(html(run))["heading"].text


def test_lanes_name_the_rank_where_there_are_several(run: Run) -> None:
    assert lane_names(run)[:5] == [*(f"rank 0 · cpu {w}" for w in range(4)), "rank 1 · cpu 0"]
    assert lane_names(made(cholesky(2)).run()) == ["cpu 0", "cpu 1"]


def test_a_failed_run_says_so() -> None:
    run = failed().run()
    assert failure(run) == f"failed: ValueError: {plain(NASTY, 300)} (2 of 4 tasks did not run)"
    text = models(html(run))["heading"].text
    assert "This run failed: ValueError: &lt;/script&gt;" in text
    assert failure(made(cholesky(2)).run()) is None


def test_a_run_of_which_nothing_ran_has_a_page() -> None:
    recorder = Recorder()
    recorder.start(cholesky(2), workers=1).close(KeyboardInterrupt())
    found = models(html(recorder.trace().run()))
    assert "This run interrupted: KeyboardInterrupt" in found["heading"].text
    assert len(data(found["tasks"])["start"]) == 0
    assert not {"map", "progress", "ready tasks"} & set(found)


def test_names_are_escaped() -> None:
    page = html(nasty().run())
    assert "onerror" in page
    assert tags(page) == tags(html(made(cholesky(3), ranks=2).run()))
    found = models(page)
    for name in ("heading", "legend", "picked"):
        assert "<img" not in found[name].text
    # no formula, for which Bokeh would look for its library in the network
    assert "bokeh-mathjax" not in page
    assert "$$" not in json.dumps([found[name].text for name in ("heading", "legend")])


def test_100_000_tasks_make_a_page_of_a_few_megabytes() -> None:
    trace = made(cholesky(84), ranks=2, workers=8)
    run = trace.run()
    page = html(run)
    assert run.tasks.size > 100_000
    assert run.edges[0].size > 290_000
    assert len(page) < 30e6
    # charts come empty: the browser fills them with no more than it can draw
    found = models(page)
    assert all(len(column) == 0 for column in data(found["bars"]).values())
    assert all(len(column) == 0 for column in data(found["bins"]).values())


def test_without_bokeh_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh.document", None)
    with pytest.raises(ImportError, match=r"taskla\[viz\]"):
        html(made(cholesky(2)).run())


# -- taskla trace view -----------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.trace"
    write(made(cholesky(3), repeats=3), path)
    return path


def shown(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["trace", "view", *map(str, arguments)])


def test_view_writes_a_page_beside_the_trace_and_prints_its_name(file: Path) -> None:
    result = shown(file)
    assert (result.exit_code, result.stdout) == (0, f"{file.with_suffix('.html')}\n")
    # of three repeats that take longer and longer the second
    run = read(file).run()
    assert run.number == 1
    tasks = data(models(file.with_suffix(".html").read_text(encoding="utf-8"))["tasks"])
    assert np.max(tasks["end"]) == pytest.approx(run.makespan)


def test_view_of_one_run(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "last.html"
    assert shown(file, "--run", 2, "-o", out).exit_code == 0
    tasks = data(models(out.read_text(encoding="utf-8"))["tasks"])
    assert np.max(tasks["end"]) == pytest.approx(read(file).run(2).makespan)


@pytest.mark.parametrize(
    ("ending", "begins"),
    [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")],
)
def test_view_makes_figures_by_the_ending(
    file: Path, tmp_path: Path, ending: str, begins: bytes
) -> None:
    out = tmp_path / f"figure{ending}"
    assert shown(file, "-o", out).exit_code == 0
    assert out.read_bytes().startswith(begins)


def test_view_refuses_what_it_cannot_write(file: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir()), file.read_bytes()
    for arguments, words in (
        (("-o", tmp_path / "a.gif"), "it must end in .html, .png, .svg, .pdf"),
        (("-o", tmp_path / "none" / "a.html"), "no such folder"),
        (("--run", 3), "runs 0 to 2"),
    ):
        result = shown(file, *arguments)
        assert result.exit_code != 0
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()[-1]) < 300
    assert (sorted(tmp_path.iterdir()), file.read_bytes()) == before


def test_view_does_not_replace_the_trace_by_its_picture(tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    write(made(cholesky(2)), file)
    before = file.read_bytes()
    result = shown(file)
    assert result.exit_code == 2
    assert "which is read: give another name" in result.stderr
    assert file.read_bytes() == before


def test_view_opens_what_it_wrote_when_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(view.click, "launch", opened.append)
    assert shown(file).exit_code == 0
    assert opened == []
    assert shown(file, "--open").exit_code == 0
    assert opened == [str(file.with_suffix(".html").resolve())]
