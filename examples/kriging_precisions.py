"""What kriging in double precision and in mixed precision took and gave, side by side.

`kriging.py` with a tolerance does its steps twice; here is what is noted of them, and the table.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

import taskla as tla
from taskla import energy
from taskla.engines import Engine

Array: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
# Its name, what to say of it, and its figures.
Step: TypeAlias = tuple[str, str, dict[str, Any]]
# Steps by name: their figures, and what each took.
Notes: TypeAlias = dict[str, dict[str, Any]]
Result = TypeVar("Result")
# Of the table: its name, two figures, and a remark.
Line: TypeAlias = tuple[str, str, str, str]


# -- what is measured ------------------------------------------------------------------------------


def peak_memory() -> int:
    """Return the most bytes that this process has had in memory, since `forget_peak` if called."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def forget_peak() -> bool:
    """Have the most memory counted from now on; False where the system cannot, all but Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def noted(
    steps: Generator[Step, None, Result], engine: Engine, notes: Notes
) -> Generator[Step, None, Result]:
    """Pass steps on, and note their figures, seconds, joules and memory."""
    # what Dask's workers use is not this process's to read, nor are meters of other ranks' machines
    here = engine.name != "dask"
    meters = energy.find("meters").meters if here and engine.ranks == 1 else ()
    counted = here and forget_peak()
    before = peak_memory()
    while True:
        used, start, busy = [meter.read() for meter in meters], perf_counter(), process_time()
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        seconds, busy = perf_counter() - start, process_time() - busy
        joules = sum(meter.read() for meter in meters) - sum(used)
        grown = sum(engine.share(peak_memory() - before))
        notes[step[0]] = step[2] | {
            "seconds": seconds,
            "busy": sum(engine.share(busy)) if here else None,
            "joules": joules if meters else None,
            "grown": grown if counted else None,
        }
        yield step


def tiles_by_format(L: tla.TiledMatrix) -> dict[str, int]:
    """Return how many tiles of one triangle have each format, the widest first."""
    names, counts = np.unique(L.format_map[np.tril_indices(L.nt)], return_counts=True)
    found = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return {name: found[name] for name in tla.formats.FORMATS if name in found}


def factor_error(
    A: Callable[[Indices, Indices], Array], L: tla.TiledMatrix, engine: Engine, probes: int = 8
) -> float:
    """Estimate ||A - L L^T|| / ||A|| in the Frobenius norm; A is made anew, a block at a time.

    The mean of |M x|^2 over random normal x is the squared norm of M.
    """
    n, nb = L.n, L.nb
    x = np.random.default_rng(0).normal(size=(n, probes))
    B = tla.TiledMatrix.from_array(x, nb=nb, copy=True)
    tla.trmm("L", "lower", "T", "N", 1.0, L, B)
    tla.trmm("L", "lower", "N", "N", 1.0, L, B)
    y = B.to_array()
    blocks = [np.arange(start, min(start + nb, n)) for start in range(0, n, nb)]

    def squares(rows: Indices) -> tuple[float, float]:
        rest, norm = -y[rows], 0.0
        for cols in blocks:
            block = A(rows, cols)
            rest += block @ x[cols]
            norm += np.linalg.norm(block) ** 2
        return np.linalg.norm(rest) ** 2 / probes, norm

    # each rank takes some of them
    mine = [(rows,) for rows in blocks[engine.rank :: engine.ranks]]
    own = np.sum([(0.0, 0.0), *engine.map(squares, mine)], axis=0)
    error, norm = np.sum(engine.share(own.tolist()), axis=0)
    return float(np.sqrt(error / norm))


# -- the table -------------------------------------------------------------------------------------


def compared(wide: Notes, low: Notes, difference: float, tol: float) -> Step:
    """Return the last step, whose text is the table.

    Parameters
    ----------
    wide, low
        What was noted of fp64 and of mixed precision.
    difference : float
        The largest of two predictions.
    tol : float
    """
    likelihoods = [notes["likelihood"]["log_likelihood"] for notes in (wide, low)]
    figures = {
        "speedup": wide["cholesky"]["seconds"] / low["cholesky"]["seconds"],
        "share_of_bytes": low["assemble"]["bytes"] / wide["assemble"]["bytes"],
        "log_likelihood_difference": likelihoods[1] - likelihoods[0],
        "prediction_difference": difference,
        "error": [notes["error"]["error"] for notes in (wide, low)],
        **{key: [n["cholesky"][key] for n in (wide, low)] for key in ("busy", "joules", "grown")},
    }
    return "compare", table(wide, low, figures, tol), figures


def table(wide: Notes, low: Notes, figures: Mapping[str, Any], tol: float) -> str:
    """Return the table: a line a figure, fp64 and mixed precision beside one another."""
    both = (wide, low)

    def line(name: str, note: str, step: str, key: str, form: str, unit: float = 1) -> Line:
        values = [notes[step][key] for notes in both]
        a, b = ("-" if value is None else format(value / unit, form) for value in values)
        return name, a, b, note

    speed = f"{figures['speedup']:.2f} times as fast"
    likelihood = f"difference {figures['log_likelihood_difference']:.1e}"
    prediction = f"largest difference {figures['prediction_difference']:.1e}"
    meter = "" if figures["joules"][0] is not None else "no meter that can be read"
    lines = [
        ("", *(notes["assemble"]["precision"] for notes in both), ""),
        line("assembly, s", "", "assemble", "seconds", ".2f"),
        line("factorisation, s", speed, "cholesky", "seconds", ".2f"),
        ("  Gflop/s", *(rate(notes["cholesky"]) for notes in both), ""),
        line("  seconds of cores", "whoever else uses them", "cholesky", "busy", ".2f"),
        line("  joules", meter, "cholesky", "joules", ".0f"),
        line("matrix, GB", f"{figures['share_of_bytes']:.1%}", "assemble", "bytes", ".4g", 1e9),
        line("most memory, GB", "above that at the start", "cholesky", "grown", ".4g", 1e9),
        ("tiles", *(words(notes["assemble"]["tiles"]) for notes in both), ""),
        line("|A - L L^T| / |A|", f"allowed {3 * tol:g}", "error", "error", ".1e"),
        line("log-likelihood", likelihood, "likelihood", "log_likelihood", ".4f"),
        line("RMSE of predictions", prediction, "predict", "rmse", ".6f"),
    ]
    widths = [max(len(cells[k]) for cells in lines) for k in range(3)]
    return "\n".join(
        f"{name:<{widths[0]}}  {a:>{widths[1]}}  {b:>{widths[2]}}  {note}".rstrip()
        for name, a, b, note in lines
    )


def rate(cholesky: Mapping[str, Any]) -> str:
    """Return the Gflop/s of a factorisation."""
    return f"{cholesky['flops'] / cholesky['seconds'] / 1e9:.1f}"


def words(tiles: Mapping[str, int]) -> str:
    """Return how many tiles there are of each format."""
    return ", ".join(f"{count} {name}" for name, count in tiles.items())
