"""taskla trace info."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskla.cli.options import debug_option
from taskla.cli.table import emit
from taskla.cli.trace.text import json_option, lines, scalar, status, table, words

if TYPE_CHECKING:
    from taskla.traces import Run, Trace

__all__ = ["command"]

#: heading -> key of the header
_FACTS = {"machine": "machine", "BLAS": "blas", "versions": "versions"}

#: Columns that say what was run: they stand above the table when all runs have them in common.
SETTINGS = ("program", "n", "nb", "type", "engine", "policy", "workers", "ranks", "distribution")


@click.command(epilog="Example: taskla trace info run.trace --json")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@debug_option
def command(file: Path, form: str | None) -> None:
    """Show what a trace holds: where it was recorded, its runs, its tables.

    Columns of runs: run (its number, for --run), program, n, nb, type (of the matrices), engine,
    policy, workers (of each rank), ranks (processes), distribution (of tiles over ranks), repeat,
    tasks (that ran), makespan (seconds from the begin of the run to the end of its last task),
    joules and energy_source (measured, modelled or unavailable), status (completed, failed or
    interrupted), error. With --json, the key table says what a row is: file, run or table.
    """
    from taskla.traces import read

    trace = read(file)
    if form:
        emit(_rows(file, trace), form)
    else:
        _show(file, trace)


def _rows(file: Path, trace: Trace) -> Iterator[dict[str, Any]]:
    header = trace.header
    about = {"file": str(file), "bytes": file.stat().st_size, "version": header["version"]}
    about |= {"created": scalar(header.get("created")), "command": _command(header)}
    for key in ("machine", "blas", "versions"):
        found = header.get(key)
        if isinstance(found, dict):
            about |= {f"{key}_{name}": scalar(value) for name, value in found.items()}
    yield {"table": "file", **about}
    for run in trace.runs:
        yield {"table": "run", **_run(run)}
    for name, rows in trace.tables.items():
        yield {"table": "table", "name": name, "rows": rows.size}


def _run(run: Run) -> dict[str, Any]:
    from taskla.traces.analysis import energy

    found = energy(run)
    about = {**run.parameters, **run.info}
    return {
        "run": run.number,
        **{key: scalar(about.get(key)) for key in SETTINGS},
        "repeat": scalar(about.get("repeat")),
        "tasks": run.tasks.size,
        "makespan": run.makespan,
        "joules": found.joules,
        "energy_source": found.source,
        "status": run.info["status"],
        "error": scalar(about.get("error")),
    }


def _command(header: dict[str, Any]) -> str:
    found = header.get("command") or []
    return shlex.join(map(str, found)) if isinstance(found, list) else str(found)


def _show(file: Path, trace: Trace) -> None:
    header = trace.header
    for run in trace.runs:
        if problem := status(run):
            click.echo(f"run {run.number}: {problem}")
    size = file.stat().st_size
    facts = {
        "file": f"{file}, {size / 1e6:.3g} MB, version {header['version']} of the format",
        "created": scalar(header.get("created")),
        "command": _command(header),
        **{name: words(header.get(key) or "unknown") for name, key in _FACTS.items()},
    }
    rows = [_run(run) for run in trace.runs]
    common = {key: rows[0][key] for key in SETTINGS if len({str(r[key]) for r in rows}) == 1}
    if common:
        known = {key: value for key, value in common.items() if value is not None}
        facts["all runs"] = words(known)
    lines(facts)
    table(
        "runs",
        (
            {
                "run": row["run"],
                **{key: row[key] for key in SETTINGS if key not in common},
                "repeat": row["repeat"],
                "tasks": row["tasks"],
                "makespan (s)": row["makespan"],
                "energy (J)": row["energy_source"] if row["joules"] is None else row["joules"],
                "energy is": None if row["joules"] is None else row["energy_source"],
                "status": row["status"],
            }
            for row in rows
        ),
    )
    table("tables", ({"table": name, "rows": t.size} for name, t in trace.tables.items()))
