"""Two traces side by side, in Python and as a command."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hand_traces import four_tasks
from made_traces import lu, made

from taskla.cli import main
from taskla.traces import Trace, write
from taskla.traces.comparison import Difference, Spread, compare, repeats


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["trace", "compare", *map(str, arguments)])


def saved(path: Path, trace: Trace) -> Path:
    write(trace, path)
    return path


def by_name(found: list[Difference]) -> dict[tuple[str | None, str], Difference]:
    return {(row.kernel, row.quantity): row for row in found}


# -- the comparison --------------------------------------------------------------------------------


def test_quantities_by_hand() -> None:
    a = repeats(four_tasks(scales=(1.0, 2.0, 1.5)))
    b = repeats(four_tasks(scales=(0.5, 0.75)))
    found = by_name(compare(a, b))
    assert list(found) == [
        (None, "makespan"),
        (None, "busy"),
        ("trsm", "busy"),
        ("trsm", "task"),
        ("potrf", "busy"),
        ("potrf", "task"),
        ("syrk", "busy"),
        ("syrk", "task"),
    ]
    assert found[None, "makespan"].a == Spread(12.0, 8.0, 16.0, 3)
    assert found[None, "makespan"].b == Spread(5.0, 4.0, 6.0, 2)
    assert found[None, "makespan"].speedup == 12 / 5
    assert found[None, "busy"].a == Spread(8.75 * 1.5, 8.75, 17.5, 3)
    # tasks of 2 and 4 s, times the scale
    assert found["trsm", "busy"].a == Spread(9.0, 6.0, 12.0, 3)
    assert found["trsm", "task"].a == Spread(4.5, 3.0, 6.0, 3)
    assert found["trsm", "task"].b == Spread(1.875, 1.5, 2.25, 2)
    assert {row.within_noise for row in found.values()} == {False}


@pytest.mark.parametrize(
    ("scales_a", "scales_b", "within"),
    [
        ((1.0, 2.0), (1.5, 3.0), True),
        ((1.5, 3.0), (1.0, 2.0), True),
        # ranges that touch overlap
        ((1.0, 2.0), (2.0, 3.0), True),
        ((1.0, 4.0), (2.0, 3.0), True),
        ((1.0, 2.0), (2.5, 3.0), False),
        ((2.5, 3.0), (1.0, 2.0), False),
        # of one run no noise is known
        ((1.0,), (1.0, 2.0), None),
        ((1.0, 2.0), (1.0,), None),
    ],
)
def test_what_is_within_the_noise(scales_a: Any, scales_b: Any, within: bool | None) -> None:
    found = compare(repeats(four_tasks(scales=scales_a)), repeats(four_tasks(scales=scales_b)))
    assert {row.within_noise for row in found} == {within}


def test_kernels_that_one_side_lacks() -> None:
    a = repeats(made(repeats=2))
    b = repeats(made(lu(5), repeats=2))
    found = by_name(compare(a, b))
    for kernel in ("potrf", "syrk"):
        assert found[kernel, "busy"].a is not None
        assert found[kernel, "busy"].b is None
    for kernel in ("getrf", "laswp"):
        assert found[kernel, "task"].a is None
        assert found[kernel, "task"].b is not None
    for kernel in ("potrf", "laswp"):
        assert found[kernel, "busy"].speedup is None
        assert found[kernel, "busy"].within_noise is None
    assert found["gemm", "task"].speedup == 1


def test_no_speedup_over_nothing() -> None:
    assert Difference(None, "busy", Spread(1, 1, 1, 1), Spread(0, 0, 0, 1)).speedup is None
    with pytest.raises(ValueError, match="b has no runs; at least one is needed"):
        compare(repeats(made()), [])


def test_repeats_are_the_runs_of_the_same_setting() -> None:
    trace = four_tasks(scales=(1.0, 1.0, 2.0, 1.0))
    trace.header["runs"][1]["policy"] = "eager"
    assert [run.number for run in repeats(trace)] == [0, 2, 3]
    assert [run.number for run in repeats(trace, 1)] == [1]
    trace.header["runs"][3]["status"] = "interrupted"
    assert [run.number for run in repeats(trace, 0)] == [0, 2]
    assert [run.number for run in repeats(trace, 3)] == [3]
    for run in trace.header["runs"]:
        run["status"] = "failed"
    assert [run.number for run in repeats(trace)] == [0, 2, 3]
    with pytest.raises(ValueError, match="run is 4; the trace has runs 0 to 3"):
        repeats(trace, 4)


# -- the command -----------------------------------------------------------------------------------


def test_the_columns(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.trace", four_tasks(scales=(1.0, 2.0)))
    b = saved(tmp_path / "b.trace", four_tasks(scales=(1.0,)))
    result = run(a, b, "--json")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows[0] == {
        "kernel": "all",
        "quantity": "makespan",
        "a": 12.0,
        "a_min": 8.0,
        "a_max": 16.0,
        "a_repeats": 2,
        "b": 8.0,
        "b_min": 8.0,
        "b_max": 8.0,
        "b_repeats": 1,
        "speedup": 1.5,
        "within_noise": None,
    }
    table = list(csv.DictReader(StringIO(run(a, b, "--csv").stdout)))
    assert [row["kernel"] for row in table] == [row["kernel"] for row in rows]
    assert [float(row["speedup"]) for row in table] == [1.5] * len(rows)
    assert set(rows[0]) == set(table[0])
    help_text = " ".join(run("--help").stdout.split())
    for column in ("kernel", "quantity", "a_min", "a_max", "a_repeats", "speedup", "within_noise"):
        assert column in help_text


def test_the_tables_for_people(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.trace", four_tasks(scales=(1.0, 2.0)))
    b = saved(tmp_path / "b.trace", four_tasks(scales=(0.25, 0.5)))
    result = run(a, b)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    about = "program made, n 96, nb 16, policy prio, workers 2"
    assert lines[0] == f"A: {a}: {about}; runs 0, 1"
    makespan = lines[lines.index("makespan, in s") + 2]
    assert makespan.split() == ["all", "12", "8", "..", "16", "3", "2", "..", "4", "4", "no"]
    assert "within noise: the ranges, from least to most, of both sides overlap" in lines[-1]
    assert max(map(len, lines[2:])) <= 100


def test_of_single_runs_no_noise_is_shown(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.trace", made())
    b = saved(tmp_path / "b.trace", made(lu(3)))
    text = run(a, b).stdout
    assert "nothing is known of the noise" in text
    assert "range" not in text
    assert next(line for line in text.splitlines() if line.startswith("laswp")).split()[1] == "-"


def test_which_runs_are_compared(tmp_path: Path) -> None:
    trace = four_tasks(scales=(1.0, 4.0))
    trace.header["runs"][1]["policy"] = "eager"
    file = saved(tmp_path / "a.trace", trace)
    rows = [
        json.loads(line) for line in run(file, file, "--run-a", 0, "--json").stdout.splitlines()
    ]
    assert (rows[0]["a"], rows[0]["b"]) == (8.0, 32.0)
    rows = [
        json.loads(line) for line in run(file, file, "--run-b", 0, "--json").stdout.splitlines()
    ]
    assert (rows[0]["a"], rows[0]["b"]) == (32.0, 8.0)
    result = run(file, file, "--run-b", 2)
    assert result.exit_code == 1
    assert result.stderr == "Error: run is 2; the trace has runs 0 to 1\n"


def test_runs_that_failed_are_named(tmp_path: Path) -> None:
    good = saved(tmp_path / "a.trace", four_tasks())
    bad = saved(tmp_path / "b.trace", four_tasks(status="failed", error="LinAlgError: no\x1b[2J"))
    result = run(good, bad, "--csv")
    assert result.exit_code == 0
    said = f"B, run 0 of {bad}: FAILED after 4 tasks: LinAlgError: no\\x1b[2J\n"
    assert result.stderr == said + "A and B are different problems: status completed and failed\n"


def test_another_problem_is_named(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.trace", four_tasks())
    b = saved(tmp_path / "b.trace", four_tasks(parameters={"n": 48, "nb": 8}, policy="lws"))
    assert run(a, b).stderr == "A and B are different problems: n 96 and 48\n"
    same = saved(tmp_path / "c.trace", four_tasks(parameters={"n": 96, "nb": 8}, workers=5))
    assert run(a, same).stderr == ""


@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]])
def test_names_out_of_files_do_nothing_to_the_terminal(tmp_path: Path, form: list[str]) -> None:
    kernels = ("\x1b[31mred", "[bold]a\nb", "\u202etail")
    file = saved(tmp_path / "a.trace", four_tasks(kernels, program="pro\x07gram"))
    text = run(file, file, *form).stdout
    assert "red" in text
    assert "[bold]" in text
    assert not {c for c in text if not c.isprintable()} - {"\n"}


def test_an_empty_trace_is_refused(tmp_path: Path) -> None:
    trace = four_tasks()
    trace.header["runs"] = []
    file = saved(tmp_path / "a.trace", Trace(trace.header, {}))
    result = run(file, file)
    assert (result.exit_code, result.stderr) == (1, "Error: the trace has no runs\n")


def test_large_traces_are_compared_by_their_medians() -> None:
    trace = made(repeats=3)
    run = trace.run()
    gemm = by_name(compare([run], [run]))["gemm", "task"]
    code = trace.header["kernels"].index("gemm")
    assert gemm.a is not None
    assert gemm.a.median == np.median(run.durations[run.tasks["kernel"] == code])
