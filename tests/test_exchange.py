"""Who sends what to whom: the same messages as counted, each once, on trees without circles."""

from collections.abc import Callable

import numpy as np
import pytest

from taskla import TaskFlow, TaskGraph, distributions
from taskla.algorithms.gemm import gemm
from taskla.algorithms.getrf import getrf, getrf_nopiv
from taskla.algorithms.lauum import lauum
from taskla.algorithms.potrf import potrf
from taskla.algorithms.trtri import trtri
from taskla.distributions import Distribution
from taskla.exchange import Exchange
from taskla.volume import Volumes

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
]


def graph(algorithm: Callable[..., None], shapes: list[tuple[int, int]]) -> TaskGraph:
    flow = TaskFlow()
    algorithm(flow, *(flow.matrix(m, n, nb=1) for m, n in shapes))
    return flow.graph(algorithm.__name__)


def exchange(whole: TaskGraph, map_: Distribution) -> Exchange:
    owner = [map_(*grid.coordinates(np.arange(grid.base, grid.end))) for grid in whole.grids]
    return Exchange(whole, np.concatenate(owner).astype(np.int64), map_.ranks)


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
    assert found.tile.size == volume.messages
    received = np.bincount(found.target, minlength=map_.ranks)
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
    assert sum(int(part.graph.multiplicity.sum()) for part in parts) == whole.n
    assert sum(part.graph.flops().sum() for part in parts) == pytest.approx(whole.flops().sum())
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


def test_what_cannot_be_distributed_is_refused() -> None:
    flow = TaskFlow()
    getrf(flow, flow.matrix(4, 4, nb=1, name="A"), flow.matrix(4, 1, nb=1, dtype="int32", name="P"))
    with pytest.raises(ValueError, match=r"getrf on A\(0, 0\) writes tiles of several ranks"):
        exchange(flow.graph(), distributions.get("row", ranks=2))
    flow = TaskFlow()
    A = flow.matrix(4, 4, nb=1)
    gemm(flow, A, flow.matrix(4, 4, nb=1), flow.matrix(4, 4, nb=1), 1.0, 1.0, "A")
    with pytest.raises(ValueError, match="commutative contributions"):
        exchange(flow.graph(), distributions.get("row", ranks=2))
