"""taskla trace compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskla.cli.options import debug_option, output_options
from taskla.cli.table import emit
from taskla.cli.trace.text import printable, status, table, unit_of, words

if TYPE_CHECKING:
    from taskla.traces import Run
    from taskla.traces.comparison import Difference, Spread

__all__ = ["command"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_RUN = "A run of {}; its repeats count with it.  [default: the longest program]"


@click.command(epilog="Example: taskla trace compare before.trace after.trace --csv")
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@click.option("--run-a", type=int, help=_RUN.format("A"))
@click.option("--run-b", type=int, help=_RUN.format("B"))
@output_options
@debug_option
def command(a: Path, b: Path, run_a: int | None, run_b: int | None, form: str | None) -> None:
    """Compare two traces: the makespan, and the time of each kernel.

    Columns: kernel (all: the whole run), quantity, a, a_min, a_max, a_repeats and the same of b
    (seconds: median, least and most over the repeats of a run), speedup (a / b: above 1, B is
    faster), within_noise (true when the ranges from least to most of both sides overlap; unknown
    when a side has one run only).

    Quantities: makespan (from the begin of the run to the end of its last task), busy (tasks,
    summed over the workers), task (the median task of the kernel). What a side lacks is empty.
    """
    from taskla.traces import read
    from taskla.traces.comparison import compare, repeats

    sides = {"A": (a, repeats(read(a), run_a)), "B": (b, repeats(read(b), run_b))}
    for name, (file, runs) in sides.items():
        if problem := status(runs[0]):
            click.echo(f"{name}, run {runs[0].number} of {printable(file)}: {problem}", err=True)
    unlike = _unlike(sides["A"][1][0], sides["B"][1][0])
    if unlike:
        click.echo(f"A and B are different problems: {unlike}", err=True)
    found = compare(sides["A"][1], sides["B"][1])
    if form:
        emit(map(_row, found), form)
        return
    for name, (file, runs) in sides.items():
        click.echo(f"{name}: {_words(file, runs)}")
    _show(found)


def _words(file: Path, runs: Sequence[Run]) -> str:
    numbers = ", ".join(str(run.number) for run in runs)
    first = runs[0]
    about = {"program": first.program, **_sizes(first.parameters)}
    about |= {name: first.info.get(name) for name in ("policy", "workers")}
    known = {name: value for name, value in about.items() if value is not None}
    return f"{printable(file)}: {printable(words(known))}; run{'s'[: len(runs) > 1]} {numbers}"


def _sizes(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: parameters.get(name) for name in ("m", "n", "nb", "type")}


def _unlike(a: Run, b: Run) -> str:
    """Say in what two runs are not the same problem; tile size, policy and workers may differ."""
    pairs = [("program", a.program, b.program), ("status", a.info["status"], b.info["status"])]
    pairs += [(name, a.parameters.get(name), b.parameters.get(name)) for name in ("m", "n", "type")]
    found = [f"{name} {x} and {y}" for name, x, y in pairs if x != y and None not in (x, y)]
    return printable(", ".join(found))


def _row(found: Difference) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kernel": "all" if found.kernel is None else printable(found.kernel),
        "quantity": found.quantity,
    }
    for name, side in (("a", found.a), ("b", found.b)):
        row[name] = side and side.median
        row[f"{name}_min"] = side and side.min
        row[f"{name}_max"] = side and side.max
        row[f"{name}_repeats"] = side.repeats if side else 0
    return {**row, "speedup": found.speedup, "within_noise": found.within_noise}


def _show(found: Sequence[Difference]) -> None:
    repeated = any(s and s.repeats > 1 for row in found for s in (row.a, row.b))
    for quantity, title in (
        ("makespan", "makespan"),
        ("busy", "time of all tasks, summed over the workers"),
        ("task", "time of the median task"),
    ):
        rows = [row for row in found if row.quantity == quantity]
        unit, count = unit_of([s.median for row in rows for s in (row.a, row.b) if s])
        table(f"{title}, in {unit}", (_line(row, count, repeated) for row in rows))
    click.echo("\nA/B is the speed-up: above 1, B is faster.")
    if repeated:
        click.echo("Medians; within noise: the ranges, from least to most, of both sides overlap.")
    else:
        click.echo("One run a side: nothing is known of the noise; --repeat records more.")


def _line(row: Difference, count: float, repeated: bool) -> dict[str, Any]:
    noise = {None: "unknown", True: "yes", False: "no"}[row.within_noise]
    return {
        "kernel": "all" if row.kernel is None else row.kernel,
        "A": row.a and row.a.median * count,
        "A range": _range(row.a, count) if repeated else None,
        "B": row.b and row.b.median * count,
        "B range": _range(row.b, count) if repeated else None,
        "A/B": row.speedup,
        "within noise": noise if repeated else None,
    }


def _range(side: Spread | None, count: float) -> str | None:
    return None if side is None else f"{side.min * count:.4g} .. {side.max * count:.4g}"
