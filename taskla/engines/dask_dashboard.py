"""A page of the dashboard of a Dask scheduler: matrices as grids of tiles, coloured as they change.

In a process that makes its scheduler call `register` before, `add_page` after; for others there is
``dask scheduler --preload taskla.engines.dask_dashboard``. The page shows what a plugin of the
scheduler named "taskla" has as its ``progress``.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from taskla.engines.dask_dashboard_tiles import CHOICES, Chart
from taskla.traces.pictures.palette import INK
from taskla.traces.pictures.parts import models, words
from taskla.traces.pictures.units import ago, plain

if TYPE_CHECKING:
    from taskla.engines.dask_progress import Matrix, Program, Totals

__all__ = ["ADDRESS", "ALONE", "TasklaTiles", "add_page", "dask_setup", "register"]

#: Of the page, with the dashboard's menu.
ADDRESS = "taskla"

#: Of the page alone, in the menu under "More...", and for JupyterLab.
ALONE = "individual-taskla-tiles"

#: Milliseconds from one look at the programs to the next.
_INTERVAL = 200

_NEWEST = ("", "the newest")


def register() -> None:
    """Have the schedulers that this process makes from now on serve the page.

    Does nothing without Bokeh: there is no dashboard then.
    """
    try:
        from distributed.dashboard.scheduler import applications
    except ImportError:
        return
    for path, page in _pages().items():
        applications.setdefault(path, page)


def add_page(scheduler: Any) -> None:
    """Have a scheduler serve the page, and name it in the menu of its dashboard.

    To be called in the event loop of the scheduler, at any time; more than once makes no
    difference. Does nothing without a dashboard.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    """
    register()
    routes: Any = getattr(scheduler, "http_application", None)
    servers = [app for app in getattr(routes, "applications", ()) if hasattr(app, "app_paths")]
    if not servers:
        return
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables
    from tornado.ioloop import IOLoop

    # made once for a scheduler: its pages have these very lists
    menu = template_variables(scheduler)
    known = {path for server in servers for path in server.app_paths}
    missing = {path: page for path, page in _pages().items() if path not in known}
    if missing:
        # what a server of Bokeh serves is settled when it is made, hence another one beside it
        server = BokehApplication(missing, scheduler, servers[0].prefix, menu)
        routes.add_application(server)
        server.initialize(IOLoop.current())
        server.start()
    if ADDRESS not in menu["pages"]:
        # "info" is the last one
        menu["pages"].insert(-1, ADDRESS)
    if all(plot["url"] != ALONE for plot in menu["plots"]):
        menu["plots"].append({"url": ALONE, "name": "Taskla Tiles"})
        menu["plots"].sort(key=lambda plot: plot["name"])


def dask_setup(dask_scheduler: Any) -> None:
    """Add the page: what ``dask scheduler --preload`` calls."""
    add_page(dask_scheduler)


def _pages() -> dict[str, Any]:
    from distributed.dashboard.components.scheduler import individual_doc

    return {f"/{ADDRESS}": _page, f"/{ALONE}": individual_doc(TasklaTiles, _INTERVAL)}


def _page(scheduler: Any, extra: dict[str, Any], doc: Any) -> None:
    """Fill a document with the page and the dashboard's menu."""
    from distributed.dashboard.components.scheduler import BOKEH_THEME, add_periodic_callback, env

    page = TasklaTiles(scheduler, sizing_mode="stretch_both")
    page.update()
    add_periodic_callback(doc, page, _INTERVAL)
    doc.add_root(page.root)
    doc.title = "Dask: taskla"
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME


