"""The account of a run: measured, modelled or unavailable, and never a silent 0."""

import json
import math
from typing import Any

import numpy as np
import pytest

import taskla as tla
from taskla.energy import Meter, Source, Tasks, account, find
from taskla.energy.model import Figure, Model, Static


class Fake(Meter):
    """A meter whose readings the test makes up."""

    def __init__(self, name: str, idle_power: float = 0.0, kind: str = "package") -> None:
        super().__init__(name, kind)
        self.idle_power = idle_power

    def read(self) -> float:
        raise OSError("not asked")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKLA_ENERGY", raising=False)


def tasks(*rows: tuple[float, float, str]) -> Tasks:
    """Tasks by start, end and kernel, with 1e9 flops in fp64 and 1000 bytes each."""
    start, end, kernel = zip(*rows, strict=True) if rows else ((), (), ())
    n = len(rows)
    return Tasks(
        start=np.array(start, float),
        end=np.array(end, float),
        kernel=np.array(kernel, str),
        format=np.array(["fp64"] * n, str),
        flops=np.full(n, 1e9),
        nbytes=np.full(n, 1000),
    )


TWO = tasks((0, 0.6, "gemm"), (0, 0.2, "potrf"))
ORACLE = {"package-0": (np.array([0.0, 1.0]), np.array([0.0, 260.0]))}


def of(
    source: Source, ran: Tasks = TWO, readings: Any = ORACLE, *, end: float = 1.0, workers: int = 2
) -> tuple[list[float] | None, dict[str, Any]]:
    """The account; what it reports must pass through JSON without NaN."""
    found = account(source, begin=0.0, end=end, readings=readings, tasks=ran, workers=workers)
    report = json.loads(json.dumps(found.report, allow_nan=False))
    assert report == found.report
    return None if found.tasks is None else found.tasks.tolist(), report


# -- measured --------------------------------------------------------------------------------------


def test_a_measured_run() -> None:
    source = Source((Fake("package-0", 100.0),), None, {"gemm": 20.0, "potrf": 40.0})
    joules, report = of(source)
    assert joules == [96.0, 64.0]
    assert report == {
        "source": "measured",
        "joules": 260.0,
        "idle_joules": 100.0,
        "watts": 260.0,
        "edp": 260.0,
        "meters": [
            {
                "name": "package-0",
                "kind": "package",
                "idle_power": 100.0,
                "idle_source": "unknown",
                "joules": 260.0,
            }
        ],
        "weights": {"gemm": 20.0, "potrf": 40.0},
    }


def test_watts_are_joules_by_time_and_edp_joules_times_time() -> None:
    _, report = of(Source((Fake("package-0"),), None), end=4.0)
    assert report["watts"] == 65.0
    assert report["edp"] == 1040.0


def test_all_meters_are_shared_out_to_all_tasks() -> None:
    source = Source((Fake("package-0", 100.0), Fake("gpu-0", 10.0, "gpu")), None)
    readings = ORACLE | {"gpu-0": (np.array([0, 0.5, 1]), np.array([0, 13.0, 18.0]))}
    joules, report = of(source, readings=readings)
    # 160 J by .6 and .2 s; then 8 J of the first half second by .5 and .2 s, the rest to one
    assert joules == pytest.approx([120 + 8 * 5 / 7, 40 + 8 * 2 / 7])
    assert report["joules"] == 278.0
    assert report["idle_joules"] == 110.0
    assert [meter["joules"] for meter in report["meters"]] == [260.0, 18.0]
    assert "weights" not in report


def test_a_kernel_without_a_weight_has_the_mean_of_the_others() -> None:
    ran = tasks((0, 1, "gemm"), (0, 1, "potrf"), (0, 1, "new"))
    joules, _ = of(Source((Fake("package-0"),), None, {"gemm": 10.0, "potrf": 30.0}), ran)
    assert joules == pytest.approx([260 / 6, 260 / 2, 260 / 3])


def test_tasks_that_did_not_run_have_no_figure() -> None:
    ran = tasks((0, 1, "gemm"), (math.nan, math.nan, "gemm"), (5e300, math.nan, "gemm"))
    for source in (Source((Fake("package-0"),), None), find("model")):
        joules, report = of(source, ran)
        assert joules is not None
        assert [math.isnan(value) for value in joules] == [False, True, True]
        assert joules[0] + report["idle_joules"] == report["joules"] > 0


