"""The command on real ranks: the same rows, checks and messages, said once, and ended together.

The limits of residuals are those of `test_cli_bench`; what is planned is what `taskla plan` counts.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from test_engine_mpi import mpirun

from taskla import TiledMatrix
from taskla.cli import main

PROGRAMS = Path(__file__).with_name("mpi_cli.py")
pytestmark = pytest.mark.xdist_group("mpi")

#: Every routine, with options of each kind; -n and --nb are given for all.
CALLS = [
    "potrf",
    "potrf --uplo U --dtype z",
    "potrs --nrhs 5",
    "posv --nrhs 20 --dtype s",
    "potri --dtype c",
    "trtri --uplo U --diag U",
    "lauum --dtype z",
    "getrf --pivot none --m 70",
    "getrf --m 70",
    "getrf --m 120 --pivot tournament --dtype z",
    "getrs --trans C --dtype z",
    "gesv --nrhs 3",
    "gemm --m 70 --k 33 --transa T",
    "gemm --stationary A",
    "symm --side R --m 40",
    "symm --stationary A",
    "hemm --dtype z --uplo U",
    "syrk --k 50 --trans T",
    "herk --uplo U --dtype c",
    "trsm --m 40 --trans T",
    "trsm --m 40 --side R --uplo U --diag U",
    "trmm --trans C --dtype z",
    "lange --norm F --m 40",
    "lange --norm I",
    "lansy --norm 1",
    "lansy --norm M --uplo U",
]
SIZES = "-n 100 --nb 16"
SMALL = f"bench potrf {SIZES}"


def taskla(ranks: int, *arguments: object, timeout: int = 60) -> subprocess.CompletedProcess[str]:
    return mpirun(ranks, "-m", "taskla", *map(str, arguments), timeout=timeout)


def program(ranks: int, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return mpirun(ranks, PROGRAMS, name, *arguments, timeout=120)


def objects(done: subprocess.CompletedProcess[str]) -> list[Any]:
    assert done.stdout.endswith("\n"), done.stderr[-5000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the command says is wrong: not what mpirun adds."""
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def planned(call: str, ranks: int, dist: str) -> dict[str, Any]:
    line = f"plan {call.replace('--m', '-m').replace('--k', '-k')} {SIZES}"
    result = CliRunner().invoke(main, f"{line} --ranks {ranks} --dist {dist} --json".split())
    assert result.exit_code == 0, result.stderr
    row: dict[str, Any] = json.loads(result.stdout)
    return row


# -- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "dist"), [(2, "row"), (3, "sbc"), (4, "2dbc")])
def test_every_routine_passes_and_sends_what_was_planned(ranks: int, dist: str) -> None:
    lines = [
        f"bench {call.replace('--m', '-m').replace('--k', '-k')} {SIZES} --dist {dist} --check "
        "--json --warmup 0"
        for call in CALLS
    ]
    done = program(ranks, "many", *lines)
    *rows, codes = objects(done)
    assert errors(done) == []
    assert codes == [0] * len(CALLS)
    for call, row in zip(CALLS, rows, strict=True):
        assert row["status"] == "PASSED", (call, row["residual"])
        assert 0 <= row["residual"] < 3
        assert (row["op"], row["ranks"], row["dist"], row["engine"]) == (
            *(call.split()[0], ranks, dist),
            "mpi",
        )
        if row["op"].startswith("lan"):
            continue
        count = planned(call, ranks, dist)
        assert row["tasks"] == count["tasks"]
        assert row["messages"] == count["messages"], call
        assert row["pivot_messages"] <= count["pivot_messages"]
        assert row["bytes_sent"] > 0
        if not count["pivot_messages"]:
            assert row["bytes_sent"] == count["bytes"], call


def test_what_is_wrong_fails() -> None:
    calls = [f"bench {call.replace('--m', '-m').replace('--k', '-k')}" for call in CALLS]
    done = program(3, "wrong", *(f"{call} {SIZES} --check --json --warmup 0" for call in calls))
    *rows, codes = objects(done)
    assert codes == [1] * len(CALLS)
    assert {row["status"] for row in rows} == {"FAILED"}