class TasklaTiles:
    """The page as one of Dask's components: it has a ``root``, and is told to ``update``.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    **layout
        Of Bokeh's ``column``.
    """

    def __init__(self, scheduler: Any, **layout: Any) -> None:
        from bokeh.layouts import column, row

        bokeh = models()
        self._scheduler = scheduler
        self._chart = Chart()
        self._heading, self._bar = words("taskla heading", ""), words("taskla bar", "")
        self._bar.stylesheets = [".bk-clearfix { width: 100% }"]
        self._which = bokeh.Select(
            name="taskla matrix", title="matrix", value="", options=[_NEWEST], width=330
        )
        self._by = bokeh.RadioButtonGroup(
            name="taskla colours", labels=list(CHOICES), active=0, width=330
        )
        for widget, property_ in ((self._which, "value"), (self._by, "active")):
            # bokeh looks at the names of the parameters
            widget.on_change(property_, lambda attr, old, new: self.update())
        told = bokeh.Div(text="tiles coloured by", styles={"margin-bottom": "-4px"})
        side = column(self._which, told, self._by, self._chart.legend, width=350)
        charts = row(side, self._chart.figure, sizing_mode="stretch_both")
        self.root = column(self._heading, self._bar, charts, **layout)

    def update(self) -> None:
        """Show what has changed, if anything."""
        plugin = self._scheduler.plugins.get("taskla")
        progress = getattr(plugin, "progress", None)
        programs = [] if progress is None else list(progress.programs.values())
        self._offer(programs)
        program, number = self._chosen(programs)
        # first, so that words speak of tiles that a browser has already
        self._chart.show(program, number, CHOICES[self._by.active or 0])
        if program is None:
            _set(self._heading, text=_title("No program of taskla has come to this scheduler yet."))
            _set(self._bar, text="")
        else:
            totals = program.totals()
            _set(self._heading, text=_heading(program, number, totals))
            _set(self._bar, text=_bar(totals))

    def _offer(self, programs: list[Program]) -> None:
        """Have the matrices to choose from in the list, the newest first."""
        options = [_NEWEST]
        for program in reversed(programs):
            for number, matrix in enumerate(program.matrices):
                if program.writes[number]:
                    words = f"{_name(program)}: {plain(matrix.name, 20)}, {_shape(matrix)} tiles"
                    options.append((f"{program.number}.{number}", words))
        _set(self._which, options=options)
        if self._which.value not in dict(options):
            self._which.value = ""

    def _chosen(self, programs: list[Program]) -> tuple[Program | None, int]:
        """Return the program that is shown, and which of its matrices."""
        number, _, matrix = self._which.value.partition(".")
        for program in programs:
            if number == str(program.number):
                return program, int(matrix)
        if not programs:
            return None, 0
        writes = programs[-1].writes
        return programs[-1], writes.index(max(writes)) if writes else 0


def _set(model: Any, **properties: Any) -> None:
    """Set properties of a model, if that changes them: a browser is told of every setting."""
    for name, value in properties.items():
        if getattr(model, name) != value:
            setattr(model, name, value)


def _name(program: Program) -> str:
    return f"#{program.number + 1} {plain(program.name)}"


def _shape(matrix: Matrix) -> str:
    return f"{matrix.mt} x {matrix.nt}"


def _title(text: str) -> str:
    return f"<div style='font:bold 20px sans-serif;color:{INK};margin:4px 0'>{escape(text)}</div>"


def _heading(program: Program, number: int, totals: Totals) -> str:
    """Return a title and a line of numbers as HTML."""
    facts = [
        ("tasks done", f"{totals.done} of {totals.tasks}"),
        ("Gflop/s", f"{totals.gflops:.3g}" if totals.gflops < 1000 else f"{totals.gflops:.0f}"),
        ("time", ago(totals.elapsed) if totals.elapsed < 1 else f"{totals.elapsed:.1f} s"),
        ("running", f"{totals.running}"),
        ("recomputed", f"{totals.recomputed}"),
    ]
    title = _name(program)
    if program.matrices:
        matrix = program.matrices[number]
        formats = ", ".join(matrix.formats)
        facts.insert(0, (plain(matrix.name, 20), f"{_shape(matrix)} tiles of {formats}"))
    told = "".join(
        f"<span style='white-space:nowrap;margin-right:1.5em'>{escape(name)} <b>{escape(value)}</b>"
        "</span> "
        for name, value in facts
    )
    wrong = (
        f"<b style='color:#b00020;white-space:nowrap'>{totals.failed} "
        f"task{'s' * (totals.failed > 1)} failed</b>"
        if totals.failed
        else ""
    )
    return f"{_title(title)}<div style='font:13px sans-serif;color:{INK}'>{told}{wrong}</div>"


def _bar(totals: Totals) -> str:
    """Return a bar of what is done, on workers and failed, as HTML."""
    from taskla.engines.dask_dashboard_tiles import DONE, FAILED, RUNNING, WAITING

    parts = ((totals.done, DONE), (totals.running, RUNNING), (totals.failed, FAILED))
    most = max(totals.tasks, 1)
    shown = "".join(
        f"<div style='width:{count / most:.2%};background:{colour}'></div>"
        for count, colour in parts
    )
    return (
        f"<div style='display:flex;height:14px;background:{WAITING}' role='progressbar' "
        f"aria-valuemin='0' aria-valuemax='{totals.tasks}' aria-valuenow='{totals.done}'>"
        f"{shown}</div>"
    )
