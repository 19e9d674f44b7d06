"""taskla trace summary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskla.cli.options import debug_option
from taskla.cli.table import emit
from taskla.cli.trace.text import json_option, lines, percent, status, table, unit_of, words

if TYPE_CHECKING:
    from taskla.traces import Run, Trace
    from taskla.traces.analysis import Summary

__all__ = ["command"]

# More workers than these fill screens; --json has them all.
_WORKERS = 64


@click.command(epilog="Example: taskla trace summary run.trace --json")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--run",
    "number",
    type=int,
    help="Which run.  [default: the repeat of median length of the longest program]",
)
@json_option
@debug_option
def command(file: Path, number: int | None, form: str | None) -> None:
    """Show what a run spent its time and energy on, and how far it is from the bounds.

    No schedule is shorter than the bounds: the critical path is the longest chain of tasks that
    wait for one another, by their recorded durations; the area is the time of all tasks over the
    number of workers. Efficiency is the larger bound over the makespan.

    Where the time went, over all workers: busy (tasks ran); between tasks, overhead (the next one
    was ready with its tiles there) and starvation (it was not; workers without a task); start-up
    (before a worker's first task); end (after its last one). Together they are workers x makespan.
    A worker is idle in all of them but busy.

    Kernels: time is the sum over workers, share that of the busy time, Gflop/s the rate of one
    worker while it runs them; then the distribution of the durations of tasks: q1 and q3 are the
    quartiles. Energy that was neither measured nor modelled is unavailable, null in JSON; the
    energy-delay product is joules x makespan.

    With --json, the key table says what a row is: run, kernel, format, worker or time;
    times are seconds,
    shares go from 0 to 1.
    """
    import numpy as np

    from taskla.traces import read

    trace = read(file)
    run = trace.run(number)
    # numbers of a file may be so large that their sum is infinite
    with np.errstate(over="ignore", invalid="ignore"):
        if form:
            emit(_rows(run), form)
        else:
            _show(trace, run)


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    from taskla.traces import analysis

    about = analysis.summary(run)
    yield {"table": "run", **asdict(about)}
    for kernel in analysis.by_kernel(run):
        yield {"table": "kernel", "run": run.number, **asdict(kernel)}
    for row in analysis.by_format(run):
        yield {"table": "format", "run": run.number, **row}
    for worker in analysis.by_worker(run):
        yield {"table": "worker", "run": run.number, **asdict(worker)}
    for row in _time(run, about):
        yield {"table": "time", "run": run.number, **row}


def _time(run: Run, about: Summary) -> list[dict[str, Any]]:
    from taskla.traces.analysis import where_time_went

    total = about.workers * about.makespan
    return [
        {"part": part, "seconds": seconds, "share": seconds / total if total else None}
        for part, seconds in where_time_went(run).items()
    ]


# -- for people ------------------------------------------------------------------------------------


def _show(trace: Trace, run: Run) -> None:
    from taskla.traces import analysis

    about = analysis.summary(run)
    if problem := status(run):
        click.echo(f"{problem}; the figures are of what ran")
    lines(_facts(trace, run, about))
    _show_time(run, about)
    _show_kernels(run)
    _show_formats(run)
    _show_workers(run)


def _facts(trace: Trace, run: Run, about: Summary) -> dict[str, str]:
    from taskla.traces.comparison import repeats

    parameters = words(run.parameters)
    same = repeats(trace, run.number)
    facts = {
        f"run {run.number}": ", ".join(filter(None, [about.program, parameters])),
        "ran on": f"workers {about.workers}, ranks {about.ranks}, "
        f"engine {about.engine or 'unknown'}, policy {about.policy or 'unknown'}",
    }
    if len(same) > 1:
        times = [other.makespan for other in same]
        facts["repeats"] = f"{len(same)}, makespans {min(times):.4g} to {max(times):.4g} s"
    if len(trace) > len(same):
        others = dict.fromkeys(other.program for other in trace.runs if other not in same)
        facts["other runs"] = f"{len(trace) - len(same)} ({', '.join(others)}): see trace info"
    reached = "" if about.efficiency is None else f", {percent(about.efficiency)} % of the makespan"
    larger = "critical path" if about.critical_path > about.area else "area"
    fused = f", fused from {about.tile_tasks}" if about.tile_tasks > about.tasks else ""
    left = about.submitted - about.tasks
    return facts | {
        "tasks": f"{about.tasks}{fused}" + (f"; {left} more did not run" if left else ""),
        "makespan": f"{about.makespan:.4g} s",
        "critical path": f"{about.critical_path:.4g} s",
        "area": f"{about.area:.4g} s",
        "bound": f"{about.bound:.4g} s, the {larger}{reached}",
        "work": f"{about.flops / 1e9:.4g} Gflop{_rate(about.gflops, 'Gflop/s')}",
        "bytes": f"tasks read {about.bytes_read / 1e9:.4g} GB, wrote "
        f"{about.bytes_written / 1e9:.4g} GB; {about.messages} messages, "
        f"{about.bytes_sent / 1e9:.4g} GB sent",
        **_clocks(about),
        "energy": _energy(about),
    }


def _clocks(about: Summary) -> dict[str, str]:
    if about.clock_error is None:
        return {}
    return {"clocks": f"aligned: two ranks' times are off by {about.clock_error:.2g} s at most"}


def _rate(value: float | None, unit: str) -> str:
    return "" if value is None else f", {value:.4g} {unit}"


def _energy(about: Summary) -> str:
    note = "" if about.energy_note is None else f"; {about.energy_note}"
    if about.joules is None:
        return f"unavailable{note}"
    idle = "" if about.idle_joules is None else f", {about.idle_joules:.4g} J of them in no task"
    return (
        f"{about.joules:.4g} J {about.energy_source}{idle}{_rate(about.watts, 'W')}"
        f"{_rate(about.gflops_per_watt, 'Gflop/s/W')}"
        f", energy-delay product {about.energy_delay:.4g} J s{note}"
    )


def _show_time(run: Run, about: Summary) -> None:
    from taskla.traces.analysis import PARTS

    rows = _time(run, about)
    unit, count = unit_of([row["seconds"] for row in rows])
    table(
        f"where the time went: {about.workers} workers x {about.makespan:.4g} s",
        (
            {
                "part": row["part"],
                f"time ({unit})": row["seconds"] * count,
                "share (%)": percent(row["share"]),
                "what it is": PARTS[row["part"]],
            }
            for row in rows
        ),
    )


def _show_kernels(run: Run) -> None:
    from taskla.traces.analysis import by_kernel

    kernels = by_kernel(run)
    table(
        "kernels",
        (
            {
                "kernel": k.kernel,
                "tasks": k.tasks,
                "tile tasks": k.tile_tasks,
                "time (s)": k.time,
                "share (%)": percent(k.share),
                "Gflop/s": k.gflops,
                "energy (J)": "unavailable" if k.joules is None else k.joules,
            }
            for k in kernels
        ),
    )
    unit, count = unit_of([k.median for k in kernels])
    columns = {name: name for name in ("min", "q1", "median", "q3", "max", "mean")}
    columns["std. dev."] = "deviation"
    table(
        f"durations of tasks in {unit}",
        (
            {"kernel": k.kernel, **{c: getattr(k, name) * count for c, name in columns.items()}}
            for k in kernels
        ),
    )


def _show_formats(run: Run) -> None:
    from taskla.traces.analysis import by_format

    formats = by_format(run)
    if len(formats) < 2:
        return
    table(
        "number formats that tasks computed in",
        (
            {
                "format": row["format"],
                "tasks": row["tasks"],
                "tile tasks": row["tile_tasks"],
                "time (s)": row["time"],
                "share (%)": percent(row["share"]),
                "flops (%)": percent(row["flops_share"]),
            }
            for row in formats
        ),
    )


def _show_workers(run: Run) -> None:
    from taskla.traces.analysis import by_worker

    workers = by_worker(run)
    unit, count = unit_of([run.makespan])
    table(
        f"workers, times in {unit}",
        (
            {
                "rank": w.rank,
                "worker": w.worker,
                "device": w.device,
                "tasks": w.tasks,
                "busy": w.busy * count,
                "overhead": w.overhead * count,
                "start-up": w.startup * count,
                "starvation": w.starvation * count,
                "end": w.end * count,
                "idle (%)": percent(w.idle_share),
            }
            for w in workers[:_WORKERS]
        ),
    )
    if len(workers) > _WORKERS:
        click.echo(f"{len(workers) - _WORKERS} more workers; --json has them all")
