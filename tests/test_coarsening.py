"""Joined tasks: the same meaning, no circle, few of them, and nothing kept that is out of date."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from random_programs import execute, programs, random_operations, run_tile_task

from taskla import TaskFlow, distributions
from taskla.algorithms.gemm import gemm
from taskla.algorithms.getrf import getrf
from taskla.algorithms.potrf import potrf
from taskla.algorithms.potrs import potrs
from taskla.coarsening import INITIAL, Coarse, coarsen
from taskla.distributions import Distribution
from taskla.graph import TaskGraph
from taskla.interchanges import interchanges
from taskla.operations import Access
from taskla.placement import near_large, place
from taskla.reductions import ordered_reductions


def coarse(graph: TaskGraph, map_: Distribution, window: int = 1, rowwise: bool = False) -> Coarse:
    # the partial sums of random programs are scratch with an owner
    maps = [
        None if grid.everywhere or ("+" not in grid.name and grid.scratch) else map_
        for grid in graph.grids
    ]
    rows = [grid.base for grid in graph.grids] if rowwise else []
    return coarsen(interchanges(near_large(place(graph, maps))), rows, window)


@pytest.fixture(autouse=True, scope="module")
def operations() -> Iterator[None]:
    with random_operations():
        yield


def run(found: Coarse) -> dict[int, int]:
    """The values of tiles in the end, where each joined task has its inputs and nothing else."""
    graph = found.program.graph
    values: list[dict[int, int]] = []
    for task in found.joined:
        tiles: dict[int, int] = {}
        for tile, maker in task.inputs.items():
            assert maker < len(values), "a task waits for a later one"
            scratch = graph.grid_of(tile).scratch
            first = 0 if scratch else tile + 1
            tiles[tile] = first if maker == INITIAL else values[maker][tile]
        for number in sorted(task.tasks):
            begin, end = graph.indptr[number : number + 2].tolist()
            kind = graph.kinds[graph.kind[number]]
            operands = graph.tiles[begin:end].tolist()
            for tile, mode in zip(operands, graph.modes[begin:end].tolist(), strict=True):
                assert mode == Access.W or tile in tiles, "a tile is read and was not given"
            for tile in operands:
                tiles.setdefault(tile, -1)
            run_tile_task(kind.operation, kind.params, operands, tiles)
        for tile, maker in task.carried.items():
            assert tile not in tiles or tile not in task.outputs
            tiles[tile] = values[maker][tile]
        # nothing but what is handed on is there afterwards
        values.append({tile: tiles[tile] for tile in [*task.outputs, *task.carried]})
    values += [{tile: values[keep.source][tile] for tile in keep.tiles} for keep in found.kept]
    return {tile: values[home][tile] for tile, home in found.home.items()}


@settings(max_examples=200)
@given(
    programs(),
    st.sampled_from(["col", "row", "2dbc", "gcrm"]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 5]),
    st.booleans(),
)
def test_random_programs_keep_their_meaning(
    graph: TaskGraph, name: str, ranks: int, window: int, rowwise: bool
) -> None:
    ordered = ordered_reductions(graph)
    found = coarse(ordered, distributions.get(name, ranks), window, rowwise)
    expected = execute(graph)
    written = {
        int(tile) for tile, mode in zip(graph.tiles, graph.modes, strict=True) if mode != Access.R
    }
    assert run(found) == {tile: expected[tile] for tile in written}
    assert sorted(task for joined in found.joined for task in joined.tasks) == list(
        range(found.program.graph.n)
    )
    for joined in found.joined:
        assert len(set(found.program.rank[joined.tasks])) == 1


def factor(nt: int, algorithm: str) -> TaskGraph:
    flow = TaskFlow()
    A = flow.matrix(nt, nt, nb=1, name="A")
    if algorithm == "getrf":
        getrf(flow, A, flow.matrix(nt, 1, nb=1, dtype="int32", name="P", everywhere=True))
    elif algorithm == "gemm":
        gemm(flow, A, flow.matrix(nt, nt, nb=1, name="B"), flow.matrix(nt, nt, nb=1, name="C"))
    else:
        potrf(flow, A)
    return flow.graph(algorithm)


@pytest.mark.parametrize("algorithm", ["potrf", "getrf", "gemm"])
def test_there_are_quadratically_many(algorithm: str) -> None:
    counts = []
    for nt in (10, 20, 40):
        graph = factor(nt, algorithm)
        found = coarse(graph, distributions.get("col", 4))
        # a panel and an update for each column on its right, or each column of a product
        assert len(found.joined) <= {"potrf": nt * (nt + 1) // 2, "gemm": nt**2}.get(
            algorithm, nt * (nt + 3) // 2
        )
        assert len(found.kept) <= nt
        counts.append(len(found))
        assert len(coarse(graph, distributions.get("col", 4), window=2)) < 0.75 * counts[-1]
    # twice the columns, four times the tasks; tile tasks are eight times as many
    assert counts[1] / counts[0] < 4.2
    assert counts[2] / counts[1] < 4.1


@pytest.mark.parametrize("name", ["2dbc", "sbc", "row"])
def test_also_where_several_ranks_share_a_column(name: str) -> None:
    ranks = 6
    small, large = (
        len(coarse(factor(nt, "potrf"), distributions.get(name, ranks))) for nt in (24, 48)
    )
    assert large / small < 4.5


def test_a_panel_waits_for_its_own_update_only_once() -> None:
    found = coarse(factor(3, "potrf"), distributions.get("col", 2))
    label = found.program.graph.label
    assert [
        (joined.exported, [label(task) for task in joined.tasks]) for joined in found.joined
    ] == [
        (True, ["potrf on A(0, 0)", "trsm on A(1, 0)", "trsm on A(2, 0)"]),
        (False, ["syrk on A(2, 2)"]),
        (True, ["syrk on A(1, 1)", "gemm on A(2, 1)", "potrf on A(1, 1)", "trsm on A(2, 1)"]),
        (False, ["syrk on A(2, 2)", "potrf on A(2, 2)"]),
    ]


def test_final_tiles_do_not_keep_what_is_out_of_date() -> None:
    graph = factor(8, "getrf")
    found = coarse(graph, distributions.get("col", 2))
    for tile, home in found.home.items():
        if home >= len(found.joined):
            assert tile in found.kept[home - len(found.joined)].tiles
            continue
        joined = found.joined[home]
        # all that this task hands on is final: it is kept for a reason
        assert set(joined.outputs) <= joined.final


def test_a_thin_matrix_travels_to_the_large_one() -> None:
    flow = TaskFlow()
    potrs(flow, flow.matrix(12, 12, nb=1, name="A"), flow.matrix(12, 1, nb=1, name="B"))
    found = coarse(flow.graph(), distributions.get("col", 3))
    # down by the factor's columns, up by its rows, which all ranks share
    assert len(found) <= 12 + 12 * 4
    owner = np.arange(12) % 3
    for joined in found.joined:
        for tile in joined.inputs:
            if tile < 144:
                assert owner[tile // 12] == joined.rank, "a tile of the factor has travelled"


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_is_at_least_one(window: int) -> None:
    with pytest.raises(ValueError, match=f"window is {window}"):
        coarse(factor(2, "potrf"), distributions.get("col", 1), window)
