"""What pictures of a run say: its facts, the names of its lanes, bounds, curves over time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.traces.analysis import Summary, ready_over_time
from taskla.traces.pictures.palette import QUALITATIVE, qualitative
from taskla.traces.pictures.units import ago, plain, quantity
from taskla.traces.trace import Run, Series

__all__ = ["Curve", "Panel", "bound_lines", "facts", "failure", "lane_names", "panels", "title"]

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """A step function of time: `value` holds from `time`, seconds from the run's begin, on."""

    name: str
    colour: str
    time: Floats
    value: Floats


class Panel(NamedTuple):
    """Curves that share an axis, which has a title with a unit."""

    title: str
    curves: list[Curve]


def title(run: Run) -> str:
    """Return the run in a few words: ``potrf, n = 1024, nb = 128``."""
    known = run.parameters
    names = ("n", "nb") if known.get("m") == known.get("n") else ("m", "n", "nb")
    sizes = [f"{name} = {plain(known[name])}" for name in names if known.get(name)]
    return ", ".join([plain(run.program), *sizes])


def failure(run: Run) -> str | None:
    """Return what to say of a run that did not end well; None of one that did."""
    status = str(run.info["status"])
    if status == "completed":
        return None
    error = run.info.get("error")
    words = plain(status) + (f": {plain(error, 300)}" if error else "")
    submitted = run.info.get("tasks")
    missing = submitted - run.tasks.size if isinstance(submitted, int) else 0
    return words + (f" ({missing} of {submitted} tasks did not run)" if missing > 0 else "")


def facts(run: Run, summary: Summary) -> list[tuple[str, str]]:
    """Return what the heading says below the title, as names and values."""
    names = ("engine", "policy", "distribution", "repeat")
    found = [(name, plain(run.info[name])) for name in names if run.info.get(name) is not None]
    ranks = f" on {summary.ranks} ranks" if summary.ranks > 1 else ""
    found.append(("workers", f"{summary.workers}{ranks}"))
    found.append(("tasks", f"{summary.tasks:,}".replace(",", "\u202f")))
    found.append(("makespan", ago(summary.makespan)))
    if summary.efficiency is not None:
        found.append(("bound / makespan", f"{summary.efficiency:.1%}"))
    if summary.gflops:
        found.append(("Gflop/s", f"{summary.gflops:.4g}"))
    if summary.joules is None:
        found.append(("energy", "unavailable"))
    else:
        found.append(("energy", f"{quantity(summary.joules, 'J')} ({summary.energy_source})"))
    return found


def lane_names(run: Run) -> list[str]:
    """Return the name of each worker, its rank in front where there are several."""
    several = len({worker.rank for worker in run.workers}) > 1
    ranks = [f"rank {worker.rank} · " if several else "" for worker in run.workers]
    # all charts of a picture leave so much room for them
    return [
        rank + plain(worker.name, max(18 - len(rank), 8))
        for rank, worker in zip(ranks, run.workers, strict=True)
    ]


def bound_lines(summary: Summary) -> list[tuple[str, float]]:
    """Return the vertical lines of a Gantt chart: names, and seconds from the run's begin."""
    return [
        ("critical path", summary.critical_path),
        ("area bound", summary.area),
        ("makespan", summary.makespan),
    ]


def panels(run: Run) -> list[Panel]:
    """Return the curves over time: ready tasks, and what was sampled of power."""
    found = []
    if run.tasks.size:
        times, counts = ready_over_time(run)
        ready = Curve("ready", QUALITATIVE[0], times, counts.astype(np.float64))
        found.append(Panel("ready tasks", [ready]))
    power = [series for series in run.series if series.kind == "power"]
    if power:
        colours = qualitative(len(power))
        curves = [_power(run, *pair) for pair in zip(power, colours, strict=True)]
        found.append(Panel("power (W)", curves))
    return found


def _power(run: Run, series: Series, colour: str) -> Curve:
    name = plain(series.name, 14) + (" (model)" if series.source == "modelled" else "")
    # a sample is the mean since the one before it: it holds from there on
    first = min(float(series.time[0]), run.begin)
    since = np.concatenate([[first], series.time]) - run.begin
    return Curve(name, colour, since, np.concatenate([series.value, series.value[-1:]]))