def test_a_meter_without_a_figure_is_named_and_left_out() -> None:
    source = Source((Fake("package-0"), Fake("dram-0"), Fake("dram-1")), None)
    readings = ORACLE | {"dram-1": (np.array([0.0]), np.array([0.0]))}
    joules, report = of(source, readings=readings)
    assert joules == pytest.approx([195, 65])
    assert report["joules"] == 260.0
    assert [meter["joules"] for meter in report["meters"]] == [260.0, None, None]
    assert report["meters"][1]["reason"] == "it could not be read all the time"
    assert report["meters"][2]["reason"] == "1 readings; it takes two"


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        ({}, "package-0: it could not be read all the time"),
        ({"package-0": (np.empty(0), np.empty(0))}, "0 readings; it takes two"),
        ({"package-0": (np.arange(3.0), np.zeros(3))}, "the counter did not move"),
        ({"package-0": (np.arange(2.0), np.array([3.0, 1.0]))}, "the counter went backwards"),
        ({"package-0": (np.arange(2.0), np.array([3.0, np.nan]))}, "not finite"),
    ],
)
def test_without_any_figure_a_run_has_none(readings: Any, reason: str) -> None:
    joules, report = of(Source((Fake("package-0"),), None), readings=readings)
    assert joules is None
    assert report["source"] == "unavailable"
    assert reason in report["reason"]
    assert report["meters"][0]["joules"] is None
    assert "joules" not in report


# -- modelled --------------------------------------------------------------------------------------


def test_a_modelled_run() -> None:
    """1e9 flops at 20 pJ and 1000 bytes at 250 pJ a task."""
    joules, report = of(find("model"))
    assert joules == pytest.approx([0.02 + 2.5e-7] * 2, rel=1e-14)
    assert report["source"] == "modelled"
    assert report["joules"] == pytest.approx(0.04 + 5e-7, rel=1e-14)
    assert report["idle_joules"] == 0.0
    assert report["model"]["name"] == "cpu"
    assert report["model"]["note"] == "dynamic only: no static power is set"


def test_static_power_is_of_no_task() -> None:
    figures = {"fp32": Figure(1e-9, "made up")}
    model = Model("some", figures, Figure(0.0, "made up"), Static(10.0, 2.0, "made up"))
    joules, report = of(Source((), model), end=3.0, workers=4)
    assert joules == pytest.approx([(53 / 24) ** 2] * 2)
    assert report["idle_joules"] == 54.0
    assert report["joules"] == pytest.approx(54 + 2 * (53 / 24) ** 2)
    assert report["model"]["rule"] == ["fp64"]
    assert report["watts"] == pytest.approx(report["joules"] / 3)


def test_a_format_that_no_model_knows_leaves_the_run_without_figures() -> None:
    odd = TWO._replace(format=np.array(["fp64", "posit32"]))
    joules, report = of(find("model"), odd)
    assert joules is None
    assert report["source"] == "unavailable"
    assert "model 'cpu': format is 'posit32'" in report["reason"]


def test_a_run_without_tasks() -> None:
    for source, total in ((Source((Fake("package-0"),), None), 260.0), (find("model"), 0.0)):
        joules, report = of(source, tasks())
        assert joules == []
        assert report["joules"] == report["idle_joules"] == total


def test_a_run_that_took_no_time_has_no_power() -> None:
    _, report = of(find("model"), end=0.0)
    assert report["watts"] is None
    assert report["edp"] == 0.0


def test_unavailable_says_why() -> None:
    assert of(find("off")) == (None, {"source": "unavailable", "reason": "switched off"})
    _, report = of(Source((), None))
    assert report["reason"] == "there is no meter and no model"


# -- through an engine -----------------------------------------------------------------------------


def test_a_recorded_run_adds_up() -> None:
    from taskla.traces import Recorder

    recorder = Recorder()
    a = np.eye(64) * 64 + 1
    with tla.engine("threads", workers=2, trace=recorder, energy="model"):
        tla.cholesky(a, nb=16)
    run = recorder.trace().run()
    about = run.info["energy"]
    assert about["source"] == "modelled"
    joules = run.tasks["joules"]
    assert (joules > 0).all()
    total = math.fsum([*joules, about["idle_joules"]])
    assert total == pytest.approx(about["joules"], rel=0, abs=4 * math.ulp(total))
    flops, nbytes = run.tasks["flops"], run.tasks["bytes_read"] + run.tasks["bytes_written"]
    np.testing.assert_allclose(joules, 20e-12 * flops + 250e-12 * nbytes, rtol=1e-12)


class Steps(Meter):
    """Counts 5 J more at each reading."""

    joules = 100.0

    def read(self) -> float:
        self.joules += 5
        return self.joules


def test_a_measured_run_adds_up() -> None:
    from taskla.traces import Recorder

    recorder = Recorder()
    source = Source((Steps("package-0", "package"), Fake("dram-0")), None, {"gemm": 2.0})
    with tla.engine("threads", workers=2).recorded(recorder, source):
        tla.cholesky(np.eye(64) * 64 + 1, nb=16)
    run = recorder.trace().run()
    about = run.info["energy"]
    assert about["source"] == "measured"
    assert [meter["joules"] is None for meter in about["meters"]] == [False, True]
    (counted,) = (series for series in run.series if series.kind == "energy")
    assert about["joules"] == 5 * (len(counted.value) - 1) == counted.value[-1]
    assert (run.tasks["joules"] > 0).all()
    total = math.fsum([*run.tasks["joules"], about["idle_joules"]])
    assert total == pytest.approx(about["joules"], rel=0, abs=4 * math.ulp(about["joules"]))
