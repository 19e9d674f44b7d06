import json
import re
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st

import taskla as tla
from taskla import TiledMatrix, engines
from taskla.cli import main as cli
from taskla.distributions import Distribution, block_cyclic
from taskla.plan import PLANNED, Row, graphs, plan
from taskla.routines import FACTORED, PRODUCTS, ROUTINES, TYPES, problem

# Counted by a script apart from this package, at 12 tiles a side.
CHOLESKY = {(2, 2): 132, (2, 3): 187, (3, 3): 242, (4, 4): 332, (5, 3): 323, (6, 6): 460}
LU = {(2, 2): 154, (2, 3): 229, (3, 3): 304, (4, 4): 448, (5, 3): 444, (6, 6): 710}
PRODUCT = {(2, 2): 288, (2, 3): 432, (3, 4): 720}


@pytest.mark.parametrize(
    ("op", "totals"),
    [
        ("potrf", CHOLESKY),
        ("trtri", CHOLESKY),
        ("lauum", CHOLESKY),
        ("getrf", LU),
        ("gemm", PRODUCT),
    ],
)
@pytest.mark.parametrize("dtype", TYPES)
def test_messages_are_those_counted_elsewhere(
    op: str, totals: dict[tuple[int, int], int], dtype: str
) -> None:
    for grid, messages in totals.items():
        pivot = "none" if op == "getrf" else None
        (row,) = plan(op, 120, nb=10, grid=grid, dtype=dtype, pivot=pivot)
        assert row.messages == messages
        assert row.bytes == messages * 100 * np.dtype(TYPES[dtype]).itemsize


def test_a_row_has_these_columns() -> None:
    # They are the keys of `taskla plan --json`, which other programs read.
    assert " ".join(field.name for field in fields(Row)) == (
        "op type n nb ranks grid dist pivot stationary slices tasks tasks_run flops messages "
        "pivot_messages bytes max_messages imbalance bytes_per_rank critical_path precision "
        "conversions bytes_by_format"
    )


def test_a_row_in_full() -> None:
    (row,) = plan("potrf", 1200, nb=100, ranks=4)
    # as by hand: the column of the first ranks of each grid row has the most tiles
    assert row == Row(
        op="potrf",
        type="d",
        n=1200,
        nb=100,
        ranks=4,
        grid="2x2",
        dist="2dbc",
        pivot=None,
        stationary=None,
        slices=1,
        tasks=364,
        tasks_run=364,
        flops=1200**3 / 3 + 1200**2 / 2 + 1200 / 6,
        messages=132,
        pivot_messages=0,
        bytes=132 * 80_000,
        max_messages=row.max_messages,
        imbalance=row.imbalance,
        # tiles (i, j) with i odd, j even, i > j: 1 + 2 + ... + 6; i, j alike: the same
        bytes_per_rank=21 * 80_000,
        critical_path=34,
        precision="fp64",
        conversions=0,
        bytes_by_format={"fp64": 132 * 80_000},
    )
    assert 132 / 4 <= row.max_messages < 132
    assert 1 < row.imbalance < 1.5


