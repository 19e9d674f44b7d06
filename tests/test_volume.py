"""Messages by the convention of Beaumont et al., SC'22, section III-D.

The formulas for block-cyclic maps are first principles; their totals at N = 12 came from a script
that was written apart from this package.
"""

from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from taskla import TaskFlow, TaskGraph, distributions
from taskla.algorithms.gemm import gemm
from taskla.algorithms.getrf import getrf_nopiv
from taskla.algorithms.lauum import lauum
from taskla.algorithms.potrf import potrf
from taskla.algorithms.potrs import potrs
from taskla.algorithms.symm import symm
from taskla.algorithms.symm_a import symm_a
from taskla.algorithms.trtri import trtri
from taskla.distributions import Distribution, block_cyclic
from taskla.operations import Access
from taskla.volume import Volumes

GRIDS = [(2, 2), (2, 3), (3, 3), (4, 4), (5, 3), (6, 6)]


def graph(algorithm: Callable[..., None], *shapes: tuple[int, int], nb: int = 1) -> TaskGraph:
    flow = TaskFlow()
    algorithm(flow, *(flow.matrix(m, n, nb=nb) for m, n in shapes))
    return flow.graph()


def messages(counted: TaskGraph, p: int, q: int) -> int:
    return Volumes(counted).under(block_cyclic(grid=(p, q))).messages


# -- totals known from elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "totals"),
    [
        (getrf_nopiv, [154, 229, 304, 448, 444, 710]),
        (potrf, [132, 187, 242, 332, 323, 460]),
        (trtri, [132, 187, 242, 332, 323, 460]),
        (lauum, [132, 187, 242, 332, 323, 460]),
    ],
)
def test_factorisations_send_as_counted_elsewhere(
    algorithm: Callable[..., None], totals: list[int]
) -> None:
    counted = graph(algorithm, (12, 12))
    assert [messages(counted, p, q) for p, q in GRIDS] == totals


@pytest.mark.parametrize(
    ("grid", "of_a", "of_b"), [((2, 2), 144, 144), ((2, 3), 288, 144), ((3, 4), 432, 288)]
)
def test_a_product_sends_as_counted_elsewhere(grid: tuple[int, int], of_a: int, of_b: int) -> None:
    volume = Volumes(graph(gemm, (12, 12), (12, 12), (12, 12))).under(block_cyclic(grid=grid))
    assert volume.by_matrix == {"A": of_a, "B": of_b, "C": 0}


# -- formulas --------------------------------------------------------------------------------------

sides = st.integers(1, 6)
extra = st.integers(0, 8)


@given(p=sides, q=sides, extra=extra)
def test_lu_without_pivoting_sends_as_the_formula_says(p: int, q: int, extra: int) -> None:
    n = max(p, q) + extra
    expected = (p + q - 2) * n * (n + 1) // 2 - comb(p + 1, 3) - comb(q + 1, 3)
    assert messages(graph(getrf_nopiv, (n, n)), p, q) == expected


@pytest.mark.parametrize("algorithm", [potrf, trtri, lauum])
@pytest.mark.parametrize("uplo", ["L", "U"])
@given(p=sides, q=sides, extra=extra)
def test_triangular_algorithms_send_as_the_formula_says(
    algorithm: Callable[..., None], uplo: str, p: int, q: int, extra: int
) -> None:
    n = max(p, q) + extra
    flow = TaskFlow()
    algorithm(flow, flow.matrix(n, n, nb=1), uplo)
    expected = (p + q - 2) * n * (n + 1) // 2 - n * (p * (p - 1) + q * (q - 1)) // 2
    assert messages(flow.graph(), p, q) == expected + comb(p, 3) + comb(q, 3)


@given(p=sides, q=sides, m=extra, n=extra, k=st.integers(1, 9))
def test_a_product_sends_as_the_formula_says(p: int, q: int, m: int, n: int, k: int) -> None:
    m, n = p + m, q + n
    volume = Volumes(graph(gemm, (m, k), (k, n), (m, n))).under(block_cyclic(grid=(p, q)))
    assert volume.by_matrix == {"A": m * k * (q - 1), "B": k * n * (p - 1), "C": 0}


@given(p=sides, q=sides, n=extra, m=extra)
def test_a_symmetric_product_sends_as_the_formula_says(p: int, q: int, n: int, m: int) -> None:
    n, m = p + n, q + m
    below = [2 * q - 1 if i % p != k % p else q - 1 for i in range(n) for k in range(i)]
    volume = Volumes(graph(symm, (n, n), (n, m), (n, m))).under(block_cyclic(grid=(p, q)))
    assert volume.by_matrix == {"A": sum(below) + n * (q - 1), "B": n * m * (p - 1), "C": 0}


@given(name=st.sampled_from(["2dbc", "row", "col"]), n=st.integers(0, 9))
def test_one_rank_sends_nothing(name: str, n: int) -> None:
    volume = Volumes(graph(potrf, (n, n))).under(distributions.get(name, ranks=1))
    assert volume.messages == volume.bytes == 0
    assert volume.imbalance == 1


