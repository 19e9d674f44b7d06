"""`taskla trace info` and `taskla trace summary`."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hand_traces import four_tasks
from made_traces import cholesky, made, real

from taskla.cli import main
from taskla.traces import Trace, analysis, write


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["trace", *map(str, arguments)])


def rows(*arguments: Any) -> dict[str, list[dict[str, Any]]]:
    """What a command that succeeds prints with --json, by the kind of row."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for line in result.stdout.splitlines():
        row = json.loads(line, parse_constant=refuse)
        found.setdefault(row.pop("table"), []).append(row)
    return found


def saved(path: Path, trace: Trace) -> Path:
    write(trace, path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return saved(tmp_path / "run.trace", four_tasks())


def table(text: str, title: str) -> list[list[str]]:
    """Rows of the table under a title, split at spaces; the heading is the first."""
    lines = text.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith(title)) + 1
    last = next((at for at in range(first, len(lines)) if not lines[at]), len(lines))
    return [line.split() for line in lines[first:last]]


# -- summary ---------------------------------------------------------------------------------------


def test_a_summary_by_hand(file: Path) -> None:
    result = run("summary", file)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[:11] == [
        "run 0          made, n 96, nb 16",
        "ran on         workers 2, ranks 1, engine threads, policy prio",
        "tasks          4, fused from 6",
        "makespan       8 s",
        "critical path  6.75 s",
        "area           4.375 s",
        "bound          6.75 s, the critical path, 84.4 % of the makespan",
        "work           10 Gflop, 1.25 Gflop/s",
        "bytes          tasks read 4e-07 GB, wrote 4e-08 GB; 0 messages, 0 GB sent",
        "energy         15 J measured, 5 J of them in no task, 1.875 W, 0.6667 Gflop/s/W, "
        "energy-delay",
        "               product 120 J s",
    ]
    parts = table(result.stdout, "where the time went: 2 workers x 8 s")
    assert [row[:3] for row in parts[1:]] == [
        ["busy", "8.75", "54.7"],
        ["overhead", "0.25", "1.6"],
        ["start-up", "4.5", "28.1"],
        ["starvation", "1.5", "9.4"],
        ["end", "1", "6.2"],
    ]
    assert table(result.stdout, "kernels")[1] == ["trsm", "2", "4", "6", "68.6", "1", "5"]
    assert table(result.stdout, "durations of tasks in s")[1] == [
        *("trsm", "2", "2.5", "3", "3.5", "4", "3", "1")
    ]
    assert table(result.stdout, "workers, times in s")[1:] == [
        ["0", "0", "cpu", "2", "6", "0", "1", "0", "1", "25"],
        ["0", "1", "cpu", "2", "2.75", "0.25", "3.5", "1.5", "0", "65.6"],
    ]
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_the_rows_of_a_summary_are_those_of_the_analysis(file: Path) -> None:
    found = rows("summary", file)
    assert list(found) == ["run", "kernel", "format", "worker", "time"]
    assert found["run"][0]["efficiency"] == 6.75 / 8
    assert [row["kernel"] for row in found["kernel"]] == ["trsm", "potrf", "syrk"]
    (fp64,) = found["format"]
    assert (fp64["format"], fp64["tasks"], fp64["share"]) == ("fp64", 4, 1.0)
    assert [row["busy"] for row in found["worker"]] == [6.0, 2.75]
    assert {row["part"]: row["seconds"] for row in found["time"]} == {
        "busy": 8.75,
        "overhead": 0.25,
        "start-up": 4.5,
        "starvation": 1.5,
        "end": 1.0,
    }
    assert sum(row["share"] for row in found["time"]) == 1.0
    assert {row["run"] for kind in found.values() for row in kind} == {0}


def test_a_summary_of_a_chosen_run(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.trace", four_tasks(scales=(1.0, 3.0, 2.0)))
    assert rows("summary", file)["run"][0]["makespan"] == 16.0
    assert rows("summary", file, "--run", 1)["run"][0]["makespan"] == 24.0
    text = run("summary", file).stdout
    assert "run 2          made" in text
    assert "repeats        3, makespans 8 to 24 s" in text
    result = run("summary", file, "--run", 3)
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: run is 3; the trace has runs 0 to 2\n",
    )


