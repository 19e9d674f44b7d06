"""The import of StarPU's tasks.rec: a sample as StarPU writes it, and what is not one."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st

from taskla.cli import main
from taskla.traces import Trace, read as read_trace
from taskla.traces.checks import check
from taskla.traces.exports.starpu_import import read

# A Cholesky factorisation of 2 x 2 tiles by Chameleon on a CPU (worker 1) and a GPU (worker 0),
# field by field as starpu_fxt_tool prints them: JobIds with the prefix of the trace file,
# addresses and tags in hexadecimal, times in milliseconds, tasks in the order in which they ended.
# Job 5 is StarPU's own synchronisation task, which no worker ran.
SAMPLE = """\
Name: dpotrf
Model: chameleon_dpotrf
JobId: 0_3
SubmitOrder: 1
Priority: 4
Tag: 0
WorkerId: 1
MemoryNode: 0
SubmitTime: 100.250000
StartTime: 101.000000
EndTime: 103.500000
Footprint: 9a3f0be1
GFlop: 0.333333
Iteration: 0 -1
Handles: 55d0c8a0
Modes: RW
Sizes: 7372800
MPIRank: -1

Control: WontUse
JobId: 0_9
SubmitOrder: 6
SubmitTime: 100.900000
Handles: 55d0c8a0
MPIRank: -1

Name: dtrsm
Model: chameleon_dtrsm
JobId: 0_4
SubmitOrder: 2
Priority: 3
DependsOn: 0_3 0_1
Tag: 0
WorkerId: 0
MemoryNode: 1
SubmitTime: 100.300000
StartTime: 103.750000
EndTime: 104.250000
Footprint: 1c0f2e77
GFlop: 1.000000
Iteration: 0 0
Parameters: 960 960
Handles: 55d0c8a0 55d0cb10
Modes: R RW
Sizes: 7372800 3686400
MPIRank: -1

Name: dsyrk
Model: chameleon_dsyrk
JobId: 0_6
SubmitOrder: 4
DependsOn: 0_5
Tag: 0
WorkerId: 0
MemoryNode: 1
SubmitTime: 100.400000
StartTime: 104.250000
EndTime: 105.000000
Footprint: 7b1d
GFlop: 1.000000
Iteration: 0 1
Handles: 55d0cb10 55d0cd80 7f00
Modes: R RWC S
Sizes: 3686400 7372800 64
MPIRank: -1

Model: chameleon_dpotrf
JobId: 0_7
SubmitOrder: 5
Priority: 4
DependsOn: 0_6
Tag: 0
WorkerId: 1
MemoryNode: 0
SubmitTime: 100.450000
StartTime: 105.500000
EndTime: 108.000000
Footprint: 9a3f0be1
GFlop: 0.333333
Iteration: 1
Handles: 55d0cd80
Modes: RW
Sizes: 7372800
MPIRank: -1

Name: sync
JobId: 0_5
SubmitOrder: 3
DependsOn: 0_4
Tag: 0
SubmitTime: 100.350000
Footprint: 0
MPIRank: -1

