"""taskla solve."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from taskla.cli.options import (
    checkpoint_options,
    debug_option,
    engine_options,
    output_options,
    usage,
)
from taskla.cli.ranks import Ranks, current
from taskla.cli.table import emit

if TYPE_CHECKING:
    from taskla.distributions import Distribution
    from taskla.engines import Engine
    from taskla.engines.mpi import MPIEngine
    from taskla.matrix import TiledMatrix
    from taskla.routines import Problem

__all__ = ["Row", "command"]

#: HPL's limit on its scaled residual
LIMIT = 16

#: Columns of X that many ranks check together.
_COLUMNS = 32


@dataclass(frozen=True)
class Row:
    """What was solved, what it took (time in seconds, without files and check), how good it is."""

    op: str
    type: str
    n: int
    nrhs: int
    nb: int
    ranks: int
    engine: str
    policy: str
    workers: int
    time: float
    gflops: float
    residual: float
    output: str


@click.command(epilog="Example: taskla solve A.npy b.npy -o x.npy --assume-a pos")
@click.argument("a", type=click.Path(exists=True, path_type=Path))
@click.argument("b", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Where X goes: .npy, .mtx, or a folder of tiles (no extension, or .tiles).",
)
@click.option(
    "--assume-a",
    type=click.Choice(["gen", "pos"]),
    default="gen",
    show_default=True,
    help="A is general (LU), or Hermitian positive definite (Cholesky).",
)
@click.option("--nb", type=click.IntRange(min=1), help="Tile size.  [default: from n]")
@click.option(
    "--check-finite/--no-check-finite",
    default=True,
    show_default=True,
    help="Refuse NaN and infinity in A and B.",
)
@engine_options
@checkpoint_options
@output_options
@debug_option
def command(a: Path, b: Path, output: Path, form: str | None, **choices: Any) -> None:
    """Solve A X = B, from files to a file.

    A and B are .npy files, Matrix Market .mtx files, or folders of tiles; the output is neither. It
    appears whole or not at all, and only if X passes HPL's test: the residual, which is the largest
    row sum of A X - B divided by eps (|A| |X| + |B|) n, is at most 16.

    Started by mpirun or srun, as in mpirun -n 4 taskla solve A.npy b.npy -o x.npy, each rank reads
    and writes its own tiles: the files must be there for all of them.
    """
    from taskla.matrix_files import check_target

    # before anything is read, or hours of work
    with usage():
        check_target(output)
    for name, path in (("A", a), ("B", b)):
        if output.exists() and output.samefile(path):
            raise click.UsageError(f"{output}: is {name} itself; the output must be another file")
    emit([asdict(_solve(a, b, output, **choices))], form)


def _solve(
    a: Path,
    b: Path,
    output: Path,
    assume_a: str,
    nb: int | None,
    check_finite: bool,
    engine: str | None,
    workers: int | None,
    policy: str,
    **saved: Any,
) -> Row:
    from taskla import lapack
    from taskla.cli.engine import choose
    from taskla.engines.mpi import MPIEngine
    from taskla.routines import problem

    ranks = current()
    with usage():
        runs = choose(engine, workers=workers, policy=policy, **saved)
    op = "posv" if assume_a == "pos" else "gesv"
    with runs:
        if ranks is not None and isinstance(runs, MPIEngine):
            A, B = _load_shared(a, b, op, nb, check_finite, runs, ranks)
        else:
            A, B = _load(a, b, op, nb, check_finite)
        begin = perf_counter()
        if op == "posv":
            lapack.posv(A, B)
        else:
            lapack.gesv(A, B)
        time = perf_counter() - begin
        if ranks is None:
            residual = _residual(a, b, B)
        else:
            time = max(ranks.gather(time))
            residual = _residual_shared(a, b, A.distribution, B, runs, ranks)
        if not residual <= LIMIT:
            hint = "is A Hermitian?" if op == "posv" else "is A singular, to working precision?"
            raise ValueError(
                f"the residual is {residual:.4g}, not below {LIMIT}, so X is not kept: {hint}"
            )
        _save(B, output, _is_flat(b), ranks)
    p = problem(op, A.n, A.nb, A.dtype.name, nrhs=B.n)
    return Row(
        op=op,
        type=p.type,
        n=A.n,
        nrhs=B.n,
        nb=A.nb,
        ranks=1 if ranks is None else ranks.ranks,
        engine=runs.name,
        policy=runs.policy.name,
        workers=runs.workers,
        time=time,
        gflops=p.flops / time / 1e9,
        residual=residual,
        output=str(output),
    )


def _load(
    a: Path, b: Path, op: str, nb: int | None, check_finite: bool
) -> tuple[TiledMatrix, TiledMatrix]:
    """Read what one process solves, in one data type."""
    from taskla.matrix import TiledMatrix
    from taskla.matrix_layout import choose_nb

    A = TiledMatrix.load(a, nb)
    _refuse_shapes(a, A.shape, A.uplo, op)
    B = TiledMatrix.load(b, A.nb)
    _refuse_rows(b, A.n, B.m)
    if check_finite:
        _refuse_not_finite(a, A)
        _refuse_not_finite(b, B)
    A, B = _one_dtype(A, B)
    if nb is None and not a.is_dir():
        # the type that is computed in may not be that of A
        nb = choose_nb(A.n, A.dtype)
        A, B = (TiledMatrix.from_array(X.to_array(copy=None), nb) for X in (A, B))
    return A, B


def _load_shared(
    a: Path,
    b: Path,
    op: str,
    nb: int | None,
    check_finite: bool,
    engine: MPIEngine,
    ranks: Ranks,
) -> tuple[TiledMatrix, TiledMatrix]:
    """Read this rank's tiles, when all that there are fit in memory."""
    import numpy as np

    from taskla.cli.placing import maps, refuse_too_large
    from taskla.matrix import TiledMatrix
    from taskla.matrix_files import read
    from taskla.matrix_layout import choose_nb
    from taskla.matrix_place import place
    from taskla.routines import problem

    of_a, of_b = read(a), read(b)
    n = of_a.layout.n
    _refuse_shapes(a, (of_a.layout.m, n), of_a.layout.uplo, op)
    _refuse_rows(b, n, of_b.layout.m)
    dtype = np.result_type(of_a.dtype, of_b.dtype)
    if nb is None:
        workers = engine.workers * ranks.ranks
        nb = of_a.layout.nb if of_a.tiled else choose_nb(n, dtype, workers)
    p: Problem = problem(op, n, nb, dtype.name, nrhs=of_b.layout.n)
    refuse_too_large(p, engine.distribution, engine, ranks)
    where = maps(p, engine.distribution)
    A, B = (TiledMatrix.load(x, nb, distribution=where[name]) for x, name in ((a, "A"), (b, "B")))
    if check_finite:
        with place().collectives.agreed():
            _refuse_not_finite(a, A)
            _refuse_not_finite(b, B)
    return _one_dtype(A, B)


