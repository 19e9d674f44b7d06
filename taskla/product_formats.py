"""The number formats in which the products of tiles may be made, for a tolerance of their sum."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from taskla.formats import FORMATS, format_of
from taskla.graph import TaskGraph
from taskla.mixed_precision import PRODUCTS
from taskla.precision import NAMES, Codes, PrecisionMap, has_range

__all__ = ["product_tags"]


def product_tags(
    graph: TaskGraph, norms: Mapping[int, NDArray[np.float64]], precision: PrecisionMap
) -> Codes:
    """Return the formats in which the products of a graph may be made.

    Product k of K in C_ij := sum_k A_ik B_kj may be in format f if
    ``(2 u_f + sqrt(k) u) ||A_ik||_F ||B_kj||_F K NT <= tol ||A||_F ||B||_F``, the second term for
    sums of k numbers in fp32, of roundoff u. None is wider than C.

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
    if not mine.any():
        return tags
    result = graph.grid_of(int(graph.first_written[mine][0]))
    widest = NAMES.index(format_of(result.dtype).name)
    if precision.uniform is not None:
        tags[mine] = max(widest, NAMES.index(precision.uniform))
        return tags
    if not precision.needs_norms:
        raise ValueError(
            f"precision is {str(precision)!r}; products take a format or 'adaptive:1e-6'"
        )
    assert precision.tol is not None
    tags[mine] = max(widest, NAMES.index(precision.formats[0]))
    share = np.ones(graph.tiles.size)
    totals = []
    for grid in graph.grids:
        if grid.base in norms:
            found = norms[grid.base]
            total = float(np.sqrt((found**2).sum()))
            totals.append(total)
            these = (graph.tiles >= grid.base) & (graph.tiles < grid.end)
            share[these] = found.ravel(order="F")[graph.tiles[these] - grid.base] / (total or 1.0)
    # ||A_ik|| ||B_kj|| / (||A|| ||B||)
    size = np.multiply.reduceat(share, graph.indptr[:-1]) if graph.n else np.zeros(0)
    most = int(np.bincount(graph.first_written[mine]).max())
    across = max(result.mt, result.nt)
    lost = precision.tol / (most * across)
    if not all(has_range(total, lost * total) for total in (*totals, math.prod(totals))):
        return tags
    summing = math.sqrt(most * result.nb) * FORMATS["fp32"].unit_roundoff
    for name in precision.formats[1:]:
        error = 2 * FORMATS[name].unit_roundoff + summing
        tags[mine & (error * size * most * across <= precision.tol)] = max(
            widest, NAMES.index(name)
        )
    return tags
