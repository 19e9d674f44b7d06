"""taskla trace export."""

from __future__ import annotations

from pathlib import Path

import click

from taskla.cli.options import debug_option, refuse_same

__all__ = ["command"]

_FORMATS = ("paje", "perfetto", "otf2", "starpu-rec", "csv", "parquet")


@click.command(epilog="Example: taskla trace export run.trace --to paje -o vite.trace")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "form", type=click.Choice(_FORMATS), required=True, help="The format.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Where to: a folder for otf2, csv and parquet, else a file.",
)
@click.option(
    "--run",
    type=click.IntRange(min=0),
    help="Which run.  [default: for csv and parquet all; else the repeat of median length of the "
    "longest program]",
)
@debug_option
def command(file: Path, form: str, output: Path, run: int | None) -> None:
    """Write a trace for other tools.

    paje is for ViTE; perfetto for ui.perfetto.dev; otf2 for Vampir; starpu-rec, a tasks.rec, for
    StarPU's tools and StarVZ; csv and parquet, one file a table, for pandas, polars and DuckDB.

    What is at the output is replaced if it is a file, or a folder of such an export.
    """
    refuse_same(output, file)
    from taskla.traces import read
    from taskla.traces.exports import get

    trace = read(file)
    get(form)(trace, output, run)
    files = [entry for entry in [output, *output.rglob("*")] if entry.is_file()]
    size = sum(entry.stat().st_size for entry in files)
    count = f" in {len(files)} files" if output.is_dir() else ""
    click.echo(f"{output}: {form}, {size} bytes{count}")