@pytest.mark.parametrize("command", ["info", "summary"])
def test_energy_that_is_not_known_is_unavailable_and_never_0(tmp_path: Path, command: str) -> None:
    file = saved(tmp_path / "a.trace", made(joules=None))
    assert "unavailable" in run(command, file).stdout
    found = rows(command, file)
    assert found["run"][0]["joules"] is None
    assert found["run"][0]["energy_source"] == "unavailable"
    assert [row["joules"] for row in found.get("kernel", [])] == [None] * (
        4 if command == "summary" else 0
    )


@pytest.mark.parametrize("command", ["info", "summary"])
@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_runs_that_did_not_complete_say_so_at_the_top(
    tmp_path: Path, command: str, status: str
) -> None:
    trace = four_tasks(status=status, error="LinAlgError: a minor", tasks=9)
    first = run(command, saved(tmp_path / "a.trace", trace)).stdout.splitlines()[0]
    assert f"{status.upper()} after 4 tasks: LinAlgError: a minor" in first
    found = rows(command, tmp_path / "a.trace")["run"][0]
    assert (found["status"], found["error"]) == (status, "LinAlgError: a minor")


def test_a_run_that_failed_before_any_task_ended(tmp_path: Path) -> None:
    trace = four_tasks(status="failed", error="LinAlgError: no", energy=None)
    file = saved(tmp_path / "a.trace", Trace(trace.header, {}))
    text = run("summary", file).stdout
    assert text.startswith("FAILED after 0 tasks: LinAlgError: no; the figures are of what ran\n")
    assert "tasks          0; 4 more did not run" in text
    assert "makespan       0 s" in text
    assert rows("summary", file)["run"][0]["efficiency"] is None


