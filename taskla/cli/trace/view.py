"""taskla trace view: one run as a page to look around in, or as a figure for a paper."""

from __future__ import annotations

from pathlib import Path

import click

from taskla.cli.options import debug_option, refuse_same

__all__ = ["command"]

_ENDINGS = (".html", ".png", ".svg", ".pdf")


@click.command(epilog="Example: taskla trace view run.trace -o run.html")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--run",
    "number",
    type=int,
    help="Which run.  [default: the repeat of median length of the longest program]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT",
    help="File to write: .html, .png, .svg or .pdf.  [default: FILE, ending in .html]",
)
@click.option(
    "--open/--no-open",
    "opened",
    default=False,
    help="Open it in the browser, or in what shows such figures.  [default: no-open]",
)
@debug_option
def command(file: Path, number: int | None, output: Path | None, opened: bool) -> None:
    """Draw one run of a trace, and print the name of the file.

    An .html is a page that needs no network: a Gantt chart per rank and worker with its bounds,
    in which a click on a task marks what it waited for and what waited for it; on the same time
    axis ready tasks, power and the steps of the algorithm's loop; a map of each matrix. With many
    tasks in view it shows kernels' shares of time, closer up every task. A .png, .svg or .pdf is a
    figure for a paper. A file of that name is replaced.
    """
    output = file.with_suffix(".html") if output is None else output
    kind = output.suffix.lower()
    if kind not in _ENDINGS:
        raise click.UsageError(f"OUT is {str(output)!r}; it must end in {', '.join(_ENDINGS)}")
    refuse_same(output, file)
    from taskla.atomic import check_file
    from taskla.traces import read

    check_file(output)
    run = read(file).run(number)
    if kind == ".html":
        from taskla.traces.pictures.page import write_page

        write_page(run, output)
    else:
        from taskla.traces.pictures.figure import write_figure

        write_figure(run, output)
    click.echo(output)
    if opened:
        click.launch(str(output.resolve()))
