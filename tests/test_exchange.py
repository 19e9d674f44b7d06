"""Who sends what to whom: the same messages as counted, each once, on trees without circles."""

from collections.abc import Callable

import numpy as np
import pytest

from taskla import TaskFlow, TaskGraph, distributions
from taskla.algorithms.gemm import gemm
from taskla.algorithms.getrf import getrf, getrf_nopiv, getrf_tntpiv
from taskla.algorithms.lauum import lauum
from taskla.algorithms.potrf import potrf
from taskla.algorithms.trtri import trtri
from taskla.distributions import Distribution
from taskla.exchange import Exchange, across_ranks
from taskla.tiles import Tiles
from taskla.volume import Volumes


def gemm_around_a(flow: TaskFlow, A: Tiles, B: Tiles, C: Tiles) -> None:
    gemm(flow, A, B, C, 1.0, 0.5, "A")


def partial_pivoting(flow: TaskFlow, A: Tiles) -> None:
    k = min(A.mt, A.nt)
    getrf(flow, A, flow.matrix(k, 1, nb=1, dtype="int32", name="P", everywhere=True))


def tournament(flow: TaskFlow, A: Tiles) -> None:
    P = flow.matrix(min(A.mt, A.nt), 1, nb=1, dtype="int32", name="P", everywhere=True)
    C = flow.matrix(A.mt, A.nt, nb=1, name="C", scratch=True)
    R = flow.matrix(A.mt, 1, nb=1, dtype="int64", name="R", scratch=True)
    getrf_tntpiv(flow, A, P, C, R)


MAPS = [
    distributions.get("2dbc", grid=(2, 3)),
    distributions.get("sbc", ranks=6),
    distributions.get("tbc", ranks=7),
    distributions.get("row", ranks=3),
    distributions.get("gcrm", ranks=11),
    distributions.get("2dbc", ranks=1),
]
PROGRAMS = [
    (potrf, [(12, 12)]),
    (trtri, [(12, 12)]),
    (lauum, [(11, 11)]),
    (getrf_nopiv, [(9, 13)]),
    (gemm, [(7, 9), (9, 5), (7, 5)]),
    (gemm_around_a, [(7, 9), (9, 5), (7, 5)]),
    (partial_pivoting, [(9, 11)]),
    (tournament, [(10, 8)]),
]


def graph(algorithm: Callable[..., None], shapes: list[tuple[int, int]]) -> TaskGraph:
    flow = TaskFlow()
    algorithm(flow, *(flow.matrix(m, n, nb=1) for m, n in shapes))
    return flow.graph(algorithm.__name__)


def exchange(whole: TaskGraph, map_: Distribution) -> Exchange:
    maps = [None if grid.scratch or grid.everywhere else map_ for grid in whole.grids]
    return Exchange(across_ranks(whole, maps), map_.ranks)


@pytest.mark.parametrize("map_", MAPS, ids=str)
@pytest.mark.parametrize(
    ("algorithm", "shapes"), PROGRAMS, ids=lambda v: getattr(v, "__name__", "")
)
def test_messages_are_those_that_are_counted(
    algorithm: Callable[..., None], shapes: list[tuple[int, int]], map_: Distribution
) -> None:
    whole = graph(algorithm, shapes)
    found = exchange(whole, map_)
    volume = Volumes(whole).under(map_)
    assert (~found.pivoting).sum() == volume.messages
    assert found.pivoting.sum() == volume.pivot_messages
    received = np.bincount(found.target[~found.pivoting], minlength=map_.ranks)
    if algorithm is gemm_around_a:
        # sums meet on a tree, and are counted where they end
        assert received.sum() == volume.received.sum()
    else:
        np.testing.assert_array_equal(received, volume.received)
    assert (found.source != found.target).all()
    assert (found.sender != found.target).all()
    # between two ranks each tag is there once
    keys = list(zip(found.sender.tolist(), found.target.tolist(), found.tag.tolist(), strict=True))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("map_", MAPS, ids=str)
def test_a_tree_brings_a_version_from_its_source_to_all(map_: Distribution) -> None:
    found = exchange(graph(potrf, [(14, 14)]), map_)
    for message in range(found.tile.size):
        at, steps = message, 0
        while found.parent[at] >= 0:
            above = int(found.parent[at])
            assert (found.tile[above], found.writer[above]) == (
                found.tile[message],
                found.writer[message],
            )
            assert found.target[above] == found.sender[at]
            at, steps = above, steps + 1
        assert found.sender[at] == found.source[message]
        assert 2**steps <= map_.ranks


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("map_", MAPS, ids=str)
@pytest.mark.parametrize(
    ("algorithm", "shapes"), PROGRAMS, ids=lambda v: getattr(v, "__name__", "")
)
def test_parts_make_up_the_whole(
    algorithm: Callable[..., None], shapes: list[tuple[int, int]], map_: Distribution, width: int
) -> None:
    whole = graph(algorithm, shapes)
    found = exchange(whole, map_)
    parts = [found.part(rank, width) for rank in range(map_.ranks)]
    tasks = sum(int(part.graph.multiplicity.sum()) for part in parts)
    assert tasks == found.graph.n >= whole.n
    flops = sum(part.graph.flops().sum() for part in parts)
    assert flops == pytest.approx(found.graph.flops().sum())
    assert sum(part.received.size for part in parts) == found.tile.size
    made = sorted(m for part in parts for messages in part.sent.values() for m in messages)
    passed_on = np.flatnonzero(found.parent >= 0).tolist()
    assert sorted(made + passed_on) == list(range(found.tile.size))
    for part in parts:
        assert all(
            tasks.size and tasks[0] == first
            for tasks, first in zip(part.waiting, part.first, strict=True)
        )
        assert (np.diff(part.first) >= 0).all()
        assert np.unique(part.number).size == part.number.size


