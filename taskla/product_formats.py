"""The number formats in which the products of tiles may be made, for a tolerance of their sum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from taskla.formats import FORMATS
from taskla.graph import TaskGraph
from taskla.mixed_precision import PRODUCTS
from taskla.precision import NAMES, Codes, PrecisionMap

__all__ = ["product_tags"]


def product_tags(
    graph: TaskGraph, norms: Mapping[int, NDArray[np.float64]], precision: PrecisionMap
) -> Codes:
    """Return the formats in which the products of a graph may be made.

    Product k of K in C_ij := sum_k A_ik B_kj may be in format f if
    ``2 u_f ||A_ik||_F ||B_kj||_F K NT <= tol ||A||_F ||B||_F``.

    Parameters
    ----------
    graph : TaskGraph
        Of gemm, symm or hemm, which may scale and set tiles besides.
    norms : mapping of int to (mt, nt) array
        By the first tile number of a grid: Frobenius norms of the tiles of A and B.
    precision : PrecisionMap
        Adaptive, or of one format.

    Returns
    -------
    (n,) int8 array
        -1 for tasks that are no products.

    Raises
    ------
    ValueError
        When the map is neither.
    """
    products = np.array([name in PRODUCTS for name in graph.operations], dtype=np.bool_)
    tags = np.full(graph.n, -1, np.int8)
    mine = products[graph.kind]
    if precision.uniform is not None:
        tags[mine] = NAMES.index(precision.uniform)
        return tags
    if not precision.needs_norms:
        raise ValueError(
            f"precision is {str(precision)!r}; products take a format or 'adaptive:1e-6'"
        )
    assert precision.tol is not None
    tags[mine] = NAMES.index(precision.formats[0])
    share = np.ones(graph.tiles.size)
    for grid in graph.grids:
        if grid.base in norms:
            found = norms[grid.base]
            total = float(np.sqrt((found**2).sum())) or 1.0
            these = (graph.tiles >= grid.base) & (graph.tiles < grid.end)
            share[these] = found.ravel(order="F")[graph.tiles[these] - grid.base] / total
    # ||A_ik|| ||B_kj|| / (||A|| ||B||)
    size = np.multiply.reduceat(share, graph.indptr[:-1]) if graph.n else np.zeros(0)
    written = graph.first_written
    most = int(np.bincount(written[mine]).max(initial=1))
    tile = int(written[mine][0]) if mine.any() else 0
    across = max(graph.grid_of(tile).mt, graph.grid_of(tile).nt) if mine.any() else 1
    for name in precision.formats[1:]:
        unit = FORMATS[name].unit_roundoff
        tags[mine & (2 * unit * size * most * across <= precision.tol)] = NAMES.index(name)
    return tags