def test_combinations_repeats_and_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "run.trace"
    line = "bench potrf -n 60,90 --nb 16,20 --dist sbc,row --policy prio,lws --workers 1 --repeat 2"
    done = taskla(3, *line.split(), "--trace", trace, "--csv")
    header, *rows = [line.split(",") for line in done.stdout.splitlines()]
    assert len(rows) == 2 * 2 * 2 * 2
    assert errors(done) == []
    assert trace.is_file()
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    assert set(columns["dist"]) == {"sbc", "row"}
    for submission, whole in zip(columns["t_submit"], columns["time"], strict=True):
        assert 0 < float(submission) < float(whole)


def test_sliced_cholesky() -> None:
    which = "potrf -n 100 --nb 16 --dist 2.5d-2dbc --slices 2 --json"
    (row,) = objects(taskla(4, "bench", *which.split(), "--check"))
    assert (row["status"], row["dist"]) == ("PASSED", "2.5d-2dbc")
    count = json.loads(CliRunner().invoke(main, f"plan {which} --ranks 4".split()).stdout)
    assert (row["messages"], row["bytes_sent"]) == (count["messages"], count["bytes"])


@pytest.mark.parametrize("page", ["README.md", "docs/mpi.md"])
def test_the_commands_of_a_page_run(page: str) -> None:
    text = (PROGRAMS.parents[1] / page).read_text(encoding="utf-8")
    found = re.findall(r"^\$ mpirun -n (\d+) taskla (.+)$", text, re.MULTILINE)
    assert found
    for ranks, line in found:
        done = taskla(int(ranks), *line.split())
        assert (done.returncode, errors(done)) == (0, []), done.stderr
        assert line.split()[1] in done.stdout


# -- one speaks, all end ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("bench potrf -n 10 --engine threads", 2, "engine is 'threads', which is one process"),
        ("bench potrf -n 10 --engine dask", 2, "starts its own processes, and there are 3 ranks"),
        ("bench potrv -n 10", 2, "no operation 'potrv'; did you mean potrs?"),
        ("bench potrf", 2, "Missing option '-n'."),
        ("bench potrf -n 10 --dist sbc --grid 2x2", 2, "grid"),
        ("bench gemm -n 10 --dist 2.5d-2dbc", 2, "a 2.5D distribution is for potrf"),
        ("bench potrf -n 10 --energy model", 2, "joules are in a trace only"),
        ("bench potrf -n 400000 --nb 20000", 2, "GB a rank and"),
        ("bench potrf -n 10 --trace no/x.trace", 1, "no such folder"),
        ("solve no.npy no.npy -o x.npy", 2, "'no.npy' does not exist."),
        ("plan potrf -n 10 --ranks 0", 2, "0 is not allowed"),
        ("benhc", 2, "no command 'benhc'; did you mean bench?"),
    ],
)
def test_what_is_wrong_is_said_once(line: str, code: int, message: str) -> None:
    done = taskla(3, *line.split(), timeout=30)
    assert done.returncode == code
    (said,) = errors(done)
    assert message in said
    assert "rank 0" not in said
    assert done.stdout == ""


def test_commands_of_one_process_run_on_one() -> None:
    line = "plan potrf -n 100 --nb 16 --ranks 4 --dist 2dbc --json"
    done = taskla(3, *line.split())
    assert len(done.stdout.splitlines()) == 1
    assert done.returncode == 0
    shown = taskla(2, "bench", "--help")
    assert (shown.returncode, shown.stdout.count("Usage:")) == (0, 1)


def test_an_error_of_a_task_is_told_with_its_rank() -> None:
    done = program(3, "kernel", *SMALL.split())
    assert done.returncode == 1
    assert len(errors(done)) == 1
    assert errors(done)[0].startswith("Error: rank 1: a disk is full")


def test_an_error_while_others_wait_ends_the_job() -> None:
    begin = time.monotonic()
    done = program(3, "alone", *SMALL.split())
    assert time.monotonic() - begin < 30
    assert done.returncode == 1
    assert "Error: rank 1: no memory for a matrix" in done.stderr