def test_more_workers_than_fit_a_screen(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.trace", made(cholesky(3), workers=70))
    text = run("summary", file).stdout
    assert len(table(text, "workers, times in s")) == 1 + 64 + 1
    assert text.endswith("6 more workers; --json has them all\n")
    assert len(rows("summary", file)["worker"]) == 70


def test_a_summary_of_a_real_run_as_a_process(tmp_path: Path) -> None:
    trace = real(tmp_path / "run.trace", repeats=3)
    file = saved(tmp_path / "run.trace", trace)
    done = subprocess.run(
        [sys.executable, "-m", "taskla", "trace", "summary", file, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    first = json.loads(done.stdout.splitlines()[0])
    about = analysis.summary(trace.run())
    assert (first["table"], first["run"], first["tasks"]) == ("run", about.run, 56)
    assert first["makespan"] == about.makespan
    assert 0 < first["efficiency"] <= 1


# -- info ------------------------------------------------------------------------------------------


def test_info_by_hand(tmp_path: Path) -> None:
    trace = four_tasks(scales=(1.0, 2.0))
    trace.header["runs"][1]["policy"] = "lws"
    file = saved(tmp_path / "a.trace", trace)
    text = run("info", file).stdout
    assert f"{file}, 0.0" in text.splitlines()[0]
    for line in (
        "created   2026-01-31T12:00:00+00:00",
        "command   taskla bench 'a name'",
        "machine   processor made up, cores 4, memory 16.0 GiB",
        "BLAS      name openblas",
        "versions  taskla 0",
        "all runs  program made, n 96, nb 16, engine threads, workers 2, ranks 1",
    ):
        assert line in text.splitlines()
    assert table(text, "runs")[1:] == [
        ["0", "prio", "0", "4", "8", "15", "measured", "completed"],
        ["1", "lws", "1", "4", "16", "15", "measured", "completed"],
    ]
    assert ["tasks", "8"] in table(text, "tables")


def test_rows_of_info(file: Path) -> None:
    found = rows("info", file)
    about = found["file"][0]
    assert (about["version"], about["command"]) == (1, "taskla bench 'a name'")
    assert (about["machine_cores"], about["blas_name"]) == (4, "openblas")
    assert about["bytes"] == file.stat().st_size
    assert found["run"] == [
        {
            "run": 0,
            "program": "made",
            "n": 96,
            "nb": 16,
            "type": None,
            "engine": "threads",
            "policy": "prio",
            "workers": 2,
            "ranks": 1,
            "distribution": None,
            "repeat": 0,
            "tasks": 4,
            "makespan": 8.0,
            "joules": 15.0,
            "energy_source": "measured",
            "status": "completed",
            "error": None,
        }
    ]
    assert {row["name"]: row["rows"] for row in found["table"]} == {
        "tasks": 4,
        "accesses": 0,
        "edges": 4,
        "messages": 0,
        "samples": 0,
    }
    help_text = run("info", "--help").stdout.translate(str.maketrans(",.", "  ")).split()
    assert set(found["run"][0]) <= set(help_text)


def test_info_of_a_trace_without_runs(tmp_path: Path) -> None:
    trace = four_tasks()
    trace.header["runs"] = []
    file = saved(tmp_path / "a.trace", Trace(trace.header, {}))
    result = run("info", file)
    assert result.exit_code == 0
    assert "runs\nnone\n" in result.stdout
    result = run("summary", file)
    assert (result.exit_code, result.stderr) == (1, "Error: the trace has no runs\n")


# -- what a file may hold --------------------------------------------------------------------------

_EVIL = "\x1b[2J\x07[bold]x[/]\r\n\u202e\ud800:skull:"


def evil() -> Trace:
    """A trace with everything that a name may hold, and headers of other types than ours."""
    trace = four_tasks(
        (_EVIL, "[b]b:skull:", "c"), program=_EVIL, status=_EVIL, error=_EVIL, policy=[_EVIL]
    )
    trace.header["devices"] = [_EVIL]
    trace.header["command"] = {_EVIL: 1}
    trace.header["machine"] = _EVIL
    trace.header["blas"] = {_EVIL: [_EVIL, {"deep": _EVIL}]}
    trace.header["created"] = 3
    trace.header["runs"][0]["parameters"] = {_EVIL: _EVIL, "n": {"a": 1}, "nb": [1, 2]}
    return trace


@pytest.mark.parametrize("command", ["info", "summary"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_names_out_of_files_do_nothing_to_the_terminal(
    tmp_path: Path, command: str, form: list[str]
) -> None:
    result = run(command, saved(tmp_path / "a.trace", evil()), *form)
    assert result.exit_code == 0, result.stderr
    assert "[bold]x" in result.stdout
    assert not {c for c in result.stdout if not c.isprintable()} - {"\n"}


def test_names_at_a_terminal_are_drawn_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables at a terminal are drawn by a library that reads [bold] and :skull: as orders."""

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    file = saved(tmp_path / "a.trace", evil())
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    main(["trace", "summary", str(file)], standalone_mode=False)
    lines = terminal.getvalue().splitlines()
    # in the tables of kernels and of durations
    assert sum(line.split()[:1] == ["[b]b:skull:"] for line in lines) == 2
    assert not {c for line in lines for c in line if not c.isprintable()}


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path: Path) -> None:
    trace = four_tasks()
    trace.tables["tasks"]["joules"] = np.nan
    trace.tables["tasks"]["flops"] = 1.5e308
    found = rows("summary", saved(tmp_path / "a.trace", trace))
    assert found["run"][0]["flops"] is None
    assert found["kernel"][0]["joules"] is None


@pytest.mark.parametrize("command", ["info", "summary", "compare"])
def test_what_is_no_trace_is_said_in_one_line(tmp_path: Path, command: str) -> None:
    file = tmp_path / "a.trace"
    file.write_bytes(b"PK\x03\x04 not really")
    result = run(command, *[file] * (2 if command == "compare" else 1))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {file}: not a trace file")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
