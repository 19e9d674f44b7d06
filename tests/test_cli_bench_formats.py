"""`taskla bench --precision`: number formats of tiles and products, and how results are checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from test_cli_mpi import errors, objects, program

import taskla as tla
from taskla.cli import main
from taskla.cli.checks_formats import check_formats
from taskla.cli.generate import matrices
from taskla.engines.threads import ThreadsEngine
from taskla.routines import FACTORED, PRODUCTS, ROUTINES, problem


def run(line: str) -> Result:
    return CliRunner().invoke(main, line.split())


def rows(line: str) -> list[dict[str, Any]]:
    result = run(f"bench {line} --json --warmup 0")
    assert result.exit_code == 0, result.output
    return [json.loads(text) for text in result.stdout.splitlines()]


CASES = [
    (op, pivot)
    for op in (*FACTORED, *PRODUCTS)
    for pivot in (("partial", "none") if "pivot" in ROUTINES[op].options else (None,))
]


SOLVING = ("potrs", "posv", "getrs", "gesv")


@pytest.mark.parametrize(("op", "pivot"), CASES)
@pytest.mark.parametrize("precision", ["adaptive:1e-4", "fp32"])
def test_results_are_checked_against_their_tolerance(
    op: str, pivot: str | None, precision: str
) -> None:
    choice = f" --pivot {pivot}" if pivot else ""
    line = f"{op} -n 90 --nb 16 --dtype d,z --check --precision {precision}{choice}"
    for row in rows(line):
        assert row["status"] == "PASSED"
        assert row["precision"] == ("adaptive:0.0001" if "a" in precision else "fp32")
        assert 0 < row["residual"] <= (3 if "a" in precision else 30)


@pytest.mark.xdist_group("mpi")
def test_ranks_find_the_errors_that_one_process_finds() -> None:
    calls = [f"{op}{f' --pivot {pivot}' if pivot else ''}" for op, pivot in CASES]
    # more columns than there are probes, and fewer; other triangles, sides and shapes
    calls = [f"{call} --nrhs 40" if call[:5] in SOLVING else call for call in calls]
    calls += ["posv --uplo U --nrhs 3", "potrf --uplo U", "getrf -m 60", "getrf -m 120", "gesv"]
    calls += ["getrs --trans C", "gemm -m 70 -k 33 --transa T", "symm --side R --uplo U -m 40"]
    rules = "--precision adaptive:1e-4 --precision fp32 --precision fp64"
    lines = [f"{call} -n 90 --nb 16 --dtype d,z --check {rules}" for call in calls]
    done = program(3, "many", *(f"bench {line} --json --warmup 0" for line in lines))
    *found, codes = objects(done)
    assert errors(done) == []
    assert codes == [0] * len(lines)
    alone = [row for line in lines for row in rows(line)]
    for row, one in zip(found, alone, strict=True):
        names = ("op", "type", "pivot", "precision", "status")
        assert [row[name] for name in names] == [one[name] for name in names]
        assert (row["ranks"], one["ranks"]) == (3, 1)
        if row["precision"] != "fp64":
            # an estimate by 8 probes; errors are spread over all of the matrix
            assert row["residual"] == pytest.approx(one["residual"], rel=0.4), row["op"]


@pytest.mark.xdist_group("mpi")
def test_ranks_find_what_is_wrong() -> None:
    rules = "--precision adaptive:1e-6 --precision fp32"
    lines = [
        f"bench {op}{f' --pivot {pivot}' if pivot else ''} -n 90 --nb 16 --check {rules} --json"
        for op, pivot in CASES
    ]
    done = program(3, "wrong", *lines)
    *found, codes = objects(done)
    assert codes == [2] * len(CASES)
    assert {row["status"] for row in found} == {"FAILED"}


def test_a_band_and_a_file_are_rules_too(tmp_path: Path) -> None:
    (band,) = rows("potrf -n 90 --nb 30 --precision fp64:1,bf16:rest --check")
    assert (band["status"], band["precision"]) == ("PASSED", "fp64:1,bf16:rest")
    path = tmp_path / "map.csv"
    path.write_text("fp64,fp16,fp16\nfp32,fp64,fp16\nfp16,fp32,fp64\n")
    (row,) = rows(f"potrf -n 90 --nb 30 --precision {path} --check")
    assert row["status"] == "PASSED"
    assert row["tasks"] > 10


def test_precisions_are_a_list_of_which_a_plain_run_may_be_one() -> None:
    sizes = "-n 60,90 --nb 30 --dtype d --check"
    rules = ["fp64:1,bf16:rest", "fp64", "adaptive:1e-4"]
    found = rows(f"potrf {sizes} " + " ".join(f"--precision {rule}" for rule in rules))
    named = ["fp64:1,bf16:rest", "fp64", "adaptive:0.0001"]
    assert [(row["n"], row["precision"]) for row in found] == [
        (n, rule) for n in (60, 90) for rule in named
    ]
    assert {row["status"] for row in found} == {"PASSED"}
    plain = rows(f"potrf {sizes}")
    for column in ("residual", "precision", "tasks_run"):
        assert [row[column] for row in found[1::3]] == [row[column] for row in plain]
        assert [row[column] for row in found[::3]] != [row[column] for row in plain]


@pytest.mark.parametrize("op", ["getrf", "gemm"])
@pytest.mark.parametrize(("dtype", "name"), [("d", "fp64"), ("s", "fp64"), ("c", "fp32")])
def test_the_format_of_the_type_or_a_wider_one_is_a_plain_run(
    op: str, dtype: str, name: str
) -> None:
    assert problem(op, 40, 16, dtype, precision=name) == problem(op, 40, 16, dtype)
    assert problem(op, 40, 16, dtype, precision="fp16").formats == "fp16"


@pytest.mark.parametrize("op", ["potrf", "getrf", "gesv", "gemm"])
def test_a_result_that_is_too_wrong_fails(op: str) -> None:
    p = problem(op, 60, 16, "d", precision="adaptive:1e-6")
    engine = ThreadsEngine(1)
    X = matrices(p, 0, engine)
    assert (X[0].mixed is None) == (op == "gemm")
    with engine:
        given = p.routine.call(p, X, None)
    residual, passed = check_formats(p, X, given, 0)
    assert passed
    assert residual <= 3
    made = X[-1]
    made.put(1, 0, made.tile(1, 0).array * 1.001 + 1e-3)
    residual, passed = check_formats(p, X, given, 0)
    assert not passed
    assert residual > 3


def test_what_is_not_allowed_is_said() -> None:
    for line, message in [
        ("bench trsm -n 10 --precision fp32", "trsm has no option precision"),
        ("bench potrf -n 10 --precision fp33", "rule is 'fp33'; allowed: a format"),
        ("bench potrf -n 10 --precision adaptive", "needs a tolerance"),
        ("bench gemm -n 10 --precision fp64:1,fp32:rest", "products take a format"),
        ("bench gemm -n 10 --precision fp64,fp32", "rule is 'fp64,fp32'; allowed: a format"),
        ("bench symm -n 10 --precision fp32 --stationary A", "with a precision it must be 'C'"),
    ]:
        result = run(line)
        assert result.exit_code == 2, result.output
        assert message in result.stderr


def test_all_of_a_list_is_looked_at_before_anything_runs(tmp_path: Path) -> None:
    small = tmp_path / "small.csv"
    small.write_text("fp64,fp32\nfp32,fp64\n")
    for last, code, message in [
        ("fp63", 2, "rule is 'fp63'"),
        (small, 2, "small.csv"),
        (tmp_path / "absent.csv", 1, "absent.csv: No such file"),
    ]:
        result = run(f"bench potrf -n 90 --nb 30 --precision fp32 --precision {last} --json")
        assert (result.exit_code, result.stdout) == (code, "")
        assert message in result.stderr


def test_an_adaptive_map_is_by_column_where_rows_are_interchanged() -> None:
    for pivot, by in (("partial", "column"), ("none", "tile")):
        p = problem("getrf", 60, 16, "d", pivot=pivot, precision="adaptive:1e-3")
        (A,) = matrices(p, 0, ThreadsEngine(1))
        assert A.precision == tla.PrecisionMap("adaptive", tol=1e-3, by=by)  # type: ignore[arg-type]
        if by == "column":
            assert all(len(np.unique(column)) == 1 for column in A.format_map.T)


def test_info_says_what_is_emulated() -> None:
    (found,) = map(json.loads, run("info --json").stdout.splitlines())
    assert found["products"]["fp32"] == "native"
    assert found["products"]["fp16"] == "emulated in fp32"
    assert "fp16 emulated in fp32" in run("info").stdout
