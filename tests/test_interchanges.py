"""Interchanges of rows that several ranks share do what LAPACK's laswp does to the whole column."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from taskla import TaskFlow, distributions
from taskla.engines.execution import Execution
from taskla.exchange import across_ranks
from taskla.kernels import bind
from taskla.matrix import TiledMatrix
from taskla.operands import Columns
from taskla.tile import Tile


@st.composite
def panels(draw: st.DrawFn) -> tuple[int, int, int, list[int]]:
    """Rows, tile size, the panel's tile row, and its pivots, counted from 1."""
    nb = draw(st.integers(1, 5))
    m = draw(st.integers(1, 23))
    k = draw(st.integers(0, (m - 1) // nb))
    first = k * nb
    count = min(nb, m - first)
    return m, nb, k, [draw(st.integers(first + i + 1, m)) for i in range(count)]


@given(panel=panels(), ranks=st.integers(2, 4), forward=st.booleans())
def test_ranks_together_do_what_laswp_does(
    panel: tuple[int, int, int, list[int]], ranks: int, forward: bool
) -> None:
    m, nb, k, pivots = panel
    cols = min(nb, 2)
    flow = TaskFlow()
    P = flow.matrix(m, 1, nb, "int32", "P", everywhere=True)
    A = flow.matrix(m, cols, nb, name="A")
    flow.laswp(P[k, 0], A[k:, 0].columns, row=k * nb, forward=forward)
    map_ = distributions.get("row", ranks=ranks)
    program = across_ranks(flow.graph(), [None, map_])
    column = np.zeros(m, np.int32)
    column[k * nb : k * nb + len(pivots)] = pivots
    a = np.arange(m * cols, dtype=float).reshape(m, cols)
    expected = Tile(a[k * nb :].copy(order="F"))
    bind("laswp", a.dtype, (k * nb, forward))(Tile(np.array(pivots, np.int32)[:, None]), expected)
    matrix = TiledMatrix.from_array(a.copy(order="F"), nb)
    # in the order of the program, the ranks of one process
    execution = Execution(program.graph, [Columns.of_vector(column, nb), matrix])
    for task in range(program.graph.n):
        execution(task)
    np.testing.assert_array_equal(matrix.to_array()[k * nb :], expected.array)
    np.testing.assert_array_equal(matrix.to_array()[: k * nb], a[: k * nb])


def test_rows_that_do_not_fit_are_refused() -> None:
    p = Tile(np.array([[3], [4]], np.int32))
    a, x = Tile(np.zeros((2, 2), order="F")), Tile(np.zeros((1, 2), order="F"))
    mine, theirs = (2,), (0,)
    with pytest.raises(ValueError, match="laswp_take"):
        bind("laswp_take", a.array.dtype, (0, 2, True, mine, theirs))(p, a, x)
    with pytest.raises(ValueError, match="laswp_put"):
        bind("laswp_put", a.array.dtype, (0, 2, True, mine, theirs))(p, x, a)
