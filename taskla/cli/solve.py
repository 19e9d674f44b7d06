"""taskla solve."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from taskla.cli.options import debug_option, engine_options, output_options, usage
from taskla.cli.table import emit

if TYPE_CHECKING:
    from taskla.matrix import TiledMatrix

__all__ = ["Row", "command"]

#: HPL's limit on its scaled residual
LIMIT = 16


@dataclass(frozen=True)
class Row:
    """What was solved, what it took (time in seconds, without files and check), how good it is."""

    op: str
    type: str
    n: int
    nrhs: int
    nb: int
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
@output_options
@debug_option
def command(a: Path, b: Path, output: Path, form: str | None, **choices: Any) -> None:
    """Solve A X = B, from files to a file.

    A and B are .npy files, Matrix Market .mtx files, or folders of tiles; the output is neither. It
    appears whole or not at all, and only if X passes HPL's test: the residual, which is the largest
    row sum of A X - B divided by eps (|A| |X| + |B|) n, is at most 16.
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
    engine: str,
    workers: int | None,
    policy: str,
) -> Row:
    from taskla import engines, lapack
    from taskla.matrix import TiledMatrix
    from taskla.matrix_layout import choose_nb
    from taskla.routines import problem

    with usage():
        runs: Any = engines.engine(engine, workers=workers, policy=policy)
        if runs.name != "threads":
            raise ValueError(
                f"engine is {engine!r}; solve runs on the engine 'threads' only, as yet"
            )
    positive = assume_a == "pos"
    A = TiledMatrix.load(a, nb)
    if A.m != A.n:
        raise ValueError(f"{a}: A must be square, not {A.m} x {A.n}")
    if A.uplo and not positive:
        raise ValueError(f"{a}: holds the {A.uplo} triangle of A only; --assume-a pos can use it")
    B = TiledMatrix.load(b, A.nb)
    if B.m != A.n:
        raise ValueError(f"{b}: B must have {A.n} rows, as A has, not {B.m}")
    if check_finite:
        _refuse_not_finite(a, A)
        _refuse_not_finite(b, B)
    A, B = _one_dtype(A, B)
    if nb is None and not a.is_dir():
        # the type that is computed in may not be that of A
        nb = choose_nb(A.n, A.dtype)
        A, B = (TiledMatrix.from_array(X.to_array(copy=None), nb) for X in (A, B))
    with runs:
        begin = perf_counter()
        if positive:
            lapack.posv(A, B)
        else:
            lapack.gesv(A, B)
        time = perf_counter() - begin
    residual = _residual(a, b, B)
    if not residual <= LIMIT:
        hint = "is A Hermitian?" if positive else "is A singular, to working precision?"
        raise ValueError(
            f"the residual is {residual:.4g}, not below {LIMIT}, so X is not kept: {hint}"
        )
    _save(B, output, flat=_is_flat(b))
    op = "posv" if positive else "gesv"
    letter = {"f4": "s", "f8": "d", "c8": "c", "c16": "z"}[A.dtype.str[1:]]
    p = problem(op, A.n, A.nb, letter, nrhs=B.n)
    return Row(
        op=op,
        type=letter,
        n=A.n,
        nrhs=B.n,
        nb=A.nb,
        engine=runs.name,
        policy=runs.policy.name,
        workers=runs.workers,
        time=time,
        gflops=p.flops / time / 1e9,
        residual=residual,
        output=str(output),
    )


def _one_dtype(A: TiledMatrix, B: TiledMatrix) -> tuple[TiledMatrix, TiledMatrix]:
    """Both in one data type that holds both, and writeable."""
    import numpy as np

    dtype = np.result_type(A.dtype, B.dtype)
    return tuple(  # type: ignore[return-value]
        X if X.dtype == dtype and X.writeable else X.astype(dtype) for X in (A, B)
    )


def _refuse_not_finite(path: Path, X: TiledMatrix) -> None:
    import numpy as np

    for i, j in X.layout.tiles():
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


def _is_flat(path: Path) -> bool:
    """Whether a file holds a vector."""
    import numpy as np

    return path.suffix.lower() == ".npy" and np.load(path, mmap_mode="r").ndim == 1


def _save(X: TiledMatrix, path: Path, flat: bool) -> None:
    """Write X; as a vector if B was one and the format has vectors."""
    import numpy as np

    if not flat or path.suffix.lower() != ".npy":
        X.save(path)
        return
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.save(file, X.to_array(copy=None)[:, 0])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