def _refuse_shapes(path: Path, shape: tuple[int, int], uplo: str | None, op: str) -> None:
    if shape[0] != shape[1]:
        raise ValueError(f"{path}: A must be square, not {shape[0]} x {shape[1]}")
    if uplo and op != "posv":
        raise ValueError(f"{path}: holds the {uplo} triangle of A only; --assume-a pos can use it")


def _refuse_rows(path: Path, n: int, m: int) -> None:
    if m != n:
        raise ValueError(f"{path}: B must have {n} rows, as A has, not {m}")


def _one_dtype(A: TiledMatrix, B: TiledMatrix) -> tuple[TiledMatrix, TiledMatrix]:
    """Both in one data type that holds both and that all tiles have, and writeable."""
    import numpy as np

    dtype = np.result_type(A.dtype, B.dtype)
    return tuple(  # type: ignore[return-value]
        X if X.dtype == dtype and X.writeable and X.mixed is None else X.astype(dtype)
        for X in (A, B)
    )


def _refuse_not_finite(path: Path, X: TiledMatrix) -> None:
    import numpy as np

    for i, j in X.own_tiles():
        array = X.tile(i, j).array
        if X.uplo and i == j:
            # what lies in the other triangle is not used
            array = (np.tril if X.uplo == "lower" else np.triu)(array)
        bad = np.argwhere(~np.isfinite(array))
        if bad.size:
            row, column = (bad[0] + (i * X.nb, j * X.nb)).tolist()
            raise ValueError(
                f"{path}: entry ({row}, {column}), counted from 0, is "
                f"{array[tuple(bad[0])]}; all must be finite"
            )


