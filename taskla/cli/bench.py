"""taskla bench."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import click

from taskla.cli.options import (
    debug_option,
    grid as read_grid,
    numbers,
    output_options,
    size_options,
    terminating,
    usage,
    words,
)
from taskla.cli.table import emit

if TYPE_CHECKING:
    from taskla.distributions import Distribution
    from taskla.energy import Source
    from taskla.engines.threads import ThreadsEngine
    from taskla.routines import Problem
    from taskla.traces import Recorder

__all__ = ["Row", "command"]

#: Columns that say what was run.
SETTINGS = {"op", "type", "n", "nb", "ranks", "grid", "dist", "engine", "policy", "workers"}
SETTINGS |= {"pivot", "precision", "compression", "energy"}

#: Why there are no joules where none were asked for.
_OFF = "switched off"

#: Seconds at rest before the first run, where there are meters: idle power is a bucket of its own.
_IDLE = 1.0


@dataclass(frozen=True)
class Row:
    """One combination: what was run, and what it took.

    Times are seconds, edp joules times seconds; ``energy`` says whether joules are "measured",
    "modelled" or "unavailable", and they are None then. A residual is None without ``--check``.
    Messages and bytes are those between ranks.
    """

    op: str
    type: str
    n: int
    nb: int
    ranks: int
    grid: str | None
    dist: str
    engine: str
    policy: str
    workers: int
    pivot: str | None
    precision: str
    compression: str
    t_submit: float | None
    time: float | None
    gflops: float | None
    joules: float | None
    watts: float | None
    gflops_per_watt: float | None
    edp: float | None
    energy: str | None
    tasks: int | None
    tasks_run: int | None
    messages: int
    pivot_messages: int
    bytes_sent: int
    residual: float | None
    status: str | None


@click.command(epilog="Example: taskla bench potrf -n 1000:4000:1000 --nb 256,512 --check")
@click.argument("op")
@size_options
@click.option(
    "--pivot",
    type=words(("partial", "tournament", "none")),
    metavar="LIST",
    help="For LU: partial, tournament, none.  [default: partial]",
)
@click.option(
    "--norm", type=click.Choice(["1", "I", "M", "F"]), help="For lange, lansy.  [default: 1]"
)
@click.option(
    "--stationary",
    type=click.Choice(["A", "B", "C"]),
    help="Of gemm, symm, hemm: what stays where it is.  [default: C]",
)
@click.option("--engine", default="threads", show_default=True, help="What runs the tasks.")
@click.option(
    "--workers", type=numbers(1), metavar="LIST", help="Threads.  [default: usable cores]"
)
@click.option(
    "--policy",
    type=words(),
    metavar="LIST",
    default="lws",
    show_default=True,
    help="See taskla schedulers.",
)
@click.option(
    "--dist",
    type=words(),
    metavar="LIST",
    default="2dbc",
    show_default=True,
    help="Which rank owns which tile; the threads engine is one rank.",
)
@click.option("--grid", type=read_grid, metavar="PxQ", help="Of the ranks.  [default: squarest]")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63),
    default=0,
    show_default=True,
    help="Of the random matrices.",
)
@click.option("--check", "checked", is_flag=True, help="Check every result by its residual.")
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Runs that count; times are their medians.",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Runs before, uncounted.",
)
@click.option(
    "--trace",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Record all counted runs in FILE, for taskla trace.",
)
@click.option(
    "--energy",
    default="auto",
    show_default=True,
    help="Where joules come from: auto, meters, model[:NAME or :FILE[#NAME]], off.",
)
@output_options
@debug_option
@click.pass_context
def command(ctx: click.Context, /, op: str, form: str | None, **choices: Any) -> None:
    """Time OP on random matrices, one row for each combination of the values of all lists.

    OP is potrf, potrs, posv, potri, trtri, lauum, getrf, getrs, gesv, gemm, symm, hemm, syrk, herk,
    trsm, trmm, lange or lansy. A matrix depends on the seed alone, not on tiles or workers.

    Columns: t_submit, time (seconds: until all tasks are submitted; from the first submission to
    the last task's end), gflops (by LAPACK's count), joules, watts (mean), gflops/W, edp
    (energy-delay product, joules times seconds), energy (whether these are measured, modelled or
    unavailable), tasks (on tiles), tasks_run (those that ran: neighbouring tasks are fused, several
    tiles in one kernel call), messages and bytes_sent (between ranks; of one rank none),
    pivot_messages (those of row interchanges, apart), precision (the format of the tiles: fp32,
    fp64), compression (that of the tiles: none, all are dense), residual and status (with --check:
    PASSED up to 60 for factorisations and solutions, up to 3 for products and norms, else FAILED).
    The exit code is the number of failures, at most 100.
    """
    failures = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal failures
        for row in _rows(op, **choices):
            failures += row.status == "FAILED"
            yield asdict(row)

    emit(rows(), form, SETTINGS)
    ctx.exit(min(failures, 100))


def _rows(
    op: str,
    seed: int,
    checked: bool,
    repeat: int,
    warmup: int,
    trace: str | None,
    energy: str,
    **choices: Any,
) -> Iterator[Row]:
    from taskla.energy import find, measure_idle
    from taskla.traces import Recorder

    # all of them, before hours of work: the last may be impossible
    with usage():
        combinations = list(_combinations(op, **choices))
        source = find(energy)
    recorder = None if trace is None else Recorder(trace)
    if source.meters:
        measure_idle(source.meters, _IDLE)
    how: dict[str, Any] = {"seed": seed, "checked": checked, "repeat": repeat, "warmup": warmup}
    try:
        with terminating():
            for p, engine, map_ in combinations:
                yield _row(p, engine, map_, source=source, recorder=recorder, **how)
    finally:
        # what ran before an error or Ctrl-C is worth looking at
        if recorder is not None:
            recorder.save()


def _combinations(
    op: str,
    n: tuple[int, ...],
    nb: tuple[int, ...] | None,
    dtype: tuple[str, ...],
    pivot: tuple[str, ...] | None,
    engine: str,
    workers: tuple[int, ...] | None,
    policy: tuple[str, ...],
    dist: tuple[str, ...],
    grid: tuple[int, int] | None,
    **options: Any,
) -> Iterator[tuple[Problem, ThreadsEngine, Distribution]]:
    from taskla import distributions, engines
    from taskla.engines.threads import ThreadsEngine
    from taskla.routines import problem, refuse_too_many_tasks

    for order, tile, letter, pivoting, count, name, map_ in product(
        n, nb or (None,), dtype, pivot or (None,), workers or (None,), policy, dist
    ):
        runs = engines.engine(engine, workers=count, policy=name)
        if not isinstance(runs, ThreadsEngine):
            raise ValueError(f"engine is {engine!r}; bench times the engine 'threads' only, as yet")
        p = problem(op, order, tile, letter, runs.workers, pivot=pivoting, **options)
        _refuse_too_large(p)
        refuse_too_many_tasks(p)
        yield p, runs, distributions.get(map_, 1, grid)


def _context(p: Problem, map_: Distribution) -> dict[str, Any]:
    """What a trace says of the runs of a combination."""
    options = {name: getattr(p, name) for name in sorted(p.routine.options)}
    return {
        "parameters": {"op": p.op, "type": p.type, "n": p.n, "nb": p.nb, **options},
        "distribution": map_.name,
        "grid": map_.grid and list(map_.grid),
        "precision": p.precision,
        "compression": "none",
    }


def _refuse_too_large(p: Problem) -> None:
    """Raise ValueError for matrices that do not fit in memory, before any is made."""
    from taskla.machine import memory
    from taskla.matrix_layout import Layout

    total, _ = memory()
    layouts = [Layout(operand.m, operand.n, p.nb, operand.uplo) for operand in p.operands]
    needed = sum(layout.entries for layout in layouts) * p.dtype.itemsize
    if total and needed > total:
        fit = int(p.n * (total / needed) ** 0.5)
        raise ValueError(
            f"{p.op} with n={p.n} and nb={p.nb} has matrices of {needed / 1e9:.4g} GB, and the "
            f"memory is {total / 1e9:.4g} GB; n up to about {fit} would fit"
        )


def _row(
    p: Problem,
    engine: ThreadsEngine,
    map_: Distribution,
    *,
    source: Source,
    recorder: Recorder | None,
    checked: bool,
    **how: Any,
) -> Row:
    from numpy.linalg import LinAlgError

    from taskla.cli.measure import Measured, measure

    if recorder is not None:
        recorder.context = _context(p, map_)
    measured, status = Measured(), None
    try:
        measured = measure(p, engine, source, recorder, checked=checked, **how)
        if checked:
            status = "PASSED" if measured.passed else "FAILED"
    except LinAlgError as error:
        # the matrices are made so that every routine can do its work
        click.echo(f"Error: {p.op} with n={p.n}, nb={p.nb}, type {p.type}: {error}", err=True)
        status = "FAILED"
    joules = measured.joules
    if measured.note and source.reason != _OFF:
        click.echo(f"energy {measured.energy}: {measured.note}", err=True)
    return Row(
        op=p.op,
        type=p.type,
        n=p.n,
        nb=p.nb,
        ranks=map_.ranks,
        grid=f"{map_.grid[0]}x{map_.grid[1]}" if map_.grid else None,
        dist=map_.name,
        engine=engine.name,
        policy=engine.policy.name,
        workers=engine.workers,
        pivot=p.pivot if "pivot" in p.routine.options else None,
        precision=p.precision,
        compression="none",
        t_submit=measured.t_submit,
        time=measured.time,
        gflops=measured.time and p.flops / measured.time / 1e9,
        joules=joules,
        watts=joules and measured.time and joules / measured.time,
        gflops_per_watt=joules and p.flops / joules / 1e9,
        edp=joules and measured.time and joules * measured.time,
        energy=measured.energy,
        tasks=measured.tasks,
        tasks_run=measured.tasks_run,
        # one process is one rank, which owns everything
        messages=0,
        pivot_messages=0,
        bytes_sent=0,
        residual=measured.residual,
        status=status,
    )