"""


def imported(text: str | bytes, folder: Path) -> Trace:
    path = folder / "tasks.rec"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    trace = read(path)
    check(trace)
    return trace


def task(**fields: object) -> str:
    """One record with times, in milliseconds, and whatever else."""
    record = {"Name": "t", "StartTime": 1.0, "EndTime": 2.0, **fields}
    return "".join(f"{name}: {value}\n" for name, value in record.items() if value != "") + "\n"


# -- what StarPU writes ----------------------------------------------------------------------------


def test_a_sample_of_starpu(tmp_path: Path) -> None:
    trace = imported(SAMPLE, tmp_path)
    run = trace.run()
    tasks = run.tasks
    assert [run.kernels[code] for code in tasks["kernel"]] == [
        "dpotrf",
        "dtrsm",
        "dsyrk",
        "chameleon_dpotrf",
    ]
    assert (run.program, run.info["engine"], run.info["status"]) == ("tasks", "starpu", "completed")
    np.testing.assert_allclose(tasks["submit"], [0.10025, 0.1003, 0.1004, 0.10045], rtol=1e-12)
    np.testing.assert_allclose(tasks["start"], [0.101, 0.10375, 0.10425, 0.1055], rtol=1e-12)
    np.testing.assert_allclose(tasks["ready"], [0.10025, 0.1035, 0.10425, 0.105], rtol=1e-12)
    np.testing.assert_allclose(run.durations, [2.5e-3, 5e-4, 7.5e-4, 2.5e-3], rtol=1e-9)
    assert run.begin == pytest.approx(0.10025)
    assert run.makespan == pytest.approx(7.75e-3)
    assert tasks["worker"].tolist() == [1, 0, 0, 1]
    assert tasks["rank"].tolist() == [0, 0, 0, 0]
    assert [worker.name for worker in run.workers] == ["node1 0", "cpu 1"]
    assert tasks["k"].tolist() == [0, 0, 0, 1]
    assert tasks["priority"].tolist() == [4, 3, 0, 4]
    np.testing.assert_allclose(tasks["flops"], [333333e3, 1e9, 1e9, 333333e3])
    assert np.isnan(tasks["joules"]).all()
    assert run.info["energy"] == {"source": "unavailable"}


def test_dependencies_of_a_sample_go_through_what_never_ran(tmp_path: Path) -> None:
    run = imported(SAMPLE, tmp_path).run()
    source, target = run.edges
    # dsyrk waits for the synchronisation task, hence for dtrsm; job 1 is not in the file
    assert list(zip(source.tolist(), target.tolist(), strict=True)) == [(0, 1), (1, 2), (2, 3)]
    assert run.info["imported"] == {"tasks": 1, "dependencies": 1}


def test_accesses_of_a_sample(tmp_path: Path) -> None:
    run = imported(SAMPLE, tmp_path).run()
    (matrix,) = run.matrices
    assert (matrix["name"], matrix["n"], matrix["nb"]) == ("handles", 1, 1)
    first, second, third = 0, 1, 2
    found = [tuple(row) for row in run.accesses[["task", "operand", "mode", "i", "rows"]].tolist()]
    assert found == [
        (0, 0, 3, first, 7372800),
        (1, 0, 1, first, 7372800),
        (1, 1, 3, second, 3686400),
        (2, 0, 1, second, 3686400),
        (2, 1, 3, third, 7372800),
        (3, 0, 3, third, 7372800),
    ]
    assert run.tasks["i"].tolist() == [first, second, third, third]
    assert run.tasks["bytes_read"].tolist() == [7372800, 11059200, 11059200, 7372800]
    assert run.tasks["bytes_written"].tolist() == [7372800, 3686400, 7372800, 7372800]
    assert run.label(1) == "dtrsm handles(1, 0)"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff# made by hand\n\n%rec: Task\n%key: JobId\n\n" + text,
        lambda text: text.replace("\n\n", "\n   \n\n\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("DependsOn: 0_3 0_1", "DependsOn: 0_3\n#\n+ 0_1"),
        lambda text: text.replace("DependsOn: 0_3 0_1", "DependsOn: 0_3 \\\n0_1"),
        lambda text: text.replace("Tag: 0\n", "Tag: 0\nColor: ff\nSomethingNew: a: b\n"),
        lambda text: "\n\n".join(reversed(text.strip().split("\n\n"))),
    ],
    ids=["CRLF", "comments", "blanks", "no end", "plus", "backslash", "more fields", "reversed"],
)
def test_the_same_written_otherwise(change: object, tmp_path: Path) -> None:
    assert callable(change)
    first, second = imported(SAMPLE, tmp_path).run(), imported(change(SAMPLE), tmp_path).run()
    for column in ("start", "end", "worker", "k", "flops", "priority", "bytes_read"):
        np.testing.assert_array_equal(first.tasks[column], second.tasks[column])
    for one, other in zip(first.edges, second.edges, strict=True):
        np.testing.assert_array_equal(one, other)
    assert first.info["imported"] == second.info["imported"]


# -- fields that are not there ---------------------------------------------------------------------


def test_times_are_enough(tmp_path: Path) -> None:
    run = imported("StartTime: 5\nEndTime: 7.5\n", tmp_path).run()
    assert run.label(0) == "unnamed"
    assert run.durations.tolist() == [pytest.approx(2.5e-3)]
    assert (run.begin, run.tasks["submit"][0]) == (0.005, 0.005)
    assert [tuple(worker) for worker in run.workers] == [(0, 0, "cpu")]
    assert (run.tasks["k"][0], run.tasks["matrix"][0], run.accesses.size) == (-1, -1, 0)
    assert run.graph().n == 1


def test_tasks_that_never_ran_are_left_out_and_counted(tmp_path: Path) -> None:
    text = task(JobId=1) + task(JobId=2, EndTime="") + task(JobId=3, StartTime="", EndTime="")
    run = imported(text + task(JobId=4, DependsOn="1 2 3 99"), tmp_path).run()
    assert run.tasks.size == 2
    assert run.info["imported"] == {"tasks": 2, "dependencies": 1}
    assert [end.tolist() for end in run.edges] == [[0], [1]]


def test_a_chain_of_tasks_that_never_ran_is_one_dependency(tmp_path: Path) -> None:
    text = task(JobId="a") + task(JobId="b")
    text += task(JobId="c", StartTime="", DependsOn="a b")
    text += task(JobId="d", StartTime="", DependsOn="c a")
    run = imported(text + task(JobId="e", DependsOn="d c") + task(JobId="f"), tmp_path).run()
    assert [end.tolist() for end in run.edges] == [[0, 1], [2, 2]]


@pytest.mark.parametrize(
    ("fields", "accesses"),
    [
        ({"Handles": "a b", "Modes": "R W", "Sizes": "8 16"}, [(1, 8), (2, 16)]),
        ({"Handles": "a a", "Modes": "RW X", "Sizes": "8 8"}, [(3, 8), (4, 8)]),
        ({"Handles": "a b", "Modes": "R W"}, [(1, 0), (2, 0)]),
        ({"Handles": "a b", "Modes": "R W", "Sizes": "8"}, [(1, 0), (2, 0)]),
        ({"Handles": "a b", "Modes": "R", "Sizes": "8 8"}, []),
        ({"Handles": "a b", "Sizes": "8 8"}, []),
        ({"Modes": "R"}, []),
        ({"Handles": "a b", "Modes": "S ?", "Sizes": "8 8"}, []),
    ],
)
def test_accesses_as_far_as_they_are_told(
    fields: dict[str, str], accesses: list[tuple[int, int]], tmp_path: Path
) -> None:
    run = imported(task(**fields), tmp_path).run()
    assert run.accesses[["mode", "rows"]].tolist() == accesses


def test_handles_of_two_ranks_are_two(tmp_path: Path) -> None:
    handle = {"Handles": "a", "Modes": "RW", "Sizes": "8"}
    text = task(JobId="0_1", MPIRank=0, **handle) + task(JobId="1_1", MPIRank=1, **handle)
    run = imported(text + task(JobId="0_2", MPIRank=0, **handle), tmp_path).run()
    assert run.accesses["i"].tolist() == [0, 1, 0]
    assert run.tasks["rank"].tolist() == [0, 1, 0]


# -- the order of tasks ----------------------------------------------------------------------------


def test_submission_order_is_kept_where_dependencies_allow(tmp_path: Path) -> None:
    records = [
        task(Name="d", JobId=1, SubmitOrder=4),
        task(Name="a", JobId=2, SubmitOrder=1, DependsOn="3"),
        task(Name="b", JobId=3, SubmitOrder=2),
        task(Name="c", JobId=4, SubmitOrder=3, DependsOn="2"),
        task(Name="e", JobId=5, SubmitOrder=5, DependsOn="3"),
        task(Name="f", JobId=6, SubmitOrder=6, DependsOn="3"),
        task(Name="z", JobId=7),
    ]
    for seed in range(5):
        random.Random(seed).shuffle(records)
        run = imported("".join(records), tmp_path).run()
        assert "".join(run.kernels[code] for code in run.tasks["kernel"]) == "bacdefz"


@given(
    depends=st.lists(st.sets(st.integers(0, 11), max_size=4), min_size=1, max_size=12),
    submitted=st.permutations(range(12)),
    written=st.permutations(range(12)),
)
@settings(max_examples=60, deadline=None)
def test_edges_are_the_dependencies_of_any_graph(
    depends: list[set[int]],
    submitted: list[int],
    written: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    n = len(depends)
    wanted = {(a, b) for b in range(n) for a in depends[b] if a < b}
    text = {
        b: task(
            Name=f"t{b}",
            JobId=f"0_{b}",
            SubmitOrder=submitted[b] + 1,
            DependsOn=" ".join(f"0_{a}" for a, other in sorted(wanted) if other == b),
        )
        for b in range(n)
    }
    joined = "".join(text[b] for b in written if b < n)
    run = imported(joined, tmp_path_factory.mktemp("rec")).run()
    name = [int(run.kernels[code][1:]) for code in run.tasks["kernel"]]
    pairs = zip(*(end.tolist() for end in run.edges), strict=True)
    assert {(name[a], name[b]) for a, b in pairs} == wanted


# -- what is not a tasks.rec -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "of 0 tasks none ran"),
        ("# nothing\n\n", "of 0 tasks none ran"),
        ("Name: a\nJobId: 1\n", "of 1 tasks none ran"),
        (task() + "what is this\n", r"line 5: 'what is this' is not a field"),
        ("+ more\n", r"line 1: '\+ more' is not a field"),
        (": x\n", "line 1"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "line 1"),
        (b"PK\x03\x04" + bytes(range(256)), "line 1"),
        (task(StartTime="soon"), "line 1: StartTime is 'soon', not a number"),
        (task() + task(EndTime="nan"), "line 5: EndTime is 'nan', not a number"),
        (task(StartTime="-inf"), "StartTime is '-inf'"),
        (task(StartTime=3), "line 1: EndTime is before StartTime"),
        (task(WorkerId=1.5), "line 1: WorkerId is '1.5'"),
        (task(WorkerId=10**9), "line 1: WorkerId is '1000000000'"),
        (task(MPIRank=9999, WorkerId=9999), "10000 ranks of 10000 workers"),
        (task(MemoryNode=10**6), "MemoryNode is '1000000'"),
        (task(Iteration=2**31), "Iteration is '2147483648'"),
        (task(GFlop="1e305"), "flops"),
        (task(Handles="a", Modes="R", Sizes="-8"), "line 1: Sizes has '-8'"),
        (task(Handles="a", Modes="R", Sizes="9" * 20), "line 1: Sizes has '9999"),
        (task(JobId=1) + task(JobId=1), "line 6: a second task has JobId '1'"),
        ("Name: a\nName: b\n", "line 2: a second Name in one record"),
        (task(JobId=1, DependsOn=1), "line 1: tasks depend on one another in a circle"),
        (
            task(JobId=1) + task(JobId=2, DependsOn=3) + task(JobId=3, DependsOn="1 2"),
            "line 6: tasks depend on one another in a circle",
        ),
    ],
)
def test_what_is_wrong_is_said(text: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        imported(text, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'tasks.rec'}: not a tasks.rec of StarPU: ")


def test_too_many_names_are_refused(tmp_path: Path) -> None:
    text = "".join(f"Name: t{n}\nStartTime: 1\nEndTime: 2\n\n" for n in range(2**15))
    with pytest.raises(ValueError, match="32768 names of tasks, more than 32767"):
        imported(text, tmp_path)


@given(content=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_bytes_are_a_trace_or_a_value_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = SAMPLE.encode().splitlines(keepends=True)
    at = len(content) % len(lines)
    damaged = b"".join(lines[:at]) + content + b"".join(lines[at:])
    try:
        check(imported(damaged, tmp_path_factory.mktemp("rec")))
    except ValueError as error:
        assert "not a tasks.rec of StarPU" in str(error)  # noqa: PT017


# -- the command -----------------------------------------------------------------------------------


def command(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["trace", "import", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command_writes_a_trace(tmp_path: Path) -> None:
    source, target = tmp_path / "tasks.rec", tmp_path / "starpu.trace"
    source.write_text(SAMPLE)
    code, said = command(source, "-o", target)
    assert code == 0
    assert said.splitlines() == [
        f"{target}: 4 tasks, 3 edges, 2 workers, 0.00775 s, {target.stat().st_size} bytes; left "
        "out: 1 tasks that never ran, 1 dependencies on tasks that are not in the file"
    ]
    assert read_trace(target).run().tasks.size == 4


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    source = tmp_path / "tasks.rec"
    source.write_text("nonsense")
    code, said = command(source, "-o", tmp_path / "out.trace")
    assert code == 1
    assert said == (
        f"Error: {source}: not a tasks.rec of StarPU: "
        "line 1: 'nonsense' is not a field, 'Name: value'\n"
    )
    source.write_text(SAMPLE)
    code, said = command(source, "-o", tmp_path / "none" / "out.trace")
    assert (code, said) == (1, f"Error: {tmp_path / 'none'}: no such folder\n")
    code, said = command(tmp_path / "missing", "-o", tmp_path / "out.trace")
    assert code == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["tasks.rec"]
