"""`taskla bench hpl-mxp`: the rules of HPL-MxP.

They are at https://hpl-mxp.org: factors in 16 bits or more, refinement to the accuracy of HPL,
||A x - b|| / ((||A|| ||x|| + ||b||) n u) < 16 in the infinity norm, 2/3 n^3 + 3/2 n^2 flops.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from test_engine_mpi import mpirun

from taskla import TiledMatrix, kernels, lapack
from taskla.cli import main
from taskla.cli.checks import check
from taskla.cli.generate import known
from taskla.refinement import RefinementInfo, failed
from taskla.refinement_tiled import Refined
from taskla.routines import problem
from taskla.tile import Tile


def run(line: str) -> Result:
    return CliRunner().invoke(main, line.split())


def rows(line: str, code: int = 0) -> list[dict[str, Any]]:
    result = run(f"bench hpl-mxp {line} --json --warmup 0")
    assert result.exit_code == code, result.stderr
    return [json.loads(text) for text in result.stdout.splitlines()]


@pytest.mark.parametrize("precision", [None, "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("pivot", ["partial", "tournament", "none"])
def test_a_run_passes(precision: str | None, pivot: str) -> None:
    option = f"--precision {precision}" if precision else ""
    for row in rows(f"-n 50,100 --nb 16 --dtype d,z --pivot {pivot} --check {option}"):
        assert row["status"] == "PASSED"
        assert 0 < row["residual"] < 1
        assert (row["op"], row["precision"], row["pivot"]) == (
            "hpl-mxp",
            precision or "fp32",
            pivot,
        )


def test_precisions_are_a_list() -> None:
    found = rows("-n 50 --nb 16 --precision fp16 --precision fp32")
    assert [row["precision"] for row in found] == ["fp16", "fp32"]


def test_the_flops_are_those_of_the_rules() -> None:
    (row,) = rows("-n 300 --nb 64")
    assert row["gflops"] * row["time"] * 1e9 == pytest.approx(2 / 3 * 300**3 + 3 / 2 * 300**2)


def test_the_matrix_is_diagonally_dominant() -> None:
    made = known(problem("hpl-mxp", 50, 16), 0)
    a = np.abs(made["A"].dense())
    assert (2 * a.diagonal() > a.sum(axis=1)).all()
    assert made["B"].dense().shape == (50, 1)


def verdict(x: Any, info: RefinementInfo) -> tuple[float, bool]:
    p = problem("hpl-mxp", 40, 16)
    a = known(p, 7)["A"].dense()
    matrices = [TiledMatrix.from_array(m, 16) for m in (a, x)]
    return check(p, matrices, info, 7)


def test_the_residual_and_its_limit() -> None:
    p = problem("hpl-mxp", 40, 16)
    a, b = (known(p, 7)[name].dense() for name in "AB")
    x = np.linalg.solve(a, b)
    refined, full = RefinementInfo("lu-ir", "fp32"), RefinementInfo("full", "fp32", iter=-31)
    residual, passed = verdict(x, refined)
    assert passed
    assert residual < 0.2
    norm = np.abs(a).sum(axis=1).max()
    for wanted, right in ((15.0, True), (17.0, False)):
        # so much residual, by way of one entry of x
        size = wanted * (norm * np.abs(x).max() + np.abs(b).max()) * 40 * 2.0**-53
        wrong = x + np.linalg.solve(a, np.eye(40)[:, :1] * size)
        residual, passed = verdict(wrong, refined)
        assert residual == pytest.approx(wanted, rel=0.05)
        assert passed == right
    residual, passed = verdict(x * np.nan, refined)
    assert not passed
    # a factorisation in double precision is not what is measured
    residual, passed = verdict(x, full)
    assert residual < 0.2
    assert not passed


def test_a_full_factorisation_is_said_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Refined(failed("bf16", -31, "LU-IR stagnated"))
    monkeypatch.setattr(lapack, "refined", lambda *_, **__: lost)
    result = run("bench hpl-mxp -n 40 --nb 16 --precision bf16 --check --warmup 0 --csv")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout
    said = "hpl-mxp with n=40, nb=16 was solved in full precision: LU-IR stagnated\n"
    assert said in result.stderr


def test_the_refinement_is_in_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs that ran are those of the factorisation and of every solution and product."""
    (row,) = rows("-n 100 --nb 16 --precision bf16")
    A, B = (TiledMatrix.random(shape, 16, kind=kind) for shape, kind in
            (((100, 100), "dominant"), ((100, 1), "general")))  # fmt: skip
    calls: list[str] = []
    bind = kernels.bind

    def noting(operation: str, *rest: Any) -> Any:
        kernel = bind(operation, *rest)

        def noted(*tiles: Tile) -> None:
            calls.append(operation)
            kernel(*tiles)

        return noted

    monkeypatch.setattr(kernels, "bind", noting)
    info = lapack.gesv(A, B, precision="bf16")
    assert info.iterations >= 1
    assert row["tasks"] > 300
    assert {"lange", "getrf", "gemm", "trsm"} <= set(calls)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "bench hpl-mxp -n 10 --precision fp8",
            "lower precision than fp64: fp32, bf16, fp16",
        ),
        ("bench hpl-mxp -n 10 --precision fp64", "factors in a lower precision than fp64"),
        ("bench hpl-mxp -n 10 --dtype s", "only float64 and complex128 are refined to"),
        ("bench hpl-mxp -n 10 --nrhs 2", "hpl-mxp has no option nrhs"),
        ("bench syrk -n 10 --precision fp32", "syrk has no option precision"),
        ("plan hpl-mxp -n 10", "hpl-mxp cannot be planned; there are potrf"),
    ],
)
def test_what_is_not_allowed(line: str, message: str) -> None:
    result = run(line)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.xdist_group("mpi")
def test_ranks_pass_and_send_messages() -> None:
    line = "bench hpl-mxp -n 100 --nb 16 --precision fp32 --check --json --warmup 0 --dtype d,z"
    done = mpirun(2, "-m", "taskla", *line.split(), timeout=60)
    assert done.returncode == 0, done.stderr[-5000:]
    for text in done.stdout.splitlines():
        row = json.loads(text)
        assert (row["status"], row["ranks"]) == ("PASSED", 2)
        assert 0 < row["residual"] < 1
        assert row["messages"] > 10
