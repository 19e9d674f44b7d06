"""The chart of a matrix on the dashboard's page: tiles, their colours, and what these mean."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.engines.dask_progress_tiles import State, Tiles
from taskla.traces.pictures.palette import IDLE, INK, QUALITATIVE, qualitative
from taskla.traces.pictures.parts import columns, models
from taskla.traces.pictures.units import ago, plain

if TYPE_CHECKING:
    from taskla.engines.dask_progress import Program

__all__ = ["CHOICES", "DONE", "FAILED", "RUNNING", "WAITING", "Chart", "colouring"]

#: What tiles may be coloured by.
CHOICES = ("state", "owner", "worker", "format", "time")

WAITING, RUNNING, DONE, FAILED = IDLE, QUALITATIVE[1], QUALITATIVE[0], QUALITATIVE[7]

# Shades between waiting and done, the last of which is still told from done.
_LEVELS = 8

# More names than that say nothing.
_MOST = 24

_COLUMNS = "i j shade state tasks done owner worker format seconds"
_STATES = ("waiting", "running", "done", "failed", "updated")
# The largest square tiles that fit, in the upper left corner; a few columns of many rows, or the
# other way around, are made wider than that, to be seen.
_FIT = """
const [mt, nt] = chart.tags, {inner_width: w, inner_height: h} = chart;
if (mt > 0 && nt > 0 && w > 0 && h > 0) {
  const size = Math.min(w / nt, h / mt), least = 24;
  const [x, y] = [Math.max(size, Math.min(least / nt, w / nt)),
                  Math.max(size, Math.min(least / mt, h / mt))];
  chart.x_range.setv({start: -0.5, end: w / x - 0.5});
  chart.y_range.setv({start: h / y - 0.5, end: -0.5});
}
"""
_LENGTH = """
const [unit, size] = value >= 1 ? ["s", 1] : value >= 1e-3 ? ["ms", 1e-3] : ["µs", 1e-6];
return value > 0 ? `${+(value / size).toPrecision(4)} ${unit}` : "none";
"""


class Colouring(NamedTuple):
    """Colours of tiles: of each a place in a palette, and a legend in HTML."""

    shade: NDArray[np.int32]
    palette: list[str]
    legend: str


class Chart:
    """A chart of tiles with its legend.

    Attributes
    ----------
    figure, legend : bokeh.models.Plot, bokeh.models.Div
    """

    def __init__(self) -> None:
        from bokeh.plotting import figure

        bokeh = models()
        self.legend = bokeh.Div(name="taskla legend", disable_math=True, width=330)
        self.figure = chart = figure(
            name="taskla chart",
            sizing_mode="stretch_both",
            x_range=bokeh.Range1d(-0.5, 0.5),
            y_range=bokeh.Range1d(0.5, -0.5),
            tools="",
            toolbar_location=None,
            x_axis_label="tile column j",
            y_axis_label="tile row i",
            x_axis_location="above",
        )
        chart.axis.axis_label_text_font_style = "normal"
        chart.xaxis.axis_label_align = "start"
        chart.axis.ticker = bokeh.BasicTicker(min_interval=1, num_minor_ticks=0)
        chart.axis.axis_line_color = chart.grid.grid_line_color = None
        chart.outline_line_color = None
        self._mapper = bokeh.LinearColorMapper(palette=[WAITING], low=-0.5, high=0.5)
        shade: Any = {"field": "shade", "transform": self._mapper}
        self._tiles = chart.rect(
            "j", "i", 1, 1, source=columns(_COLUMNS), name="taskla tiles", fill_color=shade
        )
        self._workers = bokeh.CustomJSHover(code="return names[value] ?? 'none yet'")
        self._formats = bokeh.CustomJSHover(code="return names[value]")
        self._hover = bokeh.HoverTool(
            renderers=[self._tiles],
            formatters={
                "@state": bokeh.CustomJSHover(
                    args={"names": list(_STATES)}, code="return names[value]"
                ),
                "@worker": self._workers,
                "@format": self._formats,
                "@seconds": bokeh.CustomJSHover(code=_LENGTH),
            },
        )
        chart.add_tools(self._hover)
        fit = bokeh.CustomJS(args={"chart": chart}, code=_FIT)
        for property_ in ("inner_width", "inner_height", "tags"):
            chart.js_on_change(property_, fit)
        # what is shown: its columns, and of which program, matrix, colours and version it is
        self._shown: dict[str, NDArray[Any]] = {}
        self._of: tuple[Any, ...] = ()

    def show(self, program: Program | None, matrix: int, by: str) -> None:
        """Show a matrix of a program, coloured by one of `CHOICES`; what has not changed stays."""
        of = (program, matrix, by, None if program is None else program.version)
        if of == self._of:
            return
        same = self._of[:2] == of[:2]
        self._of = of
        self.figure.visible = program is not None and any(program.writes[matrix : matrix + 1])
        if program is None or not self.figure.visible:
            self.legend.text = "" if program is None else "No task writes a tile of it."
            return
        tiles = program.tiles(matrix)
        colours = colouring(tiles, by, program)
        i, j = np.nonzero(tiles.tasks)
        data = {name: getattr(tiles, name)[i, j] for name in _COLUMNS.split()[3:]}
        data = {"i": i, "j": j, "shade": colours.shade[i, j], **data}
        # what browsers have
        data = {
            name: column.astype(np.float32 if name == "seconds" else np.int32)
            for name, column in data.items()
        }
        if not same or self._shown["i"].size != i.size:
            self._aim(program, matrix)
        if self._mapper.palette != colours.palette:
            self._mapper.update(palette=colours.palette, high=len(colours.palette) - 0.5)
        names = {"names": [plain(name) for name in program.workers]}
        if self._workers.args != names:
            self._workers.args = names
        self._send(data)
        if self.legend.text != colours.legend:
            self.legend.text = colours.legend

    def _aim(self, program: Program, matrix: int) -> None:
        """Fit axes and words to a matrix."""
        name, mt, nt, _ = program.matrices[matrix]
        glyph, few = self._tiles.glyph, max(mt, nt) <= 64
        glyph.line_color = "#ffffff" if few else {"field": "shade", "transform": self._mapper}
        glyph.line_width = 1 if few else 0.6
        self.figure.xaxis.bounds = (-0.5, nt - 0.5)
        self.figure.yaxis.bounds = (-0.5, mt - 0.5)
        self.figure.tags = [mt, nt]
        self._formats.args = {"names": list(program.formats)}
        self._hover.tooltips = [
            ("tile", f"{plain(name, 20)}(@i, @j)"),
            ("state", "@state{custom}"),
            ("tasks done", "@done of @tasks"),
            ("owner", "rank @owner"),
            ("worker", "@worker{custom}"),
            ("format", "@format{custom}"),
            ("time", "@seconds{custom}"),
        ]

    def _send(self, data: dict[str, NDArray[Any]]) -> None:
        """Send the tiles that have changed, or all of them where that is less."""
        source: Any = self._tiles.data_source
        count = data["i"].size
        shown, self._shown = self._shown, data
        if not shown or shown["i"].size != count or not np.array_equal(shown["i"], data["i"]):
            source.data = dict(data)
            return
        changed = {name: np.nonzero(data[name] != shown[name])[0] for name in data}
        if sum(rows.size for rows in changed.values()) * 8 > count:
            source.data = dict(data)
            return
        patches = {
            name: list(zip(rows.tolist(), data[name][rows].tolist(), strict=True))
            for name, rows in changed.items()
            if rows.size
        }
        if patches:
            source.patch(patches)


def colouring(tiles: Tiles, by: str, program: Program) -> Colouring:
    """Return the colours of tiles by one of `CHOICES`."""
    if by == "state":
        return _by_state(tiles)
    if by == "time":
        return _by_time(tiles)
    if by == "owner":
        count = int(tiles.owner.max(initial=-1)) + 1
        there = np.unique(tiles.owner[tiles.owner >= 0]).tolist()
        tints = qualitative(max(count, 1))
        return Colouring(tiles.owner, tints, _legend([(tints[k], f"rank {k}") for k in there]))
    if by == "format":
        tints = qualitative(max(len(program.formats), 1))
        there = np.unique(tiles.format[tiles.format >= 0]).tolist()
        named = [(tints[k], plain(program.formats[k], 20)) for k in there]
        return Colouring(tiles.format, tints, _legend(named))
    names = program.workers
    tints = [WAITING, *qualitative(len(names))]
    there = np.unique(tiles.worker[tiles.worker >= 0]).tolist()
    named = [(tints[k + 1], plain(names[k])) for k in there]
    return Colouring(tiles.worker + 1, tints, _legend([*named, (WAITING, "none yet")]))


def _by_state(tiles: Tiles) -> Colouring:
    between = [_mixed(WAITING, DONE, 0.15 + 0.5 * k / (_LEVELS - 1)) for k in range(_LEVELS)]
    palette = [WAITING, *between, RUNNING, DONE, FAILED]
    level = _LEVELS * tiles.done // np.maximum(tiles.tasks, 1)
    shade = np.select(
        [tiles.state == State.PARTLY, tiles.state > State.WAITING],
        [1 + np.minimum(level, _LEVELS - 1), _LEVELS + tiles.state],
    )
    counts = {state: int((tiles.state == state).sum()) for state in State}
    named = [
        (DONE, f"done: {counts[State.DONE]}"),
        (RUNNING, f"running, or next on its worker: {counts[State.RUNNING]}"),
        (between[_LEVELS // 2], f"updated, not yet done: {counts[State.PARTLY]}"),
        (WAITING, f"waiting: {counts[State.WAITING]}"),
    ]
    if counts[State.FAILED]:
        named.append((FAILED, f"failed: {counts[State.FAILED]}"))
    return Colouring(shade.astype(np.int32), palette, _legend(named))


def _by_time(tiles: Tiles) -> Colouring:
    from bokeh.palettes import Cividis256

    spent = np.nan_to_num(tiles.seconds)
    most = float(spent.max(initial=0.0))
    shade = np.where(spent > 0, 1 + np.round(spent / (most or 1.0) * 255), 0)
    ramp = ", ".join(Cividis256[::16])
    legend = (
        f"<div style='font:13px sans-serif;color:{INK}'><div style='width:220px;height:14px;"
        f"background:linear-gradient(to right, {ramp})'></div><div style='width:220px;display:flex;"
        f"justify-content:space-between'><span>0</span><span>{escape(ago(most))}</span></div>"
        f"</div>{_legend([(WAITING, 'none yet')])}"
    )
    return Colouring(shade.astype(np.int32), [WAITING, *Cividis256], legend)


def _mixed(one: str, other: str, share: float) -> str:
    parts = ((int(one[at : at + 2], 16), int(other[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in parts)


def _legend(named: list[tuple[str, str]]) -> str:
    """Return colours and names, one below the other, as HTML."""
    shown = "".join(
        f"<div><span style='display:inline-block;width:14px;height:14px;background:{colour};"
        f"margin-right:7px;vertical-align:-2px'></span>{escape(name)}</div>"
        for colour, name in named[:_MOST]
    )
    more = f"<div>and {len(named) - _MOST} more</div>" if len(named) > _MOST else ""
    return f"<div style='font:13px sans-serif;line-height:1.7;color:{INK}'>{shown}{more}</div>"
