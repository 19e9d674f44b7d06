"""A page of one run to look around in: HTML that needs no network, made with Bokeh."""

from __future__ import annotations

import os
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.atomic import replacing
from taskla.traces.analysis import Summary, by_kernel, summary
from taskla.traces.pictures import charts, tiles
from taskla.traces.pictures.content import facts, failure, lane_names, panels, title
from taskla.traces.pictures.palette import INK, QUALITATIVE, colour_of
from taskla.traces.pictures.parts import models, script, swatches, words
from taskla.traces.pictures.units import plain, time_unit
from taskla.traces.trace import Run

__all__ = ["html", "write_page"]

_HINT = (
    "A click on a task marks it, those that it waited for and those that waited for it. "
    "The wheel zooms into the time, dragging moves it, the square tool zooms into a box."
)


def write_page(run: Run, path: str | os.PathLike[str]) -> None:
    """Write `html` of a run to a file.

    Raises
    ------
    ImportError
        Without Bokeh.
    OSError
        When the file cannot be written.
    """
    text = html(run)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def html(run: Run) -> str:
    """Return a page: a Gantt chart, curves on its time axis, and a map of each matrix.

    Raises
    ------
    ImportError
        Without Bokeh.
    """
    try:
        from bokeh.document import Document
        from bokeh.embed import file_html
        from bokeh.layouts import column, row
        from bokeh.resources import INLINE
    except ImportError as error:
        raise ImportError(
            "pages need Bokeh: pip install 'taskla[viz]' (a .png, .svg or .pdf needs matplotlib)"
        ) from error
    figures = summary(run)
    unit, seconds = time_unit(run.makespan)
    picked = words("picked", _HINT)
    chart = charts.gantt(run, figures, unit, seconds)
    below = [charts.curves(panel, chart.x_range, unit, seconds) for panel in panels(run)]
    document = Document(title=f"{title(run)} · taskla")
    parts: list[Any] = [
        words("heading", _heading(run, figures)),
        words("legend", _legend(run)),
        row(chart, charts.idle(run, chart.y_range), sizing_mode="stretch_width"),
        picked,
        *(panel for panel, _ in below),
        *charts.steps(run, chart.x_range, unit, seconds),
        *tiles.maps(run, document),
    ]
    document.add_root(column(*parts, sizing_mode="stretch_width", styles={"padding": "8px 16px"}))
    pairs = [pair for _, sources in below for pair in sources]
    _connect(document, run, chart, pairs, picked, unit, seconds)
    return str(file_html(document, INLINE))


def _connect(
    document: Any,
    run: Run,
    chart: Any,
    curves: list[list[Any]],
    picked: Any,
    unit: str,
    seconds: float,
) -> None:
    """Have the window that is in view, and clicks, fill the charts."""
    bokeh = models()
    order = np.lexsort((run.tasks["start"], run.lanes))
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    source, target = run.edges
    edges = {"source": _small(place[source]), "target": _small(place[target])}
    callback = bokeh.CustomJS(
        code=script("gantt.js"),
        args={
            "tasks": bokeh.ColumnDataSource(_columns(run, order, seconds), name="tasks"),
            "edges": bokeh.ColumnDataSource(edges, name="edges"),
            "chart": chart,
            **{name: chart.select_one({"name": name}).data_source for name in charts.FILLED},
            "curves": curves,
            "picked": picked,
            "kernels": [plain(name) for name in run.kernels],
            "colours": [colour_of(name) for name in run.kernels],
            "matrices": [plain(name, 20) for name in run.trace.names("matrices")],
            "formats": [plain(name, 20) for name in run.trace.names("formats")],
            "compressions": [plain(name, 20) for name in run.trace.names("compressions")],
            "lanes": lane_names(run),
            "unit": unit,
            "seconds": seconds,
            "tints": [QUALITATIVE[0], QUALITATIVE[5]],
        },
    )
    for range_ in (chart.x_range, chart.y_range):
        range_.js_on_change("start", callback)
        range_.js_on_change("end", callback)
    for event in ("tap", "doubletap"):
        chart.js_on_event(event, callback)
    document.js_on_event("document_ready", callback)


def _columns(run: Run, order: NDArray[np.int64], seconds: float) -> dict[str, NDArray[Any]]:
    """Return what the page knows of each task, by lane and start, in as few bytes as will do."""
    tasks = run.tasks[order]
    whole = ("task", "kernel", "matrix", "i", "j", "k", "format", "compression", "lr_rank")
    return {
        "start": (tasks["start"] - run.begin) / seconds,
        "end": (tasks["end"] - run.begin) / seconds,
        "lane": _small(run.lanes[order]),
        **{name: _small(tasks[name]) for name in (*whole, "tile_tasks")},
        # shown with four digits, never added up
        **{name: tasks[name].astype(np.float32) for name in ("flops", "joules")},
    }


def _small(values: NDArray[Any]) -> NDArray[Any]:
    """Return integers in the shortest type that holds them."""
    least = np.min_scalar_type(-max(int(values.max(initial=0)), -int(values.min(initial=0))) - 1)
    return values.astype(least)


def _heading(run: Run, figures: Summary) -> str:
    told = "".join(
        f"<span style='white-space:nowrap;margin-right:1.5em'>{escape(name)} <b>{escape(value)}</b>"
        "</span> "
        for name, value in facts(run, figures)
    )
    wrong = failure(run)
    warning = (
        f"<div style='color:#b00020;font-weight:bold;margin:4px 0'>This run {escape(wrong)}</div>"
        if wrong
        else ""
    )
    return (
        f"<h1 style='font:bold 20px sans-serif;color:{INK};margin:4px 0'>{escape(title(run))}</h1>"
        f"{warning}<div style='font:13px sans-serif;line-height:1.6;color:{INK}'>{told}</div>"
    )


def _legend(run: Run) -> str:
    """Return swatches of the kernels, the one that took the longest first."""
    named = []
    for kernel in by_kernel(run):
        share = "" if kernel.share is None else f" {kernel.share:.1%}"
        named.append((colour_of(kernel.kernel), f"{plain(kernel.kernel)}{share}"))
    return swatches([*named, (charts.EMPTY, "no task")], "share of busy time:")