# -- what is planned is what runs ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "pivot"),
    [
        (op, pivot)
        for op in PLANNED
        for pivot in ([None, "tournament", "none"] if "pivot" in ROUTINES[op].options else [None])
    ],
)
def test_the_graph_is_that_of_a_real_call(op: str, pivot: str | None) -> None:
    p = problem(op, 70, 16, "d", pivot=pivot)
    ran = []

    class Recorder(engines.Engine):
        name = "recorder"
        under = tla.engine("threads", workers=1)

        def run(self, graph, matrices):  # type: ignore[no-untyped-def]
            ran.append(graph)
            self.under.run(graph, matrices)

        def map(self, function, arguments):  # type: ignore[no-untyped-def]
            raise AssertionError("not asked for")

    operands = [
        TiledMatrix.random((o.m, o.n), 16, uplo=o.uplo, kind="spd" if o.m == o.n else "general")
        for o in p.operands
    ]
    given = p.routine.prepare(p, operands) if p.routine.prepare else None
    with Recorder():
        p.routine.call(p, operands, given)
    planned = graphs(p)
    assert len(planned) == len(ran)
    for expected, found in zip(ran, planned, strict=True):
        assert found.kinds == expected.kinds
        for name in ("kind", "indptr", "tiles", "modes"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("op", [op for op in PLANNED if op not in ("getrf", "gesv", "getrs")])
@given(n=st.integers(0, 60), nb=st.integers(1, 20), dtype=st.sampled_from(sorted(TYPES)))
@settings(max_examples=20)
def test_the_flops_of_the_tasks_are_those_of_the_routine(
    op: str, n: int, nb: int, dtype: str
) -> None:
    (row,) = plan(op, n, nb=nb, dtype=dtype)
    assert row.flops == pytest.approx(problem(op, n, nb, dtype).flops, rel=1e-12)


# LAPACK working note 41, multiplications and additions together, for n = m = k = 30
@pytest.mark.parametrize(
    ("op", "flops"),
    [
        ("potrf", 30**3 / 3 + 30**2 / 2 + 30 / 6),
        ("getrf", 2 * 30**3 / 3 - 30**2 / 2 + 5 * 30 / 6),
        ("gemm", 2 * 30**3),
        ("symm", 2 * 30**3),
        ("syrk", 30 * 30 * 31),
        ("trsm", 30**3),
        ("potri", 2 * 30**3 / 3 + 30**2 / 2 + 5 * 30 / 6),
    ],
)
def test_the_flops_of_a_routine_are_lapacks(op: str, flops: float) -> None:
    assert problem(op, 30, 7).flops == pytest.approx(flops, rel=1e-12)
    # a complex product is 6 and a sum 2
    assert 2 * flops < problem(op, 30, 7, "z").flops < 6 * flops


def test_the_path_and_the_counts_are_known_ones() -> None:
    # N = 10: 3 N - 2 on the path; N potrf, N (N - 1) / 2 trsm and herk, N (N - 1) (N - 2) / 6 gemm
    (row,) = plan("potrf", 1000, nb=100)
    assert (row.critical_path, row.tasks) == (28, 10 + 45 + 45 + 120)
    assert row.tasks_run < row.tasks
    (row,) = plan("getrf", 1000, nb=100, pivot="none")
    assert (row.critical_path, row.tasks) == (28, 10 + 90 + 285)


# -- several distributions -------------------------------------------------------------------------


def test_the_best_comes_first() -> None:
    rows = plan("potrf", 1200, nb=100, ranks=6, dist="all")
    one_slice = {"2dbc", "row", "col", "sbc", "g2dbc", "gcrm", "tbc"}
    assert {row.dist: row.slices for row in rows} == dict.fromkeys(one_slice, 1) | {
        **{"2.5d-2dbc": 2, "2.5d-sbc": 3}
    }
    # of a triangle block's 6 lines two meet in a point, as many as in the symmetric map
    assert rows[0].messages == min(row.messages for row in rows) < 187
    keys = [(row.messages, row.bytes, row.imbalance) for row in rows]
    assert keys == sorted(keys)
    by_column, by_row = plan("trsm", 1200, nb=100, ranks=6, dist=["row", "col"])
    assert (by_column.dist, by_row.dist) == ("col", "row")


def test_a_grid_is_for_2dbc_when_there_are_others() -> None:
    found = {row.dist: row.grid for row in plan("potrf", 600, nb=100, dist="all", grid=(3, 2))}
    grids = {"2dbc": "3x2", "row": "6x1", "col": "1x6"}
    others = ("sbc", "g2dbc", "gcrm", "tbc", "2.5d-sbc")
    assert found == grids | dict.fromkeys(others) | {"2.5d-2dbc": "1x3"}
    with pytest.raises(ValueError, match="row on 6 ranks has the grid 6x1"):
        plan("potrf", 600, nb=100, dist="row", grid=(3, 2))


def test_a_map_may_be_an_object() -> None:
    skewed = Distribution("skewed", 3, None, lambda i, j: (i + 2 * j) % 3)
    (row,) = plan("potrf", 600, nb=100, dist=skewed)
    assert (row.dist, row.ranks, row.grid) == ("skewed", 3, None)
    assert row.messages > 0
    rows = plan("potrf", 600, nb=100, dist=[skewed, block_cyclic(3)])
    assert {row.dist for row in rows} == {"skewed", "2dbc"}


@pytest.mark.parametrize("dist", ["2dbc", "row", "col"])
@pytest.mark.parametrize("op", PLANNED)
def test_one_rank_sends_nothing(op: str, dist: str) -> None:
    (row,) = plan(op, 70, nb=16, dist=dist)
    assert (row.messages, row.bytes, row.max_messages, row.imbalance) == (0, 0, 0, 1)
    assert row.tasks > 0


@pytest.mark.parametrize("op", PLANNED)
def test_an_empty_matrix_costs_nothing(op: str) -> None:
    (row,) = plan(op, 0, nb=16, ranks=1)
    assert (row.tasks, row.flops, row.bytes_per_rank, row.critical_path) == (0, 0, 0, 0)


# -- LU --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pivot", ["partial", "tournament", "none"])
@pytest.mark.parametrize("op", ["getrf", "getrs", "gesv"])
def test_one_rank_may_pivot_as_it_likes(op: str, pivot: str) -> None:
    (row,) = plan(op, 600, nb=100, pivot=pivot)
    assert row.pivot == pivot
    assert row.tasks > 0


def test_pivots_alone_travel_where_each_column_has_one_rank() -> None:
    row = plan("getrf", 600, nb=100, ranks=3, dist="col")[0]
    none = plan("getrf", 600, nb=100, ranks=3, dist="col", pivot="none")[0]
    # those of each of 6 panels go to the two other ranks
    assert (row.pivot_messages, row.messages) == (12, none.messages)
    assert row.bytes == none.bytes + 12 * 100 * 4
    assert none.pivot_messages == 0


@pytest.mark.parametrize(("ranks", "nt"), [(2, 6), (3, 7), (4, 4)])
def test_panels_and_rows_travel_where_ranks_share_a_column(ranks: int, nt: int) -> None:
    row = plan("getrf", 100 * nt, nb=100, ranks=ranks, dist="row")[0]
    expected = 0
    for k in range(nt):
        below = [i for i in range(k + 1, nt) if i % ranks != k % ranks]
        others = len({i % ranks for i in below})
        # tiles of the panel and back; rows up and down in each other column; the pivots
        expected += 2 * len(below) + 2 * others * (nt - 1) + others
    assert row.pivot_messages == expected
    # L_ik is where it is used: U_kj goes to the ranks below, as without pivoting, and nothing else
    none = plan("getrf", 100 * nt, nb=100, ranks=ranks, dist="row", pivot="none")[0]
    assert row.messages <= none.messages


def test_interchanges_of_a_solution_are_counted_apart() -> None:
    # B is one tile column, row by row: rows of panel k go up and down between its rank and others
    (row,) = plan("getrs", 400, nb=100, ranks=2)
    assert row.pivot_messages == 2 * 3


# -- arguments -------------------------------------------------------------------------------------


def test_the_tile_size_is_chosen_for_a_worker_a_rank() -> None:
    assert plan("potrf", 12000)[0].nb == 1024
    assert plan("potrf", 12000, ranks=4)[0].nb == 512


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"op": "portf"}, "no operation 'portf'; did you mean potrf"),
        ({"op": "qqq"}, "no operation 'qqq'; there are potrf, potrs"),
        ({"op": "lange"}, "lange cannot be planned; there are potrf"),
        ({"dist": "sbd", "ranks": 2}, "distribution 'sbd' does not exist"),
        ({"dist": "sbc", "ranks": 2}, "ranks is 2; sbc has"),
        ({"op": "getrf", "dist": "2.5d-2dbc", "ranks": 12}, "a 2.5D distribution is for potrf"),
        ({"dist": "sbc", "ranks": 6, "slices": 2}, "slices is 2; sbc has none"),
        ({"stationary": "A"}, "potrf has no option stationary; it has precision, uplo"),
        ({"dist": []}, "dist is empty"),
        ({"ranks": 0}, "ranks is 0"),
        ({"nb": 0}, "nb is 0"),
        ({"n": -1}, "n is -1"),
        ({"dtype": "q"}, "type is 'q'; allowed: float32, "),
        ({"m": 5}, "potrf has no option m; it has precision, uplo"),
        ({"op": "gemm", "k": -1}, "k is -1"),
        (
            {"op": "gemm", "pivot": "none"},
            "gemm has no option pivot; it has k, m, precision, stationary, transa, transb",
        ),
        ({"grid": (2, 2), "ranks": 6}, "nearest: ranks 4, or grid 2x3"),
    ],
)
def test_what_is_not_allowed_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**({"op": "potrf", "n": 600, "nb": 100} | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("potrf", {"uplo": "U"}),
        ("trsm", {"side": "R", "uplo": "U", "trans": "T", "diag": "U", "m": 30}),
        ("gemm", {"m": 20, "k": 40, "transa": "T", "transb": "T"}),
        ("syrk", {"k": 33, "trans": "T"}),
        ("posv", {"nrhs": 13}),
        ("getrf", {"m": 90}),
    ],
)
def test_options_reach_the_graph(op: str, options: dict[str, object]) -> None:
    (row,) = plan(op, 70, nb=16, **options)
    default = plan(op, 70, nb=16)[0]
    same = replace(default, tasks=row.tasks)
    sizes = {"m", "k", "nrhs"} & set(options)
    assert bool(sizes) == (asdict(row)["flops"] != same.flops)
    p = problem(op, 70, 16, **options)
    assert graphs(p)[0].kinds != graphs(problem(op, 70, 16))[0].kinds or sizes


