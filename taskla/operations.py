"""What each operation is: its parameters, how it accesses its operands and what it costs.

This table holds the mathematics and nothing that computes: the functions that do the work are in
:mod:`taskla.kernels`, keyed by operation, device and format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OPERATIONS", "Access", "Operation", "register"]

Numbers = NDArray[np.float64]
Shape = tuple[Any, Any]
Cost = Callable[[Sequence[Shape]], tuple[Any, Any]]


class Access(IntEnum):
    """How a task uses a tile."""

    R = 1
    W = 2
    RW = 3
    #: adds a contribution to the tile; contributions commute
    REDUX = 4


@dataclass(frozen=True)
class Operation:
    """One operation on tiles.

    Attributes
    ----------
    name : str
        LAPACK's or BLAS's name without the type letter.
    params : tuple of str
        Names of the parameters, in the order in which kernels take them.
    modes : tuple of Access
        One access mode an operand.
    cost : callable
        From the operands' ``(rows, columns)`` to the numbers of multiplications and additions
        (LAPACK working note 41); arrays in, arrays out.
    panel : bool
        An operand of several tiles is one matrix (a tile column, say). Otherwise several tiles in
        an operand stand for a batch of tile tasks.
    """

    name: str
    params: tuple[str, ...]
    modes: tuple[Access, ...]
    cost: Cost
    panel: bool = False

    def flops(self, shapes: Sequence[Shape], complex_type: bool) -> Any:
        """Real floating-point operations: a complex product counts 6, a complex sum 2."""
        products, sums = self.cost(shapes)
        return 6.0 * products + 2.0 * sums if complex_type else products + sums


#: name -> operation
OPERATIONS: dict[str, Operation] = {}


def register(
    name: str, params: str, modes: str, cost: Cost | None = None, *, panel: bool = False
) -> Operation:
    """Add an operation to the table.

    Parameters
    ----------
    name : str
        Its name.
    params, modes : str
        Parameter names and access modes, each separated by spaces.
    cost : callable, optional
        See `Operation`. Default: no flops.
    panel : bool, default False
        See `Operation`.

    Returns
    -------
    Operation

    Raises
    ------
    ValueError
        If `name` is there already.
    """
    if name in OPERATIONS:
        raise ValueError(f"operation {name!r} is registered already")
    accesses = tuple(Access[mode] for mode in modes.split())
    OPERATIONS[name] = Operation(name, tuple(params.split()), accesses, cost or _free, panel)
    return OPERATIONS[name]


def _free(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    rows = np.asarray(shapes[0][0], dtype=np.float64) if shapes else np.float64(0)
    return 0.0 * rows, 0.0 * rows


def _potrf(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    n = shapes[0][0]
    return n**3 / 6 + n**2 / 2 + n / 3, n**3 / 6 - n / 6


def _getrf(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    m, n = shapes[0]
    k, big = np.minimum(m, n), np.maximum(m, n)
    both = big * k**2 / 2 - k**3 / 6 - big * k / 2 + k / 6
    return both + big * k - k * (k - 1) / 2, both


def _gemm(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    (rows, columns), (m, n) = shapes[0], shapes[2]
    # op(A) is m x k whatever op is, so A's size tells k
    k = rows * columns / np.maximum(m, 1)
    return m * n * k, m * n * k


def _symm(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    order, (m, n) = shapes[0][0], shapes[2]
    return m * n * order, m * n * order


def _syrk(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    (rows, columns), n = shapes[0], shapes[1][0]
    k = rows * columns / np.maximum(n, 1)
    return k * n * (n + 1) / 2, k * n * (n + 1) / 2


def _trsm(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    # a factor's last tile may be oblong; its triangle has the shorter side
    order, (m, n) = np.minimum(*shapes[0]), shapes[1]
    return m * n * (order + 1) / 2, m * n * (order - 1) / 2


def _trtri(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    n = shapes[0][0]
    return n**3 / 6 + n**2 / 2 + n / 3, n**3 / 6 - n**2 / 2 + n / 3


def _scale(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    m, n = shapes[0]
    return 1.0 * m * n, 0.0 * m * n


def _add(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    m, n = shapes[1]
    return 1.0 * m * n, 1.0 * m * n


def _norm(shapes: Sequence[Shape]) -> tuple[Any, Any]:
    m, n = shapes[0]
    return 0.0 * m * n, 1.0 * m * n


register("potrf", "uplo", "RW", _potrf)
register("trsm", "side uplo trans diag alpha", "R RW", _trsm)
register("trmm", "side uplo trans diag alpha", "R RW", _trsm)
register("syrk", "uplo trans alpha beta", "R RW", _syrk)
register("herk", "uplo trans alpha beta", "R RW", _syrk)
register("gemm", "transa transb alpha beta", "R R RW", _gemm)
register("symm", "side uplo alpha beta", "R R RW", _symm)
register("hemm", "side uplo alpha beta", "R R RW", _symm)
register("trtri", "uplo diag", "RW", _trtri)
register("lauum", "uplo", "RW", _potrf)

# LU: a panel is a tile column from the diagonal down, its pivots one integer column
register("getrf", "row", "RW W", _getrf, panel=True)
register("getrf_nopiv", "", "RW", _getrf)
register("laswp", "row forward", "R RW", panel=True)
# what ranks that share a tile column do of laswp: see taskla.kernels.interchanges
register("laswp_take", "row nb forward mine theirs", "R R W", panel=True)
register("laswp_own", "row nb forward mine", "R RW", panel=True)
register("laswp_put", "row nb forward mine theirs", "R R RW", panel=True)
register("getrf_tnt_leaf", "row0", "R W W", _getrf)
register("getrf_tnt_merge", "", "RW RW R R", _getrf)
register("getrf_tnt_pivots", "top n", "R W")

register("lacpy", "uplo trans", "R W")
register("laset", "uplo offdiag diag", "W")
register("diagonal", "", "R W")
register("lascl", "uplo alpha", "RW", _scale)
register("geadd", "trans alpha beta", "R RW", _add)

register("lange", "norm", "R W", _norm)
register("lansy", "norm uplo hermitian", "R W", _norm)
register("lantr", "norm uplo diag", "R W", _norm)

# between number formats: in place, and into tiles of another (LAPACK's dlag2s)
register("round", "format", "RW")
register("lag2", "format", "R W")

register("noop", "", "RW")
