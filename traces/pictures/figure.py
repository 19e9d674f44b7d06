"""A figure of one run for a paper: PNG, SVG or PDF, made with matplotlib."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taskla.atomic import replacing
from taskla.traces.analysis import Summary, by_kernel, by_worker, summary
from taskla.traces.pictures.aggregation import shares
from taskla.traces.pictures.content import Panel, bound_lines, failure, lane_names, panels, title
from taskla.traces.pictures.palette import IDLE, INK, colour_of
from taskla.traces.pictures.units import ago, plain, time_unit
from taskla.traces.trace import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "STYLE", "draw", "need_matplotlib", "write_figure"]

#: Endings of the files that `write_figure` makes.
FORMATS = (".png", ".svg", ".pdf")

# More tasks are drawn as shares of so many stretches, pixels also where the rest is lines.
_SINGLE, _STRETCHES = 5000, 500

_HALF = 0.42

# Inches.
_LANE, _LEAST, _MOST, _PANEL, _LINE = 0.2, 0.6, 4.5, 0.75, 0.16

#: Settings of matplotlib for all figures.
STYLE: dict[Any, Any] = {
    # the letters that `_word` leaves are those of this one
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "axes.linewidth": 0.6,
    # text stays text: journals refuse fonts of outlines
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def write_figure(run: Run, path: str | os.PathLike[str], *, width: float = 5.2) -> None:
    """Write `draw` of a run to a file: PNG, SVG or PDF by its ending.

    Parameters
    ----------
    run : Run
    path : path
    width : float
        Inches; text has 8 to 9 points.

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

    # a picture of the same run is the same file, whenever it is made
    dates = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[kind]
    with rc_context({**STYLE, "svg.hashsalt": "taskla"}), replacing(path) as temporary:
        picture = draw(run, width=width)
        picture.savefig(temporary, format=kind[1:], dpi=300, metadata=dates)


def draw(run: Run, *, width: float = 5.2) -> Figure:
    """Return a Gantt chart with bounds, and ready tasks and power below it on the same axis.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    need_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figures = summary(run)
    below = panels(run)
    lanes = max(len(run.workers), 1)
    lines = bound_lines(figures)
    body = min(max(_LANE * lanes, _LEAST), _MOST)
    heights = [body + _LINE * len(lines), *(_PANEL for _ in below)]
    with rc_context(STYLE):
        # no pyplot: it would keep the figure, and ask for a display
        picture = Figure(figsize=(width, sum(heights) + 1.1), layout="constrained")
        charts = picture.subplots(
            len(heights), sharex=True, height_ratios=heights, squeeze=False
        ).ravel()
        unit, seconds = time_unit(run.makespan)
        _gantt(charts[0], run, seconds)
        _lines(charts[0], lines, seconds, lanes, _LINE * lanes / body)
        for chart, panel in zip(charts[1:], below, strict=True):
            _curves(chart, panel, seconds)
        charts[-1].set_xlabel(f"time ({unit})")
        charts[-1].set_xlim(0, 1.02 * (run.makespan / seconds or 1.0))
        picture.align_ylabels(charts)
        _words(picture, run, figures)
    return picture


def need_matplotlib() -> None:
    """Raise ImportError with the extra's name where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib: pip install 'taskla[viz]' (a .html page needs Bokeh)"
        ) from error


def _word(text: object, length: int = 40) -> str:
    """Return text as matplotlib can show it: no formula, no letter that its font lacks."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    words = "".join(c if font.get_char_index(ord(c)) else "?" for c in plain(text, length))
    return words.replace("$", r"\$")


def _gantt(chart: Axes, run: Run, seconds: float) -> None:
    from matplotlib.collections import PolyCollection

    many = run.tasks.size > _SINGLE
    corners, kernels = _stretches(run) if many else _boxes(run)
    corners[:, :, 0] /= seconds
    colours = np.array([colour_of(name) for name in run.kernels])
    chart.add_collection(
        PolyCollection(
            list(corners),
            facecolors=colours[kernels].tolist() if kernels.size else "none",
            edgecolors="none" if many else INK,
            linewidths=0.15,
            antialiased=not many,
            rasterized=many,
        )
    )
    names = [_word(name) for name in lane_names(run)]
    # as many names as there is room for
    step = -(-len(names) * _LANE // _MOST)
    chart.set_yticks(range(0, len(names), max(int(step), 1)), names[:: max(int(step), 1)])
    chart.tick_params(axis="y", length=0)
    for side in ("top", "right"):
        chart.spines[side].set_visible(False)
    _idle(chart, run, max(int(step), 1))


def _boxes(run: Run) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the corners (n, 4, 2) of all tasks, in seconds and lanes, and their kernels."""
    tasks = run.tasks
    left, right = tasks["start"] - run.begin, tasks["end"] - run.begin
    return _corners(left, right, run.lanes + _HALF, run.lanes - _HALF), tasks["kernel"].astype(int)


