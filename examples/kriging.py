"""Ordinary kriging of real data: how large are cities, given where they are and their neighbours?

The logarithms of the populations of n places are taken for a Gaussian process on the globe, with an
exponential correlation (Matern 1/2) and a nugget. Its correlation matrix, of order n, is assembled
tile by tile, factored and used by tasks on the threads of this machine, on all ranks that mpirun
starts, or on the workers of a Dask cluster; some of the places are held out and predicted from the
others. With a tolerance all is done twice, in double precision and in formats chosen tile by tile,
and both are put side by side. docs/kriging.md tells the story.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from kriging_precisions import (
    Array,
    Indices,
    Notes,
    Step,
    compared,
    factor_error,
    noted,
    peak_memory,
    tiles_by_format,
)

import taskla as tla
from taskla.engines import Engine

DATA = Path(__file__).parent / "data" / "cities15000.csv.gz"
PLACES = 34006
EARTH_KM = 6371.0
# The likelihood is maximised over this grid, on a few places: one small factorisation a model.
RANGES_KM = (200.0, 400.0, 800.0, 1600.0, 3200.0)
NUGGETS = (0.6, 0.7, 0.8, 0.9, 0.95)
FIT_PLACES = 2500


# -- the data --------------------------------------------------------------------------------------


class Places(NamedTuple):
    """Places on the unit sphere, the first `observed` ones observed and the others held out."""

    points: Array
    values: Array
    observed: int


def load(path: Path) -> tuple[Array, Array]:
    """Return unit vectors, shape (count, 3), and the decimal logarithms of 1 + population."""
    columns = np.loadtxt(
        path,
        delimiter=",",
        skiprows=1,
        usecols=(3, 4, 5),
        quotechar='"',
        comments=None,
        encoding="utf-8",
        unpack=True,
    )
    latitude, longitude = np.radians(columns[:2])
    x, y = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)
    return np.column_stack([x, y, np.sin(latitude)]), np.log10(1 + columns[2])


def morton_order(points: Array, bits: int = 16) -> Indices:
    """Return the order along a Z-curve through the cube around the sphere, which has no seam.

    Neighbours on the curve are neighbours on the globe, so that entries of one tile are alike.
    """
    cells = ((points + 1) / 2 * (2**bits - 1)).astype(np.int64)
    codes = np.zeros(len(points), dtype=np.int64)
    for bit, axis in product(range(bits), range(3)):
        codes |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(codes, kind="stable")


def choose(points: Array, values: Array, n: int, share: float, seed: int) -> Places:
    """Choose n places at random and hold out a share of them; both parts in Morton order."""
    chosen = np.random.default_rng(seed).permutation(len(points))[:n]
    observed = n - max(1, round(share * n))
    parts = (chosen[:observed], chosen[observed:])
    order = np.concatenate([part[morton_order(points[part])] for part in parts])
    return Places(points[order], values[order], observed)


# -- the model -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correlation:
    """(1 - nugget) exp(-distance / range) between two places, 1 of a place with itself.

    The distance is that through the Earth, for which the exponential is a correlation in space,
    hence on the sphere. Called with rows and columns, it returns that block of the matrix.
    """

    points: Array
    range_km: float
    nugget: float

    def __call__(self, rows: Indices, cols: Indices) -> Array:
        # |p - q|^2 = 2 (1 - p.q). Rounding blurs it by a decimetre or so where p and q are near,
        # and may make it negative. Each step is one NumPy call in place, without the GIL; the
        # block is in Fortran order, as the tiles are.
        block = (self.points[cols] @ self.points[rows].T).T
        np.subtract(1.0, block, out=block)
        np.maximum(block, 0.0, out=block)
        np.sqrt(block, out=block)
        block *= -np.sqrt(2.0) * EARTH_KM / self.range_km
        np.exp(block, out=block)
        block *= 1.0 - self.nugget
        _, i, j = np.intersect1d(rows, cols, assume_unique=True, return_indices=True)
        block[i, j] = 1.0
        return block

    def assemble(
        self, nb: int | None = None, precision: tla.PrecisionMap | None = None
    ) -> tla.TiledMatrix:
        """Return the matrix, one triangle, made by one task a tile."""
        n = len(self.points)
        return tla.TiledMatrix.from_function(self, (n, n), nb=nb, uplo="lower", precision=precision)


class Estimate(NamedTuple):
    """What the observed values say: generalised least squares and the profile likelihood."""

    mean: float
    sill: float
    log_likelihood: float
    whitened: Array


def estimate(L: tla.TiledMatrix, values: Array, observed: int) -> Estimate:
    """Estimate mean and sill from the first `observed` values and the factor L of all places.

    L = [L11 0; L21 L22], and L11 is the factor of those observed: one forward substitution gives
    L11^-1 [values 1], two columns of uncorrelated numbers.
    """
    columns = np.zeros((L.n, 2), order="F")
    columns[:observed] = np.column_stack([values[:observed], np.ones(observed)])
    B = tla.TiledMatrix.from_array(columns, nb=L.nb, copy=True)
    tla.trsm("L", "lower", "N", "N", 1.0, L, B)
    columns = B.to_array()
    columns[observed:] = 0.0
    z, one = columns[:observed].T
    mean = float(one @ z / (one @ one))
    sill = float(np.sum((z - mean * one) ** 2) / observed)
    half_log_det = np.log(diagonal(L)[:observed]).sum()
    log_likelihood = -0.5 * observed * (np.log(2 * np.pi * sill) + 1) - half_log_det
    return Estimate(mean, sill, float(log_likelihood), columns)


def predict(L: tla.TiledMatrix, fitted: Estimate, observed: int) -> tuple[Array, Array]:
    """Return the kriging predictions at the places held out, and their standard deviations.

    The correlation of the places held out with those observed is L21 L11^T. So the predictions are
    L21 L11^-1 of the values, and what remains unknown has the correlation L22 L22^T.
    """
    B = tla.TiledMatrix.from_array(fitted.whitened, nb=L.nb, copy=True)
    tla.trmm("L", "lower", "N", "N", 1.0, L, B)
    z, one = B.to_array()[observed:].T
    squares = np.zeros(L.n)
    for i, j in L.own_tiles():
        rows, cols = L.rows(i), L.cols(j)
        if rows.stop > observed and cols.stop > observed:
            tile = L.block(i, j)
            squares[rows] += np.sum(tile[:, max(0, observed - cols.start) :] ** 2, axis=1)
    return z + fitted.mean * (1 - one), np.sqrt(fitted.sill * total(squares)[observed:])


def diagonal(L: tla.TiledMatrix) -> Array:
    """Return the diagonal of a square tiled matrix."""
    own = np.zeros(L.n)
    for i, j in L.own_tiles():
        if i == j:
            own[L.rows(i)] = np.diag(L.block(i, i))
    return total(own)


def ready(L: tla.TiledMatrix) -> tla.TiledMatrix:
    """Return a matrix whose tiles are there: on Dask nothing is computed before it is asked for."""
    if not hasattr(L, "persist"):
        return L
    from distributed import wait

    persisted = L.persist()
    wait(persisted)
    return persisted  # type: ignore[no-any-return]


def total(own: Array) -> Array:
    """Return the sum of what the tiles that are here gave and what those elsewhere did."""
    parts: Array = np.array(tla.engines.current().share(own.tolist()))
    return parts.sum(axis=0)


def fit(places: Places, seed: int) -> Correlation:
    """Return the correlation of the largest likelihood on the grid, for a few places observed."""
    count = min(FIT_PLACES, places.observed)
    few = np.random.default_rng(seed).permutation(places.observed)[:count]
    few.sort()
    best, found = -np.inf, (0.0, 0.0)
    for model in product(RANGES_KM, NUGGETS):
        L = tla.potrf(Correlation(places.points[few], *model).assemble())
        likelihood = estimate(L, places.values[few], count).log_likelihood
        if likelihood > best:
            best, found = likelihood, model
    return Correlation(places.points, *found)


# -- checks ----------------------------------------------------------------------------------------


def residual(A: Correlation, x: Array, b: Array, nb: int, engine: Engine) -> float:
    """Return ||A x - b|| / (eps (||A|| ||x|| + ||b||) n), all in the maximum norm.

    A result below 16 passes, by the rule of the HPL benchmark. A is made anew, a block at a time:
    the factor has taken its place.
    """
    n = len(x)
    blocks = [np.arange(start, min(start + nb, n)) for start in range(0, n, nb)]
    # All entries are positive: the product with ones gives the row sums of the norm.
    columns = np.column_stack([x, np.ones(n)])

    def error_and_norm(rows: Indices) -> tuple[float, float]:
        products = np.sum([A(rows, cols) @ columns[cols] for cols in blocks], axis=0)
        return np.abs(products[:, 0] - b[rows]).max(), products[:, 1].max()

    # each rank takes some of them
    mine = [(rows,) for rows in blocks[engine.rank :: engine.ranks]]
    own = np.max([(0.0, 0.0), *engine.map(error_and_norm, mine)], axis=0)
    error, norm = np.max(engine.share(own.tolist()), axis=0)
    unit = np.finfo(np.float64).eps / 2
    return float(error / (unit * (norm * np.abs(x).max() + np.abs(b).max()) * n))


def solve(L: tla.TiledMatrix, b: Array) -> Array:
    """Return A^-1 b by the factor L."""
    x = tla.TiledMatrix.from_array(b.reshape(-1, 1), nb=L.nb, copy=True)
    tla.potrs(L, x)
    return x.to_array().ravel()


# -- the run ---------------------------------------------------------------------------------------


def steps(options: argparse.Namespace, engine: Engine) -> Iterator[Step]:
    """Do one step after the other, and yield each when it is done."""
    n = options.n
    places = choose(*load(DATA), n, options.held_out, options.seed)
    m = places.observed
    yield "read", f"{n} places: {m} observed, {n - m} held out", {"n": n, "observed": m}

    # small factorisations, which are not worth the way to a cluster's workers
    with tla.engine("threads") if engine.name == "dask" else nullcontext():
        A = fit(places, options.seed)
    text = f"range {A.range_km:g} km, nugget {A.nugget:g}: the likeliest on a grid"
    yield "fit", text, {"range_km": A.range_km, "nugget": A.nugget}

    if options.tol is not None:
        yield from in_both_precisions(A, places, options, engine)
        return
    L = yield from factored(A, options, engine)
    yield from kriged(L, places)
    x = solve(L, places.values)
    yield "solve", "the system for the values of all places", {}
    error = residual(A, x, places.values, L.nb, engine)
    yield "check", f"residual {error:.1e} of at most 16, by HPL's rule", {"residual": error}

    ours = diagonal(L)
    if n <= options.scipy_max and engine.rank == 0:
        yield from scipy_steps(A, ours)


def factored(
    A: Correlation,
    options: argparse.Namespace,
    engine: Engine,
    precision: tla.PrecisionMap | None = None,
) -> Generator[Step, None, tla.TiledMatrix]:
    """Assemble and factor the matrix; return the factor."""
    L = ready(A.assemble(options.nb, precision))
    nbytes = sum(engine.share(L.nbytes))
    text = f"one triangle, {L.nt} x {L.nt} tiles of {L.nb}, {nbytes / 1e9:.2f} GB"
    figures = {"nb": L.nb, "bytes": nbytes, "precision": str(precision or "fp64")}
    yield "assemble", text, figures | {"tiles": tiles_by_format(L)}

    L = ready(tla.potrf(L))
    yield "cholesky", f"{engine}", {"flops": L.n**3 / 3, "engine": f"{engine}"}
    return L


def kriged(L: tla.TiledMatrix, places: Places) -> Generator[Step, None, Array]:
    """Compute the likelihood and predict what was held out; return the predictions."""
    m = places.observed
    seen, hidden = places.values[:m], places.values[m:]
    fitted = estimate(L, places.values, m)
    text = "mean {:.4f}, sill {:.4f}, log-likelihood {:.2f}".format(*fitted)
    names = ("mean", "sill", "log_likelihood")
    yield "likelihood", text, dict(zip(names, fitted, strict=False))

    prediction, deviation = predict(L, fitted, m)
    rmse, rmse_mean = rms(prediction - hidden), rms(seen.mean() - hidden)
    inside = float(np.mean(np.abs(prediction - hidden) < 1.96 * deviation))
    text = f"RMSE {rmse:.4f}, of the mean {rmse_mean:.4f}; {inside:.1%} within 1.96 deviations"
    yield "predict", text, {"rmse": rmse, "rmse_mean": rmse_mean, "inside": inside}
    return prediction


def in_one_precision(
    A: Correlation,
    places: Places,
    options: argparse.Namespace,
    engine: Engine,
    precision: tla.PrecisionMap | None,
) -> Generator[Step, None, Array]:
    """Do what is done in double and in mixed precision; return the predictions."""
    L = yield from factored(A, options, engine, precision)
    prediction = yield from kriged(L, places)
    error = factor_error(A, L, engine)
    yield "error", f"|A - L L^T| is {error:.1e} |A|, by random vectors", {"error": error}
    return prediction


def in_both_precisions(
    A: Correlation, places: Places, options: argparse.Namespace, engine: Engine
) -> Iterator[Step]:
    """Do all in double precision, then in mixed precision, and compare."""
    wide: Notes = {}
    low: Notes = {}
    given = A, places, options, engine
    # one after the other, so that there is one matrix in memory at a time
    z = yield from noted(in_one_precision(*given, None), engine, wide)
    z_low = yield from noted(in_one_precision(*given, options.precision), engine, low)
    yield compared(wide, low, float(np.abs(z - z_low).max()), options.tol)


def scipy_steps(A: Correlation, ours: Array) -> Iterator[Step]:
    """Have SciPy compute the same factor, in place, and compare the diagonals."""
    n = len(ours)
    with tla.engine("threads"):
        a = tla.TiledMatrix.from_function(A, (n, n)).to_array(copy=False)
    yield "full", f"both triangles, {a.nbytes / 1e9:.2f} GB, for SciPy", {"bytes": a.nbytes}
    factor = scipy.linalg.cholesky(a, lower=True, overwrite_a=True, check_finite=False)
    difference = float(np.abs(ours / np.diag(factor) - 1).max())
    text = f"scipy.linalg.cholesky in place; diagonals differ by {difference:.1e}"
    yield "scipy", text, {"flops": n**3 / 3, "difference": difference}


def rms(errors: Array) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(errors**2)))


def size(text: str) -> int:
    """Return a positive integer of the command line."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--n", type=size, default=8000, help="places in all, up to 34006 (%(default)s)")
    add("--held-out", type=float, default=0.1, help="share of them to predict (%(default)s)")
    add("--seed", type=int, default=0, help="of the choice of places (%(default)s)")
    add("--nb", type=size, help="tile size (chosen from n)")
    add("--engine", choices=("threads", "mpi", "dask"), help="(threads, or mpi under mpirun)")
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster (one of this machine's own)")
    add("--workers", type=size, help="threads (one a core)")
    add("--policy", default="lws", choices=tla.schedulers.available(), help="(%(default)s)")
    add("--scipy-max", type=int, default=12000, help="largest n to give SciPy too (%(default)s)")
    add("--no-scipy", dest="scipy_max", action="store_const", const=0, help="do not run SciPy")
    add("--tol", type=float, help="compare fp64 with mixed precision of this relative error")
    add("--formats", help="for --tol, separated by commas (fp64,fp32,fp16)")
    add("--trace", metavar="FILE", help="record what ran, for taskla trace")
    add("--json", action="store_true", help="one JSON object a step")
    options = parser.parse_args(arguments)
    if not 20 <= options.n <= PLACES:
        parser.error(f"--n is {options.n}; allowed: 20 to {PLACES}")
    if not 0 < options.held_out <= 0.5:
        parser.error(f"--held-out is {options.held_out}; allowed: above 0, up to 0.5")
    if options.scheduler and options.engine != "dask":
        parser.error("--scheduler is for --engine dask")
    if options.seed < 0:
        parser.error(f"--seed is {options.seed}; it must be at least 0")
    if options.formats and options.tol is None:
        parser.error("--formats is for --tol")
    if options.tol is not None:
        formats = options.formats.split(",") if options.formats else None
        try:
            options.precision = tla.PrecisionMap("adaptive", options.tol, formats)
        except ValueError as error:
            parser.error(f"--tol, --formats: {error}")
    return options


def show(step: Step, seconds: float, as_json: bool) -> None:
    """Print a line on a step that has ended."""
    name, text, figures = step
    gflops = figures["flops"] / seconds / 1e9 if "flops" in figures else None
    if as_json:
        figures |= {"gflops": gflops} if gflops else {}
        row = {"step": name, "seconds": seconds, "peak_bytes": peak_memory()}
        print(json.dumps(row | figures), flush=True)
    elif "\n" in text:
        print(f"\n{text}", flush=True)
    else:
        rate = f"{gflops:.1f}" if gflops else ""
        peak = peak_memory() / 1e9
        print(f"{name:<12}{seconds:8.2f}{peak:9.2f}{rate:>9}  {text}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the steps, and print a line for each as it ends."""
    options = parse(arguments)
    wanted = {"workers": options.workers, "policy": options.policy, "trace": options.trace}
    chosen: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if options.scheduler:
        from distributed import Client

        chosen["client"] = Client(options.scheduler)
    with tla.engine(options.engine, **chosen) as engine:
        if engine.rank == 0 and not options.json:
            print(f"{'step':<12}{'seconds':>8}{'peak GB':>9}{'Gflop/s':>9}")
        start = perf_counter()
        for step in steps(options, engine):
            if engine.rank == 0:
                show(step, perf_counter() - start, options.json)
            start = perf_counter()


if __name__ == "__main__":
    main()
