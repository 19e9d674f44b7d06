"""taskla dask-run, and the same as a command of Dask's: dask taskla-run."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import click

from taskla.launch import job

__all__ = ["command", "dask_command"]


class _OnRanks(click.Command):
    """All ranks read the same line; rank 0 says what is wrong with it, or its help."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        if job().rank == 0:
            return super().make_context(*args, **extra)
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            try:
                return super().make_context(*args, **extra)
            except click.ClickException:
                # mpirun would end rank 0 before it has said it
                raise click.exceptions.Exit(0) from None


def _run(
    script: str,
    arguments: tuple[str, ...],
    dashboard: bool,
    dashboard_address: str,
    death_timeout: float,
    **settings: Any,
) -> None:
    """Run a script on a Dask cluster made of the ranks of an MPI job.

    Start it by mpirun on 3 ranks or more: rank 0 is the scheduler, rank 1 runs the script with
    ARGUMENTS and is its client, the others are workers. The script runs when all workers are there;
    when it ends, all end, with its exit code.
    """
    from taskla.engines.dask_ranks import Settings, launch

    chosen = Settings(
        dashboard_address=dashboard_address if dashboard else None,
        timeout=death_timeout,
        **settings,
    )
    try:
        code = launch(script, arguments, chosen)
    except (ImportError, ValueError) as error:
        if job().rank:
            raise click.exceptions.Exit(0) from None
        kind = click.UsageError if isinstance(error, ValueError) else click.ClickException
        raise kind(str(error)) from error
    raise click.exceptions.Exit(code)


_PARAMETERS: tuple[Callable[[Any], Any], ...] = (
    click.argument("script", type=click.Path()),
    click.argument("arguments", nargs=-1, type=click.UNPROCESSED),
    click.option(
        "--interface",
        metavar="NAME",
        help="Network interface like 'eth0' or 'ib0' of scheduler and workers.  [default: loopback "
        "when all ranks are on one machine]",
    ),
    click.option(
        "--nthreads",
        type=click.IntRange(min=1),
        help="Threads of each worker.  [default: usable cores, shared by the workers on them]",
    ),
    click.option(
        "--memory-limit",
        default="auto",
        show_default=True,
        help="Of each worker: bytes, such as 4GB, a fraction of the machine's, 0 for none, auto.",
    ),
    click.option(
        "--local-directory", type=click.Path(file_okay=False), help="For files of workers."
    ),
    click.option(
        "--dashboard-address",
        metavar="HOST:PORT",
        default="127.0.0.1:8787",
        show_default=True,
        help="Where the dashboard listens; :PORT is all interfaces.",
    ),
    click.option("--dashboard/--no-dashboard", default=True, help="The scheduler's, with Bokeh."),
    click.option(
        "--death-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=60,
        show_default=True,
        help="Seconds that ranks wait for one another at the start.",
    ),
)


def _command(name: str, example: str) -> click.Command:
    function = _run
    for parameter in reversed(_PARAMETERS):
        function = parameter(function)
    # what follows the script is the script's
    settings = {"allow_interspersed_args": False}
    make = click.command(name, cls=_OnRanks, epilog=example, context_settings=settings)
    made: click.Command = make(function)
    return made


command = _command("dask-run", "Example: taskla dask-run --nthreads 1 script.py 2000")
dask_command = _command("taskla-run", "Example: mpirun -n 6 dask taskla-run script.py 2000")