def _stretches(run: Run) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the same of kernels' shares of stretches of time, one upon the other."""
    share = shares(run, _STRETCHES)
    total = share.sum(axis=2, keepdims=True)
    tops = 2 * _HALF * np.cumsum(share, axis=2) / np.maximum(total, 1)
    lane, stretch, kernel = np.nonzero(share > 1e-3)
    width = run.makespan / _STRETCHES
    floor = lane + _HALF - tops[lane, stretch, kernel]
    height = 2 * _HALF * (share / np.maximum(total, 1))[lane, stretch, kernel]
    return _corners(stretch * width, (stretch + 1) * width, floor + height, floor), kernel


def _corners(left: Any, right: Any, low: Any, high: Any) -> NDArray[np.float64]:
    pairs = ((left, low), (right, low), (right, high), (left, high))
    return np.stack([np.stack(pair, axis=-1) for pair in pairs], axis=1).astype(np.float64)


def _idle(chart: Axes, run: Run, step: int) -> None:
    """Write each worker's idle share beside its lane."""
    place, written = chart.get_yaxis_transform(), []
    for lane, use in list(enumerate(by_worker(run)))[::step]:
        share = f"{use.idle_share:.0%}" if use.idle_share is not None else ""
        written.append((lane, share))
    for lane, words in (*written, (-step, "idle")):
        chart.annotate(
            words,
            (1, lane),
            xycoords=place,
            xytext=(26, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
        )


def _lines(
    chart: Axes, lines: list[tuple[str, float]], seconds: float, lanes: int, line: float
) -> None:
    # each ends at its words, and the next one to the right goes a line higher: none crosses them
    lines = sorted(lines, key=lambda named: named[1])
    most = lines[-1][1]
    for number, (name, length) in enumerate(lines):
        top, x = -0.5 - line * (number + 0.5), length / seconds
        chart.plot([x, x], [lanes - 0.5, top], color=INK, linewidth=1, linestyle=(0, (4, 2)))
        left = length < most / 3
        chart.annotate(
            f"{name} {ago(length)}",
            (x, top),
            xytext=(3 if left else -3, 0),
            textcoords="offset points",
            ha="left" if left else "right",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    chart.set_ylim(lanes - 0.5, -0.5 - line * len(lines))


def _curves(chart: Axes, panel: Panel, seconds: float) -> None:
    for curve in panel.curves:
        chart.step(
            curve.time / seconds,
            curve.value,
            where="post",
            color=curve.colour,
            linewidth=1,
            label=_word(curve.name),
            rasterized=curve.time.size > 20 * _STRETCHES,
        )
    chart.set_ylabel(panel.title)
    chart.set_ylim(bottom=0)
    chart.locator_params(axis="y", nbins=4, integer=True)
    chart.grid(color=IDLE, linewidth=0.4)
    chart.set_axisbelow(True)
    for side in ("top", "right"):
        chart.spines[side].set_visible(False)
    if len(panel.curves) > 1:
        chart.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handlelength=1)


def _words(picture: Figure, run: Run, figures: Summary) -> None:
    """Add what the run was, and the colours of the kernels."""
    from matplotlib.patches import Patch

    told = [title(run), ago(figures.makespan)]
    if figures.gflops:
        told.append(f"{figures.gflops:.4g} Gflop/s")
    # of 9 points about 12 an inch, if they are wide
    letters = int(12 * picture.get_figwidth())
    wrong = failure(run)
    head = [line for text in (" · ".join(told), wrong or "") for line in wrap(text, letters)]
    picture.suptitle("\n".join(_word(line, letters) for line in head), fontsize=9)
    kernels = [kernel.kernel for kernel in by_kernel(run)]
    names = [_word(name, 20) for name in kernels]
    columns = max(min(letters // (max(map(len, names), default=0) + 4), 6), 1)
    if names:
        picture.legend(
            [Patch(fc=colour_of(name), ec=INK, linewidth=0.3) for name in kernels],
            names,
            loc="outside lower center",
            ncols=min(columns, len(names)),
            frameon=False,
            handlelength=1,
            handleheight=1,
            columnspacing=1.2,
        )
    more = len(head) - 1 + max(-(-len(names) // columns) - 1, 0)
    picture.set_figheight(picture.get_figheight() + _LINE * more)
