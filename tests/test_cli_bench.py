"""`taskla bench`: what it times, and that its checks see what is right and what is wrong.

The limits, 60 for factorisations and solutions and 3 for products, are those of Chameleon and
DPLASMA.
"""

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from taskla import kernels, lapack, programs
from taskla.cli import checks, main, measure
from taskla.cli.generate import Known, known
from taskla.engines import threads
from taskla.errors import NotPositiveDefiniteError
from taskla.fusion import fuse
from taskla.graph import TaskGraph
from taskla.plan import graphs
from taskla.routines import ROUTINES, problem
from taskla.tile import Tile

KEYS = (
    "op type n nb ranks grid dist engine policy workers pivot stationary slices precision "
    "compression t_submit time gflops joules watts gflops_per_watt edp energy tasks tasks_run "
    "messages pivot_messages bytes_sent residual status"
)


def run(line: str) -> Result:
    return CliRunner().invoke(main, ["bench", *line.split()])


def rows(line: str, code: int = 0) -> list[dict[str, Any]]:
    result = run(line + " --json")
    assert result.exit_code == code, result.stderr
    return [json.loads(text) for text in result.stdout.splitlines()]


# -- rows ------------------------------------------------------------------------------------------


def test_a_row_has_these_keys() -> None:
    (row,) = rows("potrf -n 50 --nb 16 --workers 1 --energy off")
    assert " ".join(row) == KEYS
    fixed = {key: row[key] for key in row if key not in ("t_submit", "time", "gflops")}
    p = problem("potrf", 50, 16)
    (graph,) = graphs(p)
    assert fixed == {
        "op": "potrf",
        "type": "d",
        "n": 50,
        "nb": 16,
        "ranks": 1,
        "grid": "1x1",
        "dist": "2dbc",
        "engine": "threads",
        "policy": "lws",
        "workers": 1,
        "pivot": None,
        "stationary": None,
        "slices": 1,
        "precision": "fp64",
        "compression": "none",
        "joules": None,
        "watts": None,
        "gflops_per_watt": None,
        "edp": None,
        "energy": "unavailable",
        "tasks": graph.n,
        "tasks_run": fuse(graph, 4).n,
        "messages": 0,
        "pivot_messages": 0,
        "bytes_sent": 0,
        "residual": None,
        "status": None,
    }
    assert 0 < row["t_submit"] < row["time"]
    assert row["gflops"] == pytest.approx(p.flops / row["time"] / 1e9)


