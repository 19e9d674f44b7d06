"""The maps of matrices on a page."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from taskla.traces.pictures.aggregation import TileMap, tile_maps
from taskla.traces.pictures.content import lane_names
from taskla.traces.pictures.palette import IDLE, qualitative
from taskla.traces.pictures.parts import columns, models, script, swatches
from taskla.traces.pictures.units import ago, plain
from taskla.traces.trace import Run

__all__ = ["maps"]

_CHOICES = [
    ("time", "time of the tasks that wrote it"),
    ("owner", "owner: rank that wrote it last"),
    ("worker", "worker that wrote it last"),
    ("format", "number format"),
]
_TILE = [
    ("tile", "@name"),
    ("owner", "rank @rank"),
    ("last worker", "@worker"),
    ("format", "@format"),
    ("time", "@seconds"),
    ("tasks", "@tasks"),
]


def maps(run: Run, document: Any) -> list[Any]:
    """Return a chart of the tiles of a matrix with its choices, if any tile was written.

    The callback in `tiles.js` fills it once the document is ready.
    """
    from bokeh.layouts import column, row
    from bokeh.palettes import Cividis256

    bokeh, found = models(), tile_maps(run)
    if not found:
        return []
    names = [plain(map_.name, 20) for map_ in found]
    which = bokeh.Select(
        name="matrix",
        title="map of matrix",
        value="0",
        options=[(str(number), name) for number, name in enumerate(names)],
    )
    by = bokeh.Select(name="by", title="tiles coloured by", value="time", options=_CHOICES)
    legend = bokeh.Div(name="map legend", disable_math=True, width=320)
    chart = _chart()
    ranks, lanes = sorted({worker.rank for worker in run.workers}), lane_names(run)
    formats = [plain(name, 20) for name in run.trace.names("formats")]
    rank_colours = dict(zip(ranks, qualitative(len(ranks)), strict=True))
    callback = bokeh.CustomJS(
        code=script("tiles.js"),
        args={
            "maps": [bokeh.ColumnDataSource(_columns(map_, ranks)) for map_ in found],
            "sizes": [[map_.mt, map_.nt] for map_ in found],
            "map_names": names,
            "lane_names": lanes,
            "format_names": formats,
            "ranks": list(rank_colours.values()),
            "lanes": qualitative(len(lanes)),
            "formats": qualitative(len(formats)),
            "ramp": list(Cividis256),
            "legends": [_legends(map_, rank_colours, lanes, formats) for map_ in found],
            "which": which,
            "by": by,
            "chart": chart,
            "shown": chart.select_one({"name": "tiles"}).data_source,
            "legend": legend,
        },
    )
    which.js_on_change("value", callback)
    by.js_on_change("value", callback)
    document.js_on_event("document_ready", callback)
    return [row(chart, column(which, by, legend))]


def _chart() -> Any:
    from bokeh.plotting import figure

    bokeh = models()
    chart = figure(
        name="map",
        width=556,
        height=460,
        x_range=bokeh.Range1d(-0.5, 0.5),
        y_range=bokeh.Range1d(0.5, -0.5),
        tools="",
        toolbar_location=None,
        x_axis_label="tile column j",
        y_axis_label="tile row i",
        x_axis_location="above",
        min_border_left=136,
    )
    chart.axis.axis_label_text_font_style = "normal"
    chart.axis.ticker = bokeh.BasicTicker(min_interval=1, num_minor_ticks=0)
    chart.grid.grid_line_color = None
    chart.outline_line_color = IDLE
    source = columns("i j colour name rank worker format seconds tasks")
    chart.rect("j", "i", 1, 1, source=source, name="tiles", color="colour", line_width=0.6)
    chart.add_tools(bokeh.HoverTool(tooltips=_TILE))
    return chart


def _columns(map_: TileMap, ranks: list[int]) -> dict[str, Any]:
    most = map_.seconds.max() or 1.0
    return {
        **{name: getattr(map_, name).astype(np.int32) for name in ("i", "j", "lane", "format")},
        "rank": np.searchsorted(ranks, map_.rank).astype(np.int32),
        "tasks": map_.tasks.astype(np.int32),
        "shade": np.round(map_.seconds / most * 255).astype(np.int32),
        "words": [ago(seconds) for seconds in map_.seconds.tolist()],
    }


def _legends(
    map_: TileMap, ranks: dict[int, str], lanes: list[str], formats: list[str]
) -> list[str]:
    """Return what stands beside the map, for each of the choices in their order."""
    from bokeh.palettes import Cividis256

    ramp = ", ".join(Cividis256[::16])
    time = (
        f"<div style='width:220px;height:14px;background:linear-gradient(to right, {ramp})'></div>"
        f"<div style='width:220px;display:flex;justify-content:space-between'><span>0</span>"
        f"<span>{escape(ago(float(map_.seconds.max())))}</span></div>"
    )
    owners = [(ranks[rank], f"rank {rank}") for rank in np.unique(map_.rank).tolist()]
    tints = qualitative(len(lanes))
    workers = [(tints[lane], lanes[lane]) for lane in np.unique(map_.lane).tolist()]
    tints = qualitative(len(formats))
    kinds = [(tints[code], formats[code]) for code in np.unique(map_.format).tolist()]
    return [time, swatches(owners), swatches(workers), swatches(kinds)]