def _residual(a: Path, b: Path, X: TiledMatrix) -> float:
    """HPL's scaled residual, from the files: A was overwritten, and it may not be Hermitian."""
    import numpy as np

    from taskla.cli.generate import strips
    from taskla.formats import format_of
    from taskla.matrix import TiledMatrix

    if X.m == 0 or X.n == 0:
        return 0.0
    A = TiledMatrix.load(a)
    # a folder may hold one triangle only
    A_array = A.to_array(fill="hermitian") if A.uplo else A.to_array(copy=None)
    B_array, x = TiledMatrix.load(b).to_array(copy=None), X.to_array(copy=None)

    def largest_row(block: Any) -> float:
        return float(np.abs(block).sum(axis=1).max())

    errors, norms = [], []
    for s in strips(X.m):
        errors.append(largest_row(A_array[s] @ x - B_array[s]))
        norms.append(largest_row(A_array[s]))
    scale = max(norms) * largest_row(x) + largest_row(B_array)
    error = float(np.max(errors))
    eps = format_of(X.dtype).unit_roundoff
    return error / (eps * scale * X.m) if error else 0.0


def _residual_shared(
    a: Path,
    b: Path,
    distribution: Distribution | None,
    solution: TiledMatrix,
    engine: Engine,
    ranks: Ranks,
) -> float:
    """The same on many ranks, a few columns of X at a time."""
    import numpy as np

    from taskla.cli.spread import Spread
    from taskla.formats import format_of
    from taskla.matrix import TiledMatrix

    if solution.m == 0 or solution.n == 0:
        return 0.0
    nb, n = solution.nb, solution.n
    of_a = TiledMatrix.load(a, nb, distribution=distribution)
    of_b = TiledMatrix.load(b, nb, distribution=solution.distribution)
    A = Spread(of_a, "hermitian" if of_a.uplo else "full", ranks, engine)
    B, X = (Spread(matrix, "full", ranks, engine) for matrix in (of_b, solution))
    sums = np.zeros(solution.m)
    for start in range(0, n, _COLUMNS):
        E = np.eye(n, min(_COLUMNS, n - start), -start, solution.dtype)
        sums += np.abs(A.times(X.times(E)) - B.times(E)).sum(axis=1)
    scale = A.norm("I") * X.norm("I") + B.norm("I")
    error = float(np.max(sums))
    eps = format_of(solution.dtype).unit_roundoff
    return ranks.share(error / (eps * scale * solution.m) if error else 0.0)


def _is_flat(path: Path) -> bool:
    """Whether a file holds a vector."""
    import numpy as np

    return path.suffix.lower() == ".npy" and np.load(path, mmap_mode="r").ndim == 1


def _save(X: TiledMatrix, path: Path, flat: bool, ranks: Ranks | None) -> None:
    """Write X; as a vector if B was one and the format has vectors."""
    if not flat or path.suffix.lower() != ".npy":
        X.save(path)
        return
    vector = X.to_array(copy=None if X.distribution is None else True)[:, 0]
    if ranks is None:
        _save_vector(vector, path)
    else:
        ranks.first(partial(_save_vector, vector, path))


def _save_vector(vector: Any, path: Path) -> None:
    import numpy as np

    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.save(file, vector)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