def test_a_version_that_is_overwritten_is_known() -> None:
    # X is read elsewhere, written again, and read elsewhere again
    flow = TaskFlow()
    X, Y = flow.matrix(1, 1, nb=1, name="X"), flow.matrix(2, 1, nb=1, name="Y")
    flow.submit("lacpy", X, Y[1, 0], params=("G", "N"))
    flow.submit("noop", X)
    flow.submit("lacpy", X, Y[1, 0], params=("G", "N"))
    found = exchange(flow.graph(), distributions.get("row", ranks=2))
    assert sorted(zip(found.writer.tolist(), found.last.tolist(), strict=True)) == [
        (-1, False),
        (1, True),
    ]
    part = found.part(1, 1)
    # two versions of one tile at once
    assert len(set(part.number.tolist())) == 2
    assert [tasks.tolist() for tasks in part.waiting] == [[0], [1]]


def test_what_is_only_read_is_final() -> None:
    found = exchange(graph(gemm, [(3, 3), (3, 3), (3, 3)]), distributions.get("row", ranks=3))
    assert (found.writer == -1).all()
    assert found.last.all()


def test_partial_sums_meet_in_one_order_on_a_tree() -> None:
    flow = TaskFlow()
    A, B = flow.matrix(6, 6, nb=1, name="A"), flow.matrix(6, 1, nb=1, name="B")
    C = flow.matrix(6, 1, nb=1, name="C")
    gemm(flow, A, B, C, 1.0, 1.0, "A")
    map_ = distributions.get("col", ranks=6)
    program = across_ranks(flow.graph(), [map_, map_, map_])
    assert program.graph.counts() == {"lascl": 6, "gemm": 36, "geadd": 30}
    found = Exchange(program, 6)
    # C's only column is on rank 0: it gets 3 sums of a row, and others add up among themselves
    sums = found.target[found.tile >= flow.graph().tile_count]
    assert np.bincount(sums, minlength=6).tolist() == [18, 0, 6, 0, 6, 0]


def test_a_sum_that_is_made_again_begins_at_zero() -> None:
    flow = TaskFlow()
    X, Y = flow.matrix(1, 1, nb=1, name="X"), flow.matrix(2, 1, nb=1, name="Y")
    for _ in range(2):
        flow.gemm(Y[1, 0], Y[1, 0], X, accumulate=True, at=Y[1, 0])
        flow.submit("noop", X)
    map_ = distributions.get("row", ranks=2)
    program = across_ranks(flow.graph(), [map_, map_])
    names = [program.graph.operations[kind] for kind in program.graph.kind]
    assert names == ["gemm", "geadd", "noop", "laset", "gemm", "geadd", "noop"]
    assert program.rank.tolist() == [1, 0, 0, 1, 1, 0, 0]


def test_what_cannot_be_distributed_is_refused() -> None:
    two = distributions.get("row", ranks=2)
    flow = TaskFlow()
    A, B = flow.matrix(2, 1, nb=1, name="A"), flow.matrix(2, 1, nb=1, name="B")
    flow.getrf_tnt_merge(A[0, 0], A[1, 0], B[0, 0], B[1, 0])
    with pytest.raises(ValueError, match=r"getrf_tnt_merge on A\(0, 0\) writes tiles of several"):
        exchange(flow.graph(), two)
    flow = TaskFlow()
    S, A = flow.matrix(1, 1, nb=1, name="S", scratch=True), flow.matrix(2, 1, nb=1, name="A")
    flow.submit("noop", S, at=A[0, 0])
    flow.submit("noop", S, at=A[1, 0])
    with pytest.raises(
        ValueError, match=r"noop on S\(0, 0\) goes on with a tile of S that another"
    ):
        exchange(flow.graph(), two)
    flow = TaskFlow()
    flow.submit("noop", flow.matrix(1, 1, nb=1, name="S", scratch=True))
    with pytest.raises(ValueError, match=r"no rank owns the tile that noop on S\(0, 0\)"):
        exchange(flow.graph(), two)
