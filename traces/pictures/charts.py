"""The charts of a page that share its time axis, as Bokeh's figures.

Gantt chart and curves come empty: the callback in `gantt.js` fills them for what is in view.
"""

from __future__ import annotations

from typing import Any

from taskla.traces.analysis import Summary, by_worker, progress
from taskla.traces.pictures.content import Panel, bound_lines, lane_names
from taskla.traces.pictures.palette import HIGHLIGHT, IDLE, INK, QUALITATIVE
from taskla.traces.pictures.parts import columns, models
from taskla.traces.pictures.units import ago
from taskla.traces.trace import Run

__all__ = ["EMPTY", "FILLED", "curves", "gantt", "idle", "steps"]

#: Behind tasks.
EMPTY = "#ffffff"

#: Names of what the callback fills.
FILLED = ("bins", "bars", "marks", "links")

# Pixels. All charts have the same margins, so that their time axes stand one below the other.
_LEFT, _RIGHT, _TOP, _IDLE = 136, 20, 34, 170
_LINE = 16

_TASK = [
    ("task", "@label"),
    ("step k", "@step"),
    ("worker", "@worker"),
    ("start", "@from"),
    ("duration", "@lasting"),
    ("format", "@format"),
    ("Gflop/s", "@rate"),
    ("energy", "@joules"),
    ("number", "@task"),
]
_STRETCH = [
    ("kernel", "@kernel, @share"),
    ("busy in all", "@busy"),
    ("worker", "@worker"),
    ("from", "@from"),
    ("to", "@to"),
]


def gantt(run: Run, figures: Summary, unit: str, seconds: float) -> Any:
    """Return an empty Gantt chart, a lane a worker, with the bounds as vertical lines."""
    from bokeh.plotting import figure

    bokeh = models()
    lanes, lines = len(run.workers), bound_lines(figures)
    height = min(max(28 * lanes, 120), 640)
    line = _LINE * max(lanes, 1) / height
    length = (run.makespan / seconds) or 1.0
    wheel = bokeh.WheelZoomTool(dimensions="width")
    chart = figure(
        name="gantt",
        title=" ",
        height=height + _LINE * len(lines) + 90,
        sizing_mode="stretch_width",
        x_range=bokeh.Range1d(0, 1.02 * length, bounds=(-0.02 * length, 1.04 * length)),
        y_range=bokeh.Range1d(lanes - 0.5, -0.5 - line * (len(lines) + 0.3)),
        tools=[
            bokeh.PanTool(dimensions="width"),
            wheel,
            bokeh.BoxZoomTool(),
            bokeh.ResetTool(),
            bokeh.SaveTool(),
        ],
        active_scroll=wheel,
        min_border_left=_LEFT,
        min_border_right=_RIGHT,
        min_border_top=_TOP,
        toolbar_location="above",
    )
    chart.toolbar.logo = None
    _style(chart, f"time ({unit})", "")
    _name_lanes(chart, run)
    bins, bars = _tasks(chart)
    chart.add_tools(
        bokeh.HoverTool(renderers=[bars], tooltips=_TASK, limit=3, visible=False),
        bokeh.HoverTool(renderers=[bins], tooltips=_STRETCH, limit=1, visible=False),
    )
    _bounds(chart, lines, line, lanes, seconds)
    return chart


def _style(chart: Any, x: str, y: str) -> None:
    bokeh = models()
    # of what is counted there are no halves
    least = 0 if "(" in y else 1
    chart.yaxis.ticker = bokeh.BasicTicker(
        min_interval=least, desired_num_ticks=4, num_minor_ticks=0
    )
    chart.xaxis.axis_label, chart.yaxis.axis_label = x, y
    chart.axis.axis_label_text_font_style = "normal"
    chart.axis.axis_label_standoff = 4
    chart.title.text_font_style = "normal"
    chart.title.text_color = INK
    chart.outline_line_color = IDLE
    chart.grid.grid_line_color = "#eeeeee"


def _name_lanes(chart: Any, run: Run) -> None:
    bokeh = models()
    names = lane_names(run)
    chart.yaxis.ticker = bokeh.FixedTicker(ticks=list(range(len(names))), minor_ticks=[])
    chart.yaxis.major_label_overrides = dict(enumerate(names))
    chart.yaxis.major_label_policy = bokeh.NoOverlap(min_distance=1)
    chart.yaxis.major_tick_line_color = None
    chart.ygrid.grid_line_color = None
    ranks = [worker.rank for worker in run.workers]
    # every other rank stands on a band
    for rank in sorted(set(ranks))[1::2]:
        first = ranks.index(rank)
        last = first + ranks.count(rank)
        chart.add_layout(
            bokeh.BoxAnnotation(
                bottom=first - 0.5,
                top=last - 0.5,
                fill_color=INK,
                fill_alpha=0.06,
                line_color=None,
                level="image",
            )
        )


def _tasks(chart: Any) -> tuple[Any, Any]:
    """Add what the callback fills, and return the renderers that tell about themselves."""
    box = {"left": "left", "right": "right", "top": "top", "bottom": "bottom"}
    sides = "left right top bottom "
    bins = chart.quad(
        **box,
        source=columns(sides + "colour kernel share busy worker from to"),
        name="bins",
        fill_color="colour",
        line_color=None,
    )
    bars = chart.quad(
        **box,
        source=columns(
            sides + "colour alpha row task label step worker from lasting format rate joules"
        ),
        name="bars",
        fill_color="colour",
        fill_alpha="alpha",
        line_color=INK,
        line_alpha="alpha",
        line_width=0.3,
    )
    chart.segment(
        "x0",
        "y0",
        "x1",
        "y1",
        source=columns("x0 y0 x1 y1 colour"),
        name="links",
        line_color="colour",
        line_width=1.2,
    )
    chart.quad(
        **box,
        source=columns(sides + "role task width"),
        name="marks",
        fill_color=None,
        line_color=HIGHLIGHT,
        line_width="width",
    )
    return bins, bars