@pytest.mark.parametrize("op", ["potrf", "getrf", "gemm", "lange"])
def test_tasks_run_are_those_that_the_engine_runs(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    ran = []

    class Counted(threads.GraphRun):
        def __init__(self, graph: TaskGraph, *others: Any) -> None:
            ran.append(graph.n)
            super().__init__(graph, *others)

    monkeypatch.setattr(threads, "GraphRun", Counted)
    (row,) = rows(f"{op} -n 150 --nb 16 --workers 2")
    assert row["tasks_run"] == ran[-1] < row["tasks"]


def test_all_combinations_are_run_in_order() -> None:
    line = "gemm -n 20,30 --nb 8:16:8 --dtype s,z --workers 1:2 --policy prio,eager --dist row,col"
    names = ("n", "nb", "type", "workers", "policy", "dist")
    assert [tuple(row[name] for name in names) for row in rows(line)] == [
        (n, nb, dtype, workers, policy, dist)
        for n in (20, 30)
        for nb in (8, 16)
        for dtype in "sz"
        for workers in (1, 2)
        for policy in ("prio", "eager")
        for dist in ("row", "col")
    ]


def test_pivots_are_a_list_and_their_precision_is_told() -> None:
    found = rows("getrf -n 40 --nb 16 --pivot none,partial --dtype c")
    assert [(row["pivot"], row["precision"]) for row in found] == [
        ("none", "fp32"),
        ("partial", "fp32"),
    ]


def test_csv_has_the_same_columns_and_a_table_headings_for_people() -> None:
    (row,) = csv.DictReader(StringIO(run("potrf -n 30 --nb 16 --csv --check --energy off").stdout))
    assert " ".join(row) == KEYS
    assert (row["joules"], row["status"]) == ("", "PASSED")
    heading, line = run("potrf -n 30 --nb 16 --energy off").stdout.splitlines()
    renamed = {"grid": "PxQ", "gflops_per_watt": "gflops/W"}
    assert heading.split() == [renamed.get(key, key) for key in KEYS.split()]
    cells = dict(zip(heading.split(), line.split(), strict=True))
    assert (cells["joules"], cells["residual"], cells["status"]) == ("-", "-", "-")


def test_times_are_medians_of_the_repeats_without_the_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # each call reads the clock four times: twice around all, twice around the engine
    calls = [100.0, 3.0, 1.0, 2.0]
    ticks = [t for number, time in enumerate(calls) for t in (0, time / 4, time / 2, time)]
    monkeypatch.setattr(measure, "perf_counter", iter(ticks).__next__)
    (row,) = rows("potrf -n 30 --nb 16 --repeat 3")
    assert row["time"] == 2.0
    # what is not inside of the engine
    assert row["t_submit"] == 1.5
    with pytest.raises(StopIteration):
        measure.perf_counter()


def test_a_kept_graph_is_submitted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    flow = programs.TaskFlow
    monkeypatch.setattr(programs, "TaskFlow", lambda: built.append(1) or flow())
    rows("potrf -n 30 --nb 16 --repeat 3 --warmup 2")
    assert len(built) == 5


# -- right results pass ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 13, 16, 70])
@pytest.mark.parametrize("op", ROUTINES)
def test_right_results_pass(op: str, n: int) -> None:
    types = "d,z" if op == "hpl-mxp" else "s,d,c,z"
    for row in rows(f"{op} -n {n} --nb 16 --dtype {types} --check"):
        assert row["status"] == "PASSED"
        assert 0 <= row["residual"] < 3


VARIANTS = [
    *(f"gemm -m 33 -k 50 --transa {a} --transb C --stationary {s}" for a in "NC" for s in "AB"),
    *(
        f"{op} -m 33 --side {s} --uplo {u} --stationary A"
        for op in ("symm", "hemm")
        for s in "LR"
        for u in "LU"
    ),
    *(f"{op} --uplo U" for op in ("potrf", "potrs", "posv", "potri", "lauum", "lansy")),
    *(f"trtri --uplo {uplo} --diag {diag}" for uplo in "LU" for diag in "NU"),
    *(f"getrf -m {m} --pivot {pivot}" for m in (23, 95) for pivot in ("partial", "none")),
    *(f"getrs --trans {trans} --nrhs 5" for trans in "NTC"),
    *(f"{op} --nrhs 21" for op in ("potrs", "posv", "gesv")),
    *(f"gemm -m 33 -k 50 --transa {a} --transb {b}" for a in "NTC" for b in "NTC"),
    *(f"{op} -m 33 --side {s} --uplo {u}" for op in ("symm", "hemm") for s in "LR" for u in "LU"),
    *(f"{op} -k 29 --uplo {u}" for op in ("syrk", "herk") for u in "LU"),
    *("syrk -k 29 --trans T", "herk -k 29 --trans C"),
    *(
        f"{op} -m 33 --side {s} --uplo {u} --trans {t} --diag {d}"
        for op in ("trsm", "trmm")
        for s in "LR"
        for u in "LU"
        for t in "NTC"
        for d in "NU"
    ),
    *(f"lange -m 33 --norm {norm}" for norm in "1IMF"),
    *(f"lansy --norm {norm}" for norm in "1IMF"),
    "gesv --pivot none",
    "gemm -k 0",
]


@pytest.mark.parametrize("line", VARIANTS)
def test_right_results_pass_with_every_option(line: str) -> None:
    for row in rows(f"{line} -n 70 --nb 16 --dtype d,z --check --warmup 0"):
        assert row["status"] == "PASSED"


def test_tournament_pivoting_passes() -> None:
    for row in rows("getrf -n 70 --nb 16 --pivot tournament --dtype s,d,c,z --check"):
        assert (row["status"], row["pivot"]) == ("PASSED", "tournament")


def test_the_matrices_depend_on_the_seed_alone() -> None:
    line = "potrf -n 70 --check --seed 5"
    one, two, three = (row["residual"] for row in rows(f"{line} --nb 80 --policy lws,prio,eager"))
    assert one == two == three
    (other,) = rows(f"{line} --nb 80 --seed 6")
    assert other["residual"] != one
    a, b = (known(problem("gemm", 20, nb), 7)["B"].dense() for nb in (3, 16))
    np.testing.assert_array_equal(a, b)


# -- wrong results fail ----------------------------------------------------------------------------

# For each routine a kernel that it uses, to be broken.
VICTIMS = [
    *(("potrf", kernel) for kernel in ("potrf", "trsm", "syrk", "gemm")),
    *(("getrf", kernel) for kernel in ("getrf", "laswp", "trsm", "gemm")),
    ("potrs", "trsm"),
    ("posv", "gemm"),
    ("potri", "lauum"),
    ("trtri", "trtri"),
    ("lauum", "trmm"),
    ("getrs", "laswp"),
    ("gesv", "trsm"),
    ("gemm", "gemm"),
    ("symm", "symm"),
    ("hemm", "gemm"),
    ("syrk", "syrk"),
    ("herk", "gemm"),
    ("trsm", "trsm"),
    ("trmm", "trmm"),
    ("lange --norm F", "lange"),
    ("lansy --norm F", "lansy"),
]


def breaking(victim: str, how: Callable[[Tile], None]) -> Callable[..., Callable[..., None]]:
    """Kernels of which one spoils what it wrote."""
    bind = kernels.bind

    def broken(operation: str, dtype: Any, params: Any = (), device: str = "cpu") -> Any:
        kernel = bind(operation, dtype, params, device)
        if operation != victim:
            return kernel

        def wrong(*tiles: Tile) -> None:
            kernel(*tiles)
            floats = [tile for tile in tiles if tile.array.dtype.kind != "i"]
            how(floats[-1])

        return wrong

    return broken


def add(tile: Tile) -> None:
    tile.array[-1, 0] += 1e-3


def spoil(tile: Tile) -> None:
    tile.array[-1, 0] = np.nan


@pytest.mark.parametrize("how", [add, spoil])
@pytest.mark.parametrize(("op", "victim"), VICTIMS)
def test_a_broken_kernel_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, op: str, victim: str, how: Callable[[Tile], None]
) -> None:
    prepared = {"potrs": "posv", "getrs": "gesv"}.get(op)
    if prepared:
        # the factors are to be right, the solution wrong
        factor = ROUTINES[op].prepare
        right = kernels.bind

        def prepare(p: Any, matrices: Any) -> Any:
            assert factor is not None
            with monkeypatch.context() as inner:
                inner.setattr(kernels, "bind", right)
                return factor(p, matrices)

        monkeypatch.setitem(ROUTINES, op, replaced(op, prepare))
    monkeypatch.setattr(kernels, "bind", breaking(victim, how))
    (row,) = rows(f"{op} -n 70 --nb 16 --check --warmup 0", code=1)
    assert row["status"] == "FAILED"
    assert row["residual"] is None or row["residual"] > 60