def test_a_million_tasks_are_planned() -> None:
    (row,) = plan("potrf", 30_000, nb=150, ranks=6)
    assert row.tasks == 200 * 201 * 202 // 6
    # V = (p + q - 2) N (N + 1) / 2 - N (p (p - 1) + q (q - 1)) / 2 + C(p, 3) + C(q, 3)
    assert row.messages == 3 * 200 * 201 // 2 - 200 * (2 + 6) // 2 + 0 + 1


# -- number formats --------------------------------------------------------------------------------


def test_formats_make_messages_smaller() -> None:
    full = plan("potrf", 1200, nb=100, ranks=4)[0]
    row = plan("potrf", 1200, nb=100, ranks=4, precision="fp64:1,fp16:rest")[0]
    assert (row.precision, row.messages) == ("fp64:1,fp16:rest", full.messages)
    # L_kk goes in fp32 to those that solve with it, all else is in fp16
    assert set(row.bytes_by_format) == {"fp32", "fp16"}
    assert sum(row.bytes_by_format.values()) == row.bytes
    assert row.bytes_by_format["fp32"] % 40_000 == 0
    assert 0.25 < row.bytes / full.bytes < 0.35
    # one rounding for each tile below the diagonal; one copy of each L_kk that is read
    assert row.conversions == 66 + 11
    assert row.bytes_per_rank < full.bytes_per_rank
    assert (full.precision, full.conversions) == ("fp64", 0)
    assert full.bytes_by_format == {"fp64": full.bytes}


