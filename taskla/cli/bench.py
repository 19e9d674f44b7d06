"""taskla bench."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from taskla.cli.options import (
    checkpoint_options,
    debug_option,
    grid as read_grid,
    numbers,
    output_options,
    precision_option,
    size_options,
    terminating,
    usage,
    words,
)
from taskla.cli.ranks import Ranks, current, say
from taskla.cli.table import emit

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from taskla.cli.measure import Measured
    from taskla.cli.on_dask import OnDask
    from taskla.distributions import Distribution
    from taskla.energy import Source
    from taskla.engines.mpi import MPIEngine
    from taskla.engines.threads import ThreadsEngine
    from taskla.routines import Problem
    from taskla.traces import Recorder

    Runner: TypeAlias = ThreadsEngine | MPIEngine | OnDask

__all__ = ["Row", "command"]

#: Columns that say what was run.
SETTINGS = {"op", "type", "n", "nb", "ranks", "grid", "dist", "engine", "policy", "workers"}
SETTINGS |= {"pivot", "stationary", "slices", "precision", "compression", "energy"}

#: Why there are no joules where none were asked for.
_OFF = "switched off"

#: Seconds at rest before the first run, where there are meters: idle power is a bucket of its own.
_IDLE = 1.0


@dataclass(frozen=True)
class Row:
    """One combination: what was run, and what it took.

    Times are seconds, edp joules times seconds; ``energy`` says whether joules are "measured",
    "modelled" or "unavailable", and they are None then. A residual is None without ``--check``.
    Messages and bytes are those between ranks, of one run.
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
    stationary: str | None
    slices: int
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
    pivot_messages: int | None
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
@precision_option(
    "Formats of A's tiles (Cholesky, LU and what solves with them, without refinement) or of "
    "products: fp32, fp64:2,bf16:rest, adaptive:1e-6, FILE; that of --dtype, fp64 say, is a plain "
    "run. Of hpl-mxp's factors, which are refined: fp32, bf16, fp16."
)
@click.option(
    "--engine",
    help="What runs the tasks: threads, mpi, dask.  [default: threads; of several ranks of a job "
    "mpi]",
)
@click.option(
    "--workers",
    type=numbers(1),
    metavar="LIST",
    help="Threads, of each rank; of Dask processes with a thread each.  [default: usable cores, "
    "shared by the ranks on them]",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Of a running Dask cluster, whose workers are the ranks.  [default: a cluster of this "
    "machine]",
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
    help="Which rank owns which tile: see taskla distributions; all is all for so many ranks.  "
    "[default: 2dbc; on Dask col]",
)
@click.option("--grid", type=read_grid, metavar="PxQ", help="Of the ranks.  [default: squarest]")
@click.option(
    "--slices",
    type=click.IntRange(min=2),
    help="Of the 2.5D distributions.  [default: as many as cost least]",
)
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
@checkpoint_options
@output_options
@debug_option
@click.pass_context
def command(ctx: click.Context, /, op: str, form: str | None, **choices: Any) -> None:
    """Time OP on random matrices, one row for each combination of the values of all lists.

    OP is potrf, potrs, posv, potri, trtri, lauum, getrf, getrs, gesv, hpl-mxp, gemm, symm, hemm,
    syrk, herk, trsm, trmm, lange or lansy. A matrix depends on the seed alone, not on tiles or
    workers.

    hpl-mxp is gesv by the rules of HPL-MxP: diagonally dominant A, factors in a lower precision,
    scaling and refinement to double precision in the time, 2/3 n^3 + 3/2 n^2 flops, and PASSED
    below 16.

    Started by mpirun or srun, as in mpirun -n 4 taskla bench potrf -n 8192 --check, the ranks work
    together, rank 0 prints, times run from a common start to the last rank's end, and matrices are
    placed as taskla plan has them. What no rank can hold is checked on thin random probes.

    With --engine dask a cluster of this machine is started, on the loopback interface, whose worker
    processes are the ranks; with --scheduler a running one is used. Times run until the results are
    on the workers, from where they are brought to be checked. Checkpoints are not for Dask.

    Columns: t_submit, time (seconds: until all tasks are submitted; from the first submission to
    the last task's end), gflops (by LAPACK's count), joules, watts (mean), gflops/W, edp
    (energy-delay product, joules times seconds), energy (whether these are measured, modelled or
    unavailable), tasks (on tiles), tasks_run (those that ran: neighbouring tasks are fused, several
    tiles in one kernel call; on ranks with those that add up sums and interchange rows between
    them; on Dask its tasks, each of many tile tasks), messages and bytes_sent (between ranks, in
    one run; of one rank none; on Dask workers' answers to one another, of one value or several),
    pivot_messages (those of row interchanges, apart; Dask does not tell), stationary (of products)
    and slices (of 2.5D distributions), precision (the format of the tiles: fp32, fp64; the rule of
    --precision; of hpl-mxp the format of the factors), compression (that of the tiles: none, all
    are dense), residual and status (with --check: PASSED up to 60 for factorisations and solutions,
    up to 3 for products and norms, else FAILED; with --precision relative errors in units of the
    tolerance, PASSED up to 3, or, where there is none, of the unit roundoff of the lowest format,
    PASSED up to 30). 16 and 8 bits are emulated in fp32, but for bf16 where taskla info says so. A
    run resumed from a checkpoint has no time.
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

    ranks = current()
    # all of them, before hours of work: the last may be impossible
    dask = choices["engine"] == "dask"
    with usage():
        if trace is None and (dask or ranks is not None):
            _refuse_energy(ranks, energy)
        combinations = list(_combinations(op, ranks, **choices))
        if choices["checkpoint"] is not None:
            _refuse_repeats(len(combinations), repeat, warmup)
        source = find(energy)
    recorder = None if trace is None else _recorder(trace, ranks)
    if source.meters and ranks is None and not dask:
        measure_idle(source.meters, _IDLE)
    how: dict[str, Any] = {"seed": seed, "checked": checked, "repeat": repeat, "warmup": warmup}
    how |= {"source": source, "energy": energy, "recorder": recorder, "ranks": ranks}
    try:
        with terminating():
            for p, engine, map_ in combinations:
                yield _row(p, engine, map_, **how)
    finally:
        # what ran before an error or Ctrl-C is worth looking at
        if recorder is not None and recorder.path is not None:
            recorder.save()
        for _, engine, _ in combinations:
            if _is_on_dask(engine):
                engine.close()


def _is_on_dask(engine: Runner) -> TypeIs[OnDask]:
    # by its name: whoever runs on something else need not wait for Dask's engine to be imported
    return engine.name == "dask"


def _refuse_repeats(combinations: int, repeat: int, warmup: int) -> None:
    """Raise ValueError where checkpoints would be those of several runs of the same thing."""
    if combinations > 1 or repeat > 1 or warmup:
        raise ValueError(
            f"checkpoints are for one run, and there are {combinations} combinations with repeat "
            f"{repeat} and warmup {warmup}: give one value to each list, --repeat 1 and --warmup 0"
        )


def _refuse_energy(ranks: Ranks | None, energy: str) -> None:
    if energy not in ("auto", "off"):
        where = "the engine is 'dask'" if ranks is None else f"there are {ranks.ranks} ranks"
        raise ValueError(
            f"energy is {energy!r}, and {where}, whose joules are in a trace only: give trace, or "
            "auto or off"
        )


def _recorder(trace: str, ranks: Ranks | None) -> Recorder:
    """Return what rank 0 writes; to the others it is the place where their runs come from."""
    from taskla.traces import Recorder

    if ranks is None:
        return Recorder(trace)
    return ranks.first(partial(Recorder, trace)) or Recorder()


def _combinations(
    op: str,
    ranks: Ranks | None,
    n: tuple[int, ...],
    nb: tuple[int, ...] | None,
    dtype: tuple[str, ...],
    pivot: tuple[str, ...] | None,
    precision: tuple[str, ...],
    engine: str | None,
    scheduler: str | None,
    workers: tuple[int, ...] | None,
    policy: tuple[str, ...],
    dist: tuple[str, ...] | None,
    grid: tuple[int, int] | None,
    slices: int | None,
    checkpoint: str | None,
    checkpoint_every: int | None,
    **options: Any,
) -> Iterator[tuple[Problem, Runner, Distribution]]:
    from taskla.cli.placing import refuse_too_large
    from taskla.plan import chosen_maps
    from taskla.routines import problem, refuse_too_many_tasks

    saved = {"checkpoint": checkpoint, "checkpoint_every": checkpoint_every}
    runs = _runners(engine, scheduler, workers, policy, saved)
    names = dist or (("col",) if engine == "dask" else ("2dbc",))
    maps = {run: chosen_maps(names, run.ranks, grid, slices, op == "potrf") for run in runs}
    for order, tile, letter, pivoting, rule, run in product(
        n, nb or (None,), dtype, pivot or (None,), precision or (None,), runs
    ):
        asked = options | {"pivot": pivoting, "precision": rule}
        if tile is None and _is_on_dask(run):
            tile = run.tile_size(max(order, options["m"] or 0), letter)
        p = problem(op, order, tile, letter, run.workers * run.ranks, **asked)
        if ranks is None and scheduler is None:
            _refuse_too_large(p)
        refuse_too_many_tasks(p)
        for map_ in maps[run]:
            if ranks is not None and not _is_on_dask(run):
                refuse_too_large(p, map_, run, ranks)
            yield p, run, map_


def _runners(
    engine: str | None,
    scheduler: str | None,
    workers: tuple[int, ...] | None,
    policy: tuple[str, ...],
    saved: dict[str, Any],
) -> list[Runner]:
    """Return what runs the combinations: one for each number of workers and policy."""
    if engine == "dask":
        from taskla.cli.on_dask import on_dask

        return [*on_dask(workers, policy, scheduler, **saved)]
    if scheduler is not None:
        raise ValueError(f"scheduler is {scheduler!r}, which is for the engine 'dask'")
    from taskla.cli.engine import choose

    return [
        choose(engine, ["dask"], workers=threads, policy=name, **saved)
        for threads, name in product(workers or (None,), policy)
    ]


def _context(p: Problem, map_: Distribution) -> dict[str, Any]:
    """What a trace says of the runs of a combination."""
    # the precision is given apart, for all routines
    options = {name: getattr(p, name) for name in sorted(p.routine.options - {"precision"})}
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


def _measured(
    p: Problem,
    engine: Runner,
    map_: Distribution,
    *,
    source: Source,
    energy: str,
    recorder: Recorder | None,
    ranks: Ranks | None,
    **how: Any,
) -> Measured:
    from taskla.cli.measure import measure
    from taskla.cli.placing import maps

    if _is_on_dask(engine):
        return engine.measure(p, maps(p, map_), recorder, energy, **how)
    where = None if ranks is None else maps(p, map_)
    return measure(p, engine, source, recorder, ranks, where, **how)


def _row(
    p: Problem,
    engine: Runner,
    map_: Distribution,
    *,
    source: Source,
    recorder: Recorder | None,
    checked: bool,
    **how: Any,
) -> Row:
    from numpy.linalg import LinAlgError

    from taskla.cli.measure import Measured

    if recorder is not None:
        recorder.context = _context(p, map_)
    measured, status = Measured(), None
    how |= {"source": source, "recorder": recorder, "checked": checked}
    try:
        measured = _measured(p, engine, map_, **how)
        if checked:
            status = "PASSED" if measured.passed else "FAILED"
    except LinAlgError as error:
        # the matrices are made so that every routine can do its work
        say(f"Error: {p.op} with n={p.n}, nb={p.nb}, type {p.type}: {error}")
        status = "FAILED"
    joules = measured.joules
    if measured.failure:
        say(f"{p.op} with n={p.n}, nb={p.nb} was solved in full precision: {measured.failure}")
    if measured.note and source.reason != _OFF:
        say(f"energy {measured.energy}: {measured.note}")
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
        stationary=p.stationary if "stationary" in p.routine.options else None,
        slices=map_.slices,
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
        messages=measured.messages,
        pivot_messages=measured.pivot_messages,
        bytes_sent=measured.bytes_sent,
        residual=measured.residual,
        status=status,
    )
