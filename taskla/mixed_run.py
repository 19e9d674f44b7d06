"""Running a program on matrices whose tiles have number formats of their own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from taskla import kernels
from taskla.engines.base import Engine
from taskla.graph import TaskGraph
from taskla.matrix_mixed import refuse_tolerance, tile_squares
from taskla.matrix_place import ALONE, place
from taskla.mixed_precision import Mixed, mixed
from taskla.operations import Access
from taskla.precision import Codes, PrecisionMap
from taskla.product_formats import product_tags

__all__ = ["is_mixed", "run_mixed", "run_products", "tile_norms"]

# Program -> formats -> what runs in its place: programs are kept, and run many times.
_known: WeakKeyDictionary[TaskGraph, dict[tuple[Any, ...], Mixed]]
_known = WeakKeyDictionary()


def is_mixed(matrix: Any) -> bool:
    """Whether the tiles of a matrix have formats of their own."""
    return getattr(matrix, "mixed", None) is not None


def run_mixed(engine: Engine, graph: TaskGraph, matrices: Sequence[Any]) -> None:
    """Run a program on matrices of which some have tiles of several formats.

    Parameters
    ----------
    engine : Engine
    graph : TaskGraph
        As algorithms make it, for matrices of one data type.
    matrices : sequence
        As `taskla.engines.base.Engine.run` takes them.

    Raises
    ------
    Exception
        As of `taskla.engines.base.Engine.run`.
    """
    codes = _codes(graph, matrices)
    packed = _packed(engine)
    key = (packed, *((base, array.tobytes()) for base, array in codes.items()))
    programs = _known.setdefault(graph, {})
    if key not in programs:
        programs[key] = mixed(graph, codes, packed=packed)
    _run(engine, graph, programs[key], matrices)


def _run(engine: Engine, graph: TaskGraph, program: Mixed, matrices: Sequence[Any]) -> None:
    grids = [grid for grid in graph.grids if not grid.scratch]
    with ExitStack() as stack:
        for grid, matrix in zip(grids, matrices, strict=True):
            if is_mixed(matrix):
                mine = (graph.tiles >= grid.base) & (graph.tiles < grid.end)
                written = bool((graph.modes[mine] != Access.R).any())
                stack.enter_context(matrix.mixed.working(written))
        sources = [_part(matrices[number], name) for number, name in program.parts]
        engine.run(program.graph, sources)


def run_products(
    engine: Engine,
    graph: TaskGraph,
    matrices: Sequence[Any],
    precision: PrecisionMap,
) -> None:
    """Run a program of products (gemm, symm, hemm), each in the format that a map allows.

    Parameters
    ----------
    engine, graph, matrices
        As for `run_mixed`; the last matrix is the result.
    precision : PrecisionMap
        Adaptive or of one format.

    Raises
    ------
    ValueError
        When the map is another; when a factor has infs or NaNs and the map is adaptive.
    """
    refuse_tolerance(precision, matrices[-1].dtype)
    norms = {}
    if precision.needs_norms:
        grids = [grid for grid in graph.grids if not grid.scratch]
        factors = zip(grids[:-1], matrices[:-1], strict=True)
        norms = {grid.base: tile_norms(matrix) for grid, matrix in factors}
    tags = product_tags(graph, norms, precision)
    program = mixed(graph, _codes(graph, matrices), tags, _packed(engine))
    _run(engine, graph, program, matrices)


def _codes(graph: TaskGraph, matrices: Sequence[Any]) -> dict[int, Codes]:
    """Return the formats of the tiles of matrices that have several, by their first tile number."""
    grids = [grid for grid in graph.grids if not grid.scratch]
    return {
        grid.base: matrix.mixed.codes
        for grid, matrix in zip(grids, matrices, strict=True)
        if is_mixed(matrix)
    }


def _packed(engine: Engine) -> tuple[str, ...]:
    """Return the formats whose products take packed tiles: on threads, where a library has them."""
    # one may stand for another, which it observes
    name = getattr(engine, "engine", engine).name
    return ("bf16",) if name == "threads" and kernels.bf16_products() else ()


def tile_norms(A: Any) -> NDArray[np.float64]:
    """Return the Frobenius norms of the tiles of a matrix, on all ranks; 0 for those not stored.

    Raises
    ------
    ValueError
        When there are infs or NaNs.
    """
    squares: NDArray[np.float64]
    if hasattr(A, "tile_squares"):
        # on Dask, whose workers sum up
        squares = A.tile_squares()
    else:
        ranks = ALONE if A.distribution is None else place().collectives
        squares = tile_squares(A.layout, A.own_tiles(), A.block, ranks, None)
    if A.uplo:
        # a tile stands for its mirror image as well
        squares = np.maximum(squares, squares.T)
    return np.sqrt(squares)


def _part(matrix: Any, name: str | None) -> Any:
    return matrix if name is None else matrix.mixed.part(matrix, name)