def test_a_plan_of_formats_is_of_what_runs() -> None:
    names = np.random.default_rng(0).choice(["fp64", "fp32", "bf16"], (5, 5))
    (row,) = plan("potrf", 80, nb=16, precision=names)
    A = TiledMatrix.random((80, 80), 16, uplo="lower", kind="spd", precision=names)
    ran = []

    class Recorder(engines.Engine):
        name = "recorder"
        under = tla.engine("threads", workers=1)

        def run(self, graph, matrices):  # type: ignore[no-untyped-def]
            ran.append(graph)
            self.under.run(graph, matrices)

        def map(self, function, arguments):  # type: ignore[no-untyped-def]
            return [function(*a) for a in arguments]

    with Recorder():
        tla.potrf(A)
    (graph,) = ran
    assert row.tasks == graph.n
    assert row.conversions == graph.counts()["round"] + graph.counts()["lag2"]
    assert row.precision == "array"


@pytest.mark.parametrize("op", [*FACTORED, *PRODUCTS])
def test_operations_that_have_formats_are_planned_with_them(op: str) -> None:
    rows = plan(op, 64, nb=16, ranks=2, precision="fp32")
    assert rows[0].conversions >= 0
    assert set(rows[0].bytes_by_format) <= {"fp32", "fp64", "int32"}
    assert rows[0].precision == "fp32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "adaptive:1e-6"}, "has no numbers to take norms of"),
        ({"precision": "fp63"}, "rule is 'fp63'"),
        ({"precision": [["fp64"]]}, r"precision has shape \(1, 1\); the matrix has \(3, 3\)"),
        ({"op": "gemm", "precision": "fp64:1,fp32:rest"}, "products take one format"),
        ({"op": "trsm", "precision": "fp32"}, "trsm takes no precision; potrf, potrs"),
    ],
)
def test_formats_that_cannot_be_planned(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**{"op": "potrf", "n": 300, "nb": 100, **arguments})  # type: ignore[arg-type]


def test_the_command_shows_formats() -> None:
    line = ["plan", "potrf", "-n", "400", "--nb", "100", "--ranks", "2", "--dist", "row"]
    result = CliRunner().invoke(cli, [*line, "--precision", "fp64:1,bf16:rest"])
    assert result.exit_code == 0, result.output
    assert re.search(r"fp32 \d+ bf16 \d+", result.output)
    (row,) = map(
        json.loads,
        CliRunner().invoke(cli, [*line, "--precision", "fp32", "--json"]).output.splitlines(),
    )
    assert row["bytes_by_format"] == {"fp32": row["bytes"]}
    assert "conversions" not in CliRunner().invoke(cli, line).output


def test_precisions_of_the_command_are_a_list_of_which_a_plain_one_may_be_one() -> None:
    def planned(*rules: str) -> list[dict[str, Any]]:
        line = f"plan potrf -n 400 --nb 100 --ranks 2 --dist row --json {' '.join(rules)}"
        result = CliRunner().invoke(cli, line.split())
        return [json.loads(text) for text in result.stdout.splitlines()]

    full, mixed = planned("--precision fp64", "--precision fp64:1,bf16:rest")
    assert [full] == planned()
    assert (full["precision"], mixed["precision"]) == ("fp64", "fp64:1,bf16:rest")
    assert mixed["bytes"] < full["bytes"]


def test_a_format_that_the_type_has_is_as_none() -> None:
    for op in ("getrf", "gemm"):
        for name in ("fp64", "fp32"):
            assert plan(op, 64, nb=16, ranks=2, dtype="s", precision=name) == plan(
                op, 64, nb=16, ranks=2, dtype="s"
            )