# -- the convention itself, against a naive count --------------------------------------------------


@st.composite
def programs(draw: st.DrawFn) -> TaskGraph:
    """Tasks with up to four operands, read or written, on a few tiles."""
    flow = TaskFlow()
    A = flow.matrix(6, 8, nb=2)
    index = st.tuples(st.integers(0, 2), st.integers(0, 3))
    operations: dict[str, tuple[int, tuple[Any, ...]]] = {
        "potrf": (1, ("L",)),
        "laset": (1, ("G", 0.0, 1.0)),
        "lacpy": (2, ("G", "N")),
        "gemm": (3, ("N", "N", 1.0, 1.0)),
        "getrf_tnt_leaf": (3, (0,)),
        "getrf_tnt_merge": (4, ()),
    }
    for name in draw(st.lists(st.sampled_from(sorted(operations)), max_size=25)):
        count, params = operations[name]
        operands = [A[draw(index)] for _ in range(count)]
        flow.submit(name, *operands, params=params)
    return flow.graph()


def naive(counted: TaskGraph, owner: Distribution) -> set[tuple[int, int, int, int]]:
    """(tile, version, from, to) of all messages, by going through the program."""
    coordinates = (grid.coordinates(np.arange(grid.base, grid.end)) for grid in counted.grids)
    holder = {t: int(o) for i, j in coordinates for t, o in enumerate(owner(i, j))}
    owners = dict(holder)
    version = dict.fromkeys(holder, 0)
    sent = set()
    for task in range(counted.n):
        mine = slice(counted.indptr[task], counted.indptr[task + 1])
        accesses = list(zip(counted.tiles[mine].tolist(), counted.modes[mine], strict=True))
        place = owners[next(tile for tile, mode in accesses if mode != Access.R)]
        for tile, mode in accesses:
            if mode != Access.W and holder[tile] != place:
                sent.add((tile, version[tile], holder[tile], place))
            if mode != Access.R:
                version[tile] += 1
                holder[tile] = place
    return sent


@settings(max_examples=300)
@given(counted=programs(), name=st.sampled_from(["2dbc", "row", "col"]), ranks=st.integers(1, 7))
def test_a_version_goes_to_a_rank_once(counted: TaskGraph, name: str, ranks: int) -> None:
    owner = distributions.get(name, ranks=ranks)
    expected = naive(counted, owner)
    volume = Volumes(counted).under(owner)
    assert volume.messages + volume.pivot_messages == len(expected)
    assert volume.bytes == 2 * 2 * 8 * len(expected)
    if volume.pivot_messages:
        # they have no ends in the counts
        return
    for counts, end in ((volume.sent, 2), (volume.received, 3)):
        assert (
            counts.tolist()
            == np.bincount([message[end] for message in expected], minlength=ranks).tolist()
        )


# -- flops, bytes, memory --------------------------------------------------------------------------


def test_flops_and_memory_are_those_of_a_rank() -> None:
    # 3 x 3 tiles of 4, 4 and 2: the lower triangle is in use
    counted = graph(potrf, (10, 10), nb=4)
    volume = Volumes(counted).under(distributions.get("row", ranks=2))
    sizes = {(0, 0): 16, (1, 0): 16, (1, 1): 16, (2, 0): 8, (2, 1): 8, (2, 2): 4}
    expected = [8 * sum(s for (i, _), s in sizes.items() if i % 2 == rank) for rank in (0, 1)]
    assert volume.memory.tolist() == expected
    place = [counted.locate(task)[1] % 2 for task in range(counted.n)]
    flops = np.bincount(place, weights=counted.flops())
    np.testing.assert_allclose(volume.flops, flops)
    assert volume.imbalance == pytest.approx(flops.max() / flops.mean())
    # L_00 to rank 1 for L_10; L_10 and L_11 to rank 0 for row 2
    assert volume.messages == 3
    assert volume.bytes == 8 * (16 + 16 + 16)


def test_all_matrices_of_a_graph_have_the_map() -> None:
    counted = graph(potrs, (6, 6), (6, 1))
    volume = Volumes(counted).under(block_cyclic(grid=(2, 3)))
    assert set(volume.by_matrix) == {"A", "B"}
    assert volume.messages == sum(volume.by_matrix.values())
    # B lies on the first column of the grid, which alone computes
    assert (volume.flops > 0).tolist() == [True, False, False, True, False, False]


# -- contributions that commute --------------------------------------------------------------------


def summing(**tags: Any) -> TaskGraph:
    """X_0, ..., X_5 are added to Y_0, which is read then; all of one tile."""
    flow = TaskFlow()
    X, Y, Z = (flow.matrix(m, 1, nb=1, name=name) for m, name in ((6, "X"), (1, "Y"), (6, "Z")))
    at = X if tags.get("at") else None
    flow.submit("geadd", X, Y, params=("N", 1.0, 1.0), accumulate=True, at=at)
    flow.submit("lacpy", Y, Z, params=("G", "N"))
    return flow.graph()


