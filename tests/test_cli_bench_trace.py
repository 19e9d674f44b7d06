"""What `taskla bench` records, and what it says of energy."""

from __future__ import annotations

import json
import signal
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from taskla import energy
from taskla.cli import main
from taskla.energy import Meter, Source
from taskla.engines.threads import ThreadsEngine
from taskla.plan import graphs
from taskla.routines import problem
from taskla.traces import read


def run(arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments.split()])


def rows(arguments: str) -> list[dict[str, Any]]:
    result = run(f"{arguments} --json")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


# -- traces ----------------------------------------------------------------------------------------


def test_every_counted_repeat_is_recorded_and_numbered(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    rows(f"potrf -n 60,90 --nb 16 --policy prio --workers 2 --repeat 3 --warmup 2 --trace {path}")
    trace = read(path)
    about = [(run.info["parameters"]["n"], run.info["repeat"]) for run in trace.runs]
    assert about == [(n, repeat) for n in (60, 90) for repeat in (0, 1, 2)]
    for run_ in trace.runs:
        info = run_.info
        assert info["parameters"] == {
            **{"op": "potrf", "type": "d", "nb": 16, "uplo": "L"},
            "n": info["parameters"]["n"],
        }
        assert (info["policy"], info["workers"], info["ranks"]) == ("prio", 2, 1)
        assert (info["distribution"], info["grid"]) == ("2dbc", [1, 1])
        assert (info["precision"], info["compression"]) == ("fp64", "none")
        assert run_.tasks.size == info["tasks"]
    # the graph is built anew for each repeat, and kept once for all
    assert [run_.info["graph"] for run_ in trace.runs] == [0, 0, 0, 1, 1, 1]
    assert len({run_.setting for run_ in trace.runs}) == 2
    # generation, warm-up and the checks are not in it
    assert {run_.program for run_ in trace.runs} == {"potrf"}


def test_what_a_routine_prepares_is_not_recorded(tmp_path: Path) -> None:
    rows(f"potrs -n 60 --nb 16 --check --trace {tmp_path / 'run.trace'}")
    assert [run_.program for run_ in read(tmp_path / "run.trace").runs] == ["potrs"]


def test_times_of_the_row_and_of_the_trace_agree(tmp_path: Path) -> None:
    (row,) = rows(f"potrf -n 300 --nb 50 --trace {tmp_path / 'run.trace'}")
    makespan = read(tmp_path / "run.trace").run().makespan
    assert 0 < makespan <= row["time"]


def test_a_failure_is_recorded_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskla.cli import measure

    make = measure.matrices

    def indefinite(*arguments: Any) -> Any:
        made = make(*arguments)
        made[0].tile(2, 2).array[0, 0] = -1e9
        return made

    monkeypatch.setattr(measure, "matrices", indefinite)
    result = run(f"potrf -n 60 --nb 16 --warmup 0 --trace {tmp_path / 'run.trace'}")
    assert result.exit_code == 1
    info = read(tmp_path / "run.trace").run().info
    assert info["status"] == "failed"
    assert "33-th leading minor" in info["error"]


def test_what_ran_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskla.cli import measure

    make, calls = measure.matrices, count()

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return make(*arguments)

    monkeypatch.setattr(measure, "matrices", interrupted)
    result = run(f"potrf -n 60 --nb 16 --repeat 9 --trace {tmp_path / 'run.trace'}")
    assert result.exit_code == 130
    assert len(read(tmp_path / "run.trace")) == 2


@pytest.mark.parametrize(
    ("option", "code", "message"),
    [
        ("--trace no/x.trace", 1, "no: no such folder"),
        ("--energy solar", 2, "solar"),
        ("--energy model:nothing", 2, "nothing"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(option: str, code: int, message: str) -> None:
    result = run(f"potrf -n 60 {option}")
    assert result.exit_code == code
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


# -- energy ----------------------------------------------------------------------------------------


def test_the_model_counts_flops_and_bytes(tmp_path: Path) -> None:
    # 20 pJ a flop (28 nm fused multiply-add), 250 pJ a byte (a line of DRAM)
    (row,) = rows(f"potrf -n 90 --nb 16 --energy model --trace {tmp_path / 'run.trace'}")
    (tiles,) = graphs(problem("potrf", 90, 16))
    graph = ThreadsEngine().prepare(tiles)
    expected = 20e-12 * graph.flops().sum() + 250e-12 * graph.nbytes_accessed().sum()
    assert row["energy"] == "modelled"
    assert row["joules"] == pytest.approx(expected)
    assert row["watts"] == pytest.approx(row["joules"] / row["time"])
    assert row["edp"] == pytest.approx(row["joules"] * row["time"])
    assert row["gflops_per_watt"] == pytest.approx(row["gflops"] / row["watts"])
    run_ = read(tmp_path / "run.trace").run()
    assert run_.info["energy"]["source"] == "modelled"
    assert run_.info["energy"]["joules"] == pytest.approx(row["joules"])
    assert run_.tasks["joules"].sum() == pytest.approx(run_.info["energy"]["joules"])


def test_without_energy_nothing_is_said(tmp_path: Path) -> None:
    (row,) = rows(f"potrf -n 60 --nb 16 --energy off --trace {tmp_path / 'run.trace'}")
    assert row["energy"] == "unavailable"
    assert [row[key] for key in ("joules", "watts", "gflops_per_watt", "edp")] == [None] * 4
    run_ = read(tmp_path / "run.trace").run()
    assert run_.info["energy"]["source"] == "unavailable"
    assert np.isnan(run_.tasks["joules"]).all()


class Steps(Meter):
    """A counter that shows 5 joules more whenever it is read."""

    def __init__(self) -> None:
        super().__init__("package-0", "package")
        self._joules = count(0, 5)

    def read(self) -> float:
        return float(next(self._joules))


def test_meters_are_read_around_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source((Steps(),), None)
    monkeypatch.setattr(energy, "find", lambda spec: source)
    monkeypatch.setattr(energy, "measure_idle", lambda meters, seconds: {})
    path = tmp_path / "run.trace"
    (row,) = rows(f"potrf -n 60 --nb 16 --repeat 3 --trace {path}")
    # between the readings around the call the recorder reads the meter twice: 5 J each step
    assert row["energy"] == "measured"
    assert row["joules"] == 15
    trace = read(path)
    for run_ in trace.runs:
        report = run_.info["energy"]
        assert (report["source"], report["joules"]) == ("measured", 5)
        shared = float(run_.tasks["joules"].sum())
        assert shared + report["idle_joules"] == pytest.approx(5, abs=1e-12)
        kinds = {series.kind: series for series in run_.series}
        assert kinds["energy"].value.tolist() == [0, 5]
        assert kinds["power"].unit == "W"
        assert kinds["power"].source == "measured"
        span = kinds["energy"].time[1] - kinds["energy"].time[0]
        assert kinds["power"].value[-1] == pytest.approx(5 / span)
    assert {series["kind"] for series in trace.header["series"]} >= {"energy", "power", "memory"}


class Gone(Meter):
    """A counter that cannot be read any more after the second time."""

    def __init__(self) -> None:
        super().__init__("package-0", "package")
        self._left = 2

    def read(self) -> float:
        self._left -= 1
        if self._left < 0:
            raise OSError("gone")
        return 7.0 - self._left


def test_a_meter_that_goes_away_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source((Gone(),), None)
    monkeypatch.setattr(energy, "find", lambda spec: source)
    monkeypatch.setattr(energy, "measure_idle", lambda meters, seconds: {})
    found = rows(f"potrf -n 60 --nb 16 --warmup 0 --repeat 2 --trace {tmp_path / 'run.trace'}")
    assert found[0]["energy"] == "unavailable"
    assert found[0]["joules"] is None
    assert [run_.info["energy"]["source"] for run_ in read(tmp_path / "run.trace").runs] == [
        *("unavailable", "unavailable")
    ]


def test_why_there_are_no_joules_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASKLA_POWERCAP", str(tmp_path / "no"))
    result = run("potrf -n 60 --nb 16 --energy meters")
    assert result.exit_code == 0
    assert result.stderr.startswith("energy unavailable: rapl: ")
    assert run("potrf -n 60 --nb 16 --energy off").stderr == ""


class Still(Meter):
    """A counter that does not move."""

    def read(self) -> float:
        return 3.0


def test_a_meter_without_a_figure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source((Steps(), Still("dram-0", "dram")), None)
    monkeypatch.setattr(energy, "find", lambda spec: source)
    monkeypatch.setattr(energy, "measure_idle", lambda meters, seconds: {})
    path = tmp_path / "run.trace"
    result = run(f"potrf -n 60 --nb 16 --trace {path}")
    assert result.stderr.startswith("energy measured: without dram-0: the counter did not move")
    summary = CliRunner().invoke(main, ["trace", "summary", str(path)])
    assert "without dram-0: the counter did not move" in " ".join(summary.stdout.split())


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="there is no SIGTERM here")
def test_a_job_that_is_told_to_end_leaves_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskla.cli import measure

    make, calls = measure.matrices, count()

    def terminated(*arguments: Any) -> Any:
        if next(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return make(*arguments)

    monkeypatch.setattr(measure, "matrices", terminated)
    before = signal.getsignal(signal.SIGTERM)
    result = run(f"potrf -n 60 --nb 16 --repeat 9 --trace {tmp_path / 'run.trace'}")
    assert result.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(read(tmp_path / "run.trace")) == 2