def replaced(op: str, prepare: Callable[..., Any]) -> Any:
    from dataclasses import replace

    return replace(ROUTINES[op], prepare=prepare)


def test_without_check_nobody_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "bind", breaking("gemm", add))
    (row,) = rows("gemm -n 40 --nb 16")
    assert row["status"] is None


def test_every_repeat_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([(0.5, True), (77.0, False), (0.25, True)])
    monkeypatch.setattr(measure, "check", lambda *_: next(found))
    (row,) = rows("gemm -n 20 --nb 16 --repeat 3 --check", code=1)
    assert (row["residual"], row["status"]) == (77.0, "FAILED")


def test_nan_is_worse_than_any_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    for residuals in ([np.nan, 77.0], [77.0, np.nan]):
        found = iter([(residual, False) for residual in residuals])
        monkeypatch.setattr(measure, "check", lambda *_, found=found: next(found))
        (row,) = csv.DictReader(StringIO(run("gemm -n 20 --repeat 2 --check --csv").stdout))
        assert row["residual"] == "nan"


@pytest.mark.parametrize(("count", "code"), [(1, 1), (7, 7), (100, 100), (103, 100)])
def test_the_exit_code_counts_failures(
    monkeypatch: pytest.MonkeyPatch, count: int, code: int
) -> None:
    monkeypatch.setattr(checks, "known", lambda *_: {"A": None, "B": None, "C": None})
    monkeypatch.setitem(checks._CHECKS, "gemm", lambda p, *_: (1e9 if p.n else 0.0, 3))
    result = run(f"gemm -n 0:{count} --nb 16 --check --csv --warmup 0")
    assert result.exit_code == code
    assert result.stdout.count("FAILED") == count
    assert result.stdout.count("PASSED") == 1


