"""taskla trace replay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from taskla.cli.options import (
    debug_option,
    numbers,
    output_options,
    refuse_same,
    usage,
    words,
)
from taskla.cli.table import emit

__all__ = ["command"]


@click.command(epilog="Example: taskla trace replay run.trace --workers 1,2,4,8,64")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--policy",
    type=words(),
    metavar="LIST",
    default="eager,prio,lws",
    show_default=True,
    help="See taskla schedulers.",
)
@click.option(
    "--workers", type=numbers(1), metavar="LIST", help="Simulated ones.  [default: as recorded]"
)
@click.option(
    "--durations",
    type=click.Choice(["task", "kernel"]),
    default="task",
    show_default=True,
    help="As recorded for each task, or drawn from those of tasks like it.",
)
@click.option("--seed", type=click.IntRange(0, 2**63), help="Of --durations kernel.  [default: 0]")
@click.option(
    "--run",
    "number",
    type=int,
    help="Which recorded run.  [default: the repeat of median length of the longest program]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the simulated runs as a trace.",
)
@output_options
@debug_option
def command(
    file: Path,
    policy: tuple[str, ...],
    workers: tuple[int, ...] | None,
    number: int | None,
    output: Path | None,
    form: str | None,
    **choices: Any,
) -> None:
    """Run the tasks of FILE again in virtual time: with another policy, on other workers.

    The policies are those of the threads engine; tasks take as long as they were recorded to take,
    and nothing else takes time. With --durations kernel a task takes as long as one of the tasks of
    its kernel with as many flops. A run of several ranks cannot be replayed.

    Columns: makespan (seconds), efficiency (the sum of durations over workers times makespan),
    critical_path and area (seconds: the heaviest path and the sum of durations over workers, which
    no makespan falls below; with --json in one object, bounds), idle (seconds, summed over the
    workers).
    """
    from taskla.atomic import check_file
    from taskla.engines.replay import replay
    from taskla.traces import read, write

    refuse_same(output, file)
    if output is not None:
        check_file(output)
    run = read(file).run(number)
    with usage():
        found = replay(run, policy, workers or (len(run.workers),), **_draw(**choices))
    emit(found.rows if form == "json" else _flat(found.rows), form, {"policy", "workers"})
    if output is not None:
        write(found.trace(), output)


def _draw(durations: str, seed: int | None) -> dict[str, Any]:
    if seed is not None and durations != "kernel":
        raise ValueError(f"--seed {seed} goes with --durations kernel; durations are as recorded")
    return {"durations": durations, "seed": seed or 0}


def _flat(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield rows with a column a bound."""
    for row in rows:
        idle, bounds = row["idle"], row["bounds"]
        fixed = {key: row[key] for key in row if key not in ("bounds", "idle")}
        yield {**fixed, **bounds, "idle": idle}