def test_partial_sums_are_sent_once_a_rank() -> None:
    # rows 0..5 on ranks 0, 1, 2, 0, 1, 2: two tasks on each; ranks 1 and 2 send a sum to rank 0,
    # which sends the result to both of them
    volume = Volumes(summing(at=True)).under(distributions.get("row", ranks=3))
    assert volume.by_matrix == {"X": 0, "Y": 4, "Z": 0}
    assert volume.sent.tolist() == [2, 1, 1]
    assert volume.received.tolist() == [2, 1, 1]
    # three tiles of 8 bytes: X, Z of two rows each, Y of rank 0; a partial sum on 1 and 2
    assert volume.memory.tolist() == [40, 40, 40]


def test_contributions_run_where_the_tile_is_unless_told_otherwise() -> None:
    volume = Volumes(summing()).under(distributions.get("row", ranks=3))
    assert volume.by_matrix == {"X": 4, "Y": 2, "Z": 0}
    assert volume.flops.tolist() == [12, 0, 0]


@pytest.mark.parametrize(("p", "q"), GRIDS)
@pytest.mark.parametrize(("m", "n", "k"), [(12, 12, 12), (7, 9, 13)])
def test_stationary_products_send_partial_sums(p: int, q: int, m: int, n: int, k: int) -> None:
    shapes = (m, k), (k, n), (m, n)

    def volume(stationary: str) -> dict[str, int]:
        flow = TaskFlow()
        A, B, C = (flow.matrix(*shape, nb=1) for shape in shapes)
        gemm(flow, A, B, C, 1.0, 1.0, stationary)
        return Volumes(flow.graph()).under(block_cyclic(grid=(p, q))).by_matrix

    by_a, by_b = volume("A"), volume("B")
    assert by_a["A"] == by_b["B"] == 0
    if k >= max(p, q):
        # all columns of A contribute to a tile of C, which one of them owns
        assert by_a["C"] == m * n * (q - 1)
        assert by_b["C"] == m * n * (p - 1)
    if m >= p and n >= q:
        # a tile of B goes to the p ranks of A's column k, of which it may be on one
        at = [(i % p, j % q, i % q) for i in range(k) for j in range(n)]
        assert by_a["B"] == sum(p - (column == home) for _, home, column in at)


def test_a_stationary_symm_sends_what_the_theory_says() -> None:
    # N = 24, M = 4, r = 4: 2 N M (r - 2), half of it for B and half for C
    flow = TaskFlow()
    A, B, C = (flow.matrix(*shape, nb=1, name=x) for shape, x in zip(SYMM, "ABC", strict=True))
    symm_a(flow, A, B, C)
    owner = distributions.get("sbc", ranks=6)
    diagonal = distributions.from_function(lambda i, j: owner(i, i), 6)
    volume = Volumes(flow.graph()).under(owner, {"B": diagonal, "C": diagonal})
    assert volume.by_matrix == {"A": 0, "B": 192, "C": 192}


SYMM = (24, 24), (24, 4), (24, 4)


@pytest.mark.parametrize(
    ("owner", "within", "reductions"),
    [
        (distributions.get("2.5d-sbc", ranks=16, slices=2), 224, 66),
        (distributions.get("2.5d-2dbc", grid=(2, 3), slices=3), 187, None),
        (distributions.get("2.5d-2dbc", grid=(2, 2), slices=5), 132, None),
    ],
)
def test_slices_send_as_much_each_and_reduce(
    owner: Distribution, within: int, reductions: int | None
) -> None:
    tiles, c = 12, owner.slices
    expected = sum((tiles - j) * min(j, c - 1) for j in range(tiles))
    assert reductions in (None, expected)
    flow = TaskFlow()
    potrf(flow, flow.matrix(tiles, tiles, nb=1), "L", c)
    volume = Volumes(flow.graph()).under(owner)
    assert volume.messages == within + expected
    assert volume.sent.sum() == volume.received.sum()


def test_matrices_with_maps_of_their_own_have_as_many_ranks() -> None:
    with pytest.raises(ValueError, match="B is on 3 ranks and the other matrices on 4"):
        Volumes(graph(gemm, (4, 4), (4, 4), (4, 4))).under(
            block_cyclic(4), {"B": distributions.row_cyclic(3)}
        )


# -- what is wrong ---------------------------------------------------------------------------------


def test_a_map_that_names_a_rank_too_many_is_refused() -> None:
    wrong = Distribution("wrong", 3, None, lambda i, j: i + j)
    with pytest.raises(ValueError, match="'wrong' gives ranks from 0 to 6; allowed: 0 to 2"):
        Volumes(graph(potrf, (4, 4))).under(wrong)
