"""Figures of a run for papers: what they show, and that nothing in them overlaps."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_traces import cholesky, lu, made, real
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from strange_traces import failed, nasty

from taskla.traces import Recorder, Run
from taskla.traces.analysis import by_worker, ready_over_time, summary
from taskla.traces.pictures.content import bound_lines
from taskla.traces.pictures.figure import draw, write_figure
from taskla.traces.pictures.palette import colour_of
from taskla.traces.pictures.units import ago


@pytest.fixture(scope="module")
def run() -> Run:
    return made(cholesky(8), ranks=3, workers=4).run()


@pytest.fixture(scope="module")
def many() -> Run:
    return made(cholesky(40), ranks=2, workers=4).run()


def gantt(picture: Figure) -> tuple[Axes, PolyCollection]:
    chart = picture.axes[0]
    (tasks,) = [c for c in chart.collections if isinstance(c, PolyCollection)]
    return chart, tasks


def words(picture: Figure) -> dict[Text, Any]:
    """Every text that is seen, and its box in pixels."""
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    renderer = canvas.get_renderer()
    frame = picture.bbox
    found = {}
    for text in picture.findobj(Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(renderer)
            if box.width and _drawn(text, picture):
                assert frame.x0 <= box.x0 <= box.x1 <= frame.x1, f"{text} sticks out"
                assert frame.y0 <= box.y0 <= box.y1 <= frame.y1, f"{text} sticks out"
                found[text] = box
    return found


def _drawn(text: Text, picture: Figure) -> bool:
    """Ticks beyond the limits of an axis are there and are not drawn."""
    for chart in picture.axes:
        for axis in (chart.xaxis, chart.yaxis):
            if text in {tick.label1 for tick in axis.get_major_ticks()}:
                low, high = sorted(axis.get_view_interval())
                at = text.get_position()[0 if axis is chart.xaxis else 1]
                return bool(low <= at <= high)
    return True


def test_every_task_is_a_box_in_the_colour_of_its_kernel(run: Run) -> None:
    chart, tasks = gantt(draw(run))
    corners = np.array([path.vertices[:4] for path in tasks.get_paths()])
    assert len(corners) == run.tasks.size
    np.testing.assert_allclose(
        corners[:, :, 0].min(axis=1), run.tasks["start"] - run.begin, atol=1e-9
    )
    np.testing.assert_allclose(corners[:, :, 0].max(axis=1), run.tasks["end"] - run.begin)
    np.testing.assert_allclose(corners[:, :, 1].mean(axis=1), run.lanes, atol=1e-9)
    colours = [to_hex(colour) for colour in np.asarray(tasks.get_facecolors())]
    assert colours == [colour_of(run.kernels[code]) for code in run.tasks["kernel"]]
    names = [label.get_text() for label in chart.get_yticklabels()]
    assert names == [f"rank {rank} · cpu {worker}" for rank in range(3) for worker in range(4)]


def test_bounds_are_lines_with_their_lengths(run: Run) -> None:
    chart, _ = gantt(draw(run))
    expected = {f"{name} {ago(seconds)}": seconds for name, seconds in bound_lines(summary(run))}
    assert len(expected) == 3
    assert {line.get_xdata()[0] for line in chart.lines} == set(expected.values())  # type: ignore[index]
    texts = {text.get_text(): text for text in chart.texts}
    for name, seconds in expected.items():
        assert texts[name].xy[0] == seconds  # type: ignore[attr-defined]


def test_panels_axes_and_legend_have_names_and_units(run: Run) -> None:
    picture = draw(run)
    assert [chart.get_ylabel() for chart in picture.axes[1:]] == ["ready tasks", "power (W)"]
    assert picture.axes[-1].get_xlabel() == "time (s)"
    (legend,) = picture.legends
    assert [text.get_text() for text in legend.get_texts()] == ["gemm", "trsm", "syrk", "potrf"]
    for patch, name in zip(legend.get_patches(), ("gemm", "trsm", "syrk", "potrf"), strict=True):
        assert to_hex(patch.get_facecolor()) == colour_of(name)
    shares = [f"{use.idle_share:.0%}" for use in by_worker(run)]
    texts = [text.get_text() for text in picture.axes[0].texts]
    assert texts[: len(shares) + 1] == [*shares, "idle"]
    (curve,) = picture.axes[2].lines
    assert set(np.asarray(curve.get_ydata())) == {50.0}
    (curve,) = picture.axes[1].lines
    times, counts = ready_over_time(run)
    np.testing.assert_allclose(curve.get_xydata(), np.column_stack([times, counts]))
    # a count holds until the next
    assert curve.get_drawstyle() == "steps-post"


def test_a_run_without_power_has_no_axis_for_it() -> None:
    recorder = Recorder()
    recording = recorder.start(cholesky(1), workers=1)
    recording.start[0], recording.end[0] = recording.begin, recording.begin + 2e-5
    recording.close()
    picture = draw(recorder.trace().run())
    assert [chart.get_ylabel() for chart in picture.axes[1:]] == ["ready tasks"]
    assert picture.axes[-1].get_xlabel() == "time (µs)"


def pictured(name: str) -> Run:
    match name:
        case "real":
            return real(n=256, nb=32).run()
        case "failed":
            return failed().run()
        case "nasty":
            return nasty().run()
        case "crowded":
            return made(cholesky(12), ranks=6, workers=16).run()
        case "meters":
            trace = made(cholesky(5))
            for about in trace.header["series"]:
                about.update(kind="power", unit="W")
            return trace.run()
        case _:
            return made(lu(6), joules=None).run()


@pytest.mark.parametrize("name", ["real", "lu", "failed", "nasty", "crowded", "meters"])
def test_no_words_overlap_or_stick_out(name: str) -> None:
    boxes = words(draw(pictured(name)))
    assert len(boxes) > 10
    for (a, box), (b, other) in combinations(boxes.items(), 2):
        # a point of its own line spacing may be shared, letters may not
        across = min(box.x1, other.x1) - max(box.x0, other.x0)
        along = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert across <= 0 or along <= 2, f"{a} and {b} overlap"
    # at column width still six points
    assert min(text.get_fontsize() for text in boxes) >= 8


def test_a_failed_run_says_so() -> None:
    picture = draw(failed().run())
    title = picture.get_suptitle()
    assert "failed: ValueError" in title


# -- many tasks ------------------------------------------------------------------------------------


def test_many_tasks_are_shares_of_stretches(many: Run) -> None:
    assert many.tasks.size > 10_000
    _, tasks = gantt(draw(many))
    corners = np.array([path.vertices[:4] for path in tasks.get_paths()])
    assert len(corners) < 500 * len(many.workers) * len(many.kernels)
    # pixels in an SVG or PDF too
    assert tasks.get_rasterized()
    # what each kernel took of each lane is the area of its boxes
    sizes = np.ptp(corners, axis=1).prod(axis=1) / 0.84
    lanes = np.round(corners[:, :, 1].mean(axis=1)).astype(int)
    colours = np.array([to_hex(colour) for colour in np.asarray(tasks.get_facecolors())])
    for code, kernel in enumerate(many.kernels):
        mine = colours == colour_of(kernel)
        found = np.bincount(lanes[mine], weights=sizes[mine], minlength=len(many.workers))
        ran = many.tasks["kernel"] == code
        took = np.bincount(
            many.lanes[ran], weights=many.durations[ran], minlength=len(many.workers)
        )
        # shares below a thousandth are left out
        np.testing.assert_allclose(found, took, atol=1e-3 * many.makespan)


def test_files_of_many_tasks_are_small(many: Run, tmp_path: Path) -> None:
    for kind in ("svg", "pdf"):
        path = tmp_path / f"many.{kind}"
        write_figure(many, path)
        assert path.stat().st_size < 1e6


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_run_makes_the_same_file(run: Run, tmp_path: Path, kind: str) -> None:
    paths = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for path in paths:
        write_figure(run, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert sorted(tmp_path.iterdir()) == paths


def test_a_png_has_the_width_that_was_asked_for(run: Run, tmp_path: Path) -> None:
    write_figure(run, tmp_path / "a.png", width=4)
    pixels = imread(tmp_path / "a.png")
    assert pixels.shape[1] == 1200
    seen = {to_hex(colour) for colour in np.unique(pixels[:, :, :3].reshape(-1, 3), axis=0)}
    assert {colour_of(kernel) for kernel in run.kernels} <= seen


def test_an_svg_keeps_its_words(run: Run, tmp_path: Path) -> None:
    write_figure(run, tmp_path / "a.svg")
    texts = {text.strip() for node in ET.parse(tmp_path / "a.svg").iter() if (text := node.text)}
    assert {"gemm", "rank 2 · cpu 3", "makespan 33 s", "time (s)", "power (W)"} <= texts


def test_a_pdf_has_fonts_that_journals_take(run: Run, tmp_path: Path) -> None:
    write_figure(run, tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/TrueType" in content or b"/CIDFontType2" in content
    assert b"/Type3" not in content


def test_names_that_are_formulas_or_without_letters_are_drawn(tmp_path: Path) -> None:
    trace = nasty()
    trace.header["kernels"] = ["$x^$", r"\frac{", "名前", "_a_"][: len(trace.header["kernels"])]
    # a warning would be an error here
    write_figure(trace.run(), tmp_path / "a.svg")
    texts = {text for node in ET.parse(tmp_path / "a.svg").iter() if (text := node.text)}
    assert {"$x^$", r"\frac{", "??"} <= texts


def test_no_other_ending_is_taken(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.png, \.svg, \.pdf"):
        write_figure(run, tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_no_window_is_opened_and_no_setting_is_left(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from made_traces import made\n"
        "import matplotlib\n"
        # looking at the backend would choose one
        "names = matplotlib.rcParams.keys() - {'backend'}\n"
        "settings = lambda: {name: matplotlib.rcParams[name] for name in names}\n"
        "before = settings()\n"
        "from taskla.traces.pictures.figure import write_figure\n"
        "write_figure(made().run(), sys.argv[2])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert settings() == before\n"
    )
    tests = str(Path(__file__).parent)
    result = subprocess.run(
        [sys.executable, "-c", code, tests, str(tmp_path / "a.png")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr


def test_without_matplotlib_the_extra_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"taskla\[viz\]"):
        write_figure(run, tmp_path / "a.png")