def _bounds(
    chart: Any, lines: list[tuple[str, float]], line: float, lanes: int, seconds: float
) -> None:
    # each line ends at its words, and the next one to the right goes a line higher: none crosses
    lines = sorted(lines, key=lambda named: named[1])
    tops = [-0.5 - line * (number + 0.5) for number in range(len(lines))]
    at = [length / seconds for _, length in lines]
    most = max(at) or 1.0
    left = [x < most / 3 for x in at]
    source = {
        "x": at,
        "top": tops,
        "bottom": [lanes - 0.5] * len(lines),
        "words": [f"{name} {ago(length)}" for name, length in lines],
        "align": ["left" if side else "right" for side in left],
        "offset": [5 if side else -5 for side in left],
    }
    drawn = chart.segment(
        "x", "bottom", "x", "top", source=source, name="bounds", line_color=INK, line_width=1.5
    )
    drawn.glyph.line_dash = [5, 3]
    chart.text(
        "x",
        "top",
        "words",
        source=drawn.data_source,
        text_align="align",
        x_offset="offset",
        text_baseline="middle",
        text_font_size="12px",
        text_color=INK,
        background_fill_color=EMPTY,
    )


def idle(run: Run, lanes: Any) -> Any:
    """Return bars of how much of the makespan each worker was idle, beside its lane."""
    from bokeh.plotting import figure

    bokeh = models()
    uses = by_worker(run)
    spent = {
        "lane": list(range(len(uses))),
        "worker": lane_names(run),
        "idle": [100 * (use.idle_share or 0.0) for use in uses],
        "overhead": [100 * (use.overhead_share or 0.0) for use in uses],
        "words": [f"{use.idle_share or 0.0:.1%}" for use in uses],
    }
    height = min(max(28 * len(uses), 120), 640)
    chart = figure(
        name="idle",
        title="idle",
        width=_IDLE,
        height=height + _LINE * 3 + 90,
        x_range=bokeh.Range1d(0, 100),
        y_range=lanes,
        tools="",
        toolbar_location=None,
        min_border_right=_RIGHT,
        min_border_top=_TOP,
    )
    _style(chart, "idle share (%)", "")
    chart.yaxis.visible = False
    chart.ygrid.grid_line_color = None
    chart.xaxis.ticker = [0, 50, 100]
    bars = chart.hbar("lane", right="idle", height=0.84, source=spent, color=IDLE)
    told = [("worker", "@worker"), ("idle", "@idle{0.0} %"), ("overhead", "@overhead{0.0} %")]
    chart.add_tools(bokeh.HoverTool(renderers=[bars], tooltips=told))
    if height >= 12 * len(uses):
        chart.text(
            x=3,
            y="lane",
            text="words",
            source=bars.data_source,
            text_baseline="middle",
            text_font_size="11px",
            text_color=INK,
        )
    return chart


def _below(name: str, height: int, time: Any, x: str, y: str, **more: Any) -> Any:
    """Return an empty chart on the time axis of the Gantt chart."""
    from bokeh.plotting import figure

    bokeh = models()
    wheel = bokeh.WheelZoomTool(dimensions="width")
    chart = figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        x_range=time,
        tools=[bokeh.PanTool(dimensions="width"), wheel],
        active_scroll=wheel,
        toolbar_location=None,
        min_border_left=_LEFT,
        min_border_right=_RIGHT + _IDLE,
        **more,
    )
    _style(chart, x, y)
    return chart


def curves(panel: Panel, time: Any, unit: str, seconds: float) -> tuple[Any, list[list[Any]]]:
    """Return a chart of empty curves, and of each the whole source and the one that is shown."""
    bokeh = models()
    name = panel.title.partition(" (")[0]
    rising = bokeh.DataRange1d(start=0, range_padding=0.1)
    chart = _below(name, 150, time, f"time ({unit})", panel.title, y_range=rising)
    pairs, items = [], []
    for curve in panel.curves:
        whole = bokeh.ColumnDataSource({"time": curve.time / seconds, "value": curve.value})
        shown = chart.step(
            "time",
            "value",
            source=columns("time value"),
            name=f"{name}: {curve.name}",
            mode="after",
            color=curve.colour,
            line_width=1.5,
        )
        pairs.append([whole, shown.data_source])
        items.append(bokeh.LegendItem(label={"value": curve.name}, renderers=[shown]))
    legend = bokeh.Legend(items=items, location="top_left", border_line_color=None, padding=2)
    legend.label_text_font_size = "12px"
    chart.add_layout(legend, "right")
    return chart, pairs


def steps(run: Run, time: Any, unit: str, seconds: float) -> list[Any]:
    """Return a chart of the time that each step of the algorithm's loop took, if it has any."""
    bokeh = models()
    found = progress(run)
    if not found:
        return []
    source = {
        "k": [step.k for step in found],
        "left": [step.start / seconds for step in found],
        "right": [step.end / seconds for step in found],
        "from": [ago(step.start) for step in found],
        "to": [ago(step.end) for step in found],
        "tasks": [step.tasks for step in found],
    }
    chart = _below("progress", 200, time, f"time ({unit})", "step k")
    bars = chart.hbar("k", left="left", right="right", height=0.8, source=source)
    bars.glyph.fill_color = bars.glyph.line_color = QUALITATIVE[0]
    told = [("step k", "@k"), ("from", "@from"), ("to", "@to"), ("tasks", "@tasks")]
    chart.add_tools(bokeh.HoverTool(renderers=[bars], tooltips=told, limit=3))
    return [chart]
