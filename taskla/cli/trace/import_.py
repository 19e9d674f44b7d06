"""taskla trace import."""

from __future__ import annotations

from pathlib import Path

import click

from taskla.cli.options import debug_option, refuse_same

__all__ = ["command"]


@click.command("import", epilog="Example: taskla trace import tasks.rec -o starpu.trace")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The trace to write."
)
@debug_option
def command(file: Path, output: Path) -> None:
    """Make a trace of a tasks.rec of StarPU, to analyse, view and replay.

    Tasks that never ran are left out; who depends on one depends on what it depended on.
    """
    from taskla.atomic import check_file
    from taskla.traces import write
    from taskla.traces.exports.starpu_import import read

    refuse_same(output, file)
    check_file(output)
    trace = read(file)
    write(trace, output)
    run = trace.run()
    left_out = run.info["imported"]
    click.echo(
        f"{output}: {run.tasks.size} tasks, {run.edges[0].size} edges, "
        f"{len(run.workers)} workers, {run.makespan:.6g} s, {output.stat().st_size} bytes; "
        f"left out: {left_out['tasks']} tasks that never ran, "
        f"{left_out['dependencies']} dependencies on tasks that are not in the file"
    )