def test_ctrl_c_on_mpirun_ends_the_job(tmp_path: Path) -> None:
    line = "bench potrf -n 64,3000 --nb 64 --repeat 100 --json"
    found = mpirun_command(3, PROGRAMS, "command", tmp_path, *line.split())
    with subprocess.Popen(
        found, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        # the second combination runs, for minutes
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        end = time.monotonic() + 10
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode != 0
    ranks = [int(file.read_text()) for file in tmp_path.glob("*.pid")]
    assert len(ranks) == 3
    # what mpirun has killed may take an instant longer
    while (left := [pid for pid in ranks if is_running(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


def mpirun_command(ranks: int, *arguments: object) -> list[str]:
    """The command line of `mpirun`, for what is to be interrupted."""
    seen: list[list[str]] = []

    def keep(command: list[str], **_: Any) -> None:
        seen.append([str(word) for word in command])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", keep)
        mpirun(ranks, *map(str, arguments), timeout=0)
    return seen[0]


def is_running(pid: int) -> bool:
    """Whether a process lives; one that has ended and waits to be asked for it does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# -- engines ---------------------------------------------------------------------------------------


def test_many_workers_are_complained_of_once() -> None:
    cores = len(os.sched_getaffinity(0))
    found = json.loads(program(2, "engines", str(2 * cores)).stdout)
    ((message, kind, file),) = found[0]
    assert found[1] == []
    assert message.startswith(f"2 ranks x {2 * cores} workers on ")
    assert (kind, file) == ("RuntimeWarning", "mpi_cli.py")
    done = taskla(2, *f"bench potrf -n 60 --nb 16 --workers {2 * cores} --json".split())
    assert done.stderr.count("Warning: 2 ranks x") == 1
    assert len(objects(done)) == 1


def test_ranks_that_mpi_does_not_know_are_refused() -> None:
    environment = os.environ | {"PMI_RANK": "0", "PMI_SIZE": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "taskla", "bench", "potrf", "-n", "10"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "a launcher started 3 ranks, but MPI knows of 1" in done.stderr


# -- solve -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "assume", "kind"), [(2, "pos", "spd"), (3, "gen", "general")])
@pytest.mark.parametrize("nrhs", [None, 40])
def test_solve(tmp_path: Path, ranks: int, assume: str, kind: Any, nrhs: int | None) -> None:
    a = TiledMatrix.random((90, 90), 16, seed=3, kind=kind).to_array()
    b = TiledMatrix.random((90, nrhs or 1), 16, seed=4).to_array()
    b = b if nrhs else b[:, 0]
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    files = (tmp_path / name for name in ("a.npy", "b.npy"))
    x = tmp_path / "x.npy"
    done = taskla(ranks, "solve", *files, "-o", x, "--assume-a", assume, "--nb", 16, "--json")
    (row,) = objects(done)
    assert done.returncode == 0
    assert (row["ranks"], row["engine"], row["n"], row["nrhs"]) == (ranks, "mpi", 90, nrhs or 1)
    assert 0 < row["residual"] < 1
    found = np.load(x)
    assert found.shape == b.shape
    np.testing.assert_allclose(found, np.linalg.solve(a, b), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("place", "entry", "message"),
    [
        ((80, 80), np.nan, "entry (80, 80), counted from 0, is nan"),
        ((80, 80), -1e9, "81-th leading minor"),
        ((3, 80), 5.0, "so X is not kept: is A Hermitian?"),
    ],
)
def test_solve_tells_what_is_wrong_once(
    tmp_path: Path, place: tuple[int, int], entry: float, message: str
) -> None:
    a = TiledMatrix.random((90, 90), 16, seed=3, kind="spd").to_array()
    a[place] = entry
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", np.ones(90))
    files = [tmp_path / name for name in ("a.npy", "b.npy")]
    x = tmp_path / "x.npy"
    done = taskla(3, "solve", *files, "-o", x, "--assume-a", "pos", "--nb", 16)
    assert done.returncode == 1
    (said,) = errors(done)
    assert message in said
    assert not x.exists()
