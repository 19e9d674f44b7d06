"""Mixed precision on the covariance matrices of a Matern field, the test of geostatistics.

Points of an s x s grid in the unit square, in Morton order, have the covariance exp(-h / beta) at a
distance of h: Matern with a smoothness of 1/2. For each range beta and each tolerance the matrix is
stored in formats chosen tile by tile and factored, and compared with double precision: a line each.
docs/choosing-an-accuracy.md tells what they mean.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import taskla as tla

Array: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
Row: TypeAlias = dict[str, Any]

#: Ranges of weak, medium and strong correlation: Abdulah et al., IEEE TPDS 29 (2018) 2771-2784.
RANGES = (0.03, 0.1, 0.3)
TOLERANCES = (1e-4, 1e-6, 1e-8)


def morton_grid(side: int) -> Array:
    """Return the points ((i - 1/2) / side, (j - 1/2) / side), shape (side^2, 2), along a Z-curve.

    Points that are near on the curve are near in the plane: without that no tile is small.
    """
    row, col = np.divmod(np.arange(side**2), side)
    codes = np.zeros(side**2, dtype=np.int64)
    for bit in range(side.bit_length()):
        codes |= ((col >> bit) & 1) << (2 * bit) | ((row >> bit) & 1) << (2 * bit + 1)
    order = np.argsort(codes)
    return (np.column_stack([row, col])[order] + 0.5) / side


@dataclass(frozen=True)
class Covariance:
    """exp(-h / beta); called with rows and columns, it returns that block of the matrix."""

    points: Array
    beta: float

    def __call__(self, rows: Indices, cols: Indices) -> Array:
        x, y = (np.subtract.outer(*(self.points[at, k] for at in (rows, cols))) for k in (0, 1))
        return np.exp(np.hypot(x, y) / -self.beta)

    def assemble(self, nb: int, precision: str | tla.PrecisionMap | None = None) -> tla.TiledMatrix:
        """Return one triangle of the matrix in tiles."""
        n = len(self.points)
        return tla.TiledMatrix.from_function(self, (n, n), nb, uplo="lower", precision=precision)


def factored(A: Covariance, nb: int, precision: Any, repeat: int) -> tuple[tla.TiledMatrix, float]:
    """Return the factor, and the least seconds that it took: others may use the machine."""
    seconds = []
    for _ in range(repeat):
        L = A.assemble(nb, precision)
        start = perf_counter()
        tla.potrf(L)
        seconds.append(perf_counter() - start)
    return L, min(seconds)


def rows(
    n: int,
    nb: int,
    ranges: Sequence[float] = RANGES,
    tolerances: Sequence[float] = TOLERANCES,
    formats: Sequence[str] | None = None,
    repeat: int = 1,
) -> Iterator[Row]:
    """Yield what comes out for each range: in double precision, then for each tolerance."""
    points = morton_grid(round(n**0.5))
    index = np.arange(n)
    for beta in ranges:
        A = Covariance(points, beta)
        a = A(index, index)
        norm, log_det = np.linalg.norm(a), None
        for tol in (None, *tolerances):
            precision = None if tol is None else tla.PrecisionMap("adaptive", tol, formats)
            row = {"beta": beta, "tol": tol} | stored(A.assemble(nb, precision))
            try:
                L, row["seconds"] = factored(A, nb, precision, repeat)
            except np.linalg.LinAlgError as error:
                yield row | {"failure": str(error)}
                continue
            factor = L.to_array()
            row["error"] = float(np.linalg.norm(a - factor @ factor.T) / norm)
            found = 2 * float(np.log(factor.diagonal()).sum())
            log_det = found if log_det is None else log_det
            yield row | {"log_det": found, "log_det_error": abs(found / log_det - 1)}


def stored(A: tla.TiledMatrix) -> Row:
    """Return how many tiles have each format, and the bytes of all."""
    names, counts = np.unique(A.format_map[np.tril_indices(A.nt)], return_counts=True)
    tiles = dict(zip(names.tolist(), counts.tolist(), strict=True))
    whole = sum(A.tile(i, j).array.size for i, j in A.own_tiles()) * A.dtype.itemsize
    return {"tiles": tiles, "bytes": A.nbytes, "share": A.nbytes / whole}


def text(row: Row, formats: Sequence[str]) -> str:
    """Return a line of the table."""
    tol = "fp64" if row["tol"] is None else f"{row['tol']:g}"
    tiles = "/".join(str(row["tiles"].get(name, 0)) for name in formats)
    line = f"{row['beta']:<6g}{tol:<8}{tiles:>14}{row['bytes'] / 1e6:9.2f}{row['share']:8.1%}"
    if "failure" in row:
        return f"{line}  {row['failure']}"
    return f"{line}{row['seconds']:9.3f}{row['error']:10.1e}{row['log_det_error']:10.1e}"


def numbers(text: str) -> list[float]:
    """Return the numbers of a list with commas."""
    return [float(number) for number in text.split(",")]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--n", type=int, default=1024, help="points, a square (%(default)s)")
    add("--nb", type=int, help="tile size (16 tile columns)")
    add("--beta", type=numbers, default=RANGES, help="ranges, separated by commas (.03,.1,.3)")
    add("--tol", type=numbers, default=TOLERANCES, help="tolerances (1e-4,1e-6,1e-8)")
    add("--formats", default="fp64,fp32,fp16", help="to choose from (%(default)s)")
    add("--repeat", type=int, default=1, help="factorisations, of which the fastest counts")
    add("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    if options.n < 16 or round(options.n**0.5) ** 2 != options.n:
        parser.error(f"--n is {options.n}; it must be a square, at least 16")
    options.nb = options.nb or -(-options.n // 16)
    options.formats = options.formats.split(",")
    for name in ("nb", "repeat"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; it must be at least 1")
    try:
        for tol in options.tol:
            tla.PrecisionMap("adaptive", tol, options.formats)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, a line as soon as it is known."""
    given = parse(arguments)
    if not given.json:
        heads = "/".join(given.formats)
        print(f"{'beta':<6}{'tol':<8}{heads:>14}       MB    share  seconds     error   log det")
    how = (given.beta, given.tol, given.formats, given.repeat)
    for row in rows(given.n, given.nb, *how):
        print(json.dumps(row) if given.json else text(row, given.formats), flush=True)


if __name__ == "__main__":
    main()