def test_a_routine_that_gives_up_is_a_failure_and_the_rest_is_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    potrf = lapack.potrf

    def weak(A: Any, uplo: Any = None) -> Any:
        if A.n == 30:
            raise NotPositiveDefiniteError(17)
        return potrf(A, uplo)

    monkeypatch.setattr(lapack, "potrf", weak)
    result = run("potrf -n 20:40:10 --nb 16 --check --json")
    assert result.exit_code == 1
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == [
        "PASSED",
        "FAILED",
        "PASSED",
    ]
    assert result.stderr == (
        "Error: potrf with n=30, nb=16, type d: "
        "17-th leading minor of the array is not positive definite\n"
    )


# -- residuals by hand -----------------------------------------------------------------------------


def test_the_inputs_are_made_again_for_a_check() -> None:
    for op in ROUTINES:
        p = problem(op, 70, 16, "z")
        for operand, name in zip(p.operands, known(p, 3), strict=True):
            assert operand.name == name
    p = problem("hemm", 70, 16, "z", uplo="U")
    A = known(p, 3)["A"]
    dense = A.dense()
    np.testing.assert_array_equal(dense, dense.conj().T)
    X = np.arange(70 * 2).reshape(70, 2) + 0j
    for op, matrix in (("N", dense), ("T", dense.T), ("C", dense.conj().T)):
        np.testing.assert_allclose(A.times(X, op), matrix @ X, rtol=1e-13)
    for norm, order in (("1", 1), ("I", np.inf), ("F", "fro")):
        expected = np.linalg.norm(dense, order)  # type: ignore[arg-type]
        assert A.norm(norm) == pytest.approx(expected, rel=1e-13)
    assert A.norm("M") == np.abs(dense).max()


@pytest.mark.parametrize("uplo", "LU")
@pytest.mark.parametrize("diag", "NU")
def test_a_triangular_input_is_a_triangle(
    monkeypatch: pytest.MonkeyPatch, uplo: str, diag: str
) -> None:
    from taskla.cli import generate

    monkeypatch.setattr(generate, "STRIP", 7)
    A: Known = known(problem("trsm", 20, 16, uplo=uplo, diag=diag), 3)["A"]
    dense = A.dense()
    np.testing.assert_array_equal(dense, np.tril(dense) if uplo == "L" else np.triu(dense))
    assert (dense.diagonal() == 1).all() == (diag == "U")
    np.testing.assert_allclose(A.times(np.eye(20)), dense)
    assert np.linalg.cond(dense) < 10


def test_a_residual_is_as_the_books_have_it() -> None:
    p = problem("potrf", 70, 16, "d")
    a = known(p, 3)["A"].dense()
    wrong = np.linalg.cholesky(a)
    wrong[50, 20] += 0.5
    from taskla import TiledMatrix

    matrix = TiledMatrix.from_array(np.asfortranarray(wrong), 16, uplo="lower")
    residual, passed = checks.check(p, [matrix], None, 3)
    expected = np.linalg.norm(a - wrong @ wrong.T, 1) / (np.linalg.norm(a, 1) * 70 * 2.0**-53)
    assert residual == pytest.approx(expected, rel=1e-6)
    assert not passed


# -- Ctrl-C ----------------------------------------------------------------------------------------


def test_an_interrupted_bench_prints_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from taskla.cli.measure import Measured

    def some(p: Any, *_: Any, **__: Any) -> Measured:
        if p.n == 30:
            raise KeyboardInterrupt
        return Measured(0.5, 1.0, 10, 10)

    monkeypatch.setattr(measure, "measure", some)
    result = run("potrf -n 10:50:10")
    assert result.exit_code == 130
    assert result.stderr == "Error: interrupted\n"
    assert len(result.stdout.splitlines()) == 3


def test_ctrl_c_ends_a_bench() -> None:
    command = [sys.executable, "-m", "taskla", "bench", "potrf", "-n", "500:10000", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as taskla:
        assert taskla.stdout is not None
        first = taskla.stdout.readline()
        taskla.send_signal(signal.SIGINT)
        rest, errors = taskla.communicate(timeout=60)
    assert taskla.returncode == 130
    assert errors == "Error: interrupted\n"
    for line in (first, *rest.splitlines()):
        assert json.loads(line)["op"] == "potrf"
