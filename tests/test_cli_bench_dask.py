"""`taskla bench --engine dask`: rows, checks and traces on real worker processes, and their ends.

Most tests run the command on the shared cluster, which is the current client's; those of a cluster
of the command's own start a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from distributed import Client, LocalCluster
from test_cli_mpi import CALLS

from taskla import TiledMatrix
from taskla.cli import main, on_dask
from taskla.cli.checks import check
from taskla.engines.dask_chunks import tile_size
from taskla.traces import read

SIZES = "-n 100 --nb 16"


def run(line: str) -> Result:
    return CliRunner().invoke(main, line.split())


def rows(client: Any, line: str, code: int = 0) -> list[dict[str, Any]]:
    with client.as_current():
        result = run(f"bench {line} --engine dask --workers 2 --json --warmup 0")
    assert result.exit_code == code, result.output
    return [json.loads(text) for text in result.stdout.splitlines()]


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


# -- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
def test_every_routine_passes_in_as_many_tasks_as_were_planned(client: Any, call: str) -> None:
    line = f"{call.replace('--m', '-m').replace('--k', '-k')} {SIZES}"
    (row,) = rows(client, f"{line} --dist 2dbc --check")
    assert row["status"] == "PASSED", row["residual"]
    assert 0 <= row["residual"] < 3
    fixed = ("engine", "ranks", "workers", "dist", "energy", "joules", "pivot_messages")
    assert [row[name] for name in fixed] == ["dask", 2, 2, "2dbc", "unavailable", None, None]
    assert 0 < row["t_submit"] < row["time"]
    assert row["gflops"] > 0
    if not row["op"].startswith("lan"):
        planned = run(f"plan {line} --engine dask --ranks 2 --dist 2dbc --json")
        count = json.loads(planned.stdout)
        # zeros on the diagonal of U are looked for by gesv, on Dask without a tile task a tile
        looked = -(-100 // 16) if row["op"] == "gesv" else 0
        assert row["tasks"] == count["tasks"] - looked
        assert count["tasks_run"] - looked <= row["tasks_run"] <= count["tasks_run"]
        assert row["tasks_run"] < row["tasks"]


@pytest.mark.parametrize("call", ["potrf", "posv --nrhs 3", "getrf", "gesv --pivot none", "gemm"])
def test_precisions_are_checked_against_their_tolerance(client: Any, call: str) -> None:
    rules = ["fp64", "adaptive:1e-4", "fp32"]
    line = f"{call} {SIZES} --check " + " ".join(f"--precision {rule}" for rule in rules)
    found = rows(client, line)
    assert [row["precision"] for row in found] == ["fp64", "adaptive:0.0001", "fp32"]
    assert {row["status"] for row in found} == {"PASSED"}
    # what is in lower formats is smaller to send
    if not call.startswith("gemm"):
        assert found[2]["bytes_sent"] < found[0]["bytes_sent"]


def test_a_distribution_with_slices_and_a_tile_size_of_its_own(client: Any) -> None:
    (row,) = rows(client, "potrf -n 600 --dist 2.5d-2dbc --slices 2 --check")
    assert (row["status"], row["slices"]) == ("PASSED", 2)
    assert row["nb"] == tile_size(600, np.dtype("float64"), 2)
    (row,) = rows(client, "potrf -n 0 --check")
    assert (row["dist"], row["tasks"], row["status"]) == ("col", 0, "PASSED")


@pytest.mark.parametrize("options", ["", "--precision fp32"])
def test_a_result_of_other_matrices_fails(
    client: Any, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    for name in ("check", "check_formats"):
        judge = getattr(on_dask, name)

        def other(p: Any, X: Any, outcome: Any, seed: int, judge: Any = judge) -> Any:
            return judge(p, X, outcome, seed + 1)

        monkeypatch.setattr(on_dask, name, other)
    (row,) = rows(client, f"potrf {SIZES} --check {options}", code=1)
    assert row["status"] == "FAILED"


def test_what_a_routine_cannot_do_is_a_failure(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = on_dask.matrices

    def indefinite(p: Any, *arguments: Any) -> Any:
        make(p, *arguments)
        return [TiledMatrix.from_function(lambda i, j: -1.0 * (i[:, None] == j), (p.n, p.n), p.nb)]

    monkeypatch.setattr(on_dask, "matrices", indefinite)
    (row,) = rows(client, f"potrf {SIZES}", code=1)
    assert (row["status"], row["time"], row["tasks"]) == ("FAILED", None, None)


def test_what_comes_from_workers_is_what_the_check_sees(client: Any) -> None:
    """Pivots and factor are those of a checked run, not what a check made again."""
    seen: list[Any] = []

    def noting(p: Any, X: Any, outcome: Any, seed: int) -> Any:
        seen.append((X[0].to_array(), np.asarray(outcome)))
        return check(p, X, outcome, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_dask, "check", noting)
        rows(client, f"getrf {SIZES} --repeat 2 --check --seed 3")
    (first, piv), (second, again) = seen
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(piv, again)
    assert (piv != np.arange(100)).any()


# -- traces ----------------------------------------------------------------------------------------


def test_counted_runs_are_recorded_with_their_messages(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    with client.as_current():
        result = run(
            f"bench potrs -n 60 --nb 16 --nrhs 20 --engine dask --workers 2 --trace {path} "
            "--repeat 3 --warmup 1 --check --json --energy model"
        )
    assert result.exit_code == 0, result.output
    (row,) = map(json.loads, result.stdout.splitlines())
    trace = read(path)
    assert [run_.program for run_ in trace.runs] == ["potrs"] * 3
    assert [run_.info["repeat"] for run_ in trace.runs] == [0, 1, 2]
    for run_ in trace.runs:
        info = run_.info
        assert (info["engine"], info["policy"], info["ranks"]) == ("dask", "lws", 2)
        assert (info["status"], info["parameters"]["op"]) == ("completed", "potrs")
        assert info["energy"]["source"] == "modelled"
        # each repeat is computed: what is known by its name would not be
        assert run_.tasks["tile_tasks"].sum() == row["tasks"]
    last = trace.runs[-1]
    assert last.messages["bytes"].sum() == row["bytes_sent"] > 0


def test_a_cluster_that_runs_is_used_and_left(client: Any) -> None:
    line = f"bench potrf {SIZES} --engine dask --json --check --scheduler"
    result = run(f"{line} {client.scheduler.address}")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    fixed = ("engine", "ranks", "workers", "status")
    assert [row[name] for name in fixed] == ["dask", 2, 2, "PASSED"]
    assert len(client.nthreads()) == 2
    # gone, and not only forgotten
    names = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.clients))
    assert [name for name in names if name.startswith("Client-")] == [client.id]


def test_a_scheduler_without_workers_is_refused() -> None:
    with LocalCluster(
        n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=40
    ) as cluster:
        address = cluster.scheduler_address
        result = run(f"bench potrf {SIZES} --engine dask --scheduler {address}")
    assert result.exit_code == 2
    assert f"scheduler is '{address}', which has no workers" in result.output
    result = run(f"bench potrf {SIZES} --scheduler {address}")
    assert f"scheduler is '{address}', which is for the engine 'dask'" in result.output


def test_hpl_mxp_refines(client: Any) -> None:
    line = f"hpl-mxp {SIZES} --check --precision fp32 --precision bf16"
    for row, precision in zip(rows(client, line), ("fp32", "bf16"), strict=True):
        assert (row["status"], row["precision"]) == ("PASSED", precision)
        assert row["residual"] < 16
        assert row["tasks"] > row["tasks_run"] > 0


# -- what is refused, and ends ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bench potrf -n 10 --checkpoint no", "checkpoint is 'no'; the engine 'dask' has no"),
        ("bench potrf -n 10 --checkpoint-every 2", "checkpoint_every is 2; the engine 'dask' has"),
        ("bench potrf -n 10 --energy model", "energy is 'model', and the engine is 'dask'"),
        ("bench potrf -n 10 --policy best", "best"),
        ("bench potrf -n 10 --scheduler here", "scheduler is 'here': missing port number"),
        ("bench potrf -n 10 --scheduler tcp://127.0.0.1:1", "scheduler is 'tcp://127.0.0.1:1': "),
        ("bench potrf -n 10 --scheduler a:1 --workers 2", "workers is 2; those of the scheduler"),
        ("bench potrf -n 10 --workers 2 --dist sbc", "sbc"),
        ("bench potrf -n 10 --dist 2dbc --grid 2x2 --workers 2", "grid"),
        ("bench potrv -n 10", "no operation 'potrv'; did you mean potrs?"),
        ("bench trsm -n 10 --precision fp32", "trsm has no option precision"),
        ("bench potrf -n 1000000 --nb 20000", "and the memory is"),
    ],
)
def test_what_is_wrong_is_said_before_a_cluster_starts(
    line: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(**_: Any) -> Any:
        raise AssertionError("a cluster has started")

    monkeypatch.setattr(on_dask, "DaskEngine", started)
    monkeypatch.setattr(on_dask, "ANSWER", 1)
    result = run(f"{line} --engine dask")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_without_distributed_it_is_said_what_to_install() -> None:
    line = ["bench", "potrf", "-n", "10", "--engine", "dask"]
    code = "import sys; sys.modules['distributed'] = None; from taskla.cli import main"
    done = process("-c", f"{code}; main({line!r})")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: the engine 'dask' needs distributed: pip install 'taskla[dask]'\n"
    )


def test_a_run_without_workers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_dask, "PERIOD", 0.05)
    monkeypatch.setattr(on_dask, "GONE", 0.1)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
        client.as_current(),
    ):
        result = run(f"bench potrf {SIZES} --engine dask --workers 1")
    assert result.exit_code == 1
    assert "there has been no worker for" in result.stderr


def test_workers_that_die_end_the_command_with_an_error() -> None:
    code = (
        "import os\nfrom taskla.cli import main, on_dask\n"
        "class Deadly(on_dask._Anew):\n    def __call__(self, rows, cols):\n        os._exit(3)\n"
        "if __name__ == '__main__':\n    on_dask._Anew = Deadly\n"
        "    main('bench potrf -n 60 --nb 30 --engine dask --workers 1'.split())\n"
    )
    done = process("-c", code)
    assert done.returncode == 1
    assert "Error: KilledWorker" in done.stderr
    assert done.stdout == ""


def test_the_command_has_a_cluster_for_each_number_of_workers() -> None:
    line = "bench potrf -n 60,90 --nb 30 --engine dask --workers 1,2 --policy prio,lws --check"
    done = process("-m", "taskla", *line.split(), "--json", "--warmup", "0")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = [json.loads(text) for text in done.stdout.splitlines()]
    names = ("n", "workers", "ranks", "policy", "dist", "status")
    assert [tuple(row[name] for name in names) for row in found] == [
        (n, workers, workers, policy, "col", "PASSED")
        for n in (60, 90)
        for workers in (1, 2)
        for policy in ("prio", "lws")
    ]
    assert {row["bytes_sent"] for row in found if row["ranks"] == 1} == {0}
